//! Whether a client lives: its pings and pongs, over all sessions that it has had one after the other.

mod spread;
mod strip;

pub use spread::Spread;
pub use strip::Beat;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::link::Speaks;
use crate::proto::limits::pulse::{LATE, SLOT};
use crate::sync::lock;
use strip::Strip;

/// A client as operators see it. It outlives the sessions: when a client comes back, its tunnel goes on with this.
pub struct Pulse {
    /// What slots are counted from.
    born: Instant,
    state: Mutex<State>,
}

/// Who a client is, as far as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Where its control socket comes from.
    pub address: IpAddr,
    /// Its `User-Agent`, cut to a sane length. Clients of one kind share the text.
    pub agent: Option<Arc<str>>,
    /// What it speaks.
    pub speaks: Speaks,
}

/// What became of a client whose control socket is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It said good-bye, or was sent away.
    Orderly,
    /// It answered no more, or its connection broke.
    Lost,
}

/// How a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It was lost and has not come back.
    Dead,
    /// Its pong is due for longer than usual.
    Late,
    /// It answers.
    Alive,
    /// It left by itself, or was sent away.
    Away,
}

impl Health {
    /// All there are, the worst first.
    pub const ALL: [Self; 4] = [Self::Dead, Self::Late, Self::Alive, Self::Away];

    /// Whether its control socket is there.
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Alive | Self::Late)
    }

    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Late => "late",
            Self::Alive => "alive",
            Self::Away => "away",
        }
    }
}

struct State {
    identity: Identity,
    session: Uuid,
    since: Instant,
    reconnects: u32,
    left: Option<(Instant, Left)>,
    /// When the oldest ping without a pong was sent.
    asked: Option<Instant>,
    heard: Instant,
    /// In milliseconds.
    longest_silence: u32,
    /// In microseconds.
    round_trip: Option<u32>,
    pings: u32,
    pongs: u32,
    missed: u32,
    spread: Spread,
    strip: Strip,
}

/// What operators see of a client at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    /// Who it is.
    pub identity: Identity,
    /// The session that it has, or had last.
    pub session: Uuid,
    /// How it does.
    pub health: Health,
    /// How long that session lasts, or how long ago it ended.
    pub since: Duration,
    /// Sessions before this one.
    pub reconnects: u32,
    /// Since it came, or answered a ping: on the way of what it serves nothing is counted.
    pub silence: Duration,
    /// The longest silence, this one included.
    pub longest_silence: Duration,
    /// Of the last pong.
    pub round_trip: Option<Duration>,
    /// What 99 of 100 round trips are not above.
    pub p99: Option<Duration>,
    /// Pings sent.
    pub pings: u32,
    /// Pings that were answered before the next one.
    pub pongs: u32,
    /// Pings that were not.
    pub missed: u32,
}

impl Pulse {
    /// Of a client that is seen for the first time.
    pub fn new(identity: Identity, session: Uuid) -> Self {
        let now = Instant::now();
        let state = State {
            identity,
            session,
            since: now,
            reconnects: 0,
            left: None,
            asked: None,
            heard: now,
            longest_silence: 0,
            round_trip: None,
            pings: 0,
            pongs: 0,
            missed: 0,
            spread: Spread::default(),
            strip: Strip::default(),
        };
        Self { born: now, state: Mutex::new(state) }
    }

    /// The client is back with a new session, or has one beside the old.
    pub fn resume(&self, identity: Identity, session: Uuid) {
        let now = Instant::now();
        let state = &mut *lock(&self.state);
        state.break_silence(now);
        (state.identity, state.session, state.since) = (identity, session, now);
        state.reconnects = state.reconnects.saturating_add(1);
        (state.left, state.asked) = (None, None);
    }

    /// `session` was sent a ping; gives whether the one before has had no answer.
    pub(super) fn pinged(&self, session: Uuid) -> bool {
        let now = Instant::now();
        let state = &mut *lock(&self.state);
        if state.session != session {
            return false;
        }
        state.pings = state.pings.saturating_add(1);
        let missed = state.asked.is_some();
        if missed {
            state.miss(self.slot(now));
        }
        state.asked.get_or_insert(now);
        missed
    }

    /// A pong came; gives the round trip from the oldest ping that waits, if one does.
    pub(super) fn ponged(&self, session: Uuid) -> Option<Duration> {
        let now = Instant::now();
        let state = &mut *lock(&self.state);
        if state.session != session {
            return None;
        }
        state.break_silence(now);
        let round_trip = now - state.asked.take()?;
        state.pongs = state.pongs.saturating_add(1);
        state.round_trip = Some(u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX));
        state.spread.add(round_trip);
        state.strip.add(self.slot(now), Beat::Pong(round_trip));
        Some(round_trip)
    }

    /// The control socket of `session` is gone; gives whether a ping has had no answer.
    pub(super) fn ended(&self, session: Uuid, left: Left) -> bool {
        let now = Instant::now();
        let state = &mut *lock(&self.state);
        if state.session != session {
            return false;
        }
        state.left = Some((now, left));
        let missed = left == Left::Lost && state.asked.take().is_some();
        if missed {
            state.miss(self.slot(now));
        }
        missed
    }

    /// The session that it has, or had last.
    pub fn session(&self) -> Uuid {
        lock(&self.state).session
    }

    /// Whether its control socket is gone, and where it came from.
    pub fn gone_from(&self) -> Option<IpAddr> {
        let state = lock(&self.state);
        state.left.map(|_| state.identity.address)
    }

    /// How it does, and how long ago it came or answered a ping.
    pub fn health(&self) -> (Health, Duration) {
        let now = Instant::now();
        let state = lock(&self.state);
        (state.health(now), now - state.heard)
    }

    /// All of it.
    pub fn sight(&self) -> Sight {
        let now = Instant::now();
        let state = lock(&self.state);
        let silence = now - state.heard;
        Sight {
            identity: state.identity.clone(),
            session: state.session,
            health: state.health(now),
            since: now - state.left.map_or(state.since, |(at, _)| at),
            reconnects: state.reconnects,
            silence,
            longest_silence: silence.max(Duration::from_millis(state.longest_silence.into())),
            round_trip: state.round_trip.map(|micros| Duration::from_micros(micros.into())),
            p99: state.spread.p99(),
            pings: state.pings,
            pongs: state.pongs,
            missed: state.missed,
        }
    }

    /// The last hour, oldest first: what the pings of each [`SLOT`] came to.
    pub fn strip(&self) -> Vec<Option<Beat>> {
        lock(&self.state).strip.show(self.slot(Instant::now()))
    }

    /// How its round trips are spread.
    pub fn spread(&self) -> Spread {
        lock(&self.state).spread
    }

    fn slot(&self, now: Instant) -> u32 {
        u32::try_from((now - self.born).as_millis() / SLOT.as_millis()).unwrap_or(u32::MAX)
    }
}

impl State {
    fn health(&self, now: Instant) -> Health {
        match (self.left, self.asked) {
            (Some((_, Left::Lost)), _) => Health::Dead,
            (Some((_, Left::Orderly)), _) => Health::Away,
            (None, Some(asked)) if now - asked >= LATE => Health::Late,
            (None, _) => Health::Alive,
        }
    }

    fn break_silence(&mut self, now: Instant) {
        let silence = u32::try_from((now - self.heard).as_millis()).unwrap_or(u32::MAX);
        self.longest_silence = self.longest_silence.max(silence);
        self.heard = now;
    }

    fn miss(&mut self, slot: u32) {
        self.missed = self.missed.saturating_add(1);
        self.strip.add(slot, Beat::Missed);
    }
}

#[cfg(test)]
mod tests;
