//! What an operator does to clients, tunnels and keys; each is in the log with the operator's address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, FromRequest, FromRequestParts, Path, Request};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::guard::Caller;
use super::problem::Problem;
use super::{Admin, body};
use crate::link::sockets::{End, Session};
use crate::proto::duration;
use crate::proto::limits::drain::SPREAD_LEAST;
use crate::tunnel::events::{Event, Kind};
use crate::tunnel::{Tunnel, drain_session};

/// A sentence that says what was done.
#[derive(Serialize)]
pub struct Done {
    done: String,
}

type Answer = Result<Json<Done>, Problem>;

fn done(sentence: String) -> Answer {
    Ok(Json(Done { done: sentence }))
}

/// What all of them get: who orders it, and the body.
pub struct Order<T> {
    admin: Arc<Admin>,
    /// The operator's address.
    operator: IpAddr,
    body: T,
}

impl<T: DeserializeOwned> FromRequest<Arc<Admin>> for Order<T> {
    type Rejection = Response;

    async fn from_request(request: Request, admin: &Arc<Admin>) -> Result<Self, Response> {
        let (mut head, body) = request.into_parts();
        let caller = Extension::<Caller>::from_request_parts(&mut head, admin).await;
        let Extension(Caller { address: operator, .. }) = caller.map_err(IntoResponse::into_response)?;
        let body = body::json(body).await.map_err(IntoResponse::into_response)?;
        Ok(Self { admin: Arc::clone(admin), operator, body })
    }
}

/// The body of an action that needs none.
#[derive(Deserialize)]
pub struct Nothing {}

/// `POST /api/clients/{id}/drain`: the client connects anew, and finishes what runs over the old session.
pub async fn drain(Path(id): Path<String>, Order { admin, operator, .. }: Order<Nothing>) -> Answer {
    let (tunnel, session) = client(&admin, &id).await?;
    if !session.speaks().is_told_of_drains() {
        return Err(Problem::conflict(
            "this client speaks a protocol which has no word for that; disconnect it, and it comes back by itself",
        ));
    }
    drain_session(&session, admin.shared.config.limits.drain, SPREAD_LEAST);
    let event = Event::of(Kind::Drained, &tunnel).because("asked for by an operator");
    admin.shared.registry.events.add(event.from(session.pulse().sight().identity.address));
    tracing::info!(%operator, tunnel = tunnel.name, "an operator drains a client");
    done(format!("The client of {} is told to connect anew.", tunnel.name))
}

/// `POST /api/clients/{id}/disconnect`: the client is cut off; it comes back if it wants to.
pub async fn disconnect(Path(id): Path<String>, Order { admin, operator, .. }: Order<Nothing>) -> Answer {
    let (tunnel, session) = client(&admin, &id).await?;
    session.end(End::Disconnected);
    tracing::info!(%operator, tunnel = tunnel.name, "an operator disconnects a client");
    done(format!("The client of {} is disconnected.", tunnel.name))
}

#[derive(Deserialize)]
pub struct Suspend {
    suspended: bool,
}

/// `POST /api/tunnels/{id}/suspend`: viewers are turned away, or let in again.
pub async fn suspend(
    Path(id): Path<String>,
    Order { admin, operator, body: Suspend { suspended } }: Order<Suspend>,
) -> Answer {
    let tunnel = tunnel(&admin, &id)?;
    still_there(admin.shared.registry.suspend(&tunnel, suspended).await?)?;
    tracing::info!(%operator, tunnel = tunnel.name, suspended, "an operator suspends a tunnel");
    let what = if suspended { "suspended: viewers are turned away" } else { "resumed: viewers are let in" };
    done(format!("{} is {what}.", tunnel.name))
}

#[derive(Deserialize)]
pub struct Extend {
    ttl: String,
}

/// `POST /api/tunnels/{id}/extend`: the tunnel ends `ttl` from now; `0` is never.
pub async fn extend(
    Path(id): Path<String>,
    Order { admin, operator, body: Extend { ttl } }: Order<Extend>,
) -> Answer {
    let ttl = duration::parse(ttl.trim()).map_err(|error| Problem::body(format!("ttl: {error}")))?;
    let ttl = Some(ttl).filter(|ttl: &Duration| !ttl.is_zero());
    let tunnel = tunnel(&admin, &id)?;
    still_there(admin.shared.registry.extend(&tunnel, ttl).await?)?;
    tracing::info!(%operator, tunnel = tunnel.name, ?ttl, "an operator extends a tunnel");
    done(match ttl {
        Some(ttl) => format!("{} ends in {}.", tunnel.name, duration::format(ttl)),
        None => format!("{} does not end by itself.", tunnel.name),
    })
}

/// `POST /api/tunnels/{id}/close`: the tunnel ends for good, and its clients stop.
pub async fn close(Path(id): Path<String>, Order { admin, operator, .. }: Order<Nothing>) -> Answer {
    let tunnel = tunnel(&admin, &id)?;
    still_there(admin.shared.registry.delete(&tunnel).await?)?;
    tracing::info!(%operator, tunnel = tunnel.name, "an operator closes a tunnel");
    let then = match tunnel.is_worker() {
        true => "its worker may register again; suspend it to keep viewers out",
        false => "the name stays its owner's",
    };
    done(format!("{} is closed; {then}.", tunnel.name))
}

/// `POST /api/keys/{name}/revoke`: the key lets nobody in any more, and its sessions end.
pub async fn revoke(Path(name): Path<String>, Order { admin, operator, .. }: Order<Nothing>) -> Answer {
    let shared = &admin.shared;
    if !shared.keys.revoke(&name).await? {
        return Err(if shared.config.static_keys.iter().any(|key| key.name == name) {
            Problem::conflict(format!(
                "{name} is a key of the configuration: take it out of ADIT_KEYS, or of keys in the file, and restart the relay"
            ))
        } else {
            Problem::not_found(format!("there is no live key {name}"))
        });
    }
    shared.registry.look_at_keys();
    let event = Event { owner: Some(name.clone()), ..Event::new(Kind::Revoked) };
    shared.registry.events.add(event.because("by an operator"));
    tracing::info!(%operator, key = name, "an operator revokes a key");
    done(format!("The key {name} is revoked."))
}

/// The connected client with that session.
async fn client(admin: &Arc<Admin>, id: &str) -> Result<(Arc<Tunnel>, Arc<Session>), Problem> {
    let id = Uuid::parse_str(id).map_err(|_| Problem::no_client())?;
    let found = admin.work(move |admin| {
        let all = admin.shared.registry.all();
        let connected = all.iter().find_map(|tunnel| Some((Arc::clone(tunnel), tunnel.session_of(id)?)));
        let is_known = || all.iter().any(|tunnel| tunnel.pulses().iter().any(|pulse| pulse.session() == id));
        connected.ok_or_else(|| match is_known() {
            true => Problem::conflict("this client is not connected; there is nothing to end"),
            false => Problem::no_client(),
        })
    });
    found.await?
}

/// The tunnel with that id.
pub fn tunnel(admin: &Admin, id: &str) -> Result<Arc<Tunnel>, Problem> {
    admin.shared.registry.by_id(id).ok_or_else(Problem::no_tunnel)
}

/// A tunnel that ended between being found and being changed is not found.
fn still_there(changed: bool) -> Result<(), Problem> {
    if changed { Ok(()) } else { Err(Problem::no_tunnel()) }
}
