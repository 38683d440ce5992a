//! How the round trips of one client are spread.

use std::time::Duration;

/// Buckets: each holds what is below twice the bound of the one before, the first what is below [`LEAST`].
pub const BUCKETS: usize = 20;
/// Bound of the first bucket in microseconds; that of the last but one is 34 seconds.
const LEAST: u64 = 128;

/// Counts by bucket. When one is full all are halved: what is old counts less and less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread([u16; BUCKETS]);

impl Spread {
    pub(super) fn add(&mut self, round_trip: Duration) {
        let bucket = (0..BUCKETS - 1).find(|bucket| round_trip < bound(*bucket)).unwrap_or(BUCKETS - 1);
        if self.0[bucket] == u16::MAX {
            self.0.iter_mut().for_each(|count| *count /= 2);
        }
        self.0[bucket] += 1;
    }

    /// Each bucket with its upper bound; the last has none.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u16)> + '_ {
        self.0.iter().enumerate().map(|(at, count)| ((at < BUCKETS - 1).then(|| bound(at)), *count))
    }

    /// The upper bound of the bucket below which 99 of 100 are; `None`: there are none, or it has no bound.
    pub fn p99(&self) -> Option<Duration> {
        let all: u32 = self.0.iter().map(|count| u32::from(*count)).sum();
        let mut left = all - all / 100;
        self.buckets()
            .find(|(_, count)| {
                left = left.saturating_sub(u32::from(*count));
                left == 0 && all > 0
            })
            .and_then(|(bound, _)| bound)
    }
}

fn bound(bucket: usize) -> Duration {
    Duration::from_micros(LEAST << bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_one_may_be_slower() {
        let mut spread = Spread::default();
        assert_eq!(spread.p99(), None);
        (0..99).for_each(|_| spread.add(Duration::from_millis(3)));
        spread.add(Duration::from_secs(20));
        assert_eq!(spread.p99(), Some(Duration::from_micros(4096)));
        spread.add(Duration::from_secs(20));
        spread.add(Duration::from_secs(20));
        assert_eq!(spread.p99(), Some(Duration::from_micros(LEAST << 18)));
    }

    #[test]
    fn a_full_bucket_halves_all_and_loses_no_shape() {
        let mut spread = Spread::default();
        (0..100).for_each(|_| spread.add(Duration::ZERO));
        (0..70_000).for_each(|_| spread.add(Duration::from_secs(100)));
        let counts: Vec<_> = spread.buckets().map(|(_, count)| count).filter(|count| *count > 0).collect();
        assert_eq!(counts, [50, 37_232]);
    }
}
