//! The session that serves a tunnel: attached, waited for, replaced, and ended when its right is over.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::members::{Member, Picked};
use super::{Tunnel, rfc3339};
use crate::link::sockets::pulse::{Identity, Pulse};
use crate::link::sockets::{End, Session};
use crate::proto::limits::replicas;
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

/// A client that has asked to serve a tunnel, in its place among those that did.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// Grows from one to the next.
    pub(super) number: u64,
    /// The session that it had before.
    pub(super) successor_of: Option<Uuid>,
}

impl Tunnel {
    /// A client asks to serve it now. Its handshake may take longer than that of the next one.
    pub fn arrive(&self, successor_of: Option<Uuid>) -> Arrival {
        Arrival { number: self.arrivals.fetch_add(1, Ordering::Relaxed), successor_of }
    }

    /// The session that serves it, if a client is connected; of several the newest.
    pub fn session(&self) -> Option<Arc<Session>> {
        lock(&self.members).alive().next_back().map(|member| Arc::clone(&member.session))
    }

    /// Its sessions, the newest apart: mostly there are no others.
    pub fn sessions(&self) -> (Option<Arc<Session>>, Vec<Arc<Session>>) {
        let members = lock(&self.members);
        let mut alive = members.alive().rev().map(|member| Arc::clone(&member.session));
        (alive.next(), alive.collect())
    }

    /// The same in one.
    pub fn all_sessions(&self) -> impl Iterator<Item = Arc<Session>> + use<> {
        let (newest, others) = self.sessions();
        newest.into_iter().chain(others)
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        lock(&self.members).alive().count()
    }

    /// The session that gets the next viewer, who comes from `viewer`; not one that was `tried`.
    pub fn pick(&self, viewer: IpAddr, tried: &[Uuid]) -> Option<Picked> {
        lock(&self.members).pick(viewer, tried)
    }

    /// Whether several clients may be connected.
    pub fn is_shared(&self) -> bool {
        self.spec().replica.is_some()
    }

    /// Whether there is no room for one client more, but for the next session of `successor_of`.
    pub fn is_full(&self, successor_of: Option<Uuid>) -> bool {
        self.is_shared()
            && self.clients() >= replicas::MOST
            && successor_of.is_none_or(|id| self.session_of(id).is_none())
    }

    /// Whether a client is connected that was not `tried`.
    pub fn has_others(&self, tried: &[Uuid]) -> bool {
        lock(&self.members).alive().any(|member| !tried.contains(&member.session.id()))
    }

    /// The session of that id.
    pub fn session_of(&self, id: Uuid) -> Option<Arc<Session>> {
        let members = lock(&self.members);
        members.alive().find(|member| member.session.id() == id).map(|member| Arc::clone(&member.session))
    }

    /// What operators see of the client whose new `session` is about to serve the tunnel.
    pub fn pulse_of(&self, identity: Identity, session: Uuid, arrival: Arrival) -> Arc<Pulse> {
        lock(&self.pulses).join(self.is_shared(), arrival, identity, session)
    }

    /// Its clients as operators see them, also those that were lost.
    pub fn pulses(&self) -> Vec<Arc<Pulse>> {
        lock(&self.pulses).all()
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

    /// Makes `session` the one that serves the tunnel; the newest by its `arrival` wins, and an older one is told. Only those
    /// that were asked for as replicas serve it together. Gives whether another client
    /// has lost the tunnel to it.
    pub fn attach(&self, session: Arc<Session>, credential: Credential, arrival: Arrival) -> bool {
        let Arrival { number, successor_of } = arrival;
        let balance = self.spec().replica;
        let shares = balance.is_some();
        let mut members = lock(&self.members);
        let mut life = lock(&self.life);
        life.seen = Instant::now();
        if let Some(reason) = life.ended {
            session.end(reason);
            return false;
        }
        life.announced = None;
        self.wake();
        let succeeds = members.alive().any(|member| Some(member.session.id()) == successor_of);
        if shares && !succeeds && members.alive().count() >= replicas::MOST {
            // Its client was let in together with others, and tries again.
            session.end(End::Restart);
            return false;
        }
        if members.alive().any(|member| member.number > number && !(shares && member.shares)) {
            session.end(End::Replaced);
            return false;
        }
        members.balance = balance;
        let mut taken = false;
        for before in members.add(Member { session, credential, shares, number }, successor_of) {
            let succeeded = successor_of == Some(before.session.id());
            taken |= !succeeded && !before.session.is_gone();
            before.session.end(if succeeded { End::Succeeded } else { End::Replaced });
        }
        self.attached.notify_waiters();
        taken
    }

    /// The client of `session` has shown who it is anew.
    pub fn renew(&self, session: &Arc<Session>, credential: Credential) {
        if let Some(member) = lock(&self.members).of(session) {
            member.credential = credential;
        }
    }

    /// The right of `session` to serve the tunnel is over, and so is what runs through it.
    pub fn cut(&self, session: &Arc<Session>) {
        let mut members = lock(&self.members);
        if members.of(session).is_some() {
            self.stop_running();
        }
    }

    /// Looks after its sessions; to be called about once a second. Whether it is at rest: nothing has to be done for it until
    /// it is in use again, or its end is near.
    pub(super) fn tend(&self) -> bool {
        let mut rests = self.traffic.tick() && self.left().is_none_or(|left| left > 2 * EXPIRING_BEFORE);
        let (newest, others) = self.sessions();
        let all = || newest.iter().chain(&others);
        for session in all() {
            rests &= session.tend();
        }
        if newest.is_none() {
            return rests;
        }
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
            let expiring = Expiring {
                what: "tunnel".to_owned(),
                at: rfc3339(shown),
                in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            };
            all().for_each(|session| session.say(ToClient::Expiring(expiring.clone())));
        }
        rests
    }

    /// Takes `session` off the tunnel, unless a newer one has its place.
    pub fn detach(&self, session: &Arc<Session>) {
        let mut members = lock(&self.members);
        if members.remove(session) {
            lock(&self.life).seen = Instant::now();
        }
    }

    /// Ends its sessions and what runs.
    pub(super) fn end(&self, reason: End) {
        let mut members = lock(&self.members);
        let mut life = lock(&self.life);
        life.ended = Some(reason);
        life.running.cancel();
        members.take().iter().for_each(|member| member.session.end(reason));
    }

    /// Ends the sessions whose key was revoked, and what runs: the owner has no live key, or only another one, made at
    /// `live_since`. Whoever has a key in the configuration (0) is let in by that.
    pub(super) fn end_if_revoked(&self, live_since: Option<i64>) -> bool {
        let members = lock(&self.members);
        let revoked = |credential| match credential {
            Credential::Token => false,
            Credential::Key(since) => !live_since.is_some_and(|live| live == since || live == 0),
        };
        let mut any = false;
        for member in members.alive().filter(|member| revoked(member.credential)) {
            member.session.end(End::Revoked);
            any = true;
        }
        if any {
            self.stop_running();
        }
        any
    }
}

/// As many viewers wait for the client as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

#[cfg(test)]
mod orders;
