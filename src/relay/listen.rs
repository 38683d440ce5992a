//! Accepting connections: each is told apart by its first bytes, served by hyper, and watched.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::errors::Cause;
use super::exchange::Record;
use super::proxied::announced;
use super::room::{Permit, Place};
use super::route::Route;
use super::tls::{ALPN_H2, Hello, Tls};
use super::viewer::{Connection, Peer, Security, Verdict, ViewerIo, watch};
use super::{Shared, forward, front, reach, tcp};
use crate::proto::api::Proto;
use crate::proto::limits::{ACCEPT_PAUSE, Limits, read, viewer};
use crate::stream::any::AnyStream;
use crate::tunnel::Tunnel;

/// How every HTTP/2 connection with prior knowledge begins; no HTTP/1 method does.
const HTTP2_PREFACE: &[u8] = b"PRI ";
/// What a viewer with a slow head reads.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Accepts until the relay closes; each connection is served by `serve`.
pub async fn accept<S, F>(shared: Arc<Shared>, listener: Arc<TcpListener>, serve: S)
where
    S: Fn(Arc<Shared>, TcpStream, SocketAddr, Place) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    while let Some((permit, (stream, remote))) = next(&shared, || listener.accept()).await {
        let stranger = !forward::is_trusted(remote.ip(), &shared.config.trusted_proxies);
        // Closed at once: an answer would cost what the limit is there to save.
        let Some(place) = shared.room.place(permit, stranger.then_some(remote.ip())) else {
            continue;
        };
        // Boxed, as each future around another one holds room for it twice.
        shared.spawn(Box::pin(serve(Arc::clone(&shared), stream, remote, place)));
    }
}

/// The same at a path. Who comes there has no address, and counts as one of this machine.
pub async fn accept_unix(shared: Arc<Shared>, listener: Arc<UnixListener>) {
    while let Some((permit, (stream, _))) = next(&shared, || listener.accept()).await {
        let Some(place) = shared.room.place(permit, None) else { continue };
        shared.spawn(Box::pin(serve_unix(Arc::clone(&shared), stream, place)));
    }
}

/// The next connection, with leave to serve it; `None`: the relay closes.
async fn next<T, F>(shared: &Shared, accept: impl Fn() -> F) -> Option<(Permit, T)>
where
    F: Future<Output = io::Result<T>>,
{
    let permit = tokio::select! {
        permit = shared.room.enter() => permit?,
        () = shared.ending.deaf.cancelled() => return None,
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.ending.deaf.cancelled() => return None,
            accepted = accept() => accepted,
        };
        match accepted {
            Ok(accepted) => return Some((permit, accepted)),
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection accepted; trying again");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The peer left before it was accepted: the next one may be had at once.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Serves a connection that speaks HTTP, perhaps with TLS. `tls_port`: whoever comes without TLS is told so.
pub async fn serve(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    remote: SocketAddr,
    mut place: Place,
    tls_port: bool,
) {
    let begun = begin(&shared, &mut stream, remote.into(), &mut place).await;
    let Some((peer, first)) = begun else { return };
    let is_hello = first.first().is_some_and(|byte| Hello::begins_with(*byte));
    let (stream, security, first, http2) = if is_hello {
        // Boxed, so that connections without TLS hold no room for it.
        let greeting =
            timeout(shared.config.limits.head_wait, Box::pin(greet(&shared, stream, &first, tls_port)));
        match greeting.await {
            Ok(Ok(Greeted::Secure(stream, security, http2))) => (stream, security, Bytes::new(), http2),
            Ok(Ok(Greeted::Plain(stream, security, first))) => (stream, security, first, false),
            Ok(Ok(Greeted::Raw(stream, first, tunnel))) => {
                let connection = Connection::new(stream, Security::Plain { tls_port }, peer, false, place);
                return Box::pin(tcp::serve(shared, connection, first, Some(tunnel), Proto::Tls)).await;
            }
            Ok(Ok(Greeted::Done) | Err(_)) | Err(_) => return,
        }
    } else {
        let http2 = first.starts_with(HTTP2_PREFACE);
        (AnyStream::Tcp(stream), Security::Plain { tls_port }, first, http2)
    };
    let connection = Connection::new(stream, security, peer, http2, place);
    converse(&shared, connection, first, http2).await;
}

/// Serves a connection that speaks HTTP and comes from this machine.
async fn serve_unix(shared: Arc<Shared>, mut stream: UnixStream, mut place: Place) {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let begun = begin(&shared, &mut stream, here.into(), &mut place).await;
    let Some((peer, first)) = begun else { return };
    let http2 = first.starts_with(HTTP2_PREFACE);
    let security = Security::Plain { tls_port: false };
    let connection = Connection::new(AnyStream::Unix(stream), security, peer, http2, place);
    converse(&shared, connection, first, http2).await;
}

/// Who is at the other end, and the first bytes that tell what it speaks. `None`: the connection is to be closed.
async fn begin<S: AsyncRead + Unpin>(
    shared: &Shared,
    stream: &mut S,
    peer: Peer,
    place: &mut Place,
) -> Option<(Peer, Bytes)> {
    let (peer, behind) = announced(shared, stream, peer, place).await?;
    let first = tokio::select! {
        first = timeout(shared.config.limits.first_byte_wait, first_bytes(stream, behind)) => first,
        () = shared.ending.closing.cancelled() => return None,
    };
    first.ok()?.ok().map(|first| (peer, first))
}

/// HTTP on a connection of which `first` was read, to its end.
async fn converse(shared: &Arc<Shared>, connection: Arc<Connection>, first: Bytes, http2: bool) {
    let io = TokioIo::new(ViewerIo::new(Arc::clone(&connection), first));
    let service = {
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        // Boxed, as hyper keeps room for it as long as the connection lives, which most of the time has no request.
        service_fn(move |request| {
            Box::pin(front::serve(Arc::clone(&shared), Arc::clone(&connection), request))
        })
    };
    if http2 {
        let serving = pin!(shared.http2.serve_connection(io, service));
        // GOAWAY cuts nothing that is on its way.
        drive(shared, &connection, serving, &shared.ending.begun, |serving| serving.graceful_shutdown())
            .await;
    } else {
        let serving = pin!(shared.http1.serve_connection(io, service).with_upgrades());
        // The end of an idle connection would meet a request that is on its way, so it comes last.
        drive(shared, &connection, serving, &shared.ending.closing, |serving| serving.graceful_shutdown())
            .await;
    }
}

/// What becomes of a connection that begins with a handshake.
enum Greeted {
    /// The stream behind it, and whether that speaks HTTP/2.
    Secure(AnyStream, Security, bool),
    /// The name is that of a tunnel whose target has the handshake itself: all of it, as it came.
    Raw(AnyStream, Bytes, Arc<Tunnel>),
    /// We have no TLS: what came is told to be no HTTP.
    Plain(AnyStream, Security, Bytes),
    /// It was an authority that looks for a proof.
    Done,
}

async fn greet(shared: &Shared, stream: TcpStream, first: &[u8], tls_port: bool) -> io::Result<Greeted> {
    let hello = Hello::read(stream, first).await?;
    if let Some(tunnel) = passed_on(shared, hello.name.as_deref()).await {
        let (stream, first) = hello.into_raw();
        return Ok(Greeted::Raw(AnyStream::Tcp(stream), first, tunnel));
    }
    match &shared.tls {
        Some(tls) => shake(shared, tls, hello).await,
        None => {
            let (stream, first) = hello.into_raw();
            Ok(Greeted::Plain(AnyStream::Tcp(stream), Security::Plain { tls_port }, first))
        }
    }
}

/// The tunnel of that name, if its viewers' TLS is for its target.
async fn passed_on(shared: &Shared, name: Option<&str>) -> Option<Arc<Tunnel>> {
    let Route::Host(name) = shared.routes.route(name?, "/") else { return None };
    reach::tunnel(shared, &name).await.filter(|tunnel| tunnel.spec().proto == Proto::Tls)
}

async fn shake(shared: &Shared, tls: &Tls, hello: Hello) -> io::Result<Greeted> {
    let name = hello.name.clone();
    if let (Some(acme), Some(name)) = (&shared.acme, &name) {
        if hello.is_challenge {
            if let Some(config) = acme.challenge_config(name) {
                let _ = hello.shake(config).await?.shutdown().await;
            }
            return Ok(Greeted::Done);
        }
        acme.obtain(name).await;
    }
    let config = tls.config(&hello);
    let shaken = hello.shake(config).await;
    let stream = shaken.inspect_err(|error| tracing::debug!(%error, "no TLS with a viewer"))?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(ALPN_H2);
    Ok(Greeted::Secure(AnyStream::Tls(Box::new(stream.into())), Security::Tls { name }, http2))
}

/// As many bytes as tell HTTP/2 from everything else, and what came with them; an error if the end came before. `first` has
/// come already.
async fn first_bytes<S: AsyncRead + Unpin>(stream: &mut S, mut first: BytesMut) -> io::Result<Bytes> {
    first.reserve(read::LEAST);
    while first.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&first) {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(first.freeze())
}

async fn drive<C>(
    shared: &Shared,
    connection: &Arc<Connection>,
    mut serving: Pin<&mut C>,
    end: &CancellationToken,
    close: fn(Pin<&mut C>),
) where
    C: Future<Output = hyper::Result<()>>,
{
    {
        let mut watching = pin!(watch(connection, &shared.config.limits));
        let mut closing = false;
        loop {
            tokio::select! {
                biased;
                served = &mut serving => {
                    match served {
                        // hyper has answered by itself, and the viewer may be sending still.
                        Err(error) if error.is_parse() => {
                            let cause = match error.is_parse_too_large() {
                                true => Cause::HeadTooLarge,
                                false => Cause::BadRequest(""),
                            };
                            unread(shared, connection, &cause);
                            connection.leave_unread();
                        }
                        Err(error) if error.is_user() => connection.body_was_cut(),
                        _ => {}
                    }
                    break;
                }
                verdict = &mut watching => {
                    if verdict == Verdict::SlowHead {
                        connection.try_say(REQUEST_TIMEOUT);
                        unread(shared, connection, &Cause::SlowHead);
                    }
                    return;
                }
                () = end.cancelled(), if !closing => {
                    closing = true;
                    close(serving.as_mut());
                }
            }
        }
    }
    if connection.must_linger() {
        connection.linger().await;
    }
}

/// Notes what was answered without being a request.
fn unread(shared: &Shared, connection: &Connection, cause: &Cause) {
    Record::unread(connection.remote_text(), &shared.ledger, cause);
}

/// hyper for HTTP/1 viewers. Its own deadlines are off: it cannot tell a slow head from an idle connection.
pub fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .keep_alive(true)
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_headers(limits.headers)
        .max_header_size(limits.head_bytes)
        // Bounds a read of a body, what waits to be written, and a head that has not ended yet.
        .max_buf_size(read::OF_VIEWER.max(limits.head_bytes));
    builder
}

/// hyper for HTTP/2 viewers. Windows are small enough that a connection full of slow streams stays bounded.
pub fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .enable_connect_protocol()
        .max_concurrent_streams(viewer::H2_STREAMS)
        .max_pending_accept_reset_streams(viewer::H2_PENDING_RESETS)
        .max_local_error_reset_streams(viewer::H2_ERROR_RESETS)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(u32::try_from(limits.in_flight_bytes).unwrap_or(1 << 20))
        .max_send_buf_size(256 * 1024)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(limits.ping_every))
        .keep_alive_timeout(limits.pong_wait);
    builder
}
