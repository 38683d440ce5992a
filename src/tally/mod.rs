//! What is counted since the process began: a few atomics, without names, that any number of threads add to.
//!
//! Each layer counts what it sees in a structure of its own; `relay` gives the numbers their names, for operators.

mod histogram;

pub use histogram::{Histogram, Snapshot};

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many until now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
