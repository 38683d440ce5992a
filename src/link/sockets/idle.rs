//! Data sockets between two requests: which may still be used.

use std::time::Duration;

use tokio::time::Instant;

use super::resting::Resting;
use crate::proto::limits::reuse;
use crate::stream::Duplex;

/// The waiting data sockets of one session, the most recently used last.
#[derive(Default)]
pub(super) struct IdleLanes {
    lanes: Vec<IdleLane>,
}

struct IdleLane {
    resting: Resting,
    /// No use after this.
    until: Instant,
}

impl IdleLanes {
    /// Keeps `stream` for `keep` at most.
    pub(super) fn put(&mut self, stream: Box<dyn Duplex>, keep: Duration) {
        if self.lanes.len() >= reuse::PER_TUNNEL {
            self.lanes.remove(0);
        }
        let now = Instant::now();
        let until = now + keep.min(reuse::MAX_IDLE);
        self.lanes.push(IdleLane { resting: Resting::new(stream, now), until });
    }

    /// The most recently used stream that is alive as far as can be told, and how long it waited.
    pub(super) fn take(&mut self, resendable: bool) -> Option<(Box<dyn Duplex>, Duration)> {
        let now = Instant::now();
        while let Some(lane) = self.lanes.last() {
            let waited = lane.resting.waited(now);
            if !resendable && waited >= reuse::UNSAFE_MAX_IDLE {
                return None;
            }
            let lane = self.lanes.pop()?;
            if now < lane.until
                && let Some(stream) = lane.resting.wake(waited)
            {
                return Some((stream, waited));
            }
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Drops what is over, dead or has spoken out of turn; pings the rest. Whether there is none.
    pub(super) fn tend(&mut self) -> bool {
        let now = Instant::now();
        self.lanes.retain_mut(|lane| now < lane.until && lane.resting.tend());
        self.lanes.is_empty()
    }
}
