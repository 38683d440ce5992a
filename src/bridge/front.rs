//! Each request: whether it asks for a WebSocket, whether it gets one, and what it is told otherwise.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::Target;
use super::admit;
use super::begun::Begun;
use super::coded::Coding;
use super::handshake::{self, Asked};
use super::in_use::InUse;
use super::reach::{Reached, Way, unreached};
use super::refusal::{Body, Refusal};
use super::session;
use super::shared::{Present, Served, Shared};
use super::story::Story;
use super::tokens::{self, Led, Revoked};
use crate::proto::forwarded;
use crate::proto::host::host;
use crate::proto::limits::bridge::{LAST_GOODBYES, UNUSED};
use crate::proto::proxy_header::Ends;
use crate::stream::any::AnyStream;
use crate::stream::handshake::left_over;
use crate::sync::lock;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    /// The peer, or whom a trusted proxy announced; at a Unix socket, this machine.
    pub(super) address: SocketAddr,
    /// That is an address of its own, and not that of everybody at a Unix socket.
    pub(super) known: bool,
    /// What it has connected to, if targets are told.
    pub(super) reached: Option<SocketAddr>,
    /// It speaks TLS.
    pub(super) secure: bool,
    /// The common name in the certificate that it has shown.
    pub(super) client_cn: Option<String>,
}

impl Visitor {
    /// The viewer itself, where a trusted proxy says in a header for whom a request is.
    fn viewer<B>(&self, request: &Request<B>, shared: &Shared) -> SocketAddr {
        let peer = self.address.ip().to_canonical();
        let viewer = forwarded::viewer(peer, request.headers(), &shared.config.trusted_proxies);
        // Its port is known to the proxy alone.
        SocketAddr::new(viewer, if viewer == peer { self.address.port() } else { 0 })
    }

    /// What it shows of itself with a request.
    fn asks<'a, B>(&'a self, viewer: SocketAddr, request: &'a Request<B>) -> admit::Visitor<'a> {
        let client_cn = self.client_cn.as_deref();
        let known = self.known || viewer.ip() != self.address.ip();
        admit::Visitor { headers: request.headers(), address: viewer.ip(), known, client_cn }
    }
}

/// A session that was promised to the viewer.
pub(super) struct Agreed {
    pub(super) served: Arc<Served>,
    pub(super) coding: Coding,
    pub(super) onward: Onward,
    pub(super) story: Story,
    pub(super) present: Present,
    /// Ready when the session's token is revoked.
    pub(super) revoked: Option<Revoked>,
    /// Of a stream of HTTP/2; what a connection may take it has itself.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// The way to the target.
pub(super) enum Onward {
    /// It is to be gone.
    Dial(Way),
    /// It was gone.
    Connected(Reached),
}

/// HTTP/1 on a connection of which `first` was read, and the session that comes of it, to its end.
pub(super) async fn converse(shared: &Arc<Shared>, stream: AnyStream, visitor: Visitor, first: Bytes) {
    // Boxed, so that a session holds no room for it.
    if let Some((stream, already, agreed)) = Box::pin(requests(shared, stream, visitor, first)).await {
        session::run(shared, stream, already, agreed).await;
    }
}

/// Answers requests until one becomes a session: the stream, and what was read behind the request.
async fn requests(
    shared: &Arc<Shared>,
    stream: AnyStream,
    visitor: Visitor,
    first: Bytes,
) -> Option<(AnyStream, BytesMut, Agreed)> {
    let slot = Mutex::new(None);
    let in_use = Arc::new(InUse::default());
    let (slot_of, visitor_of, in_use_of) = (&slot, &visitor, &in_use);
    let service = service_fn(|request| {
        Box::pin(async move {
            let _held = in_use_of.hold();
            let (response, agreed) = answer(shared, visitor_of, &request).await;
            *lock(slot_of) = agreed;
            Ok::<_, Infallible>(response.map(|body| in_use_of.body(body)))
        })
    });
    let io = TokioIo::new(Begun::new(first, stream));
    let mut connection = shared.http1.serve_connection(io, service);
    let served = tokio::select! {
        // Mostly it is done at once, and nothing else has to be looked at.
        biased;
        served = poll_fn(|cx| connection.poll_without_shutdown(cx)) => served,
        () = shared.ending.deaf.cancelled() => {
            // An answer that is on its way still goes out.
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                served = poll_fn(|cx| connection.poll_without_shutdown(cx)) => served,
                () = closed(shared) => Ok(()),
            }
        }
        // A head that does not come has hyper's own deadline.
        () = in_use.over(UNUSED.max(shared.config.handshake_wait)) => Ok(()),
    };
    if let Err(error) = &served {
        tracing::debug!(viewer = %visitor.address, %error, "a connection that came to nothing");
    }
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().stream;
    let agreed = lock(&slot).take();
    match agreed {
        Some(agreed) if served.is_ok() => Some((stream, left_over(&parts.read_buf), agreed)),
        _ => {
            let _ = timeout(LAST_GOODBYES, stream.shutdown()).await;
            None
        }
    }
}

/// HTTP/2 on a connection of which `first` was read, to its end. Sessions are streams of it, and tasks of their own.
pub(super) async fn converse_http2(shared: &Arc<Shared>, stream: AnyStream, visitor: Visitor, first: Bytes) {
    let in_use = Arc::new(InUse::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        let (shared, visitor, in_use) = (Arc::clone(shared), visitor.clone(), Arc::clone(&in_use));
        async move {
            let held = in_use.hold();
            let (response, agreed) = answer(&shared, &visitor, &request).await;
            if let Some(agreed) = agreed {
                let upgrade = hyper::upgrade::on(&mut request);
                let tasks = shared.tasks.clone();
                tasks.spawn(async move {
                    let _held = held;
                    let Ok(upgraded) = upgrade.await else { return };
                    tokio::select! {
                        () = shared.ending.cut.cancelled() => {}
                        () = session::run(&shared, TokioIo::new(upgraded), BytesMut::new(), agreed) => {}
                    }
                });
            }
            Ok::<_, Infallible>(response.map(|body| in_use.body(body)))
        }
    });
    let io = TokioIo::new(Begun::new(first, stream));
    let mut connection = pin!(shared.http2.serve_connection(io, service));
    let mut closed = pin!(closed(shared));
    let mut going = false;
    let served = loop {
        tokio::select! {
            served = connection.as_mut() => break served,
            () = shared.ending.deaf.cancelled(), if !going => {}
            () = in_use.over(shared.config.handshake_wait) => if going {
                // It was told so, and has not gone.
                break Ok(());
            },
            () = closed.as_mut() => break Ok(()),
        }
        going = true;
        connection.as_mut().graceful_shutdown();
    };
    if let Err(error) = served {
        tracing::debug!(viewer = %visitor.address, %error, "a connection of HTTP/2 that broke off");
    }
}

/// Until sessions were closed, and have said goodbye.
async fn closed(shared: &Shared) {
    shared.ending.closing.cancelled().await;
    sleep(2 * LAST_GOODBYES).await;
}

/// The answer to a request, and the session that it begins if it does.
async fn answer(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    request: &Request<Incoming>,
) -> (Response<Body>, Option<Agreed>) {
    let viewer = visitor.viewer(request, shared);
    let asked = handshake::asked(request);
    let agreed = match (host(request), asked) {
        (Err(error), _) => Err(Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
        (Ok(None), _) if request.version() == Version::HTTP_11 => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, "the request names no host: send 'Host'"))
        }
        (Ok(_), None) => Ok((file(shared, visitor, viewer, request).await, None)),
        (Ok(host), Some(asked)) => {
            let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
            let agreed = agree(shared, visitor, viewer, request, host, asked).await;
            agreed.map(|(response, agreed)| (response, Some(agreed)))
        }
    };
    let (mut response, agreed) = agreed.unwrap_or_else(|refusal| {
        let (path, status) = (request.uri().path(), refusal.status.as_u16());
        tracing::warn!(%viewer, path, status, reason = %refusal.text, "no WebSocket");
        shared.counts.refuse();
        (refusal.answer(), None)
    });
    // Extending replaces what has these names, and keeps each of several values.
    response.headers_mut().extend(shared.config.headers.clone());
    (response, agreed)
}

/// The answer to a request that asks for no WebSocket.
async fn file(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    viewer: SocketAddr,
    request: &Request<Incoming>,
) -> Response<Body> {
    let Some(web) = &shared.config.web else { return plain(request).answer() };
    let asks = visitor.asks(viewer, request);
    let admitted = shared.served.config.admit.as_ref().map_or(Ok(()), |admit| match shared.config.web_auth {
        true => admit.check_file(&asks),
        false => admit.check_address(asks.address),
    });
    let response = match admitted {
        Ok(()) => web.answer(request).await,
        Err(refusal) => refusal.answer(),
    };
    let (method, path, status) = (request.method(), request.uri().path(), response.status().as_u16());
    tracing::debug!(%viewer, %method, path, status, "request");
    response
}

/// What a request gets that asks for no WebSocket.
fn plain(request: &Request<Incoming>) -> Refusal {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Refusal::new(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint")
            .with(header::UPGRADE, HeaderValue::from_static("websocket"))
            .with(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this is a WebSocket endpoint: send GET")
        .with(header::ALLOW, HeaderValue::from_static("GET"))
}

/// The checks in their order: who it is, the handshake, the target, the place, and, if it is to be, the connection.
async fn agree(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    viewer: SocketAddr,
    request: &Request<Incoming>,
    authority: &str,
    asked: Asked,
) -> Result<(Response<Body>, Agreed), Refusal> {
    let served = shared.served(request.uri().path(), authority);
    for admit in served.admits() {
        admit.check(&visitor.asks(viewer, request))?;
    }
    let (response, coding) = handshake::accept(request, asked, &served.config)?;
    let (target, mut shown, revoked) = match &served.config.tokens {
        Some(tokens) => {
            let Led { target, shown, revoked } = tokens::lead(tokens, request).await?;
            (Some(target), shown, revoked)
        }
        None if served.leads_somewhere() => {
            let target = served.config.target.clone();
            let shown = target.as_ref().map_or_else(String::new, Target::to_string);
            (target, shown, None)
        }
        None => return Err(Refusal::new(StatusCode::NOT_FOUND, "nothing is served here")),
    };
    let full =
        |_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "there are as many sessions as there may be");
    let room = match asked {
        Asked::Upgrade => None,
        Asked::Connect => Some(Arc::clone(&shared.room).try_acquire_owned().map_err(full)?),
    };
    let present = shared
        .enter()
        .ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "no more sessions are begun here"))?;
    let ends = visitor.reached.map(|destination| Ends { source: viewer, destination });
    let path = request.uri().path().to_owned();
    let (authority, address) = (authority.to_owned(), viewer.ip());
    let way = Way { target, shown: shown.clone(), ends, path: path.clone(), authority, address };
    let onward = match served.config.connect_first {
        false => Onward::Dial(way),
        true => {
            // A viewer that leaves meanwhile takes all of this along.
            let reached = tokio::select! {
                reached = served.reach(&way) => reached.map_err(|error| {
                    tracing::warn!(%viewer, path, %error, "no connection to the target");
                    unreached(&error)
                }),
                () = shared.ending.closing.cancelled() => {
                    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the bridge is going away"))
                }
            }?;
            shown = reached.backend.clone().unwrap_or(shown);
            Onward::Connected(reached)
        }
    };
    let (secure, debug) = (visitor.secure, served.config.debug);
    let story = Story::begin(&shared.counts, viewer.to_string(), path, shown, secure, debug);
    Ok((response, Agreed { served, coding, onward, story, present, revoked, room }))
}
