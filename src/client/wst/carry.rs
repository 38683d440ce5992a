//! One stream that the relay has opened: joined to the target, copied both ways until both ended.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::heard::Heard;
use crate::client::event::{Connected, Events};
use crate::client::serve::IDLE;
use crate::client::target::Target;
use crate::proto::limits::worker::{ANSWER_WAIT, TAKEN_WAIT};
use crate::stream::splice::{HalfClose, Moved, Splice};
use crate::stream::wsmux::Stream;

/// What all streams of a worker need.
pub(super) struct Carrier {
    pub(super) target: Target,
    pub(super) events: Events,
    /// The target was not reached the last time, which was told.
    down: AtomicBool,
}

impl Carrier {
    pub(super) fn new(target: Target, events: Events) -> Self {
        Self { target, events, down: AtomicBool::new(false) }
    }

    /// Serves `stream` to its end. One whose target cannot be reached ends at once: the wire has no other word for it.
    pub(super) async fn carry(&self, mut stream: Stream) {
        let began = Instant::now();
        let mut target = match self.target.connect().await {
            Ok(target) => target,
            Err(error) => {
                tracing::debug!(%error, "target not reached");
                if !self.down.swap(true, Ordering::Relaxed) {
                    self.events.target_down(error);
                }
                return;
            }
        };
        self.down.store(false, Ordering::Relaxed);
        let mut splice = Splice::new(HalfClose::Kept);
        let ended = copy(&mut splice, &mut target, &mut stream).await;
        if let Err(error) = &ended {
            tracing::debug!(%error, "stream broke off");
            // A plain end would make what was cut short look complete.
            target.reset_on_close();
        }
        if self.events.wants_requests() {
            // Towards the target is what the stream gave.
            let Moved { inward: bytes_out, outward: bytes_in } = splice.moved;
            let (duration, whole) = (began.elapsed(), ended.is_ok());
            self.events.connection(Connected { viewer: None, duration, bytes_in, bytes_out, whole });
        }
    }
}

/// Copies both ways. When the relay has ended its direction, the target may not be silent for longer than
/// [`ANSWER_WAIT`]; when the target has, the relay for no longer than [`TAKEN_WAIT`].
async fn copy<T>(splice: &mut Splice, target: &mut T, stream: &mut Stream) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
{
    let mut target = Heard { io: target, silent: false };
    loop {
        let (before, ended) = (splice.moved, (splice.inward_ended(), splice.outward_ended()));
        let wait = match ended {
            (_, true) => ANSWER_WAIT,
            (true, false) => TAKEN_WAIT,
            (false, false) => IDLE,
        };
        let copied = poll_fn(|cx| match splice.poll(cx, &mut target, stream) {
            // From now on less silence is borne.
            Poll::Pending if (splice.inward_ended(), splice.outward_ended()) != ended => Poll::Ready(None),
            copied => copied.map(Some),
        });
        match timeout(wait, copied).await {
            Ok(Some(ended)) => return ended,
            // A viewer that does not take what the target has said makes no silence of the target's.
            Err(_) if splice.moved == before && (target.silent || !ended.1) => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Ok(None) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::stream::wsmux::{Role, Session, Settings};

    /// A stream whose other end is in our hands, and the clock stopped.
    async fn pair() -> (Stream, Stream, [Session; 2]) {
        let (near, far) = duplex(64 * 1024);
        let (relay, driver) = Session::new(near, Role::Server, Settings::default());
        tokio::spawn(driver.run());
        let (worker, driver) = Session::new(far, Role::Client, Settings::default());
        tokio::spawn(driver.run());
        let (opened, accepted) = tokio::join!(relay.open(), worker.accept());
        (opened.unwrap(), accepted.unwrap(), [relay, worker])
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_is_silent_after_the_end_of_the_question_is_given_up_in_a_minute() {
        let (mut viewer, mut stream, _sessions) = pair().await;
        let (mut near, mut target) = duplex(1024);
        let began = Instant::now();
        let mut splice = Splice::new(HalfClose::Kept);
        let (ended, ()) = tokio::join!(copy(&mut splice, &mut near, &mut stream), async {
            viewer.write_all(b"abc").await.unwrap();
            // Before the end of the question silence is no fault.
            tokio::time::sleep(5 * ANSWER_WAIT).await;
            viewer.shutdown().await.unwrap();
            let mut question = Vec::new();
            target.read_to_end(&mut question).await.unwrap();
            assert_eq!(question, b"abc");
            tokio::time::sleep(ANSWER_WAIT / 2).await;
            target.write_all(b"x").await.unwrap();
            assert_eq!(viewer.read_u8().await.unwrap(), b'x');
        });
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let waited = began.elapsed() - 5 * ANSWER_WAIT;
        assert!((ANSWER_WAIT..ANSWER_WAIT * 3).contains(&waited), "{waited:?}");
        drop(stream);
        assert_eq!(viewer.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_takes_nothing_makes_no_silence_of_the_target_s() {
        let (mut viewer, mut stream, _sessions) = pair().await;
        let (mut near, mut target) = duplex(1024 * 1024);
        // More than the window of the stream.
        let answer = vec![7; 8 << 20];
        let mut splice = Splice::new(HalfClose::Kept);
        let (ended, (), ()) = tokio::join!(
            copy(&mut splice, &mut near, &mut stream),
            async {
                target.write_all(&answer).await.unwrap();
                target.shutdown().await.unwrap();
            },
            async {
                viewer.shutdown().await.unwrap();
                tokio::time::sleep(10 * ANSWER_WAIT).await;
                let mut taken = Vec::new();
                viewer.read_to_end(&mut taken).await.unwrap();
                assert!(taken == answer);
            }
        );
        ended.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_has_ended_does_not_wait_for_ever_for_the_end_of_the_question() {
        let (mut viewer, mut stream, _sessions) = pair().await;
        let (mut near, mut target) = duplex(1024);
        let mut splice = Splice::new(HalfClose::Kept);
        let (ended, ()) = tokio::join!(copy(&mut splice, &mut near, &mut stream), async {
            target.shutdown().await.unwrap();
            assert_eq!(viewer.read(&mut [0]).await.unwrap(), 0);
        });
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
