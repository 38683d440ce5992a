//! When the next try comes after the relay was lost: full jitter, soon at first, then further apart.

use std::time::Duration;

use tokio::time::Instant;

use crate::proto::limits::client::{EARLY_RETRY, FIRST_RETRY, LATE_RETRY};
use crate::random::fraction;

/// Tries are close together for this long.
const EARLY: Duration = Duration::from_secs(60);
/// A session that lasted this long was a good one: the next loss begins afresh.
const GOOD_SESSION: Duration = Duration::from_secs(10);

/// The schedule of one session.
#[derive(Debug, Default)]
pub(super) struct Retry {
    /// When the relay was lost, and the tries since.
    lost: Option<(Instant, u32)>,
}

impl Retry {
    /// A session ended that had lasted for `lasted`.
    pub(super) fn after(&mut self, lasted: Duration) {
        if lasted >= GOOD_SESSION {
            self.lost = None;
        }
    }

    /// How long to wait now.
    pub(super) fn next(&mut self) -> Duration {
        self.delay(Instant::now(), fraction())
    }

    /// How long to wait for a relay that was reached and does not want it: from half of the longest time on.
    pub(super) fn refused(&self) -> Duration {
        LATE_RETRY.mul_f64(0.5 + fraction() / 2.0)
    }

    /// `random` is in [0, 1).
    fn delay(&mut self, now: Instant, random: f64) -> Duration {
        let (since, tries) = self.lost.get_or_insert((now, 0));
        let most = if now.duration_since(*since) < EARLY { EARLY_RETRY } else { LATE_RETRY };
        let most = FIRST_RETRY.saturating_mul(1 << (*tries).min(16)).min(most);
        *tries += 1;
        most.mul_f64(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_try_comes_within_a_second_and_the_others_spread() {
        let (mut retry, start) = (Retry::default(), Instant::now());
        let mut longest = |after: u64| retry.delay(start + Duration::from_secs(after), 1.0).as_secs();
        assert_eq!(
            [longest(0), longest(1), longest(3), longest(7), longest(15), longest(59)],
            [1, 2, 4, 8, 10, 10]
        );
        assert_eq!([longest(61), longest(9999)], [30, 30]);
        assert_eq!(retry.delay(start, 0.0), Duration::ZERO);
    }

    #[test]
    fn only_a_session_that_lasted_begins_the_schedule_afresh() {
        let (mut retry, now) = (Retry::default(), Instant::now());
        retry.delay(now, 1.0);
        retry.after(Duration::from_secs(9));
        assert_eq!(retry.delay(now, 1.0).as_secs(), 2);
        retry.after(Duration::from_secs(10));
        assert_eq!(retry.delay(now, 1.0).as_secs(), 1);
        for _ in 0..100 {
            assert!(Retry::default().next() < Duration::from_secs(1));
            assert!((15..30).contains(&Retry::default().refused().as_secs()));
        }
    }
}
