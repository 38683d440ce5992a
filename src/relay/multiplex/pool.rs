//! The connections of HTTP/2 that one session of a tunnel has to its target: a request gets a place on one of them, or
//! waits for the next, which is opened once for all who wait.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::connection::{Connection, Place};
use crate::link::sockets::Session;
use crate::link::{Ask, Link, OpenError};
use crate::proto::limits::replicas;
use crate::relay::Shared;
use crate::relay::errors::Cause;
use crate::relay::reach::{self, Client};
use crate::sync::{Counted, lock};
use crate::tunnel::{Picked, Tunnel};

/// What a session keeps. Dropped with it, when its connections take no more requests; those under way go on.
#[derive(Default)]
pub struct Pool {
    connections: Mutex<Vec<Arc<Connection>>>,
    opening: Mutex<Option<watch::Receiver<Option<Opened>>>>,
    /// Viewers that wait for it.
    waiting: AtomicUsize,
}

type Opened = Result<(), Failure>;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Failure {
    /// No data socket was had.
    Open(OpenError),
    /// Nothing to speak HTTP/2 with is at its other end.
    Shake(Cause),
    /// As many viewers wait as may.
    Full,
}

impl Failure {
    fn cause(self) -> Cause {
        match self {
            Self::Open(error) => error.into(),
            Self::Shake(cause) => cause,
            Self::Full => Cause::TooManyWaiting,
        }
    }
}

impl Pool {
    /// A place on the first connection that has one, so that those behind it become idle.
    fn place(&self) -> Option<Place> {
        lock(&self.connections).iter().find_map(Connection::place)
    }

    /// Takes out `one` if it has been idle for so long.
    pub fn weed(&self, one: &Weak<Connection>, long: Duration) {
        lock(&self.connections).retain(|other| Arc::as_ptr(other) != one.as_ptr() || !other.is_idle(long));
    }

    /// Takes out `one`.
    pub fn remove(&self, one: &Weak<Connection>) {
        lock(&self.connections).retain(|other| Arc::as_ptr(other) != one.as_ptr());
    }

    /// Another connection; whoever comes meanwhile waits for the same one.
    fn open(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        tunnel: &Arc<Tunnel>,
        session: &Arc<Session>,
        ask: Ask,
    ) -> watch::Receiver<Option<Opened>> {
        let mut opening = lock(&self.opening);
        if let Some(opening) = opening.as_ref().filter(|opening| matches!(opening.has_changed(), Ok(false))) {
            return opening.clone();
        }
        let (tell, opened) = watch::channel(None);
        *opening = Some(opened.clone());
        let (pool, shared, tunnel) = (Arc::clone(self), Arc::clone(shared), Arc::clone(tunnel));
        let session = Arc::clone(session);
        // In a task of its own: the viewer who asked for it may leave, and others wait for it.
        Arc::clone(&shared).spawn(async move {
            let lane = match session.ready(ask) {
                Some(lane) => Ok(lane),
                None => session.open(ask).await,
            };
            drop(session);
            let opened = match lane {
                Err(error) => Err(Failure::Open(error)),
                Ok(lane) => Connection::open(&shared, &tunnel, lane, Arc::downgrade(&pool))
                    .await
                    .map(|connection| lock(&pool.connections).push(connection))
                    .map_err(Failure::Shake),
            };
            let _ = tell.send(Some(opened));
        });
        opened
    }
}

/// A place for one request to the target of `tunnel`. A client that is away, or goes away before its target was reached, is
/// waited for: nothing of the request was sent yet. Of several clients, those that fail become `tried`.
pub async fn place(
    shared: &Arc<Shared>,
    tunnel: &Arc<Tunnel>,
    ask: Ask,
    tried: &mut Vec<Uuid>,
) -> Result<Place, Cause> {
    if let Some(Picked { session, load }) = tunnel.pick(ask.remote.ip(), tried)
        && let Some(place) = pool_of(&session).and_then(|pool| pool.place())
        && place.is_alive().await
    {
        return Ok(place.counted(load));
    }
    Box::pin(wait(shared, tunnel, ask, tried)).await
}

fn pool_of(session: &Session) -> Option<Arc<Pool>> {
    session.keep(Pool::default)
}

async fn wait(
    shared: &Arc<Shared>,
    tunnel: &Arc<Tunnel>,
    ask: Ask,
    tried: &mut Vec<Uuid>,
) -> Result<Place, Cause> {
    let limits = &shared.config.limits;
    let _of_key = tunnel.quota.wait().map_err(Cause::WaitingOfKey)?;
    let _promise = shared.room.promise().ok_or(Cause::Full)?;
    // For the claim, and for the target's first words.
    let deadline = Instant::now() + 2 * limits.claim_wait;
    let (mut until, mut without) = (None, Cause::ClientOffline);
    loop {
        let Picked { session, load } =
            match reach::client(shared, tunnel, ask, tried, &mut until, &without).await? {
                Client::Session(picked) => picked,
                Client::Lane(lane) => {
                    // Of the process before us: for this request alone.
                    let connection = Connection::open(shared, tunnel, lane, Weak::new()).await?;
                    return connection.place().ok_or(Cause::TargetClosed);
                }
            };
        let several = load.is_some();
        let part = if several && tunnel.has_others(&[&tried[..], &[session.id()]].concat()) {
            Instant::now() + limits.claim_wait / replicas::CLAIM_PART
        } else {
            deadline
        };
        match on(shared, tunnel, &session, ask, part.min(deadline)).await {
            Ok(place) => return Ok(place.counted(load)),
            Err(Failure::Full) => return Err(Cause::TooManyWaiting),
            Err(Failure::Open(OpenError::Draining)) => return Err(Cause::Draining),
            Err(Failure::Open(OpenError::ClientGone))
                if tunnel.clients() == 0 && until.is_none_or(|until| Instant::now() < until) =>
            {
                tried.clear();
                without = Cause::ClientGone;
                until.get_or_insert(Instant::now() + limits.reconnect_wait);
            }
            Err(failure) if several => {
                session.ail();
                tried.push(session.id());
                without = failure.cause();
            }
            // A newer one has come.
            Err(Failure::Open(OpenError::ClientGone)) if Instant::now() < deadline => {}
            Err(failure) => return Err(failure.cause()),
        }
    }
}

/// A place on a connection of `session`, by `deadline`.
async fn on(
    shared: &Arc<Shared>,
    tunnel: &Arc<Tunnel>,
    session: &Arc<Session>,
    ask: Ask,
    deadline: Instant,
) -> Result<Place, Failure> {
    let pool = pool_of(session).ok_or(Failure::Shake(Cause::Internal))?;
    let most = shared.config.limits.waiting_per_tunnel;
    let _waiting = Counted::enter(&pool.waiting, most).ok_or(Failure::Full)?;
    loop {
        if let Some(place) = pool.place() {
            if place.is_alive().await {
                return Ok(place);
            }
            continue;
        }
        if Instant::now() >= deadline {
            return Err(Failure::Open(OpenError::NotClaimed));
        }
        let mut opening = pool.open(shared, tunnel, session, ask);
        let opened = timeout_at(deadline, opening.wait_for(Option::is_some)).await;
        match opened.map(|opened| opened.ok().and_then(|opened| opened.clone())) {
            Ok(Some(opened)) => opened?,
            // Its task was cut.
            Ok(None) => return Err(Failure::Shake(Cause::Draining)),
            Err(_) => return Err(Failure::Open(OpenError::NotClaimed)),
        }
    }
}
