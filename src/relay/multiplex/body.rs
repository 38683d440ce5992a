//! The body of a response of a target that speaks HTTP/2 on its way to the viewer.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::connection::{Place, cause_of};
use crate::proto::limits::turn;
use crate::relay::ending::Ending;
use crate::relay::errors::Cause;
use crate::relay::exchange::Account;
use crate::relay::forward::strip_trailers;
use crate::stream::turn::give_way;
use crate::tunnel::policy::Policy;

/// What is left of the request while its response goes to the viewer.
pub struct Remainder {
    /// Its task, which goes on if the response is complete before.
    pub task: Option<AbortHandle>,
    /// Bytes that came of it.
    pub received: Arc<AtomicU64>,
    /// Why it failed.
    pub failed: Arc<OnceLock<Cause>>,
}

/// How long, and what may end it.
pub struct Terms {
    /// Silence of both sides.
    pub idle: Duration,
    /// The tunnel goes on.
    pub running: CancellationToken,
    /// Why it does not.
    pub ending: Arc<Ending>,
    /// What its owner wants of responses.
    pub policy: Option<Arc<Policy>>,
}

/// Streams a response. Dropping it before its end resets the stream, which tells the target that the viewer left.
pub struct StreamBody {
    /// `None` once the response is complete.
    stream: Option<(RecvStream, Place)>,
    remainder: Remainder,
    terms: Terms,
    account: Account,
    /// An error that the viewer is not yet told of.
    failed: Option<axum::BoxError>,
    /// The data is over, and trailers may follow.
    at_trailers: bool,
    /// Bytes given in this turn.
    turn: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    moved: Instant,
    /// What had been received at the last look.
    seen: u64,
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl StreamBody {
    /// The body that `stream` brings.
    pub fn new(
        stream: RecvStream,
        place: Place,
        remainder: Remainder,
        terms: Terms,
        account: Account,
    ) -> Self {
        let ended = stream.is_end_stream();
        let mut body = Self {
            stream: Some((stream, place)),
            remainder,
            terms,
            account,
            failed: None,
            at_trailers: false,
            turn: 0,
            deadline: None,
            moved: Instant::now(),
            seen: 0,
            stopped: None,
        };
        if ended {
            body.complete();
        }
        body
    }

    fn complete(&mut self) {
        self.account.complete();
        self.remainder.task = None;
        self.stream = None;
    }

    /// It broke off: the viewer is told by the code that the target gave, if it did.
    fn break_off(&mut self, error: h2::Error) -> axum::BoxError {
        let cause = self.remainder.failed.get().cloned().unwrap_or_else(|| cause_of(&error));
        self.account.fail(&cause);
        // A reset without an error would pass for an end.
        match error.reason() {
            Some(Reason::NO_ERROR) | None => io::Error::other(error).into(),
            Some(reason) => h2::Error::from(reason).into(),
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let Some((stream, _)) = &mut self.stream else { return Poll::Ready(None) };
        if !self.at_trailers {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Only a stream that has failed cannot take it, and says so by itself.
                    let _ = stream.flow_control().release_capacity(data.len());
                    let ended = stream.is_end_stream();
                    self.account.bytes_out(data.len() as u64);
                    if ended {
                        self.complete();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.break_off(error)))),
                None => self.at_trailers = true,
            }
        }
        match ready!(stream.poll_trailers(cx)) {
            Ok(trailers) => {
                self.complete();
                Poll::Ready(trailers.map(|mut trailers| {
                    strip_trailers(&mut trailers);
                    if let Some(policy) = &self.terms.policy {
                        policy.response.strip(&mut trailers);
                    }
                    Ok(Frame::trailers(trailers))
                }))
            }
            Err(error) => Poll::Ready(Some(Err(self.break_off(error)))),
        }
    }

    /// While nothing comes: ends after a long silence, or when the tunnel ends.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<axum::BoxError> {
        let running = &self.terms.running;
        let stopped = self.stopped.get_or_insert_with(|| Box::pin(running.clone().cancelled_owned()));
        if stopped.as_mut().poll(cx).is_ready() {
            self.account.fail(&self.terms.ending.why_stopped());
            return Poll::Ready("the tunnel has ended".into());
        }
        let idle = self.terms.idle;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(idle)));
        while deadline.as_mut().poll(cx).is_ready() {
            let received = self.remainder.received.load(Ordering::Relaxed);
            if received != self.seen {
                (self.seen, self.moved) = (received, Instant::now());
            }
            let due = self.moved + idle;
            if due <= Instant::now() {
                self.account.fail(&Cause::TargetSilent);
                return Poll::Ready(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            deadline.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        // Without a response to its end, nobody needs the rest of the request.
        if let Some(task) = &self.remainder.task {
            task.abort();
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if this.turn >= turn::BYTES {
            this.turn = 0;
            give_way(cx);
            return Poll::Pending;
        }
        match this.poll_piece(cx) {
            Poll::Ready(Some(Err(error))) => {
                // At an error hyper throws away what it has not flushed, the head too. It flushes when we are pending.
                this.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(piece) => {
                let data = piece.as_ref().and_then(|piece| piece.as_ref().ok()?.data_ref());
                this.turn += data.map_or(0, Bytes::len);
                if this.deadline.is_some() {
                    this.moved = Instant::now();
                }
                Poll::Ready(piece)
            }
            Poll::Pending => {
                this.turn = 0;
                this.poll_waiting(cx).map(|error| Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_none() && self.failed.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}
