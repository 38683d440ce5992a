//! How often a program may be started again: websockify's rule.

use tokio::time::Instant;

use crate::proto::limits::bridge::wrap::MEAN;

/// The last three starts, oldest first.
#[derive(Debug, Default)]
pub(super) struct Starts(Vec<Instant>);

impl Starts {
    /// It was started.
    pub(super) fn add(&mut self, now: Instant) {
        if self.0.len() == 3 {
            self.0.remove(0);
        }
        self.0.push(now);
    }

    /// When it may be started again, which may be past. A program that was started less than three times may at once.
    pub(super) fn next(&self) -> Instant {
        let [first, second, third] = self.0[..] else { return Instant::now() };
        first + ((second - first) + (third - first)) / 3 + MEAN
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fourth_start_waits_until_the_mean_of_the_last_three_is_10_s_ago() {
        let begin = Instant::now();
        let mut starts = Starts::default();
        for seconds in [0, 3, 6] {
            assert!(starts.next() <= Instant::now());
            starts.add(begin + Duration::from_secs(seconds));
        }
        assert_eq!(starts.next(), begin + Duration::from_secs(13));
        starts.add(begin + Duration::from_secs(18));
        assert_eq!(starts.next(), begin + Duration::from_secs(19));
    }
}
