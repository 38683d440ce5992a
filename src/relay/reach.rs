//! How a viewer reaches a tunnel and its client, also one that is away, or at the process before us.

use std::sync::Arc;

use tokio::time::Instant;

use super::Shared;
use super::errors::Cause;
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
    let (mut until, mut without) = (None, Cause::ClientOffline);
    loop {
        let opened = match tunnel.session() {
            Some(session) => session.open(ask).await,
            // Boxed: what is rare must not make every request's future larger.
            None => match Box::pin(elsewhere(shared, tunnel, ask, &mut until)).await? {
                Some(opened) => opened,
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

/// A lane of the session that the process before us has still, or of a client that comes back in time.
async fn elsewhere(
    shared: &Shared,
    tunnel: &Tunnel,
    ask: Ask,
    until: &mut Option<Instant>,
) -> Result<Option<Result<Lane, OpenError>>, Cause> {
    if let Some(opened) = shared.predecessor.open(&tunnel.name, ask.remote).await {
        return Ok(Some(opened));
    }
    let limits = &shared.config.limits;
    let until = *until.get_or_insert(Instant::now() + limits.reconnect_wait);
    let session = tokio::select! {
        session = tunnel.session_by(until, limits.waiting_per_tunnel) => session.map_err(|_| Cause::TooManyWaiting)?,
        () = shared.ending.stopping() => return Err(Cause::Draining),
    };
    match session {
        Some(session) => Ok(Some(session.open(ask).await)),
        None => Ok(None),
    }
}
