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
    #[error("the id of a standby socket must be a UUID")]
    Id,
    /// Another connection has this id.
    #[error("this id is in use: take a new random UUID for each standby socket")]
    InUse,
    /// The relay has asked for fewer.
    #[error("{0} standby sockets are wanted and there: wait for the relay to ask for more")]
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
    /// Counts it among those of all sessions.
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
        self.demand.arrived(now());
        while let Some(spare) = self.spares.pop_front() {
            let waited = spare.resting.waited();
            if let Some(stream) = spare.resting.wake() {
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
        self.spares.truncate(want as usize);
        (want != self.told).then(|| {
            self.told = want;
            want
        })
    }

    /// Pings and weeds.
    pub(super) fn tend(&mut self) {
        self.spares.retain_mut(|spare| spare.resting.tend());
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

    fn admit(&mut self, id: Uuid) -> Result<(), StandbyError> {
        if self.opening.contains(&id) || self.spares.iter().any(|spare| spare.id == id) {
            return Err(StandbyError::InUse);
        }
        if self.opening.len() + self.spares.len() >= self.told as usize {
            return Err(StandbyError::TooMany(self.told));
        }
        self.opening.push(id);
        Ok(())
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// A standby socket whose handshake is under way.
pub struct Admitted {
    session: Arc<Session>,
    id: Uuid,
}

impl Admitted {
    /// Asks `session` to take one more.
    pub(super) fn ask(session: Arc<Session>, id: &str) -> Result<Self, StandbyError> {
        let id = Uuid::parse_str(id).map_err(|_| StandbyError::Id)?;
        lock(&session.standby).admit(id)?;
        Ok(Self { session, id })
    }

    /// Adds the socket to those that wait.
    pub fn deliver(self, stream: Box<dyn Duplex>) {
        let counted = Counted::new(&self.session.pending);
        let mut standby = lock(&self.session.standby);
        if !standby.draining && !self.session.is_gone() {
            standby.spares.push_back(Spare { id: self.id, resting: Resting::new(stream), _counted: counted });
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        lock(&self.session.standby).opening.retain(|id| *id != self.id);
    }
}

struct Counted(Arc<Pending>);

impl Counted {
    fn new(pending: &Arc<Pending>) -> Self {
        pending.standby.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pending))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.standby.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a tunnel that was last in use so long ago gets a standby socket without being asked.
pub fn is_recent(unused: Duration) -> bool {
    unused < standby::IDLE
}
