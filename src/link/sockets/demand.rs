//! How many standby sockets the recent arrivals of viewers justify. Pure: the time is told to it.

use std::time::{Duration, Instant};

use crate::proto::limits::standby;

/// Arrivals of one session.
#[derive(Debug)]
pub(super) struct Demand {
    most: u32,
    /// Start of the span in which `arrivals` are counted.
    since: Instant,
    arrivals: u32,
    /// The busiest span of late, fading.
    peak: f64,
    last: Option<Instant>,
}

impl Demand {
    /// `recent`: the tunnel is new, or was in use of late.
    pub(super) fn new(now: Instant, most: u32, recent: bool) -> Self {
        Self { most, since: now, arrivals: 0, peak: 0.0, last: recent.then_some(now) }
    }

    /// A viewer came for whom no used socket waited.
    pub(super) fn arrived(&mut self, now: Instant) {
        if now.duration_since(self.since) >= standby::SPAN {
            self.peak = self.peak_at(now);
            (self.since, self.arrivals) = (now, 0);
        }
        self.arrivals = self.arrivals.saturating_add(1);
        self.last = Some(now);
    }

    /// How many sockets to hold ready now.
    pub(super) fn want(&self, now: Instant) -> u32 {
        let Some(idle) = self.last.map(|last| now.duration_since(last)) else { return 0 };
        if idle >= standby::IDLE {
            return 0;
        }
        // A float to integer cast saturates.
        (self.peak_at(now).ceil() as u32).clamp(1, self.most.max(1)).min(self.most)
    }

    /// Whether viewers came of late.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.peak_at(now) >= 0.5
    }

    fn peak_at(&self, now: Instant) -> f64 {
        let faded = |peak: f64, since: Duration| {
            peak * 0.5_f64.powf(since.as_secs_f64() / standby::HALF_LIFE.as_secs_f64())
        };
        let since = now.duration_since(self.since);
        faded(self.peak, since).max(faded(self.arrivals.into(), since.saturating_sub(standby::SPAN)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "any time is as good as another")]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_new_tunnel_gets_one_a_sleeping_one_none() {
        let now = Instant::now();
        assert_eq!(Demand::new(now, 8, true).want(now), 1);
        assert_eq!(Demand::new(now, 8, false).want(now), 0);
        assert_eq!(Demand::new(now, 8, true).want(now + standby::IDLE), 0);
        assert_eq!(Demand::new(now, 0, true).want(now), 0, "switched off");
    }

    #[test]
    fn a_burst_is_followed_at_once_and_forgotten_slowly() {
        let start = Instant::now();
        let mut demand = Demand::new(start, 8, false);
        for arrivals in 1..20 {
            demand.arrived(start);
            assert_eq!(demand.want(start), arrivals.min(8));
        }
        assert_eq!(demand.want(start + 10 * SECOND), 8, "19 has faded to 10");
        assert_eq!(demand.want(start + 60 * SECOND), 1);
        assert!(demand.is_busy(start + 30 * SECOND) && !demand.is_busy(start + 90 * SECOND));
        assert_eq!(demand.want(start + standby::IDLE), 0);
        demand.arrived(start + standby::IDLE);
        assert_eq!(demand.want(start + standby::IDLE), 1);
    }

    #[test]
    fn a_steady_trickle_keeps_one() {
        let start = Instant::now();
        let mut demand = Demand::new(start, 8, true);
        for second in 0..600 {
            demand.arrived(start + second * SECOND);
            assert_eq!(demand.want(start + second * SECOND), 1);
        }
    }
}
