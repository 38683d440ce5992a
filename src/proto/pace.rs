//! A pace: so many units in a time, some of them ahead of it. Pure: the time is told to it.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// How fast something may go on, and how far it is.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// In each `time`.
    units: NonZeroU64,
    time: Duration,
    /// What may be taken ahead, as a time.
    ahead: Duration,
    /// When everything that was taken is made up for.
    due: Option<Instant>,
}

impl Pace {
    /// `units` in each `time`; what `ahead` is worth may be taken at once.
    pub fn new(units: NonZeroU64, time: Duration, ahead: Duration) -> Self {
        Self { units, time, ahead, due: None }
    }

    /// Takes `units`, whatever was taken before: how long the taker has to wait before it uses them. Takers wait in
    /// their order.
    pub fn take(&mut self, now: Instant, units: u64) -> Duration {
        let due = self.due_with(now, units);
        self.due = Some(due);
        due.saturating_duration_since(now).saturating_sub(self.ahead)
    }

    /// Takes `units` if they can be used now; else an error says in how long they can.
    pub fn try_take(&mut self, now: Instant, units: u64) -> Result<(), Duration> {
        let due = self.due_with(now, units);
        let wait = due.saturating_duration_since(now).saturating_sub(self.ahead);
        if wait.is_zero() {
            self.due = Some(due);
            Ok(())
        } else {
            Err(wait)
        }
    }

    /// Whether it is as if nothing had ever been taken.
    pub fn is_rested(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| due <= now)
    }

    fn due_with(&self, now: Instant, units: u64) -> Instant {
        let nanos = self.time.as_nanos() * u128::from(units) / u128::from(self.units.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.due.map_or(now, |due| due.max(now));
        from.checked_add(cost).unwrap_or(from)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "any time is as good as another")]

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn pace(units: u64, time: Duration, ahead: Duration) -> Pace {
        Pace::new(NonZeroU64::new(units).unwrap(), time, ahead)
    }

    #[test]
    fn a_minutes_worth_at_once_and_then_one_by_one() {
        let start = Instant::now();
        let mut pace = pace(6, MINUTE, MINUTE);
        assert!(pace.is_rested(start));
        for _ in 0..6 {
            assert_eq!(pace.try_take(start, 1), Ok(()));
        }
        assert_eq!(pace.try_take(start, 1), Err(MINUTE / 6));
        assert_eq!(pace.try_take(start + MINUTE / 12, 1), Err(MINUTE / 12), "a refusal costs nothing");
        assert_eq!(pace.try_take(start + MINUTE / 6, 1), Ok(()));
        assert!(!pace.is_rested(start + MINUTE) && pace.is_rested(start + MINUTE + MINUTE / 6));
        let later = start + 10 * MINUTE;
        for _ in 0..6 {
            assert_eq!(pace.try_take(later, 1), Ok(()));
        }
        assert!(pace.try_take(later, 1).is_err(), "rest is not saved up beyond the burst");
    }

    #[test]
    fn takers_wait_in_their_order_for_as_long_as_they_took() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = pace(1000, second, second / 10);
        assert_eq!(pace.take(start, 100), Duration::ZERO);
        assert_eq!(pace.take(start, 500), second / 2);
        assert_eq!(pace.take(start, 1000), second * 3 / 2);
        assert_eq!(pace.take(start + second, 400), second * 9 / 10);
        assert_eq!(pace.take(start + 5 * second, 100), Duration::ZERO);
    }
}
