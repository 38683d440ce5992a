//! A data socket that waits: whether it is alive, as far as can be told, and its pings.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::link::quiet;
use crate::proto::limits::reuse;
use crate::stream::Duplex;

/// One waiting data socket.
pub(super) struct Resting {
    stream: Box<dyn Duplex>,
    since: Instant,
    pinged: Instant,
}

impl Resting {
    pub(super) fn new(stream: Box<dyn Duplex>) -> Self {
        let now = Instant::now();
        Self { stream, since: now, pinged: now }
    }

    /// How long it has waited.
    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// The stream, unless something came on it. One that waited for long has a ping queued, which goes out with the
    /// request.
    pub(super) fn wake(mut self) -> Option<Box<dyn Duplex>> {
        if !quiet(self.stream.as_mut()) {
            return None;
        }
        if self.waited() > reuse::PROBE_AFTER {
            self.stream.ping();
        }
        Some(self.stream)
    }

    /// Whether it is still of use: it has not spoken out of turn, and answers pings. Pings when it is time.
    pub(super) fn tend(&mut self) -> bool {
        if !quiet(self.stream.as_mut()) {
            return false;
        }
        let since_ping = self.pinged.elapsed();
        if since_ping >= reuse::PONG_WAIT && !self.stream.ponged() {
            return false;
        }
        if since_ping >= reuse::PING_EVERY {
            self.pinged = Instant::now();
            self.stream.ping();
            let mut cx = Context::from_waker(Waker::noop());
            return !matches!(Pin::new(self.stream.as_mut()).poll_flush(&mut cx), Poll::Ready(Err(_)));
        }
        true
    }
}
