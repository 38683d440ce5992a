//! What all sessions of a relay came to.

use tokio::time::Instant;

use super::pulse::Left;
use crate::link::{Lane, OpenError, Speaks};
use crate::proto::control::relay::{End, Ended};
use crate::tally::{Counter, Histogram};

/// Of all sessions since the process began.
#[derive(Debug, Default)]
pub struct Tally {
    begun: [Counter; Speaks::ALL.len()],
    ended: [Counter; ENDS.len()],
    /// Pings sent.
    pub pings: Counter,
    /// Pings that were answered before the next one.
    pub pongs: Counter,
    /// Pings that were not.
    pub missed: Counter,
    /// From a ping to its pong.
    pub round_trip: Histogram,
    outcomes: [Counter; Outcome::ALL.len()],
    /// From the notification to the data socket, where one was opened for the viewer.
    pub claim_wait: Histogram,
}

/// How a viewer got its data socket, or did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// One that had served another viewer before.
    Reused,
    /// One that waited for the first.
    Standby,
    /// The client opened it.
    Claimed,
    /// The client said that it cannot serve the viewer.
    Rejected,
    /// The client did not open it in time.
    TimedOut,
    /// The client's control socket ended.
    ClientGone,
    /// As many viewers waited as may.
    TooMany,
    /// The viewer left.
    ViewerLeft,
    /// The relay ends.
    Draining,
}

impl Outcome {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::Reused,
        Self::Standby,
        Self::Claimed,
        Self::Rejected,
        Self::TimedOut,
        Self::ClientGone,
        Self::TooMany,
        Self::ViewerLeft,
        Self::Draining,
    ];

    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reused => "reused",
            Self::Standby => "standby",
            Self::Claimed => "claimed",
            Self::Rejected => "rejected",
            Self::TimedOut => "timed_out",
            Self::ClientGone => "client_gone",
            Self::TooMany => "too_many",
            Self::ViewerLeft => "viewer_left",
            Self::Draining => "draining",
        }
    }

    fn of(claimed: &Result<Lane, OpenError>) -> Self {
        match claimed {
            Ok(_) => Self::Claimed,
            Err(OpenError::Rejected(_)) => Self::Rejected,
            Err(OpenError::NotClaimed) => Self::TimedOut,
            Err(OpenError::ClientGone) => Self::ClientGone,
            Err(OpenError::TooManyWaiting) => Self::TooMany,
            Err(OpenError::Draining) => Self::Draining,
        }
    }
}

/// Why sessions end, as operators read it.
const ENDS: [&str; 13] = [
    "expired",
    "deleted",
    "replaced",
    "succeeded",
    "revoked",
    "token_expired",
    "restart",
    "disconnected",
    "closed",
    "lost",
    "silent",
    "protocol_error",
    "too_big",
];

/// The name of an end, as operators read it.
pub fn end_name(ended: Ended) -> &'static str {
    match ended {
        Ended::ByUs(End::Expired) => "expired",
        Ended::ByUs(End::Deleted) => "deleted",
        Ended::ByUs(End::Replaced) => "replaced",
        Ended::ByUs(End::Succeeded) => "succeeded",
        Ended::ByUs(End::Revoked) => "revoked",
        Ended::ByUs(End::TokenExpired) => "token_expired",
        Ended::ByUs(End::Restart) => "restart",
        Ended::ByUs(End::Disconnected) => "disconnected",
        Ended::ByClient => "closed",
        Ended::Lost => "lost",
        Ended::Silent => "silent",
        Ended::Protocol | Ended::NotText => "protocol_error",
        Ended::TooBig => "too_big",
    }
}

/// Whether it left in order.
pub(super) fn left(ended: Ended) -> Left {
    match ended {
        Ended::Lost | Ended::Silent => Left::Lost,
        _ => Left::Orderly,
    }
}

impl Tally {
    pub(super) fn begin(&self, speaks: Speaks) {
        if let Some(at) = Speaks::ALL.iter().position(|known| *known == speaks) {
            self.begun[at].increment();
        }
    }

    pub(super) fn end(&self, ended: Ended) {
        let name = end_name(ended);
        if let Some(at) = ENDS.iter().position(|end| *end == name) {
            self.ended[at].increment();
        }
    }

    pub(super) fn open(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment();
    }

    /// Sessions that began, by what their clients speak.
    pub fn begun(&self) -> [(Speaks, u64); Speaks::ALL.len()] {
        std::array::from_fn(|at| (Speaks::ALL[at], self.begun[at].get()))
    }

    /// Sessions that ended, by the name of their end.
    pub fn ended(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        ENDS.iter().zip(&self.ended).map(|(name, count)| (*name, count.get()))
    }

    /// Viewers, by how they got their data socket.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        Outcome::ALL.into_iter().map(|outcome| (outcome, self.outcomes[outcome as usize].get()))
    }
}

/// A viewer that waits for its data socket; dropped before [`Claiming::came_to`], it has left.
pub(super) struct Claiming<'a> {
    tally: &'a Tally,
    began: Instant,
    outcome: Outcome,
}

impl<'a> Claiming<'a> {
    pub(super) fn new(tally: &'a Tally) -> Self {
        Self { tally, began: Instant::now(), outcome: Outcome::ViewerLeft }
    }

    pub(super) fn came_to(&mut self, claimed: &Result<Lane, OpenError>) {
        self.outcome = Outcome::of(claimed);
    }
}

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        self.tally.open(self.outcome);
        if self.outcome == Outcome::Claimed {
            self.tally.claim_wait.record(self.began.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_counted_under_a_name_of_its_own() {
        let ends = [
            End::Expired,
            End::Deleted,
            End::Replaced,
            End::Succeeded,
            End::Revoked,
            End::TokenExpired,
            End::Restart,
            End::Disconnected,
        ];
        let others = [Ended::ByClient, Ended::Lost, Ended::Silent, Ended::Protocol, Ended::TooBig];
        let tally = Tally::default();
        ends.into_iter().map(Ended::ByUs).chain(others).for_each(|ended| tally.end(ended));
        assert!(tally.ended().all(|(_, count)| count == 1), "{:?}", tally.ended().collect::<Vec<_>>());
    }

    #[test]
    fn outcomes_stand_at_their_places() {
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at, "{}", outcome.as_str());
        }
    }
}
