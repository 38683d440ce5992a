//! What goes through a tunnel, counted; and how much of that the store knows.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::unix_ms;
use crate::store::{Activity, TunnelRow};
use crate::sync::lock;
use crate::tally::{Histogram, Snapshot};

/// Totals of one tunnel, as far as this process knows them.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes from viewers to the target.
    pub bytes_in: AtomicU64,
    /// Bytes from the target to viewers.
    pub bytes_out: AtomicU64,
    /// Requests of viewers.
    pub requests: AtomicU64,
    /// Requests and connections of viewers under way.
    pub viewers: AtomicUsize,
    /// How its viewers fare, from the first moment that there is something to tell.
    fare: OnceLock<Box<Fare>>,
    pace: Mutex<Pace>,
    /// Unix milliseconds of the last request; 0 is never.
    last_active: AtomicI64,
    /// What of the totals is in the store, or on its way there.
    saved: Mutex<Counters>,
}

/// Counters of a tunnel at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) requests: u64,
}

/// What operators want to know of a tunnel that is in use.
#[derive(Debug, Default)]
struct Fare {
    /// How long viewers waited for a data socket that was opened for them.
    waits: Histogram,
    /// Exchanges that failed, by cause.
    failures: Mutex<Vec<(&'static str, u64)>>,
}

/// Requests and bytes a second, over about the last ten.
#[derive(Debug, Default, Clone, Copy)]
struct Pace {
    /// What had been counted a second ago.
    seen: Counters,
    requests: f32,
    bytes: f32,
}

/// The weight of the last second.
const WEIGHT: f32 = 0.2;
/// A rate below this is none.
const LEAST_RATE: f32 = 0.005;

impl Traffic {
    /// A viewer waited so long for the data socket that was opened for it.
    pub fn waited(&self, wait: Duration) {
        self.fare.get_or_init(Box::default).waits.record(wait);
    }

    /// How long viewers waited, in all.
    pub fn waits(&self) -> Snapshot {
        self.fare.get().map(|fare| fare.waits.snapshot()).unwrap_or_default()
    }

    /// An exchange failed by `cause`.
    pub fn failed(&self, cause: &'static str) {
        let mut failures = lock(&self.fare.get_or_init(Box::default).failures);
        match failures.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, count)) => *count += 1,
            None => failures.push((cause, 1)),
        }
    }

    /// Exchanges that failed, by cause.
    pub fn failures(&self) -> Vec<(&'static str, u64)> {
        self.fare.get().map(|fare| lock(&fare.failures).clone()).unwrap_or_default()
    }

    /// A second has passed. Whether nothing is under way, and nothing was of late.
    pub(super) fn tick(&self) -> bool {
        let (mut pace, now) = (lock(&self.pace), self.totals());
        if now == pace.seen && pace.requests == 0.0 && pace.bytes == 0.0 {
            return self.viewers.load(Ordering::Relaxed) == 0;
        }
        let before = pace.seen;
        let bytes = (now.bytes_in - before.bytes_in) + (now.bytes_out - before.bytes_out);
        let flow = |rate: f32, count: u64| {
            let rate = rate + (count as f32 - rate) * WEIGHT;
            if rate < LEAST_RATE { 0.0 } else { rate }
        };
        pace.requests = flow(pace.requests, now.requests - before.requests);
        pace.bytes = flow(pace.bytes, bytes);
        pace.seen = now;
        false
    }

    /// Requests and bytes a second.
    pub fn rates(&self) -> (f32, f32) {
        let pace = lock(&self.pace);
        (pace.requests, pace.bytes)
    }

    /// Counts a request that begins now.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.last_active.store(unix_ms(), Ordering::Relaxed);
    }

    fn totals(&self) -> Counters {
        Counters {
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }

    /// Takes up what the store has and we have not: another process has counted, too.
    pub(super) fn learn(&self, row: &TunnelRow) {
        let mut saved = lock(&self.saved);
        let more = |total: &AtomicU64, saved: &mut u64, stored: u64| {
            if stored > *saved {
                total.fetch_add(stored - *saved, Ordering::Relaxed);
                *saved = stored;
            }
        };
        more(&self.bytes_in, &mut saved.bytes_in, row.bytes_in);
        more(&self.bytes_out, &mut saved.bytes_out, row.bytes_out);
        more(&self.requests, &mut saved.requests, row.requests);
        lock(&self.pace).seen = self.totals();
        self.last_active.fetch_max(row.last_active.unwrap_or(0), Ordering::Relaxed);
    }

    /// What has been counted since the last call. It counts as saved from now on, see [`Traffic::not_saved`].
    pub(super) fn take(&self) -> Counters {
        let mut saved = lock(&self.saved);
        let (before, now) = (*saved, self.totals());
        *saved = now;
        Counters {
            bytes_in: now.bytes_in - before.bytes_in,
            bytes_out: now.bytes_out - before.bytes_out,
            requests: now.requests - before.requests,
        }
    }

    /// What was taken could not be saved: it is part of the next time.
    pub(super) fn not_saved(&self, taken: &Activity) {
        let mut saved = lock(&self.saved);
        saved.bytes_in -= taken.bytes_in;
        saved.bytes_out -= taken.bytes_out;
        saved.requests -= taken.requests;
    }

    /// What of the totals is in the store.
    pub(super) fn saved(&self) -> Counters {
        *lock(&self.saved)
    }

    /// Unix milliseconds of the last request.
    pub fn last_active(&self) -> Option<i64> {
        Some(self.last_active.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }
}
