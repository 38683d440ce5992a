//! The wire, pure: messages, names, frames, HTTP/1 heads, limits. Nothing here knows a socket, a task or a clock.

pub mod api;
pub mod close;
#[allow(clippy::disallowed_types, reason = "a core is told the time, and knows no runtime")]
pub mod control;
pub mod duration;
pub mod frame;
pub mod http1;
pub mod limits;
pub mod message;
pub mod name;
#[allow(clippy::disallowed_types, reason = "a core is told the time, and knows no runtime")]
pub mod pending;
