//! Adit: a relay, its clients and the protocol between them.
#[cfg(any(feature = "client", feature = "relay"))]
pub mod auth;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "relay")]
#[doc(hidden)]
pub mod link;
pub mod proto;
#[cfg(feature = "relay")]
pub mod relay;
#[cfg(feature = "relay")]
pub mod store;
#[doc(hidden)]
pub mod stream;
#[cfg(any(feature = "client", feature = "relay"))]
mod sync;
#[cfg(feature = "relay")]
#[doc(hidden)]
pub mod tunnel;
