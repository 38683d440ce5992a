//! Waiting data sockets under threads that take and return them: each is given to one at a time, and none is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, pin::Pin};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

use super::standby::Admitted;
use super::*;
use crate::proto::api::Proto;

/// A quiet stream that knows whether somebody has it, and how many of its kind there are.
struct Watched {
    there: Arc<AtomicUsize>,
    taken: AtomicBool,
}

impl Watched {
    fn boxed(there: &Arc<AtomicUsize>) -> Box<dyn Duplex> {
        there.fetch_add(1, Ordering::SeqCst);
        Box::new(Self { there: Arc::clone(there), taken: AtomicBool::new(false) })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.there.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsyncWrite for Watched {
    /// A byte says that the stream is taken, none that it is given back: it must be the other way before.
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        assert_ne!(
            self.taken.swap(!data.is_empty(), Ordering::SeqCst),
            !data.is_empty(),
            "two have it at once"
        );
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Duplex for Watched {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        Poll::Pending
    }

    fn poll_fill(
        &mut self,
        _: &mut Context<'_>,
        _: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

fn mark(lane: &mut Lane, taken: bool) {
    let data: &[u8] = if taken { b"x" } else { b"" };
    let _ = Pin::new(&mut lane.stream).poll_write(&mut Context::from_waker(std::task::Waker::noop()), data);
}

fn session(standby: usize) -> (Arc<Session>, Arc<Pending>, mpsc::Receiver<Box<ToClient>>) {
    let pending = Arc::new(Pending::default());
    let opened = Opened { recent: true, ..Opened::of_tests(Level::Two) };
    let limits = Limits { standby_per_tunnel: standby, ..Limits::default() };
    let (session, said) = Session::new(opened, Level::Two, Arc::clone(&pending), &limits);
    (session, pending, said)
}

fn ask() -> Ask {
    Ask { resendable: true, remote: ([192, 0, 2, 1], 1).into(), proto: Proto::Http, unused: false }
}

const KEEP: Duration = Duration::from_secs(50);

#[test]
fn an_idle_lane_is_given_to_one_request_at_a_time_and_none_is_lost() {
    let (session, _pending, _said) = session(0);
    let there = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        session.take_back(Watched::boxed(&there), KEEP);
    }
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..500 {
                    let Some(mut lane) = session.ready(ask()) else { continue };
                    mark(&mut lane, true);
                    served.fetch_add(1, Ordering::SeqCst);
                    if round % 50 == 0 {
                        session.tend();
                    }
                    mark(&mut lane, false);
                    lane.give_back(KEEP);
                }
            });
        }
    });
    assert!(served.load(Ordering::SeqCst) > 0);
    let mut left = Vec::new();
    while let Some(lane) = session.ready(ask()) {
        left.push(lane);
    }
    assert_eq!((left.len(), there.load(Ordering::SeqCst)), (3, 3));
    // What is taken when the session ends is not taken back; what waits is let go.
    if let Some(lane) = left.pop() {
        lane.give_back(KEEP);
    }
    session.end(End::Deleted);
    left.into_iter().for_each(|lane| lane.give_back(KEEP));
    assert_eq!(there.load(Ordering::SeqCst), 0);
}

#[test]
fn a_standby_socket_is_given_to_one_viewer_and_the_count_of_all_is_exact() {
    let (session, pending, _said) = session(4);
    let there = Arc::new(AtomicUsize::new(0));
    let (admitted, assigned) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for round in 0..500 {
                    let id = Uuid::new_v4().to_string();
                    let Ok(taken) = session.clone().admit_standby(&id) else { continue };
                    admitted.fetch_add(1, Ordering::SeqCst);
                    // The same id again is refused while it is under way.
                    assert!(session.clone().admit_standby(&id).is_err());
                    if round % 7 != 0 {
                        Admitted::deliver(taken, Watched::boxed(&there));
                    }
                }
            });
            scope.spawn(|| {
                for _ in 0..500 {
                    let Some(mut lane) = session.ready(ask()) else { continue };
                    mark(&mut lane, true);
                    assigned.fetch_add(1, Ordering::SeqCst);
                    assert!(lane.rejected.is_some() && !lane.reused);
                }
            });
        }
    });
    let counted = pending.standby.load(Ordering::Relaxed);
    assert_eq!(counted, there.load(Ordering::SeqCst), "what waits, and nothing else, is counted");
    assert!(counted <= 8 && assigned.load(Ordering::SeqCst) <= admitted.load(Ordering::SeqCst));
    session.end(End::Deleted);
    assert_eq!((pending.standby.load(Ordering::Relaxed), there.load(Ordering::SeqCst)), (0, 0));
}

#[test]
fn a_standby_socket_that_is_delivered_leaves_room_for_the_next_at_once() {
    let (session, _pending, _said) = session(4);
    let there = Arc::new(AtomicUsize::new(0));
    // One is asked for at first, and as many as viewers come.
    for _ in 0..2 {
        let _ = session.ready(ask());
    }
    for _ in 0..2 {
        let id = Uuid::new_v4().to_string();
        let admitted = session.clone().admit_standby(&id).unwrap();
        // It is known as long as it is under way, and then as one that waits.
        assert_eq!(session.clone().admit_standby(&id).err(), Some(StandbyError::InUse));
        admitted.deliver(Watched::boxed(&there));
        assert_eq!(session.clone().admit_standby(&id).err(), Some(StandbyError::InUse));
    }
    let third = session.admit_standby(&Uuid::new_v4().to_string());
    assert_eq!(third.err(), Some(StandbyError::TooMany(2)));
}
