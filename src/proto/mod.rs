//! The wire, pure: messages, names, frames, HTTP/1 heads, limits. Nothing here knows a socket, a task or a clock.

pub mod api;
pub mod close;
pub mod control;
pub mod duration;
pub mod frame;
pub mod http1;
pub mod limits;
pub mod message;
pub mod name;
pub mod pending;
