//! A target's response on its way to the viewer, wherever its body comes from: turns, limits, and how it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Account;
use crate::proto::limits::turn;
use crate::relay::carry::Terms;
use crate::relay::errors::Cause;
use crate::relay::forward::strip_trailers;
use crate::stream::turn::give_way;
use crate::tunnel::policy::Policy;

/// Where a body comes from.
pub trait Source: Unpin {
    /// Its next piece; trailers are the last one.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>>;

    /// Nothing comes behind what has come.
    fn is_over(&self) -> bool;

    /// How much is to come, where that is known.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }

    /// Whether anything but pieces has moved since the last call.
    fn has_moved(&mut self) -> bool {
        false
    }

    /// The response is complete.
    fn complete(self, terms: &Terms, account: &mut Account);

    /// The viewer left, or it broke off.
    fn abandon(self, account: &mut Account);
}

/// Why a response breaks off, and what the viewer's connection is told.
pub struct Broken {
    /// What is written of it.
    pub cause: Cause,
    /// Ends the viewer's stream or connection.
    pub error: BoxError,
}

impl Broken {
    /// For `cause`, by `error`.
    pub fn new(cause: Cause, error: impl Into<BoxError>) -> Self {
        Self { cause, error: error.into() }
    }
}

/// Streams a response. Dropping it before its end tells the target that the viewer left.
pub struct Delivery<S: Source> {
    /// `None` once the response is complete.
    source: Option<S>,
    terms: Terms,
    account: Account,
    /// What its owner takes out of responses is not to come behind the body, either.
    policy: Option<Arc<Policy>>,
    /// An error that the viewer is not yet told of.
    failed: Option<BoxError>,
    /// Bytes given in this turn.
    turn: usize,
    /// Since the first time that there was nothing to give.
    waiting: Option<Waiting>,
}

impl<S: Source> Delivery<S> {
    /// Of what `source` brings. `policy` is that of the tunnel.
    pub fn new(source: S, terms: Terms, account: Account, policy: Option<&Arc<Policy>>) -> Self {
        let policy = policy.filter(|policy| !policy.response.is_empty()).cloned();
        let over = source.is_over();
        let mut delivery =
            Self { source: Some(source), terms, account, policy, failed: None, turn: 0, waiting: None };
        if over {
            delivery.complete();
        }
        delivery
    }

    fn complete(&mut self) {
        self.account.complete();
        if let Some(source) = self.source.take() {
            source.complete(&self.terms, &mut self.account);
        }
    }

    fn strip(&self, trailers: &mut HeaderMap) {
        strip_trailers(trailers);
        if let Some(policy) = &self.policy {
            policy.response.strip(trailers);
        }
    }
}

impl<S: Source> Body for Delivery<S> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if this.turn >= turn::BYTES {
            this.turn = 0;
            give_way(cx);
            return Poll::Pending;
        }
        let Some(source) = &mut this.source else { return Poll::Ready(None) };
        match source.poll_piece(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                let over = if let Some(data) = frame.data_ref() {
                    this.turn += data.len();
                    // Before the end, which may take the record along.
                    this.account.bytes_out(data.len() as u64);
                    source.is_over()
                } else {
                    frame.trailers_mut().into_iter().for_each(|trailers| this.strip(trailers));
                    true
                };
                if over {
                    this.complete();
                } else if let Some(waiting) = &mut this.waiting {
                    waiting.moved = Instant::now();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(Broken { cause, error }))) => {
                this.account.fail(&cause);
                // At an error hyper throws away what it has not flushed, the head too. It flushes when we are pending.
                this.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => {
                this.turn = 0;
                let waiting = this.waiting.get_or_insert_with(|| Waiting::new(&this.terms));
                waiting.poll(cx, &this.terms, source).map(|Broken { cause, error }| {
                    this.account.fail(&cause);
                    Some(Err(error))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // One that has failed is not complete.
        self.source.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or(SizeHint::with_exact(0), S::size_hint)
    }
}

impl<S: Source> Drop for Delivery<S> {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            source.abandon(&mut self.account);
        }
    }
}

/// While nothing comes: ends after a long silence, or when the tunnel ends.
struct Waiting {
    /// Never reset by a piece, but compared with `moved` when it fires.
    deadline: Pin<Box<Sleep>>,
    moved: Instant,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Waiting {
    fn new(terms: &Terms) -> Self {
        let stopped = Box::pin(terms.running.clone().cancelled_owned());
        Self { moved: Instant::now(), deadline: Box::pin(sleep(terms.idle)), stopped }
    }

    fn poll(&mut self, cx: &mut Context<'_>, terms: &Terms, source: &mut impl Source) -> Poll<Broken> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Broken::new(terms.ending.why_stopped(), "the tunnel has ended"));
        }
        while self.deadline.as_mut().poll(cx).is_ready() {
            if source.has_moved() {
                self.moved = Instant::now();
            }
            let due = self.moved + terms.idle;
            if due <= Instant::now() {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                return Poll::Ready(Broken::new(Cause::TargetSilent, error));
            }
            self.deadline.as_mut().reset(due);
        }
        Poll::Pending
    }
}
