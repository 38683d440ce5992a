//! The wire, pure: messages, names, frames, HTTP/1 heads, limits. Nothing here knows a socket, a task or a clock.

pub mod api;
#[doc(hidden)]
pub mod close;
#[doc(hidden)]
pub mod control;
#[doc(hidden)]
pub mod duration;
#[cfg(any(feature = "relay", feature = "bridge"))]
#[doc(hidden)]
pub mod forwarded;
#[doc(hidden)]
pub mod frame;
#[cfg(any(feature = "relay", feature = "bridge"))]
#[doc(hidden)]
pub mod host;
#[doc(hidden)]
pub mod hostname;
pub mod http1;
pub mod limits;
#[doc(hidden)]
pub mod message;
pub mod name;
#[cfg(any(feature = "relay", feature = "bridge"))]
#[doc(hidden)]
pub mod networks;
#[doc(hidden)]
pub mod pace;
#[doc(hidden)]
pub mod pending;
pub mod policy;
#[doc(hidden)]
pub mod proxy_header;
#[doc(hidden)]
pub mod trace;
#[doc(hidden)]
pub mod worker;
#[doc(hidden)]
pub mod wsmux;
