//! The bridge: a server of WebSockets in front of services that speak TCP, as websockify and mod_wstunnel are.

pub mod admit;
pub mod record;
mod target;
pub mod tokens;
pub mod traffic;
pub mod web;

pub use target::{Target, TargetError};
