//! Registration: a WebSocket for an id and a token, checked in the order of websocktunnel and with its statuses. What is
//! wrong only for a while is 5xx, as workers give up at 4xx.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::{CLIENT_URL, ID, RESERVED, session, text};
use crate::auth::jwt::{TokenError, WorkerTokens};
use crate::proto::http1::list_contains;
use crate::proto::worker::{ID_RULE, is_worker_id};
use crate::relay::api::upgraded;
use crate::relay::front::Content;
use crate::relay::viewer::Connection;
use crate::relay::{Shared, forward};
use crate::stream::handshake::{self, NotWebSocket};
use crate::tunnel::events::{Event, Kind};
use crate::tunnel::unix_ms;

/// Why a worker was not let in; the text is for whoever wrote its client.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("x-websocktunnel-id must be one id of {ID_RULE}")]
    Id,
    #[error("the id {0:?} is the relay's own path: choose another")]
    Reserved(String),
    #[error("Authorization must be \"Bearer\", a space and a token")]
    Bearer,
    #[error("a worker registers by a WebSocket: send 'Connection: Upgrade' and 'Upgrade: websocket'")]
    NoUpgrade,
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("a WebSocket is opened by GET")]
    Method,
    #[error("{0}")]
    Handshake(#[from] NotWebSocket),
    #[error("the relay restarts: try again shortly")]
    Draining,
}

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Self::Id | Self::Reserved(_) | Self::Bearer | Self::Handshake(_) => StatusCode::BAD_REQUEST,
            Self::NoUpgrade => StatusCode::NOT_FOUND,
            Self::Token(_) => StatusCode::UNAUTHORIZED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn answer(&self) -> Response<Content> {
        let mut response = text(self.status(), "text/plain; charset=utf-8", format!("{self}\n").into());
        let headers = response.headers_mut();
        match self {
            Self::Method => drop(headers.insert(header::ALLOW, HeaderValue::from_static("GET"))),
            Self::Draining => drop(headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"))),
            Self::Token(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

/// Takes the worker in, or says why not.
pub async fn register(
    shared: &Arc<Shared>,
    connection: &Connection,
    request: Request<Incoming>,
) -> Response<Content> {
    let address = forward::viewer(connection.remote.ip(), request.headers(), &shared.config.trusted_proxies);
    let id = only(request.headers(), &ID).map(str::to_owned);
    let begun = begin(shared, address, request);
    begun.unwrap_or_else(|refused| {
        let event = Event::new(Kind::Refused).from(address).because(refused.to_string());
        shared.registry.events.add(match id {
            // As workers that were let in are named.
            Some(id) => event.named(&format!("/{id}")),
            None => event,
        });
        refused.answer()
    })
}

fn begin(
    shared: &Arc<Shared>,
    address: IpAddr,
    mut request: Request<Incoming>,
) -> Result<Response<Content>, Refused> {
    let id = check(shared.config.worker_tokens.as_ref(), request.method(), request.headers())?;
    let accept = handshake::check(&request)?;
    if shared.ending.has_begun() {
        return Err(Refused::Draining);
    }
    let tunnel = shared.registry.admit_worker(&id);
    let url = shared.routes.url_of(&tunnel.name);
    let agent = request.headers().get(header::USER_AGENT).map(|agent| shared.pending.agent(agent.as_bytes()));
    let (arrival, on_upgrade) = (tunnel.arrive(None), hyper::upgrade::on(&mut request));
    let (shared, sessions) = (Arc::clone(shared), shared.sessions.clone());
    sessions.spawn(async move {
        if let Some((io, already)) = upgraded(on_upgrade, &shared.open.control_sockets).await {
            let serving = session::begin(&shared, tunnel, arrival, address, agent, (io, already));
            // A task of its own: this one holds room for the handshake as long as it lives.
            shared.sessions.spawn(serving);
        }
    });
    let mut response: Response<Content> =
        handshake::switching(accept).map(|()| Content::Page(Default::default()));
    if let Ok(url) = HeaderValue::from_str(&url) {
        response.headers_mut().insert(CLIENT_URL, url);
    }
    Ok(response)
}

/// The id that may register.
fn check(tokens: Option<&WorkerTokens>, method: &Method, headers: &HeaderMap) -> Result<String, Refused> {
    let id = only(headers, &ID).filter(|id| is_worker_id(id)).ok_or(Refused::Id)?;
    if RESERVED.contains(&id) {
        return Err(Refused::Reserved(id.to_owned()));
    }
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let token = only(headers, &header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let token = token.filter(|token| !token.is_empty() && token.bytes().all(of_token));
    let token = token.ok_or(Refused::Bearer)?;
    let upgrade = list_contains(headers, &header::CONNECTION, "upgrade")
        && list_contains(headers, &header::UPGRADE, "websocket");
    if !upgrade {
        return Err(Refused::NoUpgrade);
    }
    tokens.ok_or(TokenError::Signature)?.verify(token, id, unix_ms())?;
    if method == Method::GET { Ok(id.to_owned()) } else { Err(Refused::Method) }
}

/// The value of a header that may be there only once.
fn only<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (first, None) = (values.next()?, values.next()) else { return None };
    first.to_str().ok()
}
