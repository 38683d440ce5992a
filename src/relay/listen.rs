//! Accepting connections: each is told apart by its first bytes, served by hyper, and watched.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::errors::Cause;
use super::exchange::Record;
use super::room::Place;
use super::viewer::{Connection, Verdict, ViewerIo, watch};
use super::{Shared, forward, front};
use crate::proto::limits::{Limits, read, viewer};

/// How every HTTP/2 connection with prior knowledge begins; no HTTP/1 method does.
const HTTP2_PREFACE: &[u8] = b"PRI ";
/// After a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a viewer with a slow head reads.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Accepts until the relay closes.
pub async fn accept(shared: Arc<Shared>, listener: Arc<TcpListener>) {
    loop {
        let permit = tokio::select! {
            permit = shared.room.enter() => permit,
            () = shared.ending.deaf.cancelled() => return,
        };
        let Some(permit) = permit else { return };
        let accepted = tokio::select! {
            biased;
            () = shared.ending.deaf.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let stranger = !forward::is_trusted(remote.ip(), &shared.config.trusted_proxies);
                // Closed at once: an answer would cost what the limit is there to save.
                let Some(place) = shared.room.place(permit, stranger.then_some(remote.ip())) else {
                    continue;
                };
                // Boxed, as each future around another one holds room for it twice.
                let serving = Box::pin(serve(Arc::clone(&shared), stream, remote, place));
                let serving = shared.ending.cut.clone().run_until_cancelled_owned(serving);
                shared.tasks.spawn(serving);
            }
            Err(error) => {
                if !is_of_the_peer(&error) {
                    tracing::warn!(%error, "no connection accepted; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// The peer left before it was accepted: the next one may be had at once.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn serve(shared: Arc<Shared>, mut stream: TcpStream, remote: SocketAddr, place: Place) {
    let limits = &shared.config.limits;
    let first = tokio::select! {
        first = timeout(limits.first_byte_wait, first_bytes(&mut stream)) => first,
        () = shared.ending.closing.cancelled() => return,
    };
    let Ok(Ok(first)) = first else { return };
    let http2 = first.starts_with(HTTP2_PREFACE);
    let connection = Connection::new(stream, remote, http2, place);
    let io = TokioIo::new(ViewerIo::new(Arc::clone(&connection), first));
    let service = {
        let (shared, connection) = (Arc::clone(&shared), Arc::clone(&connection));
        // Boxed, as hyper keeps room for it as long as the connection lives, which most of the time has no request.
        service_fn(move |request| {
            Box::pin(front::serve(Arc::clone(&shared), Arc::clone(&connection), request))
        })
    };
    if http2 {
        let serving = pin!(shared.http2.serve_connection(io, service));
        // GOAWAY cuts nothing that is on its way.
        drive(&shared, &connection, serving, &shared.ending.begun, |serving| serving.graceful_shutdown())
            .await;
    } else {
        let serving = pin!(shared.http1.serve_connection(io, service).with_upgrades());
        // The end of an idle connection would meet a request that is on its way, so it comes last.
        drive(&shared, &connection, serving, &shared.ending.closing, |serving| serving.graceful_shutdown())
            .await;
    }
}

/// As many bytes as tell HTTP/2 from everything else, and what came with them; an error if the end came before.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut first = BytesMut::with_capacity(read::LEAST);
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
    if shared.config.log_exchanges {
        Record::unread(connection.remote_text(), &shared.ending, cause);
    }
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
