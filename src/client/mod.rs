//! The client beside the private service: tunnels that stay open, to a port or to a service of this program.
//!
//! [`Tunnel`] is what most programs need. What all tunnels through one relay can share is a [`Connector`], which also
//! makes the calls of the REST API; below a `Tunnel` is a [`Session`] with its [`Options`]. Both need a tokio runtime with
//! time and I/O, and so does a [`Worker`], which is what Taskcluster's websocktunnel has in the place of a tunnel. Level two of the protocol is spoken with relays that know it, else the base level (`protocol.md`).

pub(crate) mod api;
mod claims;
mod connect;
mod connector;
mod control;
mod dial;
mod event;
mod lend;
mod live;
mod observe;
mod page;
mod proxy;
mod relay_url;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod report;
mod retry;
mod runner;
mod serve;
mod session;
mod standby;
mod streams;
mod target;
mod tcp;
#[doc(hidden)]
pub mod text;
mod tls;
mod tunnel;
mod wake;
mod wst;

pub use crate::auth::Secret;
pub use crate::proto::api::{Proto, ProxyProtocol};
pub use crate::proto::policy::Policy;
pub use api::CallError;
pub use connector::{Connector, KeyError};
pub use dial::Dialer;
pub use event::{Connected, End, Event, Exchange, TokenNews};
pub use proxy::{Proxies, ProxyUrlError};
pub use relay_url::{RelayUrl, RelayUrlError};
pub use rustls;
pub use session::{Options, Session};
pub use target::{Fault, ParseTargetError, Target, TargetError, Viewer};
pub use tunnel::{Tunnel, TunnelBuilder, TunnelError};
pub use wst::{Worker, WorkerId, WorkerIdError, WorkerOptions, WorkerToken};

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;
