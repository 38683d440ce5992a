//! Standby data sockets of one session: opened in advance by the client, assigned when a viewer comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::demand::Demand;
use super::resting::Resting;
use super::{Pending, Session};
use crate::proto::limits::{Limits, standby};
use crate::stream::Duplex;
use crate::sync::lock;

/// Why a standby socket is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StandbyError {
    /// The id is no UUID.
    #[error("the id of a standby socket must be a UUID, written in lower case with hyphens")]
    Id,
    /// Another connection has this id.
    #[error("this id is in use: take a new random UUID for each standby socket")]
    InUse,
    /// The relay has asked for fewer, or holds as many as it may in all.
    #[error(
        "no more than {0} standby sockets are wanted now: try again later, or when the relay asks for more"
    )]
    TooMany(u32),
    /// There is no control session of level two.
    #[error("the tunnel has no control session that speaks adit.1")]
    NoSession,
}

/// The pool.
pub(super) struct Standby {
    spares: VecDeque<Spare>,
    /// Sockets whose handshake is under way.
    opening: Vec<Uuid>,
    demand: Demand,
    /// What the client was last asked for.
    told: u32,
    /// Of all sessions together, as configured.
    most_in_all: usize,
    draining: bool,
}

struct Spare {
    id: Uuid,
    resting: Resting,
    _counted: Counted,
}

impl Standby {
    /// `recent`: the tunnel is new, or was in use of late.
    pub(super) fn new(limits: &Limits, recent: bool) -> Self {
        let most = u32::try_from(limits.standby_per_tunnel).unwrap_or(u32::MAX);
        Self {
            spares: VecDeque::new(),
            opening: Vec::new(),
            demand: Demand::new(now(), most, recent),
            told: 0,
            most_in_all: limits.standby,
            draining: false,
        }
    }

    /// A viewer came for whom no used socket waited: the oldest spare one that is alive, and how long it waited.
    pub(super) fn take(&mut self) -> Option<(Uuid, Box<dyn Duplex>, Duration)> {
        let now = Instant::now();
        self.demand.arrived(now.into_std());
        while let Some(spare) = self.spares.pop_front() {
            let waited = spare.resting.waited(now);
            if let Some(stream) = spare.resting.wake(waited) {
                return Some((spare.id, stream, waited));
            }
        }
        None
    }

    /// What the client is to be asked for, if that has changed. Surplus sockets are dropped.
    pub(super) fn ask(&mut self, pending: &Pending) -> Option<u32> {
        let now = now();
        let crowded = pending.standby.load(Ordering::Relaxed) >= self.most_in_all;
        let want = match self.demand.want(now) {
            _ if self.draining => 0,
            // The last ones are for tunnels with traffic.
            want if crowded && !self.demand.is_busy(now) => want.min(self.spares.len() as u32),
            want => want,
        };
        (want != self.told).then_some(want)
    }

    /// The client was asked for so many: the surplus is dropped, after it knows that it need not be replaced.
    pub(super) fn told(&mut self, want: u32) {
        self.told = want;
        self.spares.truncate(want as usize);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.spares.len()
    }

    /// Pings and weeds. Whether none is there, and none is wanted.
    pub(super) fn tend(&mut self) -> bool {
        self.spares.retain_mut(|spare| spare.resting.tend());
        self.spares.is_empty() && self.demand.want(now()) == 0
    }

    /// No more of them, as the session is about to end.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Drops all.
    pub(super) fn clear(&mut self) {
        self.draining = true;
        self.spares.clear();
    }

    fn admit(&mut self, id: Uuid, pending: &Arc<Pending>) -> Result<Counted, StandbyError> {
        if self.opening.len() + self.spares.len() >= self.told as usize {
            // The client may know better which of them are dead.
            self.tend();
        }
        let known = self.opening.contains(&id) || self.spares.iter().any(|spare| spare.id == id);
        if known || pending.knows(id) {
            return Err(StandbyError::InUse);
        }
        if self.opening.len() + self.spares.len() >= self.told as usize {
            return Err(StandbyError::TooMany(self.told));
        }
        let counted = Counted::new(pending);
        if counted.before >= self.most_in_all && !self.demand.is_busy(now()) {
            return Err(StandbyError::TooMany(self.told));
        }
        self.opening.push(id);
        Ok(counted)
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// A standby socket whose handshake is under way.
pub struct Admitted {
    session: Arc<Session>,
    id: Uuid,
    counted: Option<Counted>,
}

impl Admitted {
    /// Asks `session` to take one more.
    pub(super) fn ask(session: Arc<Session>, id: &str) -> Result<Self, StandbyError> {
        // Only as it is written back: a client compares the text.
        let parsed = Uuid::parse_str(id).ok().filter(|parsed| parsed.to_string() == id);
        let id = parsed.ok_or(StandbyError::Id)?;
        let standby = session.standby().ok_or(StandbyError::NoSession)?;
        let counted = lock(standby).admit(id, &session.pending)?;
        Ok(Self { session, id, counted: Some(counted) })
    }

    /// Adds the socket to those that wait.
    pub fn deliver(mut self, stream: Box<dyn Duplex>) {
        let (Some(counted), Some(standby)) = (self.counted.take(), self.session.standby()) else { return };
        let mut standby = lock(standby);
        // At no moment does it count twice: the client may be asking for the next one already.
        standby.opening.retain(|id| *id != self.id);
        if !standby.draining && !self.session.is_gone() {
            let resting = Resting::new(stream, Instant::now());
            standby.spares.push_back(Spare { id: self.id, resting, _counted: counted });
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(standby) = self.session.standby() {
            lock(standby).opening.retain(|id| *id != self.id);
        }
    }
}

/// Counts a socket among those of all sessions until dropped.
struct Counted {
    pending: Arc<Pending>,
    /// How many there were.
    before: usize,
}

impl Counted {
    fn new(pending: &Arc<Pending>) -> Self {
        let before = pending.standby.fetch_add(1, Ordering::Relaxed);
        Self { pending: Arc::clone(pending), before }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.pending.standby.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a tunnel that was last in use so long ago gets a standby socket without being asked.
pub fn is_recent(unused: Duration) -> bool {
    unused < standby::IDLE
}
