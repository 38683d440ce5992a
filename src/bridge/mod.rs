//! The bridge: a server of WebSockets in front of services that speak TCP, as websockify and mod_wstunnel are.

mod backends;
mod routes;
mod spawn;
mod target;
mod wrap;

pub use target::{Target, TargetError};
