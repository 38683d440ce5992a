//! The bridge: a server of WebSockets in front of services that speak TCP, as websockify and mod_wstunnel are.

mod target;

pub use target::{Target, TargetError};
