//! Every order in which a viewer, two claimants, the control socket and the end of a session can meet.
//!
//! Each step below touches one shared thing: the table, under its lock, or one channel. So whatever threads do is an
//! order of these steps, and all of them are tried.

use std::future::Future;
use std::task::{Poll, Waker};

use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;

use super::*;
use crate::link::sockets::{End, Opened};
use crate::link::{Ask, Lane, Link};
use crate::proto::api::Proto;
use crate::proto::limits::Limits;

/// Calls `visit` with each order in which every actor does its steps one after the other; an actor is named by its
/// place in `steps`, which says how many it has.
pub fn each_order(steps: &[usize], mut visit: impl FnMut(&[usize])) -> usize {
    fn go(left: &mut [usize], order: &mut Vec<usize>, visit: &mut impl FnMut(&[usize])) -> usize {
        if left.iter().all(|left| *left == 0) {
            visit(order);
            return 1;
        }
        let mut orders = 0;
        for actor in 0..left.len() {
            if left[actor] > 0 {
                left[actor] -= 1;
                order.push(actor);
                orders += go(left, order, visit);
                order.pop();
                left[actor] += 1;
            }
        }
        orders
    }
    go(&mut steps.to_vec(), &mut Vec::new(), &mut visit)
}

fn session(level: Level, pending: &Arc<Pending>) -> (Arc<Session>, mpsc::Receiver<Box<ToClient>>) {
    let opened = Opened { recent: false, ..Opened::of_tests(level) };
    Session::new(opened, level, Arc::clone(pending), &Limits { standby_per_tunnel: 0, ..Limits::default() })
}

fn alice() -> Option<Bearer<'static>> {
    Some(Bearer { owner: "alice", tunnel: None })
}

fn rejection() -> Rejection {
    Rejection { reason: "refused".to_owned(), message: None }
}

/// What the future is now. Unconstrained: a share of the scheduler that is used up would make it look pending.
fn now<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::pin!(unconstrained(future)).poll(&mut Context::from_waker(Waker::noop()))
}

/// A client that dials: it claims, and then its socket is switched over, or lost.
#[derive(Default)]
struct Dialler {
    claim: Option<Claim>,
    claimed: bool,
    far: Option<DuplexStream>,
}

impl Dialler {
    fn claim(&mut self, pending: &Pending, id: &str) {
        self.claim = pending.claim(id, alice()).ok();
        self.claimed = self.claim.is_some();
    }

    fn deliver(&mut self) {
        if let Some(claim) = self.claim.take() {
            let (near, far) = duplex(256);
            claim.deliver(near, BytesMut::new(), Sizes { buffer: 4096, message: 4096 });
            self.far = Some(far);
        }
    }

    /// Whether the socket that was delivered is closed by the relay; one that was not delivered counts as closed.
    fn is_closed(&mut self) -> bool {
        let Some(far) = &mut self.far else { return true };
        let mut bytes = Vec::new();
        now(&mut std::pin::pin!(far.read_to_end(&mut bytes))).is_ready()
    }
}

fn cancels(said: &mut mpsc::Receiver<Box<ToClient>>) -> usize {
    let mut cancels = 0;
    while let Ok(message) = said.try_recv() {
        cancels += usize::from(matches!(*message, ToClient::Cancel { .. }));
    }
    cancels
}

/// A viewer that leaves in two steps, as its future is dropped: first what it waits for, then its ticket.
struct Leaving {
    ticket: Option<Ticket>,
    claimed: Option<Claimed>,
    /// What the viewer saw before it left.
    saw: Vec<Result<Box<dyn Duplex>, OpenError>>,
    rejected: bool,
}

impl Leaving {
    fn look(&mut self) {
        if self.saw.is_empty()
            && let Some(claimed) = &mut self.claimed
            && let Poll::Ready(outcome) = now(claimed)
        {
            self.saw.push(outcome);
        }
        if !self.rejected
            && let Some(ticket) = &mut self.ticket
            && let Poll::Ready(told) = now(ticket)
        {
            assert_eq!(told, rejection());
            self.rejected = true;
        }
    }
}

#[test]
fn whatever_the_order_a_claim_is_good_once_and_a_cancel_is_said_to_who_has_not_claimed() {
    let mut orders = 0;
    for (level, switched) in [(Level::Base, true), (Level::Two, true), (Level::Two, false)] {
        // The viewer leaves in 2 steps, two claimants take 2 each, the control socket rejects, the relay closes.
        orders += each_order(&[2, 2, 2, 1, 1], |order| {
            let pending = Arc::new(Pending::default());
            let (session, mut said) = session(level, &pending);
            let (ticket, claimed) = pending
                .announce(&Arc::downgrade(&session), session.addressee(), Duration::from_secs(10))
                .unwrap();
            let id = ticket.id().to_string();
            let mut viewer =
                Leaving { ticket: Some(ticket), claimed: Some(claimed), saw: Vec::new(), rejected: false };
            let mut diallers = [Dialler::default(), Dialler::default()];
            // What the table must hold, and what the client must have been told.
            let (mut announced, mut waiting, mut told) = (true, true, 0);
            let mut done = [0; 5];
            for actor in order {
                done[*actor] += 1;
                match (actor, done[*actor]) {
                    (0, 1) => viewer.claimed = None,
                    (0, _) => {
                        told += usize::from(announced && waiting);
                        announced = false;
                        viewer.ticket = None;
                    }
                    (1 | 2, 1) => {
                        let dialler = &mut diallers[actor - 1];
                        dialler.claim(&pending, &id);
                        let good = announced && waiting && viewer.claimed.is_some();
                        assert_eq!(dialler.claimed, good, "{order:?}");
                        waiting &= !announced;
                    }
                    (1 | 2, _) if switched => diallers[actor - 1].deliver(),
                    // The handshake failed behind its 101.
                    (1 | 2, _) => diallers[actor - 1].claim = None,
                    (3, _) => {
                        // Another session's word counts for nothing.
                        pending.reject(&id, Uuid::from_u128(7), rejection());
                        assert_eq!(pending.knows(Uuid::parse_str(&id).unwrap()), announced);
                        pending.reject(&id, session.id(), rejection());
                        announced = false;
                    }
                    _ => pending.close(),
                }
                viewer.look();
                assert_eq!(pending.waiting(), usize::from(announced && waiting), "{order:?}");
            }
            assert_eq!(cancels(&mut said), told, "{order:?}");
            drop(viewer);
            assert!(diallers.iter_mut().all(Dialler::is_closed), "{order:?}: a socket is left over");
            assert!(lock(&pending.table).is_empty(), "{order:?}: something is left in the table");
        });
    }
    println!("{orders} orders");
}

/// What a viewer's wait for a lane can meet; each comes once.
const MEETS: [&str; 5] = ["claim", "deliver", "reject", "taken over", "too late"];

#[tokio::test(start_paused = true)]
async fn whatever_the_order_a_viewer_that_waits_has_one_outcome_and_a_delivered_stream_is_used() {
    let ask = Ask { resendable: true, remote: ([192, 0, 2, 1], 1).into(), proto: Proto::Http, unused: false };
    let mut orders = Vec::new();
    // The claimant's two steps are in order; everything else is in any, and the viewer looks after any of them.
    each_order(&[2, 1, 1, 1], |order| orders.push(order.to_vec()));
    for (order, looks) in orders.iter().flat_map(|order| (0..32_u32).map(move |looks| (order, looks))) {
        let pending = Arc::new(Pending::default());
        let (session, mut said) = session(Level::Two, &pending);
        let mut opening = Some(session.open(ask));
        let mut outcome: Option<Result<Lane, OpenError>> = None;
        let look = |opening: &mut Option<_>, outcome: &mut Option<_>| {
            if let Some(waiting) = opening
                && let Poll::Ready(ready) = now(waiting)
            {
                (*outcome, *opening) = (Some(ready), None);
            }
        };
        look(&mut opening, &mut outcome);
        let Ok(Some(ToClient::Connection(told))) = said.try_recv().map(|message| Some(*message)) else {
            panic!("the client was not told")
        };
        let mut dialler = Dialler::default();
        // What the viewer finds when it looks next: the first of these that has happened.
        let (mut stream, mut refused, mut ended, mut late) = (false, false, false, false);
        let mut expected = None;
        let mut dialled = 0;
        for (at, actor) in order.iter().enumerate() {
            let open = expected.is_none();
            let meets = match actor {
                0 => {
                    dialled += 1;
                    dialled - 1
                }
                other => other + 1,
            };
            match MEETS[meets] {
                "claim" => {
                    dialler.claim(&pending, &told.id);
                    assert_eq!(dialler.claimed, open && !refused && !late, "{order:?} {looks:b}");
                }
                "deliver" => {
                    dialler.deliver();
                    stream = open && dialler.claimed;
                }
                "reject" => {
                    pending.reject(&told.id, session.id(), rejection());
                    // After the claim it is for whoever uses the stream.
                    refused = open && !dialler.claimed;
                }
                "taken over" => {
                    session.end(End::Replaced);
                    ended = true;
                }
                _ => {
                    tokio::time::advance(Duration::from_secs(10)).await;
                    late = true;
                }
            }
            if looks & 1 << at != 0 || at == 4 {
                look(&mut opening, &mut outcome);
                if open {
                    expected = match (stream, refused, ended, late) {
                        (true, ..) => Some("stream"),
                        (_, true, ..) => Some("rejected"),
                        (_, _, false, false) => None,
                        (_, _, true, _) => Some("gone"),
                        (_, _, _, true) => Some("late"),
                    };
                }
            }
        }
        let found = outcome.as_ref().map(|outcome| match outcome {
            Ok(_) => "stream",
            Err(OpenError::Rejected(_)) => "rejected",
            Err(OpenError::ClientGone) => "gone",
            Err(OpenError::NotClaimed) => "late",
            Err(other) => panic!("{other}"),
        });
        assert_eq!(found, expected, "{order:?} {looks:b}");
        let unclaimed = !dialler.claimed && found != Some("rejected");
        assert_eq!(cancels(&mut said), usize::from(unclaimed), "{order:?} {looks:b}");
        drop(outcome);
        assert!(dialler.is_closed() && lock(&pending.table).is_empty(), "{order:?} {looks:b}");
        assert_eq!(session.waiting.load(Ordering::Relaxed), 0);
    }
    println!("{} orders", orders.len() * 32);
}

/// The same by threads, as far as chance goes: the claim of one viewer, its leaving and its rejection at once.
#[test]
fn claims_against_leaving_viewers_and_rejections_on_threads_leave_nothing_behind() {
    let pending = Arc::new(Pending::default());
    let (session, mut said) = session(Level::Two, &pending);
    let mut delivered = 0;
    for round in 0..500 {
        let (ticket, claimed) = pending
            .announce(&Arc::downgrade(&session), session.addressee(), Duration::from_secs(10))
            .unwrap();
        let id = ticket.id().to_string();
        let start = std::sync::Barrier::new(4);
        let diallers = std::thread::scope(|scope| {
            let dial = || {
                start.wait();
                let mut dialler = Dialler::default();
                dialler.claim(&pending, &id);
                dialler.deliver();
                dialler
            };
            let diallers = [scope.spawn(dial), scope.spawn(dial)];
            scope.spawn(|| {
                start.wait();
                pending.reject(&id, session.id(), rejection());
            });
            scope.spawn(|| {
                start.wait();
                if round % 2 == 0 {
                    drop(claimed);
                    drop(ticket);
                } else {
                    drop(ticket);
                    drop(claimed);
                }
            });
            diallers.map(|dialler| dialler.join().unwrap())
        });
        let claims = diallers.iter().filter(|dialler| dialler.claimed).count();
        assert!(claims <= 1);
        delivered += claims;
        let cancelled = cancels(&mut said);
        assert!(cancelled + claims <= 1, "{cancelled} cancels, {claims} claims");
        for mut dialler in diallers {
            assert!(dialler.is_closed());
        }
        assert!(lock(&pending.table).is_empty());
    }
    println!("{delivered} of 500 claimed");
}
