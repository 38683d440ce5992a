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
    /// Gone once it has been woken.
    stream: Option<Box<dyn Duplex>>,
    since: Instant,
    pinged: Instant,
}

impl Resting {
    pub(super) fn new(stream: Box<dyn Duplex>, now: Instant) -> Self {
        Self { stream: Some(stream), since: now, pinged: now }
    }

    /// How long it has waited.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.duration_since(self.since)
    }

    /// The stream, which has `waited` so long, unless something came on it. One that waited for long has a ping queued,
    /// which goes out with the request.
    pub(super) fn wake(mut self, waited: Duration) -> Option<Box<dyn Duplex>> {
        let mut stream = self.stream.take()?;
        if !quiet(stream.as_mut()) {
            return None;
        }
        if waited > reuse::PROBE_AFTER {
            stream.ping();
        }
        Some(stream)
    }

    /// Whether it is still of use: it has not spoken out of turn, and answers pings. Pings when it is time.
    pub(super) fn tend(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        if !quiet(stream.as_mut()) {
            return false;
        }
        let since_ping = self.pinged.elapsed();
        if since_ping >= reuse::PONG_WAIT && !stream.ponged() {
            return false;
        }
        if since_ping >= reuse::PING_EVERY {
            self.pinged = Instant::now();
            stream.ping();
            let mut cx = Context::from_waker(Waker::noop());
            return !matches!(Pin::new(stream.as_mut()).poll_flush(&mut cx), Poll::Ready(Err(_)));
        }
        true
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.dismiss();
        }
    }
}
