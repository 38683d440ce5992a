//! Accepting connections, and telling by their first bytes what they speak: TLS or none, HTTP/1 or HTTP/2.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use x509_parser::parse_x509_certificate;

use super::front::{self, Visitor};
use super::shared::Shared;
use super::tls::{self, Tls};
use crate::proto::forwarded::is_trusted;
use crate::proto::limits::{ACCEPT_PAUSE, read};
use crate::stream::announced;
use crate::stream::any::AnyStream;
use crate::stream::server_tls::{ALPN_H2, Hello};
use crate::stream::tcp;

/// How every HTTP/2 connection with prior knowledge begins; no HTTP/1 method does.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// A socket at which WebSockets are asked for.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A path.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// A connection that was accepted.
#[derive(Debug)]
pub enum Accepted {
    /// At a port, by a peer with this address.
    Tcp(TcpStream, SocketAddr),
    /// At a path.
    Unix(UnixStream),
}

/// Accepts until the end of the bridge begins; then the listener is closed.
pub(super) async fn accept(shared: Arc<Shared>, listener: Listener) {
    if let Listener::Tcp(listener) = &listener {
        // Those that are accepted inherit it.
        tcp::tune(listener);
    }
    while let Some((permit, accepted)) = next(&shared, &listener).await {
        let serving = Arc::clone(&shared);
        // Boxed, as the runtime copies a task whole when it begins and when it ends.
        shared.tasks.spawn(Box::pin(async move {
            serve(&serving, accepted).await;
            drop(permit);
        }));
    }
}

async fn next(
    shared: &Arc<Shared>,
    listener: &Listener,
) -> Option<(tokio::sync::OwnedSemaphorePermit, Accepted)> {
    let accept = async {
        let permit = Arc::clone(&shared.room).acquire_owned().await.ok()?;
        loop {
            let accepted = match listener {
                Listener::Tcp(listener) => {
                    listener.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer))
                }
                Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
            };
            match accepted {
                Ok(accepted) => return Some((permit, accepted)),
                // The peer left before: the next one may be had at once.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection accepted; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shared.ending.deaf.cancelled() => None,
        accepted = accept => accepted,
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(shared: &Arc<Shared>, accepted: Accepted) {
    tokio::select! {
        () = shared.ending.cut.cancelled() => {}
        () = greet_and_converse(shared, accepted) => {}
    }
}

async fn greet_and_converse(shared: &Arc<Shared>, accepted: Accepted) {
    let greeted = {
        // Boxed, so that a session holds no room for it.
        let greeting = Box::pin(async {
            match accepted {
                Accepted::Tcp(stream, peer) => greet(shared, stream, peer).await,
                Accepted::Unix(stream) => greet_unix(shared, stream).await,
            }
        });
        tokio::select! {
            greeted = timeout(shared.config.handshake_wait, greeting) => greeted,
            () = shared.ending.deaf.cancelled() => return,
        }
    };
    match greeted {
        Ok(Ok(Some(Greeted { stream, visitor, first, http2: true }))) => {
            Box::pin(front::converse_http2(shared, stream, visitor, first)).await;
        }
        Ok(Ok(Some(Greeted { stream, visitor, first, .. }))) => {
            front::converse(shared, stream, visitor, first).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a connection that came to nothing"),
        Ok(Ok(None)) | Err(_) => {}
    }
}

/// A connection of which is known who is there and what is spoken.
struct Greeted {
    stream: AnyStream,
    visitor: Visitor,
    first: Bytes,
    http2: bool,
}

async fn greet(shared: &Shared, mut stream: TcpStream, address: SocketAddr) -> io::Result<Option<Greeted>> {
    let reached = if shared.tells_targets { stream.local_addr().ok() } else { None };
    let mut visitor = Visitor { address, known: true, reached, secure: false, client_cn: None };
    let first = begin(shared, &mut stream, &mut visitor).await?;
    let Some(tls) = &shared.tls else { return Ok(Some(plain(AnyStream::Tcp(stream), visitor, first))) };
    if first.first().is_some_and(|byte| Hello::begins_with(*byte)) {
        let viewer = visitor.address;
        return match shake(tls, stream, visitor, &first).await {
            Ok(greeted) => Ok(Some(greeted)),
            Err(error) => {
                tracing::info!(%viewer, error = tls::told(&error), "no TLS with a viewer");
                Ok(None)
            }
        };
    }
    if tls.only {
        tracing::warn!(viewer = %visitor.address, "a connection without TLS, which is not allowed, is closed");
        return Ok(None);
    }
    Ok(Some(plain(AnyStream::Tcp(stream), visitor, first)))
}

/// Who comes to a path has no address, and counts as one of this machine. There is no TLS within a machine, so nobody gets in where
/// that is wanted.
async fn greet_unix(shared: &Shared, mut stream: UnixStream) -> io::Result<Option<Greeted>> {
    if shared.tls.as_ref().is_some_and(|tls| tls.only) {
        tracing::warn!("a connection at a path, where there is no TLS, is closed: it is not allowed without");
        return Ok(None);
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut visitor = Visitor { address, known: false, reached: None, secure: false, client_cn: None };
    let first = begin(shared, &mut stream, &mut visitor).await?;
    Ok(Some(plain(AnyStream::Unix(stream), visitor, first)))
}

fn plain(stream: AnyStream, visitor: Visitor, first: Bytes) -> Greeted {
    let http2 = first.starts_with(HTTP2_PREFACE);
    Greeted { stream, visitor, first, http2 }
}

async fn shake(tls: &Tls, stream: TcpStream, mut visitor: Visitor, first: &[u8]) -> io::Result<Greeted> {
    let stream = tls.shake(Hello::read(stream, first).await?).await?;
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(ALPN_H2);
    visitor.secure = true;
    visitor.client_cn = session.peer_certificates().and_then(|chain| common_name(chain.first()?));
    Ok(Greeted { stream: AnyStream::Tls(Box::new(stream.into())), visitor, first: Bytes::new(), http2 })
}

fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

/// What a trusted proxy announces, if one is there, and the first bytes behind it.
async fn begin<S: AsyncRead + Unpin>(
    shared: &Shared,
    stream: &mut S,
    visitor: &mut Visitor,
) -> io::Result<Bytes> {
    let config = &shared.config;
    let mut first = BytesMut::new();
    if config.accept_proxy_protocol && is_trusted(visitor.address.ip(), &config.trusted_proxies) {
        let announced = announced::read(stream, config.handshake_wait).await;
        let (ends, behind) = announced.map_err(|error| {
            tracing::warn!(proxy = %visitor.address, %error, "a connection of a trusted proxy is closed");
            io::Error::from(io::ErrorKind::InvalidData)
        })?;
        if let Some(ends) = ends {
            (visitor.address, visitor.known) = (ends.source, true);
            visitor.reached = Some(ends.destination);
        }
        first = behind;
    }
    // As many bytes as tell HTTP/2 from everything else.
    first.reserve(read::LEAST);
    while first.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&first) {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(first.freeze())
}
