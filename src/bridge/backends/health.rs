//! Whether a backend takes connections, as far as the last ones tell.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// What is known of one backend.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Outage>>);

#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    until: Instant,
}

impl Health {
    /// How long it is still left alone; zero: it may be tried.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        lock(&self.0).map_or(Duration::ZERO, |outage| outage.until.saturating_duration_since(now))
    }

    /// It took no connection; `true`: this begins an outage.
    pub(super) fn failed(&self, now: Instant, disable_time: Duration) -> bool {
        let mut outage = lock(&self.0);
        let until = now + disable_time;
        let begins = outage.is_none();
        *outage = Some(Outage { since: outage.map_or(now, |outage| outage.since), until });
        begins
    }

    /// It took one; how long it was away, if it was.
    pub(super) fn works(&self, now: Instant) -> Option<Duration> {
        lock(&self.0).take().map(|outage| now.saturating_duration_since(outage.since))
    }
}
