//! A relay that is replaced by another process without a failed request: the successor gets the listening sockets
//! themselves, over a Unix socket in the data directory, and asks its predecessor for what only that one has.

mod claim;
mod client;
mod message;
mod questions;
mod server;
mod socket;

pub use claim::{Claimed, claim};
pub use client::{Inheritance, TakeOverError, ready, take_over};
pub use server::Sockets;
pub(super) use server::serve;
pub(super) use socket::Published;
pub use socket::is_answered;
