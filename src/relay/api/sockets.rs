//! The WebSocket endpoints of clients: control and data.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, Request, State};
use axum::response::Response;
use bytes::BytesMut;
use http::{HeaderValue, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::session::{self, Begun};
use super::turned_away::{TurnedAway, Who};
use super::{Api, ApiFailure};
use crate::auth::Principal;
use crate::link::peer::PeerClaim;
use crate::link::sockets::{Bearer, StandbyError};
use crate::proto::frame::Role;
use crate::proto::message::{ADIT_1, Level};
use crate::proto::name::Name;
use crate::relay::handover::{self, Claimed};
use crate::relay::viewer::ViewerIo;
use crate::stream::handshake::{self, NotWebSocket};
use crate::stream::websocket::{Sizes, WebSocket};
use crate::sync::Count;
use crate::tunnel::Tunnel;

/// For our 101 to be taken.
const SWITCH_WAIT: Duration = Duration::from_secs(10);

/// `?tunnel_id=`, and at level two `&successor_of=`.
#[derive(Deserialize)]
pub struct ControlQuery {
    #[serde(default)]
    tunnel_id: String,
    #[serde(default)]
    successor_of: String,
}

/// Where a call comes from, as far as trusted proxies tell.
#[derive(Clone, Copy)]
pub struct Caller(pub IpAddr);

/// `GET /ws/control?tunnel_id=`: the long-lived socket of one tunnel.
pub async fn control(
    State(api): State<Api>,
    Extension(Caller(address)): Extension<Caller>,
    Query(query): Query<ControlQuery>,
    request: Request,
) -> Result<Response, TurnedAway> {
    let mut who = Who::default();
    let begun = begin_control(&api, address, &query, request, &mut who).await;
    begun.map_err(|failure| who.turned_away(failure))
}

async fn begin_control(
    api: &Api,
    address: IpAddr,
    query: &ControlQuery,
    mut request: Request,
    who: &mut Who,
) -> Result<Response, ApiFailure> {
    let principal = api.authenticate(request.headers()).await?;
    who.owner = Some(principal.owner.as_str().to_owned());
    if query.tunnel_id.is_empty() {
        return Err(ApiFailure::Missing("tunnel_id"));
    }
    let tunnel = tunnel_of(api, &principal, &query.tunnel_id).await?;
    who.tunnel = Some(tunnel.name.clone());
    let accept = handshake::check(&request)?;
    let level = if handshake::offers(&request, ADIT_1) { Level::Two } else { Level::Base };
    let on_upgrade = upgrade_of(&mut request)?;
    let successor_of = Uuid::parse_str(&query.successor_of).ok();
    if tunnel.is_full(successor_of) {
        return Err(ApiFailure::TooManyClients);
    }
    let agent = request.headers().get(header::USER_AGENT).map(|agent| api.pending.agent(agent.as_bytes()));
    let begun = Begun { level, arrival: tunnel.arrive(successor_of), address, agent };
    let (api, sessions) = (api.clone(), api.sessions.clone());
    sessions.spawn(async move {
        if let Some((io, already)) = upgraded(on_upgrade, &api.open.control_sockets).await {
            let serving = session::begin(&api, tunnel, &principal, begun, (io, already.to_vec()));
            // A task of its own: this one holds room for the handshake, and the API, as long as it lives.
            api.sessions.spawn(serving);
        }
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

/// `?id=`, and for standby sockets `&tunnel_id=` and `&session=`.
#[derive(Deserialize)]
pub struct DataQuery {
    #[serde(default)]
    id: String,
    #[serde(default)]
    tunnel_id: String,
    #[serde(default)]
    session: String,
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
    let sizes = Sizes::from(&*api.limits);
    if let Some(principal) = bearer.as_ref().filter(|_| !query.tunnel_id.is_empty()) {
        let tunnel = tunnel_of(&api, principal, &query.tunnel_id).await?;
        if api.room.is_scarce() {
            return Err(StandbyError::TooMany(0).into());
        }
        // Of several, each has its own.
        let session = match Uuid::parse_str(&query.session) {
            Ok(id) => tunnel.session_of(id),
            Err(_) => tunnel.session().filter(|_| tunnel.clients() == 1),
        };
        let admitted = session.ok_or(StandbyError::NoSession)?.admit_standby(&query.id)?;
        let on_upgrade = upgrade_of(&mut request)?;
        api.sessions.spawn(async move {
            if let Some((io, already)) = upgraded(on_upgrade, &api.open.data_sockets).await {
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
    api.sessions.spawn(async move {
        let Some((io, already)) = upgraded(on_upgrade, &api.open.data_sockets).await else { return };
        match claim {
            Claimed::Here(claim) => claim.deliver(io, already, sizes),
            Claimed::There(claim) => pass_on(io, claim, &already).await,
        }
    });
    Ok(handshake::switching(accept))
}

/// Gives a data socket to the predecessor. TLS cannot change the process, so there it gets one end of a pair.
async fn pass_on(mut io: ViewerIo, claim: PeerClaim, already: &[u8]) {
    if let Some(socket) = io.descriptor() {
        return claim.deliver(socket, already).await;
    }
    let Ok((mut near, far)) = UnixStream::pair() else { return };
    let Ok(far) = far.into_std() else { return };
    claim.deliver(far.into(), already).await;
    let _ = copy_bidirectional(&mut io, &mut near).await;
}

fn upgrade_of(request: &mut Request) -> Result<OnUpgrade, ApiFailure> {
    request.extensions_mut().remove::<OnUpgrade>().ok_or(ApiFailure::NotWebSocket(NotWebSocket::NoUpgrade))
}

/// The socket, which `kind` counts from now on, and what was read behind the handshake.
pub async fn upgraded(on_upgrade: OnUpgrade, kind: &Count) -> Option<(ViewerIo, BytesMut)> {
    let upgraded = timeout(SWITCH_WAIT, on_upgrade).await.ok()?;
    let parts = upgraded.ok()?.downcast::<TokioIo<ViewerIo>>().ok()?;
    let io = parts.io.into_inner();
    io.connection.becomes(kind);
    Some((io, handshake::left_over(&parts.read_buf)))
}
