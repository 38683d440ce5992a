//! Connecting to a target: every address that its name has, one after the other, within one deadline.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::Target;
use super::config::{Dialling, TargetTls};
use super::pinned;
use crate::proto::api::ProxyProtocol;
use crate::proto::proxy_header::{self, Ends};
use crate::stream::any::AnyStream;
use crate::stream::tls;

/// Why a target was not reached; the text is for logs and operators.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Its name has no address.
    #[error("{host} was not found: {error}")]
    Unresolved {
        /// The name.
        host: String,
        /// The resolver's words.
        error: io::Error,
    },
    /// None of its addresses took the connection; the error is that of the last one.
    #[error("{target} takes no connection: {error}")]
    Refused {
        /// The target.
        target: String,
        /// The operating system's words.
        error: io::Error,
    },
    /// It did not answer in time.
    #[error("{target} does not answer within {wait:?}")]
    Late {
        /// The target.
        target: String,
        /// How long was waited.
        wait: Duration,
    },
    /// It has no TLS, or no certificate that is trusted.
    #[error(
        "no TLS with {target} ({error}): give its certificate, or that of its authority, by --ssl-target-ca FILE, if the \
         system does not know it; --ssl-target-insecure takes any"
    )]
    Tls {
        /// The target.
        target: String,
        /// The library's words.
        error: String,
    },
}

impl DialError {
    /// The same, with what a log may show of the target.
    pub(super) fn shown_as(mut self, shown: &str) -> Self {
        match &mut self {
            Self::Unresolved { .. } => {}
            Self::Refused { target, .. } | Self::Late { target, .. } | Self::Tls { target, .. } => {
                shown.clone_into(target);
            }
        }
        self
    }
}

/// Why no target can be dialled at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiallingError {
    /// The authorities of the system.
    #[error(transparent)]
    System(#[from] tls::TlsError),
    /// The file with authorities of one's own.
    #[error("{path} has no certificates of authorities for targets: {error}")]
    Authorities {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: String,
    },
}

/// The way to targets.
pub(super) struct Dialer {
    tls: Option<TlsConnector>,
    prefer_ipv6: bool,
    proxy_protocol: Option<ProxyProtocol>,
}

impl Dialer {
    pub(super) fn new(config: &Dialling) -> Result<Self, DiallingError> {
        let tls = match &config.tls {
            None => None,
            Some(TargetTls::System) => Some(tls::verified()?),
            Some(TargetTls::Unverified) => Some(tls::unverified()?),
            Some(TargetTls::Authorities(path)) => {
                let trusting = std::fs::read(path).map_err(|error| error.to_string());
                let trusting = trusting.and_then(|pem| pinned::connector(&pem));
                let path = || path.display().to_string();
                Some(trusting.map_err(|error| DiallingError::Authorities { path: path(), error })?)
            }
        };
        let Dialling { prefer_ipv6, proxy_protocol, .. } = *config;
        Ok(Self { tls, prefer_ipv6, proxy_protocol })
    }

    /// A connection to `target`, had within `wait`. It is told of `ends`, the viewer's, if that is asked for.
    pub(super) async fn dial(
        &self,
        target: &Target,
        ends: Option<Ends>,
        wait: Duration,
    ) -> Result<AnyStream, DialError> {
        let late = |_| DialError::Late { target: target.to_string(), wait };
        let end = Instant::now() + wait;
        timeout_at(end, self.reach(target, ends, end)).await.map_err(late)?
    }

    async fn reach(&self, target: &Target, ends: Option<Ends>, end: Instant) -> Result<AnyStream, DialError> {
        let refused = |error| DialError::Refused { target: target.to_string(), error };
        let announcement = self.proxy_protocol.map(|version| proxy_header::write(version, ends));
        match target {
            Target::Unix(path) => {
                let mut stream = UnixStream::connect(path).await.map_err(refused)?;
                if let Some(announcement) = announcement {
                    stream.write_all(&announcement).await.map_err(refused)?;
                }
                Ok(AnyStream::Unix(stream))
            }
            Target::Tcp { host, port } => {
                let addresses = self.addresses(host, *port).await?;
                let mut stream = connect(&addresses, end).await.map_err(refused)?;
                // The rest of its options is for sessions that last.
                let _ = stream.set_nodelay(true);
                if let Some(announcement) = announcement {
                    stream.write_all(&announcement).await.map_err(refused)?;
                }
                let Some(tls) = &self.tls else { return Ok(AnyStream::Tcp(stream)) };
                let failed = |error: String| DialError::Tls { target: target.to_string(), error };
                let name = ServerName::try_from(host.clone()).map_err(|error| failed(error.to_string()))?;
                let shaken = tls.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
                Ok(AnyStream::Tls(Box::new(shaken.into())))
            }
        }
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let unresolved = |error| DialError::Unresolved { host: host.to_owned(), error };
        let mut found: Vec<_> = lookup_host((host, port)).await.map_err(unresolved)?.collect();
        // As websockify does it: one family first, in the resolver's order otherwise.
        found.sort_by_key(|address| address.is_ipv6() != self.prefer_ipv6);
        found.dedup();
        match found.is_empty() {
            true => Err(unresolved(io::ErrorKind::NotFound.into())),
            false => Ok(found),
        }
    }
}

/// Each gets an equal part of the time that is left, so that one that does not answer leaves some for the others.
async fn connect(addresses: &[SocketAddr], end: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (at, address) in addresses.iter().enumerate() {
        let others = u32::try_from(addresses.len() - at - 1).unwrap_or(u32::MAX);
        let connecting = TcpStream::connect(address);
        let connected = match others {
            // It has all that is left, which the caller keeps.
            0 => Ok(connecting.await),
            others => {
                let now = Instant::now();
                timeout_at(now + end.saturating_duration_since(now) / (others + 1), connecting).await
            }
        };
        match connected {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}
