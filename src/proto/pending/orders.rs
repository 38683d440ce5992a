//! Every order of everything that can happen to two viewers, two sessions and any claimant, against a model.
//!
//! The table does each thing under one lock, so whatever threads do is an order of these. Each state that some order
//! leads to is visited once and everything possible is done in it, which covers orders of every length.

#![allow(clippy::disallowed_methods, reason = "any time is as good as another")]

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::*;

/// The time for a claim, and the last moment before its end.
const WAIT: u64 = 10;
const TIMES: [u64; 4] = [0, 5, WAIT - 1, WAIT];
const VIEWERS: [usize; 2] = [0, 1];
const SESSIONS: [usize; 2] = [0, 1];

/// Who may come with a claim. The tunnel is alice's, and named web.
const BEARERS: [Option<Bearer<'static>>; 5] = [
    None,
    Some(Bearer { owner: "alice", tunnel: None }),
    Some(Bearer { owner: "alice", tunnel: Some("web") }),
    Some(Bearer { owner: "alice", tunnel: Some("other") }),
    Some(Bearer { owner: "bob", tunnel: None }),
];

/// How it stands with a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Viewer {
    /// Not announced yet.
    New,
    /// Announced to a session, to be claimed before a time.
    Waiting { session: usize, until: u64 },
    /// Served: by a claim, or by a standby socket.
    Served { session: usize, until: u64 },
    /// It ended in one of these ways and in no other.
    Over(Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    Served,
    /// Nobody claimed it in time.
    Expired,
    /// The viewer left before a claim.
    Cancelled,
    Rejected,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    viewers: [Viewer; 2],
    now: usize,
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Announce {
        viewer: usize,
        session: usize,
    },
    /// A standby socket is assigned.
    Assign {
        viewer: usize,
        session: usize,
    },
    Claim {
        viewer: usize,
        bearer: usize,
    },
    Reject {
        viewer: usize,
        session: usize,
    },
    /// The viewer's ticket is dropped: it was served, left, or its time is over.
    Withdraw {
        viewer: usize,
    },
    Close,
    Later,
}

fn steps() -> Vec<Step> {
    let mut steps = vec![Step::Close, Step::Later];
    for viewer in VIEWERS {
        steps.push(Step::Withdraw { viewer });
        steps.extend((0..BEARERS.len()).map(|bearer| Step::Claim { viewer, bearer }));
        for session in SESSIONS {
            steps.push(Step::Announce { viewer, session });
            steps.push(Step::Assign { viewer, session });
            steps.push(Step::Reject { viewer, session });
        }
    }
    steps
}

fn id(viewer: usize) -> Uuid {
    Uuid::from_u128(100 + viewer as u128)
}

/// The second session speaks level two.
fn addressee(session: usize) -> Addressee {
    let level = if session == 0 { Level::Base } else { Level::Two };
    Addressee {
        session: Uuid::from_u128(session as u128),
        level,
        owner: "alice".into(),
        tunnel: "web".into(),
    }
}

/// What a table holds in this state. What waits, and what a rejection goes to, bear the number of their viewer.
fn table(start: Instant, state: &State) -> Table<usize, usize> {
    let mut entries = HashMap::new();
    for viewer in VIEWERS {
        let (session, until, waiting) = match state.viewers[viewer] {
            Viewer::Waiting { session, until } => (session, until, Some(viewer)),
            Viewer::Served { session, until } => (session, until, None),
            Viewer::New | Viewer::Over(_) => continue,
        };
        let until = start + Duration::from_secs(until);
        entries.insert(id(viewer), Entry { to: addressee(session), until, waiting, reject: viewer });
    }
    Table { entries, closed: state.closed }
}

/// Does the step to both, and compares what they say.
fn go(start: Instant, state: &State, step: Step) -> State {
    let (mut table, mut next) = (table(start, state), state.clone());
    let now = TIMES[state.now];
    let at = |seconds| start + Duration::from_secs(seconds);
    match step {
        Step::Later => next.now = (state.now + 1).min(TIMES.len() - 1),
        Step::Close => {
            table.close();
            next.closed = true;
        }
        Step::Announce { viewer, session } | Step::Assign { viewer, session } => {
            // An id is random: it is not announced again after its end.
            if matches!(state.viewers[viewer], Viewer::Over(_)) {
                return next;
            }
            let waits = matches!(step, Step::Announce { .. });
            let until = if waits { now + WAIT } else { now };
            let entered =
                table.announce(id(viewer), addressee(session), at(until), waits.then_some(viewer), viewer);
            let room = state.viewers[viewer] == Viewer::New && !(state.closed && waits);
            assert_eq!(entered, room, "{state:?} {step:?}");
            if entered {
                next.viewers[viewer] = if waits {
                    Viewer::Waiting { session, until }
                } else {
                    Viewer::Served { session, until }
                };
            }
        }
        Step::Claim { viewer, bearer } => {
            let expected = match state.viewers[viewer] {
                Viewer::Waiting { session, until } if now < until => match (session, bearer) {
                    (1, 0) => Err(ClaimError::KeyNeeded),
                    (_, 3 | 4) => Err(ClaimError::Foreign),
                    _ => {
                        next.viewers[viewer] = Viewer::Served { session, until };
                        Ok((addressee(session).level, viewer))
                    }
                },
                _ => Err(ClaimError::Unknown),
            };
            assert_eq!(table.claim(at(now), id(viewer), BEARERS[bearer]), expected, "{state:?} {step:?}");
        }
        Step::Reject { viewer, session } => {
            let expected = match state.viewers[viewer] {
                Viewer::Waiting { session: told, .. } if told == session => Some((Some(viewer), viewer)),
                Viewer::Served { session: told, .. } if told == session => Some((None, viewer)),
                _ => None,
            };
            if expected.is_some() {
                next.viewers[viewer] = Viewer::Over(Outcome::Rejected);
            }
            assert_eq!(table.reject(id(viewer), addressee(session).session), expected, "{state:?} {step:?}");
        }
        Step::Withdraw { viewer } => {
            let over = match state.viewers[viewer] {
                Viewer::Waiting { until, .. } if now >= until => Some(Outcome::Expired),
                Viewer::Waiting { .. } => Some(Outcome::Cancelled),
                Viewer::Served { .. } => Some(Outcome::Served),
                Viewer::New | Viewer::Over(_) => None,
            };
            // The client is told of what it has not claimed, and of nothing else.
            let told = matches!(over, Some(Outcome::Expired | Outcome::Cancelled));
            assert_eq!(table.withdraw(id(viewer)), told, "{state:?} {step:?}");
            next.viewers[viewer] = over.map_or(state.viewers[viewer], Viewer::Over);
        }
    }
    compare(start, &table, &next, step);
    next
}

/// The table is what the model says, to its last field: so two orders that lead to one state need not both be followed.
fn compare(start: Instant, table: &Table<usize, usize>, model: &State, step: Step) {
    let expected = self::table(start, model);
    assert_eq!((table.closed, table.entries.len()), (expected.closed, expected.entries.len()), "{step:?}");
    for (id, entry) in &expected.entries {
        let found = &table.entries[id];
        assert_eq!((&found.to, found.until), (&entry.to, entry.until), "{step:?}");
        assert_eq!((found.waiting, found.reject), (entry.waiting, entry.reject), "{step:?}");
        assert!(table.knows(*id));
    }
    let waiting = model.viewers.iter().filter(|viewer| matches!(viewer, Viewer::Waiting { .. })).count();
    assert_eq!((table.waiting(), table.is_empty()), (waiting, expected.entries.is_empty()));
}

/// Everything that can be reached, and how many ways lead on from there.
fn explore() -> (HashSet<State>, usize) {
    let (start, steps) = (Instant::now(), steps());
    let first = State { viewers: [Viewer::New; 2], now: 0, closed: false };
    let (mut seen, mut next, mut taken) = (HashSet::from([first.clone()]), VecDeque::from([first]), 0);
    while let Some(state) = next.pop_front() {
        for step in &steps {
            let after = go(start, &state, *step);
            for viewer in VIEWERS {
                // The end is the end, whatever comes later.
                if matches!(state.viewers[viewer], Viewer::Over(_)) {
                    assert_eq!(after.viewers[viewer], state.viewers[viewer]);
                }
            }
            taken += 1;
            if seen.insert(after.clone()) {
                next.push_back(after);
            }
        }
    }
    (seen, taken)
}

#[test]
fn whatever_the_order_a_viewer_is_served_once_or_told_why_not() {
    let (seen, taken) = explore();
    println!("{} states, {taken} steps", seen.len());
    for outcome in [Outcome::Served, Outcome::Expired, Outcome::Cancelled, Outcome::Rejected] {
        let both = State { viewers: [Viewer::Over(outcome); 2], now: TIMES.len() - 1, closed: true };
        assert!(seen.contains(&both), "{outcome:?} was never reached");
    }
}
