//! Errors of the API: one closed list, each with a status, a code for programs and a sentence for people.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::counted::Counted;
use super::{Caller, turned_away};
use crate::auth::Refused;
use crate::link::sockets::{ClaimError, StandbyError};
use crate::proto::api::ApiError;
use crate::proto::limits::replicas;
use crate::relay::domains::Unproven;
use crate::relay::ending::Ending;
use crate::store::StoreError;
use crate::stream::handshake::NotWebSocket;
use crate::tunnel::{CreateError, Registry, seconds};

/// Why the API refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiFailure {
    /// No key or token, or none that is valid.
    #[error("{0}")]
    Key(#[from] Refused),
    /// The body is not what the call takes.
    #[error("invalid request body: {0}")]
    Body(String),
    /// The body is over the limit, in bytes.
    #[error("the request body is over the limit of {0} bytes")]
    BodyTooLarge(usize),
    /// The tunnel cannot be created as asked.
    #[error("{0}")]
    Create(#[from] CreateError),
    /// A host is the relay's own.
    #[error("{0} is the relay's own name, or below it; ask for domains of your own")]
    OwnDomain(String),
    /// A host is not the caller's.
    #[error("{0}")]
    Domain(#[from] Unproven),
    /// As many clients serve the tunnel as may.
    #[error("{} clients serve this tunnel, which is as many as may", replicas::MOST)]
    TooManyClients,
    /// The tunnel was to be deleted only if nobody serves it.
    #[error("a client serves this tunnel")]
    Connected,
    /// No tunnel of the caller with that id.
    #[error("tunnel not found")]
    NoTunnel,
    /// The tunnel is another key's.
    #[error("this tunnel belongs to another key")]
    Foreign,
    /// The token is only for the tunnel of this name, which is not the one to be created.
    #[error("this token is only for the tunnel '{0}'; leave the name out, or ask for another token")]
    TokenLimited(String),
    /// The token is only for another tunnel of its owner.
    #[error("this token is for another tunnel")]
    OtherTunnel,
    /// A query parameter is missing.
    #[error("{0} required")]
    Missing(&'static str),
    /// The standby socket is not taken.
    #[error("{0}")]
    Standby(#[from] StandbyError),
    /// The connection cannot be claimed.
    #[error("{0}")]
    Claim(#[from] ClaimError),
    /// The request is no WebSocket handshake.
    #[error("{0}")]
    NotWebSocket(#[from] NotWebSocket),
    /// Requests are not recorded.
    #[error("this relay records no requests; inspection cannot be switched on")]
    NoInspection,
    /// Nothing can be read or written now.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The relay stops, or another one has taken its place.
    #[error("the relay restarts; try again shortly")]
    Draining,
    /// No such path.
    #[error("there is nothing at this path")]
    NotFound,
    /// The path takes other methods.
    #[error("the path does not take this method")]
    MethodNotAllowed,
}

impl ApiFailure {
    /// Status and code.
    pub fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Key(Refused::Unavailable) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::Key(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "invalid_body"),
            Self::BodyTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::Create(error) => match error {
                CreateError::Port => (StatusCode::BAD_REQUEST, "invalid_port"),
                CreateError::Name(_) => (StatusCode::BAD_REQUEST, "invalid_name"),
                CreateError::Ttl(_) => (StatusCode::BAD_REQUEST, "invalid_ttl"),
                CreateError::Auth | CreateError::Password(_) => (StatusCode::BAD_REQUEST, "invalid_auth"),
                CreateError::Balance | CreateError::BalanceAlone => {
                    (StatusCode::BAD_REQUEST, "invalid_balance")
                }
                CreateError::TargetProto | CreateError::SharedByNature => {
                    (StatusCode::BAD_REQUEST, "invalid_target_proto")
                }
                CreateError::HostHeader => (StatusCode::BAD_REQUEST, "invalid_host_header"),
                CreateError::Domain(_) | CreateError::TooManyDomains => {
                    (StatusCode::BAD_REQUEST, "invalid_domain")
                }
                CreateError::DomainTaken(_) => (StatusCode::CONFLICT, "domain_taken"),
                CreateError::Policy(_) => (StatusCode::BAD_REQUEST, "invalid_policy"),
                CreateError::Proto => (StatusCode::BAD_REQUEST, "invalid_proto"),
                CreateError::ProxyProtocol | CreateError::ToldOfOne => {
                    (StatusCode::BAD_REQUEST, "invalid_proxy_protocol")
                }
                CreateError::RemotePort | CreateError::PortWithoutTcp => {
                    (StatusCode::BAD_REQUEST, "invalid_remote_port")
                }
                CreateError::OnlyHttp { .. } => (StatusCode::BAD_REQUEST, "only_http"),
                CreateError::NoPorts => (StatusCode::BAD_REQUEST, "no_tcp_ports"),
                CreateError::NoBaseDomain => (StatusCode::BAD_REQUEST, "no_base_domain"),
                CreateError::PortNotGiven { .. } => (StatusCode::BAD_REQUEST, "port_not_given"),
                CreateError::PortTaken(_) => (StatusCode::CONFLICT, "port_taken"),
                CreateError::PortInUse { .. } => (StatusCode::CONFLICT, "port_in_use"),
                CreateError::NoFreePort { .. } => (StatusCode::CONFLICT, "no_free_port"),
                CreateError::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
                CreateError::Taken(_) => (StatusCode::CONFLICT, "name_taken"),
                CreateError::TooMany(_) => (StatusCode::FORBIDDEN, "too_many_tunnels"),
                CreateError::TooOften { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_creations"),
                CreateError::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            },
            Self::OwnDomain(_) => (StatusCode::BAD_REQUEST, "invalid_domain"),
            Self::Domain(Unproven::Missing { .. }) => (StatusCode::FORBIDDEN, "domain_not_proven"),
            Self::Domain(Unproven::Unavailable { .. }) => {
                (StatusCode::SERVICE_UNAVAILABLE, "dns_unavailable")
            }
            Self::TooManyClients => (StatusCode::TOO_MANY_REQUESTS, "too_many_clients"),
            Self::Connected => (StatusCode::CONFLICT, "connected"),
            Self::NoTunnel => (StatusCode::NOT_FOUND, "tunnel_not_found"),
            Self::Foreign | Self::OtherTunnel => (StatusCode::FORBIDDEN, "foreign_tunnel"),
            Self::TokenLimited(_) => (StatusCode::FORBIDDEN, "token_limited"),
            Self::Missing(_) => (StatusCode::BAD_REQUEST, "missing_parameter"),
            Self::Claim(ClaimError::Unknown) => (StatusCode::NOT_FOUND, "connection_not_found"),
            Self::Claim(ClaimError::KeyNeeded) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Standby(StandbyError::Id) => (StatusCode::BAD_REQUEST, "invalid_id"),
            Self::Standby(StandbyError::InUse) => (StatusCode::CONFLICT, "id_in_use"),
            Self::Standby(StandbyError::TooMany(_)) => (StatusCode::CONFLICT, "too_many_standby"),
            Self::Standby(StandbyError::NoSession) => (StatusCode::CONFLICT, "no_session"),
            Self::Claim(ClaimError::Foreign) => (StatusCode::FORBIDDEN, "foreign_connection"),
            Self::NotWebSocket(NotWebSocket::Version) => (StatusCode::UPGRADE_REQUIRED, "websocket_version"),
            Self::NotWebSocket(_) => (StatusCode::BAD_REQUEST, "not_websocket"),
            Self::NoInspection => (StatusCode::NOT_IMPLEMENTED, "not_implemented"),
            Self::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
        }
    }
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        let (status, code) = self.status();
        let mut response = status.into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        if let Self::Create(CreateError::TooOften { wait, .. }) = &self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
        }
        let error = ApiError { error: self.to_string(), code: code.to_owned(), request_id: String::new() };
        response.extensions_mut().insert(Pending(error));
        response
    }
}

/// What any call that needs a key may answer, for the API's description.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub enum Refusals {
    /// No key, one that is unknown or revoked, or a token that is not valid.
    #[response(status = 401)]
    Unauthorized(ApiError),
    /// The database cannot be used at present; try again after `Retry-After` seconds.
    #[response(status = 503)]
    Unavailable(ApiError),
}

/// The same of a call on one tunnel.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub enum TunnelRefusals {
    /// No key, one that is unknown or revoked, or a token that is not valid.
    #[response(status = 401)]
    Unauthorized(ApiError),
    /// The key has no tunnel with this id.
    #[response(status = 404)]
    NotFound(ApiError),
    /// The database cannot be used at present; try again after `Retry-After` seconds.
    #[response(status = 503)]
    Unavailable(ApiError),
}

/// The body of an error, which still lacks the id of its request.
#[derive(Clone)]
struct Pending(ApiError);

/// At the end of the relay, turns away what it could not do justice to any more: while it stops everything but data
/// sockets, which viewers wait for, and when its successor is there new control sockets, which belong to that.
pub async fn unless_draining(State(ending): State<Arc<Ending>>, request: Request, next: Next) -> Response {
    let refused = match request.uri().path() {
        "/ws/data" => false,
        "/ws/control" => ending.has_begun(),
        _ => ending.is_stopping(),
    };
    if refused { ApiFailure::Draining.into_response() } else { next.run(request).await }
}

/// Fills the bodies of errors, as only here is the request's id known, counts them and tells operators.
pub async fn with_request_id(
    State((refusals, registry)): State<(Arc<Counted>, Arc<Registry>)>,
    request: Request,
    next: Next,
) -> Response {
    let caller = request.extensions().get::<Caller>().copied();
    let id =
        request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let mut response = next.run(request).await;
    let Some(Pending(mut error)) = response.extensions_mut().remove::<Pending>() else { return response };
    tracing::debug!(code = error.code, request_id = id, "call refused");
    refusals.count(&error.code);
    if let Some(event) = turned_away::event(&error, response.extensions(), caller) {
        registry.events.add(event);
    }
    error.request_id = id;
    let (status, mut headers) = (response.status(), std::mem::take(response.headers_mut()));
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_TYPE);
    (status, headers, Json(error)).into_response()
}
