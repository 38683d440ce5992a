//! Why a tunnel was not opened.

use super::words;
use crate::client::connector::KeyError;
use crate::client::event::End;
use crate::client::relay_url::RelayUrlError;
use crate::client::target::ParseTargetError;
use crate::proto::name::NameError;

/// Why a tunnel was not opened; the texts say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The relay's address as written.
    #[error("{}", words::of_text(&.0.to_string()))]
    Relay(#[from] RelayUrlError),
    /// The key as written.
    #[error("{}", words::of_text(&.0.to_string()))]
    Key(#[from] KeyError),
    /// The name as written.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The policy as written.
    #[error("policy: {0}")]
    Policy(String),
    /// The target as written.
    #[error(transparent)]
    Target(#[from] ParseTargetError),
    /// [`TunnelBuilder::http2`](super::TunnelBuilder::http2) for a service of this program.
    #[error(
        "a service of this program speaks HTTP/1.1: leave out http2, or serve it on a port and expose that"
    )]
    ServiceHttp2,
    /// The certificates given by [`TunnelBuilder::ca`](super::TunnelBuilder::ca).
    #[error("the relay's authority cannot be used: {0}; give its certificate as PEM")]
    Ca(String),
    /// The relay refuses the key, or wants one.
    #[error("{0}")]
    Unauthorised(String),
    /// The relay refuses the tunnel, for example because the name is taken.
    #[error("{0}")]
    Refused(String),
    /// The relay was not reached, or is too busy.
    #[error("{0}")]
    Unreachable(String),
    /// The tunnel ended before it was open.
    #[error("{0}")]
    Ended(End),
}

impl From<End> for TunnelError {
    fn from(end: End) -> Self {
        match end {
            End::Unauthorised(text) => Self::Unauthorised(text),
            End::Refused(text) => Self::Refused(text),
            End::Unreachable(text) => Self::Unreachable(text),
            end => Self::Ended(end),
        }
    }
}
