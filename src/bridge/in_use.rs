//! Whether a connection is still of use to its viewer: it may be there only for as long as it is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::sleep;

use super::refusal::Body;
use crate::proto::limits::bridge::UNUSED;

/// What goes on at one connection.
#[derive(Debug, Default)]
pub(super) struct InUse {
    /// Requests that are being answered, and sessions.
    held: AtomicUsize,
    /// Grows with each request and each part of a body that is taken.
    steps: AtomicUsize,
}

impl InUse {
    /// A request has come; it, or the session that it becomes, is there until the guard is dropped.
    pub(super) fn hold(self: &Arc<Self>) -> Held {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.held.fetch_add(1, Ordering::AcqRel);
        Held(Arc::clone(self))
    }

    /// The same body. A part of it that the viewer takes is a sign of use; that there is more of it is none.
    pub(super) fn body(self: &Arc<Self>, body: Body) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return body;
        }
        Taken { body, in_use: Arc::clone(self) }.boxed_unsync()
    }

    /// Ready when there was no request within `first`, or nothing at all for [`UNUSED`], or `first` if that is longer.
    pub(super) async fn over(&self, first: Duration) {
        let mut seen = self.steps.load(Ordering::Relaxed);
        loop {
            sleep(if seen == 0 { first } else { UNUSED.max(first) }).await;
            let steps = self.steps.load(Ordering::Relaxed);
            if self.held.load(Ordering::Acquire) == 0 && steps == seen {
                return;
            }
            seen = steps;
        }
    }
}

/// See [`InUse::hold`].
#[derive(Debug)]
pub(super) struct Held(Arc<InUse>);

impl Drop for Held {
    fn drop(&mut self) {
        // What has just ended counts from now on.
        self.0.steps.fetch_add(1, Ordering::Relaxed);
        self.0.held.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Taken {
    body: Body,
    in_use: Arc<InUse>,
}

impl http_body::Body for Taken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.in_use.steps.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::time::{Instant, timeout};

    use super::*;

    const FIRST: Duration = Duration::from_secs(10);

    async fn after(in_use: &InUse) -> Duration {
        let began = Instant::now();
        timeout(Duration::from_secs(3600), in_use.over(FIRST)).await.unwrap();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_over_sooner_than_one_with() {
        let in_use = Arc::new(InUse::default());
        assert_eq!(after(&in_use).await, FIRST);
        drop(in_use.hold());
        assert_eq!(after(&in_use).await, UNUSED);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_waited_for_as_long_as_parts_of_it_are_taken() {
        let in_use = Arc::new(InUse::default());
        drop(in_use.hold());
        let whole = Full::new(Bytes::from_static(b"x")).map_err(|never| match never {}).boxed_unsync();
        let mut body = in_use.body(whole);
        let taken = async {
            sleep(UNUSED / 2).await;
            let frame = body.frame().await;
            (frame, body)
        };
        let (over, (frame, _body)) = tokio::join!(after(&in_use), taken);
        assert!(frame.is_some());
        assert_eq!(over, 2 * UNUSED, "that the body is there does not count");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_keeps_its_connection() {
        let in_use = Arc::new(InUse::default());
        let held = in_use.hold();
        assert!(timeout(10 * UNUSED, in_use.over(FIRST)).await.is_err());
        drop(held);
        assert!(after(&in_use).await <= 2 * UNUSED);
    }
}
