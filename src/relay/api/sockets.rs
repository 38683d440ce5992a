//! The WebSocket endpoints of clients: control and data.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::response::Response;
use bytes::BytesMut;
use http::{HeaderValue, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Api, ApiFailure};
use crate::auth::Principal;
use crate::link::sockets::{Bearer, Judge, Opened, Session, StandbyError, is_recent, run_control};
use crate::proto::control::relay::{RelayEnd, Timing, TokenEnd};
use crate::proto::frame::Role;
use crate::proto::limits::{Limits, drain};
use crate::proto::message::{ADIT_1, Level, SessionLimits, Welcome};
use crate::proto::name::Name;
use crate::relay::handover::{self, Claimed};
use crate::relay::viewer::ViewerIo;
use crate::stream::handshake::{self, NotWebSocket};
use crate::stream::websocket::{Sizes, WebSocket};
use crate::tunnel::{Credential, Tunnel, drain_session, rfc3339, unix_ms};

/// `?tunnel_id=`, and at level two `&successor_of=`.
#[derive(Deserialize)]
pub struct ControlQuery {
    #[serde(default)]
    tunnel_id: String,
    #[serde(default)]
    successor_of: String,
}

/// `GET /ws/control?tunnel_id=`: the long-lived socket of one tunnel.
pub async fn control(
    State(api): State<Api>,
    Query(query): Query<ControlQuery>,
    mut request: Request,
) -> Result<Response, ApiFailure> {
    let checked_at = unix_ms();
    let principal = api.authenticate(request.headers()).await?;
    if query.tunnel_id.is_empty() {
        return Err(ApiFailure::Missing("tunnel_id"));
    }
    let tunnel = tunnel_of(&api, &principal, &query.tunnel_id).await?;
    let accept = handshake::check(&request)?;
    let level = if handshake::offers(&request, ADIT_1) { Level::Two } else { Level::Base };
    let on_upgrade = upgrade_of(&mut request)?;
    let opened = Opened {
        level,
        owner: tunnel.owner.as_str().into(),
        tunnel: tunnel.name.as_str().into(),
        reuse: tunnel.spec().reuse,
        recent: is_recent(tunnel.unused_for()),
    };
    let credential = credential(&principal, checked_at);
    let successor_of = Uuid::parse_str(&query.successor_of).ok();
    let sessions = api.sessions.clone();
    sessions.spawn(async move {
        let Some((io, already)) = upgraded(on_upgrade).await else { return };
        let limits = &api.limits;
        let (session, said) = Session::new(opened, Arc::clone(&api.pending), limits);
        let timing = Timing { ping_every: limits.ping_every, pong_wait: limits.pong_wait };
        let now = Instant::now().into_std();
        let mut core = RelayEnd::new(now, level, timing, welcome(&session, limits));
        core.set_token(now, token_end(&principal));
        tunnel.attach(Arc::clone(&session), credential, successor_of);
        if api.ending.has_begun() {
            // It came too late to be told with the others.
            drain_session(&session, limits.drain, drain::SPREAD_LEAST);
        }
        tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), ?level, "client connected");
        let judge = judge(&api, &tunnel, &session);
        let io = (io, already.to_vec());
        let ended =
            run_control(Arc::clone(&session), io, core, said, judge, limits.control_message_bytes).await;
        tunnel.detach(&session);
        tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), ?ended, "client disconnected");
    });
    let mut response = handshake::switching(accept);
    if level == Level::Two {
        let protocol = HeaderValue::from_static(ADIT_1);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

/// The tunnel with that id, if it is the caller's.
async fn tunnel_of(api: &Api, principal: &Principal, id: &str) -> Result<Arc<Tunnel>, ApiFailure> {
    let tunnel = api.tunnel(id).await.ok_or(ApiFailure::NoTunnel)?;
    match tunnel.owner == principal.owner {
        false => Err(ApiFailure::Foreign),
        true if !principal.may_use(&tunnel.name) => Err(ApiFailure::OtherTunnel),
        true => Ok(tunnel),
    }
}

fn credential(principal: &Principal, checked_at: i64) -> Credential {
    if principal.is_token() { Credential::Token } else { Credential::Key(checked_at) }
}

/// When the token ends. Only here is it judged by the wall clock: a jump of that ends no session.
fn token_end(principal: &Principal) -> Option<TokenEnd> {
    let expires_at = principal.expires_at?;
    let left = Duration::from_millis(u64::try_from(expires_at - unix_ms()).unwrap_or(0));
    Some(TokenEnd { at: Instant::now().into_std() + left, shown: rfc3339(expires_at) })
}

fn welcome(session: &Session, limits: &Limits) -> Welcome {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Welcome {
        session: session.id().to_string(),
        relay: concat!("adit/", env!("CARGO_PKG_VERSION")).to_owned(),
        ping_interval_ms: ms(limits.ping_every),
        pong_timeout_ms: ms(limits.pong_wait),
        claim_ms: ms(limits.claim_wait),
        limits: SessionLimits {
            control_message_bytes: limits.control_message_bytes as u64,
            data_message_bytes: limits.data_message_bytes as u64,
            waiting: limits.waiting_per_tunnel as u64,
            standby: limits.standby_per_tunnel as u64,
        },
    }
}

/// How fresh tokens of a session are judged: they must be of the same owner.
fn judge(api: &Api, tunnel: &Arc<Tunnel>, session: &Arc<Session>) -> Judge {
    let (keys, tunnel, session) = (Arc::clone(&api.keys), Arc::downgrade(tunnel), Arc::downgrade(session));
    Box::new(move |token| {
        let (keys, tunnel, session) = (Arc::clone(&keys), tunnel.clone(), session.clone());
        Box::pin(async move {
            let checked_at = unix_ms();
            let principal = keys.authenticate_bearer(&token).await.map_err(|error| error.to_string())?;
            let (Some(tunnel), Some(session)) = (tunnel.upgrade(), session.upgrade()) else {
                return Err("the session is over".to_owned());
            };
            if tunnel.owner != principal.owner {
                return Err("this key or token is of another owner than the session".to_owned());
            }
            if !principal.may_use(&tunnel.name) {
                return Err(ApiFailure::OtherTunnel.to_string());
            }
            tunnel.renew(&session, credential(&principal, checked_at));
            Ok(token_end(&principal))
        })
    })
}

/// `?id=`, and for standby sockets `&tunnel_id=`.
#[derive(Deserialize)]
pub struct DataQuery {
    #[serde(default)]
    id: String,
    #[serde(default)]
    tunnel_id: String,
}

/// `GET /ws/data?id=`: takes up one notified connection. Nothing that is refused burns the id.
pub async fn data(
    State(api): State<Api>,
    Query(query): Query<DataQuery>,
    mut request: Request,
) -> Result<Response, ApiFailure> {
    if query.id.is_empty() {
        return Err(ApiFailure::Missing("id"));
    }
    let accept = handshake::check(&request)?;
    // At base level the id is the right to the connection; a key that comes along must fit all the same.
    let bearer = match request.headers().contains_key(header::AUTHORIZATION) || !query.tunnel_id.is_empty() {
        true => Some(api.authenticate(request.headers()).await?),
        false => None,
    };
    let sizes = Sizes { buffer: api.limits.in_flight_bytes, message: api.limits.data_message_bytes };
    if let Some(principal) = bearer.as_ref().filter(|_| !query.tunnel_id.is_empty()) {
        let tunnel = tunnel_of(&api, principal, &query.tunnel_id).await?;
        let admitted = tunnel.session().ok_or(StandbyError::NoSession)?.admit_standby(&query.id)?;
        let on_upgrade = upgrade_of(&mut request)?;
        tokio::spawn(async move {
            if let Some((io, already)) = upgraded(on_upgrade).await {
                let socket = WebSocket::new(io, Role::Server, already, sizes).with_half_close();
                admitted.deliver(Box::new(socket));
            }
        });
        return Ok(handshake::switching(accept));
    }
    let on_upgrade = upgrade_of(&mut request)?;
    let bearer = bearer.as_ref().map(|principal| Bearer {
        owner: principal.owner.as_str(),
        tunnel: principal.tunnel.as_ref().map(Name::as_str),
    });
    let claim = handover::claim(&api.pending, &api.predecessor, &query.id, bearer).await?;
    tokio::spawn(async move {
        let Some((io, already)) = upgraded(on_upgrade).await else { return };
        match claim {
            Claimed::Here(claim) => {
                let socket = WebSocket::new(io, Role::Server, already, sizes);
                let two = claim.level() == Level::Two;
                claim.deliver(Box::new(if two { socket.with_half_close() } else { socket }));
            }
            Claimed::There(claim) => {
                if let Ok(socket) = io.descriptor() {
                    claim.deliver(socket, &already).await;
                }
            }
        }
    });
    Ok(handshake::switching(accept))
}

fn upgrade_of(request: &mut Request) -> Result<OnUpgrade, ApiFailure> {
    request.extensions_mut().remove::<OnUpgrade>().ok_or(ApiFailure::NotWebSocket(NotWebSocket::NoUpgrade))
}

/// The socket, and what was read behind the handshake.
async fn upgraded(on_upgrade: OnUpgrade) -> Option<(ViewerIo, BytesMut)> {
    let parts = on_upgrade.await.ok()?.downcast::<TokioIo<ViewerIo>>().ok()?;
    Some((parts.io.into_inner(), handshake::left_over(&parts.read_buf)))
}
