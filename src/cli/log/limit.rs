//! How many records of one kind are written in a while: the first ones are, and of the others their number.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::proto::limits::log::{PER_KIND, WINDOW};

/// Counts by kind. There are as many kinds as places in the program that write records. It is told the time, as what
/// has passed since a beginning.
pub(super) struct Limit<K>(HashMap<K, Kind>);

struct Kind {
    place: String,
    /// When the window began.
    since: Duration,
    written: u32,
    left_out: u64,
}

/// Records that were not written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Of which kind.
    pub(super) place: String,
    pub(super) count: u64,
}

impl<K> Default for Limit<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Limit<K> {
    /// Whether one more of this kind is written; `place` names the kind.
    pub(super) fn admit(&mut self, kind: K, now: Duration, place: impl FnOnce() -> String) -> bool {
        let new = || Kind { place: place(), since: now, written: 0, left_out: 0 };
        let kind = self.0.entry(kind).or_insert_with(new);
        // What was left out is told first: a window does not end before.
        if now >= kind.since + WINDOW && kind.left_out == 0 {
            (kind.since, kind.written) = (now, 0);
        }
        let room = kind.written < PER_KIND;
        if room {
            kind.written += 1;
        } else {
            kind.left_out += 1;
        }
        room
    }

    /// What was left out in windows that are over, or in all.
    pub(super) fn left_out(&mut self, now: Duration, all: bool) -> Vec<LeftOut> {
        let over = |kind: &&mut Kind| kind.left_out > 0 && (all || now >= kind.since + WINDOW);
        self.0
            .values_mut()
            .filter(over)
            .map(|kind| {
                (kind.since, kind.written) = (now, 0);
                LeftOut { place: kind.place.clone(), count: std::mem::take(&mut kind.left_out) }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn flood(limit: &mut Limit<u8>, kind: u8, count: u32, now: Duration) -> u32 {
        (0..count).map(|_| u32::from(limit.admit(kind, now, || format!("place {kind}")))).sum()
    }

    fn told(count: u64) -> Vec<LeftOut> {
        vec![LeftOut { place: "place 1".into(), count }]
    }

    #[test]
    fn the_first_ones_of_each_kind_are_written_and_the_rest_is_counted() {
        let mut limit = Limit::default();
        assert_eq!(flood(&mut limit, 1, PER_KIND + 532, Duration::ZERO), PER_KIND);
        assert_eq!(flood(&mut limit, 2, 3, Duration::ZERO), 3, "another kind");
        assert_eq!(limit.left_out(WINDOW - MOMENT, false), []);
        assert_eq!(limit.left_out(WINDOW, false), told(532));
        assert_eq!(limit.left_out(WINDOW, false), [], "once");
        assert_eq!(flood(&mut limit, 1, PER_KIND + 1, WINDOW), PER_KIND);
        assert_eq!(limit.left_out(WINDOW, true), told(1), "at the end");
    }

    #[test]
    fn few_records_are_all_written() {
        let mut limit = Limit::default();
        for window in 0..5 {
            assert_eq!(flood(&mut limit, 1, PER_KIND, window * WINDOW), PER_KIND);
        }
        assert_eq!(limit.left_out(9 * WINDOW, false), []);
    }

    /// However late whoever tells of them is, nothing that was left out goes untold.
    #[test]
    fn nothing_is_left_out_in_silence() {
        let mut limit = Limit::default();
        let written: u32 =
            (0..50).map(|second| flood(&mut limit, 1, 1000, second * Duration::from_secs(1))).sum();
        assert_eq!(written, PER_KIND);
        assert_eq!(limit.left_out(60 * MOMENT + 5 * WINDOW, false), told(u64::from(50_000 - written)));
    }
}
