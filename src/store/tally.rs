//! How a store does: what its calls came to, and how long they took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::StoreError;
use crate::tally::{Counter, Histogram};

/// Of all calls since the store was opened.
#[derive(Debug)]
pub struct Tally {
    /// Calls that were done.
    pub ok: Counter,
    /// Calls that failed.
    pub failed: Counter,
    /// Calls whose callers have waited for too long; they may be done later, and are counted again then.
    pub unanswered: Counter,
    /// How long each took, without its wait for its turn.
    pub took: Histogram,
    opened: Instant,
    /// When the last one was done, in milliseconds after the opening.
    done: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            ok: Counter::default(),
            failed: Counter::default(),
            unanswered: Counter::default(),
            took: Histogram::default(),
            opened: Instant::now(),
            done: AtomicU64::new(0),
        }
    }
}

impl Tally {
    pub(super) fn answered(&self, error: Option<&StoreError>, took: Duration) {
        self.took.record(took);
        // That another process has taken over is no fault of the database.
        if matches!(error, None | Some(StoreError::Superseded)) {
            self.ok.increment();
            let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.done.fetch_max(now, Ordering::Relaxed);
        } else {
            self.failed.increment();
        }
    }

    /// How long ago the last one was done, or the store was opened, by a clock that nobody sets.
    pub fn since_done(&self) -> Duration {
        self.opened.elapsed().saturating_sub(Duration::from_millis(self.done.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_do_not_count_as_signs_of_life() {
        let tally = Tally::default();
        tokio::time::advance(Duration::from_secs(5)).await;
        tally.answered(None, Duration::from_millis(2));
        tokio::time::advance(Duration::from_secs(3)).await;
        tally.answered(Some(&StoreError::Superseded), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(2)).await;
        tally.answered(Some(&StoreError::Unavailable("full".into())), Duration::ZERO);
        assert_eq!(tally.since_done(), Duration::from_secs(2));
        assert_eq!((tally.ok.get(), tally.failed.get(), tally.took.snapshot().count()), (2, 1, 3));
    }
}
