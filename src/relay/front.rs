//! The HTTP front: each request of a viewer is checked, routed and answered by itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::sleep;
use tower_service::Service;

use super::Shared;
use super::errors::{Cause, request_id, wants_html};
use super::exchange::{Delivery, LaneBody, Record};
use super::extended;
use super::forward;
use super::grpc;
use super::multiplex::StreamBody;
use super::proxy;
use super::reach;
use super::route::{PATH_PREFIX, Route, is_valid_host};
use super::secure;
use super::taskcluster::{self, For};
use super::viewer::{Busy, Connection};
use crate::proto::host::host;
use crate::proto::limits::{Limits, turn};
use crate::random::fraction;
use crate::sync::Held;

/// A response body of any origin; the connection counts as busy until it is dropped.
pub struct Reply {
    content: Content,
    _busy: Option<Busy>,
    _exchange: Held,
}

/// Where a response body comes from.
pub enum Content {
    /// The relay's own page.
    Page(Full<Bytes>),
    /// The REST API.
    Api(axum::body::Body),
    /// The target.
    Target(Box<Delivery<LaneBody>>),
    /// The target, in HTTP/2.
    Multiplexed(Box<Delivery<StreamBody>>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        match &mut self.content {
            Content::Page(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Content::Api(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Content::Target(body) => Pin::new(body.as_mut()).poll_frame(cx),
            Content::Multiplexed(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Page(body) => body.is_end_stream(),
            Content::Api(body) => body.is_end_stream(),
            Content::Target(body) => body.is_end_stream(),
            Content::Multiplexed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Page(body) => body.size_hint(),
            Content::Api(body) => body.size_hint(),
            Content::Target(body) => body.size_hint(),
            Content::Multiplexed(body) => body.size_hint(),
        }
    }
}

/// Answers one request. Every failure becomes a page with a status; nothing ends bare.
pub async fn serve(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let (busy, exchange) = (connection.begin(), shared.open.exchanges.hold());
    let html = wants_html(request.headers());
    let version = request.version();
    let grpc = version == Version::HTTP_2 && grpc::is_of(request.headers());
    let head = request.method() == Method::HEAD;
    let viewer = || {
        let trusted = &shared.config.trusted_proxies;
        forward::viewer(connection.remote.ip(), request.headers(), trusted).to_string()
    };
    let span = shared.spans.as_ref().and_then(|spans| spans.begin(&request, connection.is_secure()));
    let mut record = Some(Record::new(&request, viewer, span, &shared.ledger));
    let mut answer = match answer(&shared, &connection, request, &mut record).await {
        Ok(response) => response,
        Err(cause) => {
            if cause.is_of_a_quota() {
                Box::pin(sleep(turn::REFUSAL_LEAST + turn::REFUSAL_SPREAD.mul_f64(fraction()))).await;
            }
            let id = request_id();
            tracing::debug!(
                cause = cause.label(),
                request_id = id,
                viewer = connection.remote_text(),
                "refused"
            );
            // What was sent along with the request may be on its way still.
            connection.leave_unread();
            let page = if grpc { grpc::answer(&cause, &id) } else { cause.page(html, &id) };
            if let Some(record) = record {
                record.refuse(&cause, page.body().size_hint().exact().filter(|_| !head).unwrap_or(0));
            }
            page.map(Content::Page)
        }
    };
    // The viewer's next request is for the successor, or for nobody, or shall not keep others out: it learns so before it
    // sends it. HTTP/2 has GOAWAY.
    if (shared.ending.has_begun() || shared.room.is_scarce())
        && version < Version::HTTP_2
        && answer.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer.map(|content| Reply { content, _busy: Some(busy), _exchange: exchange }))
}

async fn answer(
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    request: Request<Incoming>,
    record: &mut Option<Box<Record>>,
) -> Result<Response<Content>, Cause> {
    let host = check(&request, &shared.config.limits)?;
    let text = host.to_str().map_err(|_| Cause::BadHost)?;
    // A copy of the path would cost each request an allocation; the target's URI is shared instead.
    let uri = request.uri().clone();
    if let Some(answer) = shared.acme.as_ref().and_then(|acme| acme.answer(text, uri.path())) {
        if let Some(record) = record.take() {
            record.discard();
        }
        return Ok(Response::new(Content::Page(Full::from(answer))));
    }
    let route = shared.routes.route(text, uri.path());
    if shared.tls.is_some() {
        secure::check(shared, connection, &route, text, &uri, request.headers())?;
    }
    match route {
        Route::Host(_) | Route::Path(_) if shared.ending.is_stopping() => Err(Cause::Draining),
        Route::Own if let Some(asked) = taskcluster::asked(shared, &request) => match asked {
            For::Worker(id) => {
                let tunnel = taskcluster::tunnel(shared, &id)?;
                proxy::forward(shared, connection, tunnel, Some(id.len() + 1), &host, request, record).await
            }
            For::Relay(asked) => {
                if let Some(record) = record.take() {
                    record.discard();
                }
                Ok(Box::pin(taskcluster::answer(shared, connection, asked, request)).await)
            }
        },
        Route::Own => {
            // Calls of clients are no exchanges of viewers, and one of them is behind each of these.
            if let Some(record) = record.take() {
                record.discard();
            }
            Ok(Box::pin(own(shared, connection, request)).await)
        }
        Route::Nobody => Err(Cause::NoSuchTunnel),
        Route::Host(name) => {
            let tunnel = match reach::tunnel(shared, &name).await {
                Some(tunnel) => tunnel,
                None if shared.config.worker_tokens.is_some() => taskcluster::tunnel_of_host(shared, &name)?,
                None => return Err(Cause::NoSuchTunnel),
            };
            proxy::forward(shared, connection, tunnel, None, &host, request, record).await
        }
        Route::Path(name) => {
            let tunnel = reach::tunnel(shared, &name).await.ok_or(Cause::NoSuchTunnel)?;
            proxy::forward(
                shared,
                connection,
                tunnel,
                Some(PATH_PREFIX.len() + name.len()),
                &host,
                request,
                record,
            )
            .await
        }
    }
}

/// What hyper lets through and we do not (RFC 9112, sections 3.2 and 6.1): the host of the request.
pub fn check<B>(request: &Request<B>, limits: &Limits) -> Result<HeaderValue, Cause> {
    let (uri, headers) = (request.uri(), request.headers());
    if request.method() == Method::CONNECT && !extended::is_asked(request) {
        return Err(Cause::MethodNotAllowed);
    }
    // The authority form is for CONNECT alone (RFC 9112, section 3.2.3).
    if uri.authority().is_some() && uri.scheme().is_none() {
        return Err(Cause::BadRequest("The request target is neither a path nor a URL."));
    }
    if uri.path_and_query().is_some_and(|target| target.as_str().len() > limits.target_bytes) {
        return Err(Cause::TargetTooLong);
    }
    if headers.len() > limits.headers {
        return Err(Cause::HeadTooLarge);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(Cause::BadRequest("The only transfer coding taken is chunked, once."));
    }
    let host = match host(request).map_err(|_| Cause::BadHost)? {
        Some(host) => host,
        None if request.version() == Version::HTTP_10 => HeaderValue::from_static("localhost"),
        None => return Err(Cause::BadHost),
    };
    if host.to_str().is_ok_and(is_valid_host) { Ok(host) } else { Err(Cause::BadHost) }
}

/// The relay's own paths.
async fn own(
    shared: &Arc<Shared>,
    connection: &Connection,
    mut request: Request<Incoming>,
) -> Response<Content> {
    if !request.body().is_end_stream() {
        connection.leave_unread();
    }
    // The public clients join a base URL and a path as text, so the path may begin with more than one slash.
    if let Some(target) = request.uri().path_and_query().map(http::uri::PathAndQuery::as_str)
        && target.starts_with("//")
        && let Ok(uri) = format!("/{}", target.trim_start_matches('/')).parse()
    {
        *request.uri_mut() = uri;
    } else if request.uri().authority().is_some() {
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = target.map_or_else(|| http::Uri::from_static("/"), Into::into);
    }
    let id = request.headers().get("x-request-id").cloned().filter(is_plain_id);
    let id = id.or_else(|| HeaderValue::from_str(&request_id()).ok());
    if let Some(id) = &id {
        request.headers_mut().insert("x-request-id", id.clone());
    }
    let peer = connection.remote.ip();
    let caller = forward::viewer(peer, request.headers(), &shared.config.trusted_proxies);
    request.extensions_mut().insert(super::api::Caller(caller));
    let mut api = shared.api.clone();
    let response = api.call(request.map(axum::body::Body::new)).await;
    let mut response = response.unwrap_or_else(|never| match never {});
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let headers = response.headers_mut();
        headers.insert("x-nullbore-version", HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
        headers.insert("x-nullbore-api", HeaderValue::from_static(crate::proto::api::API_VERSION));
        if let Some(id) = id {
            headers.insert("x-request-id", id);
        }
    }
    response.map(Content::Api)
}

/// Ids of callers are kept if they are short and printable.
fn is_plain_id(id: &HeaderValue) -> bool {
    id.len() <= 64 && !id.is_empty() && id.as_bytes().iter().all(u8::is_ascii_graphic)
}
