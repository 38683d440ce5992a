//! What several sessions may hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that wait to be read in all the sessions that share it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    held: Arc<AtomicUsize>,
    most: usize,
}

impl Budget {
    /// Of `most` bytes. When it is used up, each session may hold two windows of a stream and no more.
    pub fn new(most: usize) -> Self {
        Self { held: Arc::default(), most }
    }

    /// What waits in all of them.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.held() > self.most
    }
}

impl PartialEq for Budget {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.held, &other.held) && self.most == other.most
    }
}

impl Eq for Budget {}

/// Bytes that wait in one session, which count in its budget as long as they wait.
#[derive(Debug)]
pub(super) struct Held {
    bytes: usize,
    budget: Option<Budget>,
}

impl Held {
    pub(super) fn new(budget: Option<Budget>) -> Self {
        Self { bytes: 0, budget }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the sessions that share the budget hold too much.
    pub(super) fn is_budget_used_up(&self) -> bool {
        self.budget.as_ref().is_some_and(Budget::is_used_up)
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if let Some(budget) = &self.budget {
            budget.held.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some(budget) = &self.budget {
            budget.held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.take(self.bytes);
    }
}
