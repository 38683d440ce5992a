//! Adit: a relay, its clients and the protocol between them.
pub mod proto;
pub mod stream;
