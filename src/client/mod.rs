//! The client beside the private service: sessions with a relay, data sockets, the target, and the terminal's view.
//!
//! What all sessions of one relay share is a [`Connector`]; one tunnel's life is a [`Session`], which tells what
//! happens as [`Event`]s. Level two of the protocol is spoken with relays that know it, else the base level
//! (`protocol.md`).

pub mod api;
pub mod connector;
pub mod dial;
pub mod event;
#[cfg(feature = "cli")]
pub mod report;
pub mod session;
pub mod target;
pub mod text;
pub mod tunnel;

mod claims;
mod connect;
mod control;
mod lend;
mod live;
mod observe;
mod page;
mod proxy;
mod relay_url;
mod retry;
mod runner;
mod serve;
mod standby;
mod streams;
mod tcp;
mod tls;
mod wake;

pub use connector::Connector;
pub use dial::Dialer;
pub use event::{End, Event};
pub use proxy::{Proxies, ProxyUrlError};
pub use relay_url::{RelayUrl, RelayUrlError};
pub use session::{Options, Session};
pub use target::{Target, Viewer};
pub use tunnel::{Tunnel, TunnelBuilder, TunnelError};

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
