//! How a viewer reaches a tunnel and its client, also one that is away, or at the process before us.

use std::sync::Arc;

use tokio::time::Instant;

use super::Shared;
use super::errors::Cause;
use crate::link::sockets::Session;
use crate::link::{Ask, Lane, Link, OpenError};
use crate::tunnel::Tunnel;

/// The tunnel of that name. One that is not known may have been made by the process before us a moment ago.
pub async fn tunnel(shared: &Shared, name: &str) -> Option<Arc<Tunnel>> {
    let known = shared.registry.by_name(name);
    if known.is_some() || !shared.predecessor.is_alive() {
        return known;
    }
    Box::pin(shared.registry.learn()).await;
    shared.registry.by_name(name)
}

/// A fresh lane to the client of `tunnel`. One that is away, or goes away before it has claimed, is waited for: nothing of
/// the request was sent yet.
pub async fn lane(shared: &Shared, tunnel: &Tunnel, ask: Ask) -> Result<Lane, Cause> {
    let _waiting = tunnel.quota.wait().map_err(Cause::WaitingOfKey)?;
    let _promise = shared.room.promise().ok_or(Cause::Full)?;
    let (mut until, mut without) = (None, Cause::ClientOffline);
    loop {
        // Boxed: what is rare must not make every request's future larger.
        let opened = match tunnel.session() {
            Some(session) => session.open(ask).await,
            None => match Box::pin(shared.predecessor.open(&tunnel.name, ask.remote)).await {
                Some(opened) => opened,
                None if Box::pin(is_back(shared, tunnel, &mut until)).await? => continue,
                None => return Err(without),
            },
        };
        match opened {
            Err(OpenError::ClientGone) if until.is_none_or(|until| Instant::now() < until) => {
                without = Cause::ClientGone;
                until.get_or_insert(Instant::now() + shared.config.limits.reconnect_wait);
            }
            opened => return Ok(opened?),
        }
    }
}

/// Who is at the other end of a tunnel.
pub enum Client {
    /// Its client.
    Session(Arc<Session>),
    /// A stream to its client, which is at the process before us.
    Lane(Lane),
}

/// The client of `tunnel`, for whom is waited while it is away; `without` is why it is not there.
pub async fn client(
    shared: &Shared,
    tunnel: &Tunnel,
    ask: Ask,
    until: &mut Option<Instant>,
    without: &Cause,
) -> Result<Client, Cause> {
    loop {
        if let Some(session) = tunnel.session() {
            return Ok(Client::Session(session));
        }
        match shared.predecessor.open(&tunnel.name, ask.remote).await {
            Some(Err(OpenError::ClientGone)) | None => {}
            Some(opened) => return Ok(Client::Lane(opened?)),
        }
        if !is_back(shared, tunnel, until).await? {
            return Err(without.clone());
        }
    }
}

/// Whether the client, which was away, comes back in time.
async fn is_back(shared: &Shared, tunnel: &Tunnel, until: &mut Option<Instant>) -> Result<bool, Cause> {
    let limits = &shared.config.limits;
    let until = *until.get_or_insert(Instant::now() + limits.reconnect_wait);
    tokio::select! {
        session = tunnel.session_by(until, limits.waiting_per_tunnel) => {
            session.map(|session| session.is_some()).map_err(|_| Cause::TooManyWaiting)
        }
        () = shared.ending.stopping() => Err(Cause::Draining),
    }
}
