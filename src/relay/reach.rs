//! How a viewer reaches a tunnel and its client, also one that is away, or at the process before us.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::Shared;
use super::errors::Cause;
use crate::link::{Ask, Lane, OpenError};
use crate::proto::limits::replicas;
use crate::tunnel::{Picked, Tunnel};

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
    // A worker's streams are in the one WebSocket that it has.
    let _promise = match tunnel.is_worker() {
        true => None,
        false => Some(shared.room.promise().ok_or(Cause::Full)?),
    };
    let (mut until, mut without) = (None, Cause::ClientOffline);
    loop {
        // Boxed: what is rare must not make every request's future larger.
        let opened = match claim(tunnel, ask, shared.config.limits.claim_wait).await {
            Some(opened) => opened,
            None => match Box::pin(shared.predecessor.open(&tunnel.name, ask)).await {
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

/// A fresh stream to the client of `tunnel`, or to one of several: whoever does not take it up within a part of `wait` is passed
/// over for the next. `None`: there is no client.
pub async fn claim(tunnel: &Tunnel, ask: Ask, wait: Duration) -> Option<Result<Lane, OpenError>> {
    let viewer = ask.remote.ip();
    let first = tunnel.pick(viewer, &[])?;
    if first.load.is_none() {
        return Some(open(tunnel, first, ask).await);
    }
    Some(Box::pin(among(tunnel, ask, wait, first, &mut Vec::new())).await)
}

/// A stream of its own to the client that was picked, with the time that this took.
async fn open(tunnel: &Tunnel, picked: Picked, ask: Ask) -> Result<Lane, OpenError> {
    let began = Instant::now();
    let lane = picked.open(ask).await?;
    tunnel.traffic.waited(began.elapsed());
    Ok(lane)
}

/// The same, beginning with `first`; all that are asked become `tried`.
pub async fn among(
    tunnel: &Tunnel,
    ask: Ask,
    wait: Duration,
    first: Picked,
    tried: &mut Vec<Uuid>,
) -> Result<Lane, OpenError> {
    let deadline = Instant::now() + wait;
    let mut next = Some(first);
    let mut failed = OpenError::ClientGone;
    while let Some(picked) = next {
        let session = Arc::clone(&picked.session);
        tried.push(session.id());
        let left = deadline.saturating_duration_since(Instant::now());
        let others = tunnel.has_others(tried);
        let part = if others { left.min(wait / replicas::CLAIM_PART) } else { left };
        failed = match timeout(part, open(tunnel, picked, ask)).await {
            Ok(Err(OpenError::Draining)) => return Err(OpenError::Draining),
            Ok(Err(error)) => error,
            Ok(lane) => return lane,
            Err(_) => OpenError::NotClaimed,
        };
        session.ail();
        next = tunnel.pick(ask.remote.ip(), tried);
    }
    Err(failed)
}

/// Who is at the other end of a tunnel.
pub enum Client {
    /// Its client.
    Session(Picked),
    /// A stream to its client, which is at the process before us.
    Lane(Lane),
}

/// The client of `tunnel`, but none that was `tried`, for whom is waited while it is away; `without` is why it is not there.
pub async fn client(
    shared: &Shared,
    tunnel: &Tunnel,
    ask: Ask,
    tried: &[Uuid],
    until: &mut Option<Instant>,
    without: &Cause,
) -> Result<Client, Cause> {
    loop {
        if let Some(picked) = tunnel.pick(ask.remote.ip(), tried) {
            return Ok(Client::Session(picked));
        }
        if !tried.is_empty() {
            return Err(without.clone());
        }
        match shared.predecessor.open(&tunnel.name, ask).await {
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
