//! The session that serves a tunnel: attached, waited for, replaced, and ended when its right is over.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::{Tunnel, rfc3339};
use crate::link::sockets::{End, Session};
use crate::proto::message::{Expiring, ToClient};
use crate::sync::{Counted, lock};

/// A client is told of the end of its tunnel this long before.
const EXPIRING_BEFORE: Duration = Duration::from_secs(60);

/// How the client of a session has shown who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// By the key that was created at this time in Unix milliseconds; 0 is one of the configuration.
    Key(i64),
    /// By a token, which no change of the keys revokes.
    Token,
}

impl Tunnel {
    /// The session that serves it, if a client is connected.
    pub fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone().filter(|session| !session.is_gone())
    }

    /// The session, waiting until `deadline` for one where there is none; of those that wait at most `most` do. An error
    /// says that more wait already.
    pub async fn session_by(&self, deadline: Instant, most: usize) -> Result<Option<Arc<Session>>, TooMany> {
        if let Some(session) = self.session() {
            return Ok(Some(session));
        }
        let _waiting = Counted::enter(&self.waiting, most).ok_or(TooMany)?;
        loop {
            let mut attached = pin!(self.attached.notified());
            attached.as_mut().enable();
            if let Some(session) = self.session() {
                return Ok(Some(session));
            }
            if timeout_at(deadline, attached).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Viewers that wait for a session.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Makes `session` the one that serves the tunnel; the newest wins, and an older one is told. `successor_of` is the
    /// session that its client had before.
    pub fn attach(&self, session: Arc<Session>, credential: Credential, successor_of: Option<Uuid>) {
        let mut current = lock(&self.session);
        let mut life = lock(&self.life);
        life.seen = Instant::now();
        if let Some(reason) = life.ended {
            session.end(reason);
            return;
        }
        life.credential = credential;
        life.announced = None;
        if let Some(before) = current.replace(session) {
            before.end(if successor_of == Some(before.id()) { End::Succeeded } else { End::Replaced });
        }
        self.attached.notify_waiters();
    }

    /// The client of `session` has shown who it is anew.
    pub fn renew(&self, session: &Arc<Session>, credential: Credential) {
        let current = lock(&self.session);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            lock(&self.life).credential = credential;
        }
    }

    /// The right of `session` to serve the tunnel is over, and so is what runs through it.
    pub fn cut(&self, session: &Arc<Session>) {
        let current = lock(&self.session);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            self.stop_running();
        }
    }

    /// Looks after the session; to be called about once a second.
    pub(super) fn tend(&self, session: &Session) {
        session.tend();
        let expiring = {
            let mut life = lock(&self.life);
            let soon = life
                .expiry
                .at
                .filter(|at| *at <= Instant::now() + EXPIRING_BEFORE && life.announced.as_ref() != Some(at));
            soon.inspect(|at| life.announced = Some(*at)).zip(life.expiry.shown)
        };
        if let Some((at, shown)) = expiring {
            let left = at.saturating_duration_since(Instant::now());
            session.say(ToClient::Expiring(Expiring {
                what: "tunnel".to_owned(),
                at: rfc3339(shown),
                in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            }));
        }
    }

    /// Takes `session` off the tunnel, unless a newer one has its place.
    pub fn detach(&self, session: &Arc<Session>) {
        let mut current = lock(&self.session);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
            lock(&self.life).seen = Instant::now();
        }
    }

    /// Ends the session and what runs.
    pub(super) fn end(&self, reason: End) {
        let mut current = lock(&self.session);
        let mut life = lock(&self.life);
        life.ended = Some(reason);
        life.running.cancel();
        if let Some(session) = current.take() {
            session.end(reason);
        }
    }

    /// Ends the session and what runs if its key was revoked: the owner has no live key, or only another one, made at
    /// `live_since`. Whoever has a key in the configuration (0) is let in by that.
    pub(super) fn end_if_revoked(&self, live_since: Option<i64>) -> bool {
        let Some(session) = self.session() else { return false };
        match lock(&self.life).credential {
            Credential::Token => return false,
            Credential::Key(since) if live_since.is_some_and(|live| live == since || live == 0) => {
                return false;
            }
            Credential::Key(_) => {}
        }
        session.end(End::Revoked);
        self.stop_running();
        true
    }
}

/// As many viewers wait for the client as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

#[cfg(test)]
mod orders;
