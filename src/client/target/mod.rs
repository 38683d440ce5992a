//! The private service that a tunnel leads to: how users write it, and how it is connected to.

mod error;
mod io;
mod parse;
mod service;

pub use error::{Fault, TargetError};
pub(super) use io::TargetIo;
pub use parse::ParseTargetError;
pub use service::Viewer;
pub(super) use service::{Io, Serve};

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use self::service::{Service, Tower};
use super::{tcp, tls};
use crate::proto::limits::client::TARGET_WAIT;
use crate::stream::any::AnyStream;

/// A private service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    speaks: Speaks,
    /// Offered by ALPN where it has TLS.
    http2: bool,
    at: At,
}

/// What is spoken with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http,
    Https,
    /// Anything.
    Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// The host stands without brackets.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
    Here(Service),
}

impl Target {
    /// The plain service at a port of this machine.
    pub fn port_here(port: u16) -> Self {
        Self { speaks: Speaks::Http, http2: false, at: At::Tcp { host: "localhost".into(), port } }
    }

    /// The same, spoken to in HTTP/2.
    pub(super) fn speaking(self, http2: bool) -> Self {
        Self { http2, ..self }
    }

    /// Whether it is spoken to in HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        self.http2
    }

    /// A service of this program, such as an `axum::Router`: no port is opened for it. Upgrades (WebSocket) work as on
    /// any HTTP/1.1 server, and each request has a [`Viewer`] among its extensions. A panic in the service ends only the
    /// connection on which it happened.
    pub fn service<S, B>(service: S) -> Self
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
    {
        Self { speaks: Speaks::Http, http2: false, at: At::Here(Service(Arc::new(Tower::new(service)))) }
    }

    /// The service of this program, where that is the target.
    pub(super) fn here(&self) -> Option<&dyn Serve> {
        match &self.at {
            At::Here(service) => Some(&*service.0),
            At::Tcp { .. } | At::Unix(_) => None,
        }
    }

    /// The TCP port; `None` for a Unix socket or a service of this program.
    pub fn port(&self) -> Option<u16> {
        match &self.at {
            At::Tcp { port, .. } => Some(*port),
            At::Unix(_) | At::Here(_) => None,
        }
    }

    /// What the target would find in `Host` if it were called directly.
    pub fn authority(&self) -> String {
        match &self.at {
            At::Unix(_) | At::Here(_) => "localhost".into(),
            At::Tcp { host, port } => {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                let usual = match self.speaks {
                    Speaks::Http => Some(80),
                    Speaks::Https => Some(443),
                    Speaks::Bytes => None,
                };
                if Some(*port) == usual { host } else { format!("{host}:{port}") }
            }
        }
    }

    /// Connects, within five seconds. `localhost` is IPv4 and IPv6: servers listen on one or the other. The
    /// certificate of an `https` target is verified, but not at a loopback address: there the kernel vouches for the
    /// peer, and self-signed certificates are the rule. A service of this program gets one end of a pair of sockets.
    pub(super) async fn connect(&self) -> Result<TargetIo, TargetError> {
        let deadline = Instant::now() + TARGET_WAIT;
        let late = |_| {
            let waited = format!("no answer within {} seconds", TARGET_WAIT.as_secs());
            TargetError::new(self, Fault::TimedOut, waited)
        };
        let stream = match &self.at {
            At::Unix(path) => {
                let connected = timeout_at(deadline, UnixStream::connect(path)).await.map_err(late)?;
                AnyStream::Unix(connected.map_err(|error| TargetError::from_io(self, &error))?)
            }
            At::Tcp { host, port } => {
                let stream = timeout_at(deadline, self.dial(host, *port)).await.map_err(late)??;
                if self.speaks == Speaks::Https {
                    let tls = timeout_at(deadline, self.secure(host, stream)).await.map_err(late)??;
                    AnyStream::Tls(Box::new(tls.into()))
                } else {
                    AnyStream::Tcp(stream)
                }
            }
            At::Here(service) => {
                let (near, far) = UnixStream::pair().map_err(|error| TargetError::from_io(self, &error))?;
                // Ends with the other end of its connection.
                tokio::spawn(service.0.serve(Box::new(far)));
                AnyStream::Unix(near)
            }
        };
        Ok(TargetIo::new(stream))
    }

    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, TargetError> {
        let addresses = tcp::resolve(host, port).await;
        let addresses =
            addresses.map_err(|error| TargetError::new(self, Fault::Unresolved, error.to_string()))?;
        tcp::connect(&addresses).await.map_err(|error| {
            let tried: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            TargetError::from_io(self, &error).at(&tried.join(" and "))
        })
    }

    async fn secure(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, TargetError> {
        let setup = |error: String| TargetError::new(self, Fault::Tls, error);
        let loopback = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
        let connector = if loopback { tls::unverified() } else { tls::verified() };
        let mut connector = connector.map_err(|error| setup(error.to_string()))?;
        if self.http2 {
            connector = tls::offering_http2(&connector);
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| setup(error.to_string()))?;
        let secured = connector.connect(name, stream).await.map_err(|error| {
            let fault = match tls::error_of(&error) {
                Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                    Fault::NotHttp2
                }
                Some(rustls::Error::InvalidCertificate(_)) => Fault::Certificate,
                _ if tls::is_not_tls(&error) => Fault::NotTls,
                _ => Fault::Tls,
            };
            TargetError::new(self, fault, error.to_string())
        })?;
        if self.http2 && secured.get_ref().1.alpn_protocol() != Some(tls::HTTP2) {
            let error = "it does not offer HTTP/2 (ALPN h2)".to_owned();
            return Err(TargetError::new(self, Fault::NotHttp2, error));
        }
        Ok(secured)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Unix(path) => write!(f, "unix:{}", path.display()),
            At::Here(_) => f.write_str("a service of this program"),
            At::Tcp { .. } => {
                let scheme = match self.speaks {
                    Speaks::Http => "http",
                    Speaks::Https => "https",
                    Speaks::Bytes => "tcp",
                };
                write!(f, "{scheme}://{}", self.authority())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixListener};

    use super::*;

    async fn answers_on(address: &str) -> bool {
        let Ok(listener) = TcpListener::bind(address).await else { return true };
        let target = Target::port_here(listener.local_addr().unwrap().port());
        let (connected, accepted) = tokio::join!(target.connect(), listener.accept());
        connected.is_ok() && accepted.is_ok()
    }

    #[tokio::test]
    async fn localhost_is_both_families_and_unix_sockets_work() {
        assert!(answers_on("127.0.0.1:0").await);
        assert!(answers_on("[::1]:0").await);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let target = Target::parse(&format!("unix:{}", path.display())).unwrap();
        assert_eq!(target.connect().await.err().unwrap().fault, Fault::NoSocket);
        let listener = UnixListener::bind(&path).unwrap();
        let (connected, accepted) = tokio::join!(target.connect(), listener.accept());
        accepted.unwrap().0.write_all(b"u").await.unwrap();
        assert_eq!(connected.ok().unwrap().read_u8().await.unwrap(), b'u');
    }

    #[tokio::test]
    async fn a_refusal_names_the_addresses_and_the_likely_fix() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = Target::port_here(port).connect().await.err().unwrap();
        let text = error.to_string();
        assert_eq!(error.fault, Fault::Refused);
        assert!(
            text.starts_with(&format!("cannot reach http://localhost:{port}: Connection refused")),
            "{text}"
        );
        assert!(text.contains(&format!("127.0.0.1:{port} and [::1]:{port}")), "{text}");
        assert!(error.fix().contains("start your server"));
    }

    #[tokio::test]
    async fn plain_http_at_an_https_target_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
        let (connected, ()) = tokio::join!(target.connect(), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        assert_eq!(connected.err().unwrap().fault, Fault::NotTls);
    }
}
