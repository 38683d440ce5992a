//! Adit: a relay, its clients and the protocol between them.
pub mod auth;
pub mod cli;
pub mod client;
pub mod link;
pub mod proto;
pub mod relay;
pub mod store;
pub mod stream;
mod sync;
pub mod tunnel;
