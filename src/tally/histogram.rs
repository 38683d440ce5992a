//! How durations are spread, in buckets that are fixed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds, each included: from half a millisecond, below which nobody waits, to the
/// ten seconds of a claim and a minute. One more holds all above.
const BOUNDS: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Counts of durations by bucket, and their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    /// In microseconds.
    sum: AtomicU64,
}

/// What a [`Histogram`] held at one moment. What is recorded meanwhile may be in a part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    counts: [u64; BOUNDS.len() + 1],
    sum: u64,
}

impl Histogram {
    /// One more.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// What it holds.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counts: std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed)),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl Snapshot {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All together, in seconds.
    pub fn sum(&self) -> f64 {
        seconds(self.sum)
    }

    /// Each bucket with its upper bound in seconds, and how many are in it alone; the last is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied())
    }

    /// What the part `q` (0 to 1) of all is not above, as far as the buckets tell, in seconds: within a bucket they are
    /// taken to be spread evenly, and above the last bound nothing is known but that. `None`: there are none.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let rank = q.clamp(0.0, 1.0) * count as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (bound, here) in self.buckets() {
            let here = here as f64;
            if here > 0.0 && below + here >= rank {
                let part = (rank - below) / here;
                return Some(if bound.is_finite() { lower + (bound - lower) * part } else { lower });
            }
            below += here;
            lower = bound;
        }
        None
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: impl IntoIterator<Item = u64>) -> Snapshot {
        let histogram = Histogram::default();
        millis.into_iter().for_each(|ms| histogram.record(Duration::from_millis(ms)));
        histogram.snapshot()
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_is_above_all_has_one_too() {
        let snapshot = of([1, 60_000, 60_001, 3_600_000]);
        let filled: Vec<_> = snapshot.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.001, 1), (60.0, 1), (f64::INFINITY, 2)]);
        assert_eq!((snapshot.count(), snapshot.sum()), (4, 3_720.002));
    }

    #[test]
    fn quantiles_lie_in_the_bucket_of_the_one_that_they_mean() {
        let snapshot = of((0..98).map(|_| 20).chain([400, 9_000]));
        let within = |q: f64, from: f64, to: f64| {
            let value = snapshot.quantile(q).unwrap();
            assert!(value > from && value <= to, "{q}: {value}");
        };
        within(0.5, 0.01, 0.025);
        within(0.99, 0.25, 0.5);
        within(1.0, 5.0, 10.0);
        assert_eq!(of([]).quantile(0.5), None);
        assert_eq!(of([90_000]).quantile(0.5), Some(60.0));
    }
}
