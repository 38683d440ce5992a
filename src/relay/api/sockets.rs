//! The WebSocket endpoints of clients: control and data.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::response::Response;
use bytes::BytesMut;
use http::header;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use super::{Api, ApiFailure};
use crate::link::sockets::{Session, run_control};
use crate::proto::frame::Role;
use crate::relay::handover::{self, Claimed};
use crate::relay::viewer::ViewerIo;
use crate::stream::handshake::{self, NotWebSocket};
use crate::stream::websocket::{Sizes, WebSocket};
use crate::tunnel::unix_ms;

/// `?tunnel_id=`.
#[derive(Deserialize)]
pub struct ControlQuery {
    #[serde(default)]
    tunnel_id: String,
}

/// `GET /ws/control?tunnel_id=`: the long-lived socket of one tunnel.
pub async fn control(
    State(api): State<Api>,
    Query(query): Query<ControlQuery>,
    mut request: Request,
) -> Result<Response, ApiFailure> {
    let checked_at = unix_ms();
    let owner = api.authenticate(request.headers()).await?;
    if query.tunnel_id.is_empty() {
        return Err(ApiFailure::Missing("tunnel_id"));
    }
    let tunnel = api.tunnel(&query.tunnel_id).await.ok_or(ApiFailure::NoTunnel)?;
    if tunnel.owner != owner {
        return Err(ApiFailure::Foreign);
    }
    let accept = handshake::check(&request)?;
    let on_upgrade = upgrade_of(&mut request)?;
    let (limits, pending) = (Arc::clone(&api.limits), Arc::clone(&api.pending));
    api.sessions.spawn(async move {
        let Some((io, already)) = upgraded(on_upgrade).await else { return };
        let (session, said) =
            Session::new(tunnel.owner.as_str().into(), tunnel.spec().reuse, pending, &limits);
        tunnel.attach(Arc::clone(&session), checked_at);
        tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), "client connected");
        let ended = run_control(Arc::clone(&session), io, already.to_vec(), said, &limits).await;
        tunnel.detach(&session);
        tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), ?ended, "client disconnected");
    });
    Ok(handshake::switching(accept))
}

/// `?id=`.
#[derive(Deserialize)]
pub struct DataQuery {
    #[serde(default)]
    id: String,
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
    // The id is the right to the connection; a key that comes along must fit all the same.
    let bearer = match request.headers().contains_key(header::AUTHORIZATION) {
        true => Some(api.authenticate(request.headers()).await?),
        false => None,
    };
    let on_upgrade = upgrade_of(&mut request)?;
    let bearer = bearer.as_ref().map(|owner| owner.as_str());
    let claim = handover::claim(&api.pending, &api.predecessor, &query.id, bearer).await?;
    let sizes = Sizes { buffer: api.limits.in_flight_bytes, message: api.limits.data_message_bytes };
    tokio::spawn(async move {
        let Some((io, already)) = upgraded(on_upgrade).await else { return };
        match claim {
            Claimed::Here(claim) => {
                claim.deliver(Box::new(WebSocket::new(io, Role::Server, already, sizes)));
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
