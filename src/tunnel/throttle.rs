//! A common pace for many byte streams: each waits before it passes on what it took. Nothing is lost by it, as whoever
//! sends is read no faster.

use std::io;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

use crate::proto::pace::Pace;
use crate::stream::Duplex;
use crate::sync::lock;

/// What may go ahead of the pace: enough for the timer, which is exact to a millisecond, and too little to be felt.
const AHEAD: Duration = Duration::from_millis(100);
/// Portions are worth this much time, so that many streams of one pace advance together.
const PORTIONS_A_SECOND: u64 = 50;
const LEAST_PORTION: u64 = 1024;
const MOST_PORTION: u64 = 64 * 1024;

/// The pace of all streams that share it.
#[derive(Debug)]
pub struct Throttle {
    pace: Mutex<Pace>,
    portion: usize,
}

impl Throttle {
    /// So many bytes a second, both directions together.
    pub fn new(bytes: NonZeroU64) -> Self {
        let portion = (bytes.get() / PORTIONS_A_SECOND).clamp(LEAST_PORTION, MOST_PORTION);
        Self {
            pace: Mutex::new(Pace::new(bytes, Duration::from_secs(1), AHEAD)),
            portion: usize::try_from(portion).unwrap_or(usize::MAX),
        }
    }

    fn take(&self, bytes: usize) -> Duration {
        lock(&self.pace).take(Instant::now().into_std(), bytes as u64)
    }
}

/// What one stream owes to the pace.
pub struct Meter {
    throttle: Arc<Throttle>,
    /// Came from the stream, and is not all passed on.
    left: Bytes,
    /// Of `left`, what was taken from the pace.
    paid_out: usize,
    out: Wait,
    /// May be written.
    paid_in: usize,
    inward: Wait,
    /// Nothing was written yet: what a request begins with does not wait, or its target would seem to be silent.
    first: bool,
}

impl Meter {
    /// For a stream that goes by `throttle`.
    pub fn new(throttle: Arc<Throttle>) -> Self {
        let (out, inward) = (Wait::default(), Wait::default());
        Self { throttle, left: Bytes::new(), paid_out: 0, out, paid_in: 0, inward, first: true }
    }

    /// Whether something has come that waits.
    pub fn holds(&self) -> bool {
        !self.left.is_empty()
    }
}

/// A wait that may be under way.
#[derive(Default)]
struct Wait(Option<Pin<Box<Sleep>>>);

impl Wait {
    fn begin(&mut self, wait: Duration) {
        self.0 = (!wait.is_zero()).then(|| Box::pin(sleep(wait)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.0 {
            ready!(sleep.as_mut().poll(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }
}

/// A stream that goes by its meter.
pub struct Metered<'a> {
    inner: &'a mut dyn Duplex,
    meter: &'a mut Meter,
}

impl<'a> Metered<'a> {
    /// `meter` stays with `inner` as long as what came on it belongs together.
    pub fn new(inner: &'a mut dyn Duplex, meter: &'a mut Meter) -> Self {
        Self { inner, meter }
    }
}

impl Duplex for Metered<'_> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let meter = &mut *self.meter;
        if meter.left.is_empty() {
            let Some(chunk) = ready!(self.inner.poll_chunk(cx))? else { return Poll::Ready(Ok(None)) };
            meter.left = chunk;
        }
        if meter.paid_out == 0 {
            meter.paid_out = meter.left.len().min(meter.throttle.portion);
            meter.out.begin(meter.throttle.take(meter.paid_out));
        }
        ready!(meter.out.poll(cx));
        Poll::Ready(Ok(Some(meter.left.split_to(std::mem::take(&mut meter.paid_out)))))
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Poll<io::Result<usize>> {
        // How much there is shows by reading it, so it is waited for afterwards.
        ready!(self.meter.inward.poll(cx));
        let count = ready!(self.inner.poll_fill(cx, source))?;
        self.meter.inward.begin(self.meter.throttle.take(count));
        Poll::Ready(Ok(count))
    }

    fn ping(&mut self) {
        self.inner.ping();
    }

    fn ponged(&self) -> bool {
        self.inner.ponged()
    }

    fn say(&mut self, text: &str) {
        self.inner.say(text);
    }

    fn half_closes(&self) -> bool {
        self.inner.half_closes()
    }

    fn is_over(&self) -> bool {
        self.inner.is_over()
    }

    fn dismiss(&mut self) {
        self.inner.dismiss();
    }

    fn rest(&mut self) {
        self.inner.rest();
    }
}

impl AsyncWrite for Metered<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let meter = &mut *this.meter;
        if meter.paid_in == 0 {
            let portion = if meter.first { MOST_PORTION as usize } else { meter.throttle.portion };
            meter.paid_in = data.len().min(portion);
            let wait = meter.throttle.take(meter.paid_in);
            if !std::mem::take(&mut meter.first) {
                meter.inward.begin(wait);
            }
        }
        ready!(meter.inward.poll(cx));
        let most = data.len().min(meter.paid_in);
        let count = ready!(Pin::new(&mut *this.inner).poll_write(cx, &data[..most]))?;
        meter.paid_in -= count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}
