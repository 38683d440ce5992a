//! Whether the other end of a session lives: pings, what comes, and whether anything goes out.

use std::time::{Duration, Instant};

use super::ended::Ended;
use crate::proto::limits::wsmux::{LATE, PINGS_UNANSWERED};

/// Pings at the start and at each tick. An end that was silent from one tick to the next is dead, and so is one that
/// sends without ever answering, or that takes nothing.
#[derive(Debug)]
pub(super) struct Life {
    ping_every: Duration,
    write_wait: Duration,
    next: Instant,
    ping_due: bool,
    /// Something has come since the last tick.
    heard: bool,
    last_pong: Instant,
    /// Nothing went out since, though something is to be sent.
    stuck_since: Option<Instant>,
}

impl Life {
    pub(super) fn new(now: Instant, ping_every: Duration, write_wait: Duration) -> Self {
        Self {
            ping_every,
            write_wait,
            next: now + ping_every,
            ping_due: true,
            heard: false,
            last_pong: now,
            stuck_since: None,
        }
    }

    /// Anything came.
    pub(super) fn heard(&mut self) {
        self.heard = true;
    }

    pub(super) fn ponged(&mut self, now: Instant) {
        self.heard = true;
        self.last_pong = now;
    }

    /// The socket took some of what is to be sent, or not, and takes no more just now if it is `stuck`.
    pub(super) fn wrote(&mut self, now: Instant, some: bool, stuck: bool) {
        let since = self.stuck_since.filter(|_| !some).unwrap_or(now);
        self.stuck_since = stuck.then_some(since);
    }

    pub(super) fn timeout(&self) -> Instant {
        self.stuck_since.map_or(self.next, |since| self.next.min(since + self.write_wait))
    }

    pub(super) fn wake(&mut self, now: Instant) -> Result<(), Ended> {
        if now >= self.timeout() + LATE {
            // What came meanwhile lies there unread.
            self.last_pong = now;
            self.heard = true;
            self.stuck_since = self.stuck_since.map(|_| now);
            self.next = now;
        }
        if self.stuck_since.is_some_and(|since| now >= since + self.write_wait) {
            return Err(Ended::Stuck);
        }
        if now < self.next {
            return Ok(());
        }
        if !self.heard || now >= self.last_pong + self.ping_every * PINGS_UNANSWERED {
            return Err(Ended::Silent);
        }
        (self.heard, self.ping_due) = (false, true);
        self.next = now + self.ping_every;
        Ok(())
    }

    /// Whether a ping is to go out; asking takes it.
    pub(super) fn ping(&mut self) -> bool {
        std::mem::take(&mut self.ping_due)
    }
}
