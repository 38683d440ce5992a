//! The body of a response of a target that speaks HTTP/2 as it comes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::Frame;
use tokio::task::AbortHandle;

use super::connection::{Place, cause_of};
use crate::relay::carry::Terms;
use crate::relay::errors::Cause;
use crate::relay::exchange::{Account, Broken, Source};

/// What is left of the request while its response goes to the viewer.
pub struct Remainder {
    /// Its task, which goes on if the response is complete before.
    pub task: Option<AbortHandle>,
    /// Bytes that came of it.
    pub received: Arc<AtomicU64>,
    /// Why it failed.
    pub failed: Arc<OnceLock<Cause>>,
}

/// Reads a response body. Dropping it before its end resets the stream.
pub struct StreamBody {
    stream: RecvStream,
    _place: Place,
    remainder: Remainder,
    /// The data is over, and trailers may follow.
    at_trailers: bool,
    /// What had been received at the last look.
    seen: u64,
}

impl StreamBody {
    /// The body that `stream` brings.
    pub fn new(stream: RecvStream, place: Place, remainder: Remainder) -> Self {
        Self { stream, _place: place, remainder, at_trailers: false, seen: 0 }
    }

    /// It broke off: the viewer is told by the code that the target gave, if it did.
    fn broken(&self, error: h2::Error) -> Broken {
        let cause = self.remainder.failed.get().cloned().unwrap_or_else(|| cause_of(&error));
        match error.reason() {
            // A reset without an error would pass for an end.
            Some(Reason::NO_ERROR) | None => Broken::new(cause, io::Error::other(error)),
            Some(reason) => Broken::new(cause, h2::Error::from(reason)),
        }
    }
}

impl Source for StreamBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if !self.at_trailers {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Only a stream that has failed cannot take it, and says so by itself.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.broken(error)))),
                None => self.at_trailers = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(|error| self.broken(error));
        Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
    }

    fn is_over(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn has_moved(&mut self) -> bool {
        let before = self.seen;
        self.seen = self.remainder.received.load(Ordering::Relaxed);
        self.seen != before
    }

    fn complete(self, _: &Terms, _: &mut Account) {}

    fn abandon(self, _: &mut Account) {
        // Without a response to its end, nobody needs the rest of the request.
        if let Some(task) = self.remainder.task {
            task.abort();
        }
    }
}
