//! Requests to a target that speaks HTTP/2: many at the same time on one connection over one data socket.

mod body;
mod connection;
mod hello;
mod io;
mod pool;
mod upload;
mod websocket;

pub use body::StreamBody;

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::carry::Terms;
use super::errors::Cause;
use super::exchange::{Account, Delivery, Record, is_resendable};
use super::extended::Wanted;
use super::forward::takes_trailers;
use super::front::Content;
use super::grpc;
use super::onward::Onward;
use super::policy;
use super::proxy::{UploadBody, viewer_address};
use super::rewrite;
use super::viewer::Connection;
use crate::link::Ask;
use crate::proto::api::Proto;
use crate::proto::limits::multiplex::AGAIN;
use crate::tunnel::{Spec, Tunnel, Viewing};
use body::Remainder;
use connection::{Place, cause_of, is_unprocessed};
use upload::Upload;

/// One request of a viewer, let in and counted.
pub struct Asked<'a> {
    /// The relay.
    pub shared: &'a Arc<Shared>,
    /// The viewer's connection.
    pub connection: &'a Arc<Connection>,
    /// Where it goes.
    pub tunnel: Arc<Tunnel>,
    /// What the tunnel's owner asked for.
    pub spec: &'a Spec,
    /// Counts the viewer.
    pub viewing: Viewing,
    /// The tunnel goes on.
    pub running: CancellationToken,
    /// What the viewer speaks.
    pub version: Version,
    /// What it wants to become, and what comes after that.
    pub upgrade: Option<(Wanted, OnUpgrade)>,
    /// As the target gets it.
    pub onward: Onward<'a>,
    /// As they came.
    pub headers: &'a http::HeaderMap,
    /// As it comes, or whole where it was held for its signature.
    pub body: UploadBody,
    /// Bytes that it may have.
    pub body_limit: Option<u64>,
    /// Who it is, behind all proxies.
    pub viewer: IpAddr,
    /// Taken along with the response.
    pub record: &'a mut Option<Box<Record>>,
}

/// Forwards a request, and gives what the viewer gets of it.
pub async fn forward(asked: Asked<'_>) -> Result<Response<Content>, Cause> {
    let limits = &asked.shared.config.limits;
    let received = asked.record.as_ref().map_or_else(Arc::default, |record| record.received());
    let of = (asked.spec.policy.clone(), Arc::clone(&asked.tunnel));
    let upload = Upload::new(asked.body, asked.body_limit, of, Arc::clone(&received));
    let remote = viewer_address(asked.connection, asked.viewer);
    let ask = Ask { resendable: true, remote, proto: Proto::Http, unused: true };
    let websocket = asked.upgrade.filter(|(wanted, _)| websocket::is_meant(wanted));
    let mut fetch = Fetch {
        shared: asked.shared,
        tunnel: &asked.tunnel,
        ask,
        onward: &asked.onward,
        headers: asked.headers,
        websocket: websocket.is_some(),
        resendable: is_resendable(asked.onward.method, !upload.is_empty()),
        upload,
        received: &received,
    };
    let fetched = tokio::select! {
        biased;
        fetched = fetch.run() => fetched,
        () = asked.running.cancelled() => Err(asked.shared.ending.why_stopped()),
    };
    let Fetched { place, response, stream, whole } =
        fetched.map_err(|cause| policy::told(asked.spec, cause))?;
    let mut upload = fetch.upload;
    upload.forget();
    if !upload.is_empty() {
        asked.connection.leave_unread();
    }

    let (mut head, body) = response.into_parts();
    rewrite::response(&mut head.headers, asked.spec, asked.onward.host, asked.onward.prefix);
    let terms = Terms {
        idle: limits.idle_exchange,
        running: asked.running,
        ending: Arc::clone(&asked.shared.ending),
    };
    if let Some((wanted, on_upgrade)) = websocket
        && head.status.is_success()
    {
        let viewer = websocket::Viewer {
            on_upgrade,
            connection: asked.connection,
            version: asked.version,
            wanted,
            key: asked.headers.get(header::SEC_WEBSOCKET_KEY),
        };
        let ends = (websocket::Stream::new(place, stream, body), asked.tunnel, asked.viewing);
        return websocket::switch(asked.shared, head, viewer, ends, terms, asked.record);
    }
    let failed = Arc::new(OnceLock::new());
    let task = (!whole).then(|| {
        let rest = Rest { upload, stream, received: Arc::clone(&received), failed: Arc::clone(&failed) };
        let (busy, cut) = (asked.connection.hold(), asked.shared.ending.cut.clone());
        let rest = rest.finish(limits.idle_exchange, terms.running.clone());
        let sending = async move {
            cut.run_until_cancelled_owned(rest).await;
            drop(busy);
        };
        asked.shared.tasks.spawn(sending).abort_handle()
    });
    if asked.version == Version::HTTP_10 && !head.headers.contains_key(header::CONTENT_LENGTH) {
        asked.connection.close_ends_body();
    }
    if asked.version == Version::HTTP_11 && takes_trailers(asked.headers) && grpc::is_of(&head.headers) {
        // HTTP/1.1 has only such trailers as were announced, and gRPC announces none.
        let trailers = HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin");
        head.headers.entry(header::TRAILER).or_insert(trailers);
    }
    let account = Account::new(asked.tunnel, asked.viewing, head.status.as_u16(), asked.record.take());
    let body = StreamBody::new(body, place, Remainder { task, received, failed });
    let body = Delivery::new(body, terms, account, asked.spec.policy.as_ref());
    let mut response = Response::new(Content::Multiplexed(Box::new(body)));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    Ok(response)
}

/// How the head of a response is had.
struct Fetch<'a> {
    shared: &'a Arc<Shared>,
    tunnel: &'a Arc<Tunnel>,
    ask: Ask,
    onward: &'a Onward<'a>,
    headers: &'a http::HeaderMap,
    websocket: bool,
    /// It may be sent a second time, whatever became of the first.
    resendable: bool,
    upload: Upload,
    received: &'a AtomicU64,
}

struct Fetched {
    place: Place,
    response: Response<RecvStream>,
    stream: SendStream<Bytes>,
    /// The whole request is sent.
    whole: bool,
}

/// Why a request got no response.
enum Failed {
    /// It has not been processed.
    Unprocessed(Cause),
    Cause(Cause),
}

impl Fetch<'_> {
    async fn run(&mut self) -> Result<Fetched, Cause> {
        let (mut left, mut tried) = (AGAIN, Vec::new());
        loop {
            let place = pool::place(self.shared, self.tunnel, self.ask, &mut tried).await?;
            if self.websocket && !place.takes_websockets() {
                return Err(Cause::NoWebSocket);
            }
            match self.send(place).await {
                Ok(fetched) => return Ok(fetched),
                Err(Failed::Cause(cause)) => return Err(cause),
                Err(Failed::Unprocessed(_)) if left > 0 && self.upload.rewind() => left -= 1,
                Err(Failed::Unprocessed(cause)) => return Err(cause),
            }
        }
    }

    async fn send(&mut self, place: Place) -> Result<Fetched, Failed> {
        let request = self.request().ok_or(Failed::Cause(Cause::BadHost))?;
        let whole = self.upload.is_empty() && !self.websocket;
        let sent = place.send(request, whole).await;
        let (mut response, mut stream) = sent.ok_or(Failed::Unprocessed(Cause::TargetClosed))?;
        // A WebSocket's stream stays open for what comes of it.
        let mut whole = whole || self.websocket;
        let idle = self.shared.config.limits.idle_exchange;
        loop {
            let before = self.received.load(Ordering::Relaxed);
            match timeout(idle, self.head(&mut response, &mut stream, &mut whole)).await {
                Ok(Ok(response)) => return Ok(Fetched { place, response, stream, whole }),
                Ok(Err(failed)) => return Err(failed),
                Err(_) if self.received.load(Ordering::Relaxed) == before => {
                    return Err(Failed::Cause(Cause::TargetSilent));
                }
                Err(_) => {}
            }
        }
    }

    /// The head, also while the body is still being sent.
    async fn head(
        &mut self,
        response: &mut ResponseFuture,
        stream: &mut SendStream<Bytes>,
        whole: &mut bool,
    ) -> Result<Response<RecvStream>, Failed> {
        use std::pin::Pin;
        poll_fn(|cx| {
            if !*whole {
                *whole = self.upload.poll(cx, stream).map_err(Failed::Cause)?.is_ready();
            }
            Pin::new(&mut *response).poll(cx).map_err(|error| {
                tracing::debug!(%error, "no response");
                // What is safe to send twice does no harm if it was processed.
                if is_unprocessed(&error) || (self.resendable && !error.is_remote()) {
                    Failed::Unprocessed(cause_of(&error))
                } else {
                    Failed::Cause(cause_of(&error))
                }
            })
        })
        .await
    }

    /// The head of the request.
    fn request(&self) -> Option<Request<()>> {
        let onward = self.onward;
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Authority::try_from(onward.told.unwrap_or(onward.host).as_bytes()).ok();
        uri.path_and_query = PathAndQuery::try_from(onward.target).ok();
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.headers_mut() = onward.fields(self.headers);
        *request.method_mut() = onward.method.clone();
        if self.websocket {
            *request.method_mut() = Method::CONNECT;
            request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
            request.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
            request.headers_mut().remove(header::CONTENT_LENGTH);
        }
        Some(request)
    }
}

/// What is left of a request when its response has begun.
struct Rest {
    upload: Upload,
    stream: SendStream<Bytes>,
    received: Arc<AtomicU64>,
    failed: Arc<OnceLock<Cause>>,
}

impl Rest {
    /// Sends it, until the tunnel ends or nothing comes for `idle`.
    async fn finish(mut self, idle: std::time::Duration, running: CancellationToken) {
        let cause = loop {
            let before = self.received.load(Ordering::Relaxed);
            let sending = poll_fn(|cx| self.upload.poll(cx, &mut self.stream));
            tokio::select! {
                sent = timeout(idle, sending) => match sent {
                    Ok(Ok(())) => return,
                    Ok(Err(cause)) => break cause,
                    Err(_) if self.received.load(Ordering::Relaxed) == before => break Cause::TargetSilent,
                    Err(_) => {}
                },
                () = running.cancelled() => break Cause::TunnelEnded,
            }
        };
        let _ = self.failed.set(cause);
        self.stream.send_reset(h2::Reason::CANCEL);
    }
}
