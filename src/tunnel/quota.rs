//! What the tunnels of one owner may take together: counted, paced, and forgotten when nothing of it is left.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::throttle::{Meter, Throttle};
use crate::auth::Owner;
use crate::auth::password::Turn;
use crate::proto::limits::Limits;
use crate::proto::pace::Pace;
use crate::sync::{Counted, lock};

/// The time in which creations are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// What is allowed to each owner; `None` is no limit.
#[derive(Debug, Clone, Copy)]
struct Most {
    tunnels: Option<usize>,
    viewers: Option<usize>,
    waiting: Option<usize>,
    creations: Option<NonZeroU64>,
    bandwidth: Option<NonZeroU64>,
}

/// The quotas of every owner that has a tunnel, or created one of late.
pub(super) struct Quotas {
    most: Most,
    /// Locked where a tunnel begins, not where a viewer comes.
    owners: Mutex<HashMap<Owner, Arc<Quota>>>,
}

impl Quotas {
    pub(super) fn new(limits: &Limits) -> Self {
        let most = Most {
            tunnels: limits.tunnels_per_key,
            viewers: limits.viewers_per_key,
            waiting: limits.waiting_per_key,
            creations: limits.creations_per_key.and_then(|count| NonZeroU64::new(count as u64)),
            bandwidth: limits.bandwidth_per_key.and_then(NonZeroU64::new),
        };
        Self { most, owners: Mutex::default() }
    }

    /// How many tunnels each owner may have.
    pub(super) fn tunnels(&self) -> Option<usize> {
        self.most.tunnels
    }

    /// That of one owner, the same for all who hold it.
    pub(super) fn of(&self, owner: &Owner) -> Arc<Quota> {
        let new = || Arc::new(Quota::new(self.most));
        Arc::clone(lock(&self.owners).entry(owner.clone()).or_insert_with(new))
    }

    /// Forgets owners of whom nothing is left: whoever deletes a tunnel does not thereby start afresh.
    pub(super) fn tend(&self) {
        let now = Instant::now();
        lock(&self.owners).retain(|_, quota| Arc::strong_count(quota) > 1 || !quota.is_rested(now));
    }
}

/// What one owner has under way.
pub struct Quota {
    most: Most,
    viewers: AtomicUsize,
    waiting: AtomicUsize,
    creations: Option<Mutex<Pace>>,
    throttle: Option<Arc<Throttle>>,
    /// Held by the one write that may wait for its turn among those of all owners.
    pub(super) writing: tokio::sync::Mutex<()>,
    /// Passwords of the owner and of its viewers are checked one at a time.
    pub hashing: Turn,
}

/// A quota is used up; the number is what it allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedUp(pub usize);

impl Quota {
    fn new(most: Most) -> Self {
        Self {
            most,
            viewers: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            creations: most.creations.map(|count| Mutex::new(Pace::new(count, MINUTE, MINUTE))),
            throttle: most.bandwidth.map(|bytes| Arc::new(Throttle::new(bytes))),
            writing: tokio::sync::Mutex::default(),
            hashing: Turn::default(),
        }
    }

    /// Counts a viewer's exchange, or what it becomes by an upgrade.
    pub fn view(self: &Arc<Self>) -> Result<Viewing, UsedUp> {
        let before = self.viewers.fetch_add(1, Ordering::Relaxed);
        let viewing = Viewing(Arc::clone(self));
        match self.most.viewers {
            Some(most) if before >= most => Err(UsedUp(most)),
            _ => Ok(viewing),
        }
    }

    /// Counts a viewer that waits for a client, or for a claim.
    pub(crate) fn wait(&self) -> Result<Counted<'_>, UsedUp> {
        let most = self.most.waiting.unwrap_or(usize::MAX);
        Counted::enter(&self.waiting, most).ok_or(UsedUp(most))
    }

    /// Counts a creation; an error has what a minute may bring, and when the next one may come.
    pub(super) fn create(&self) -> Result<(), (usize, Duration)> {
        let Some(creations) = &self.creations else { return Ok(()) };
        let most = self.most.creations.map_or(0, |most| usize::try_from(most.get()).unwrap_or(usize::MAX));
        lock(creations).try_take(Instant::now().into_std(), 1).map_err(|wait| (most, wait))
    }

    /// For one exchange, where there is a limit of bandwidth.
    pub fn meter(&self) -> Option<Box<Meter>> {
        self.throttle.as_ref().map(|throttle| Box::new(Meter::new(Arc::clone(throttle))))
    }

    fn is_rested(&self, now: Instant) -> bool {
        self.creations.as_ref().is_none_or(|creations| lock(creations).is_rested(now.into_std()))
    }
}

/// A viewer among those of its owner, until dropped.
pub struct Viewing(Arc<Quota>);

impl Drop for Viewing {
    fn drop(&mut self) {
        self.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_owner_is_forgotten_once_nothing_of_it_counts() {
        let limits = Limits { creations_per_key: Some(60), ..Limits::default() };
        let quotas = Quotas::new(&limits);
        let owner = Owner::from("alice");
        let quota = quotas.of(&owner);
        let viewing = quota.view().unwrap();
        assert!(Arc::ptr_eq(&quota, &quotas.of(&owner)));
        drop(quota);
        quotas.tend();
        assert_eq!(lock(&quotas.owners).len(), 1, "a viewer is there");
        assert_eq!(viewing.0.create(), Ok(()));
        drop(viewing);
        quotas.tend();
        assert_eq!(lock(&quotas.owners).len(), 1, "a creation is not made up for");
        tokio::time::advance(Duration::from_secs(2)).await;
        quotas.tend();
        assert!(lock(&quotas.owners).is_empty());
    }
}
