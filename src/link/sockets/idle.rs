//! Data sockets between two requests: which may still be used, which are to be pinged, which are dead.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::link::quiet;
use crate::proto::limits::reuse;
use crate::stream::Duplex;

/// The waiting data sockets of one session, the most recently used last.
#[derive(Default)]
pub(super) struct IdleLanes {
    lanes: Vec<IdleLane>,
}

struct IdleLane {
    stream: Box<dyn Duplex>,
    since: Instant,
    /// No use after this.
    until: Instant,
    pinged: Instant,
}

impl IdleLanes {
    /// Keeps `stream` for `keep` at most.
    pub(super) fn put(&mut self, stream: Box<dyn Duplex>, keep: Duration) {
        let now = Instant::now();
        if self.lanes.len() >= reuse::PER_TUNNEL {
            self.lanes.remove(0);
        }
        self.lanes.push(IdleLane { stream, since: now, until: now + keep.min(reuse::MAX_IDLE), pinged: now });
    }

    /// The most recently used stream that is alive as far as can be told, and how long it waited. One that waited for
    /// long has a ping queued, which goes out with the request.
    pub(super) fn take(&mut self, resendable: bool) -> Option<(Box<dyn Duplex>, Duration)> {
        let now = Instant::now();
        while let Some(lane) = self.lanes.last() {
            let waited = now.duration_since(lane.since);
            if !resendable && waited >= reuse::UNSAFE_MAX_IDLE {
                return None;
            }
            let Some(mut lane) = self.lanes.pop() else { break };
            if now < lane.until && quiet(lane.stream.as_mut()) {
                if waited > reuse::PROBE_AFTER {
                    lane.stream.ping();
                }
                return Some((lane.stream, waited));
            }
        }
        None
    }

    /// Drops what is over, dead or has spoken out of turn; pings the rest.
    pub(super) fn tend(&mut self) {
        let now = Instant::now();
        self.lanes.retain_mut(|lane| {
            if now >= lane.until || !quiet(lane.stream.as_mut()) {
                return false;
            }
            let since_ping = now.duration_since(lane.pinged);
            if since_ping >= reuse::PONG_WAIT && !lane.stream.ponged() {
                return false;
            }
            if since_ping >= reuse::PING_EVERY {
                lane.pinged = now;
                lane.stream.ping();
                let mut cx = Context::from_waker(Waker::noop());
                return !matches!(Pin::new(lane.stream.as_mut()).poll_flush(&mut cx), Poll::Ready(Err(_)));
            }
            true
        });
    }
}
