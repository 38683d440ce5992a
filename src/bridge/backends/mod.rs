//! The backends of a route: which of them gets a visitor, which are down, and how many are connected to each.

mod balance;
mod health;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

pub use balance::Balance;
use health::Health;

use super::spawn::Slot;
use super::target::Target;
use crate::sync::{Count, Held};

/// What decides which backend a visitor gets.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The path of its request, without a query.
    pub path: &'a str,
    /// The host that it asked for, with the port if it gave one; empty if it gave none.
    pub authority: &'a str,
    /// Where it comes from.
    pub address: IpAddr,
}

/// How a route deals with its backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancing {
    /// Which of them gets a visitor.
    pub balance: Balance,
    /// A backend that took no connection is left alone for so long. Zero: it is tried for each visitor.
    pub disable_time: Duration,
}

impl Default for Balancing {
    /// As lighttpd has them.
    fn default() -> Self {
        Self { balance: Balance::default(), disable_time: Duration::from_secs(1) }
    }
}

/// Why no backend took a visitor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError<E: std::error::Error + 'static> {
    /// Each has just failed for others, and is left alone.
    #[error("every backend is down; the next try is in {} ms", .again_in.as_millis())]
    Down {
        /// Until one of them is tried again.
        again_in: Duration,
    },
    /// Those that were tried failed; this is what the last of them said.
    #[error(transparent)]
    Failed(E),
}

/// The backends of one route.
#[derive(Debug)]
pub struct Backends {
    list: Vec<Backend>,
    balancing: Balancing,
    turn: AtomicUsize,
}

/// One place that visitors are connected to.
#[derive(Debug)]
struct Backend {
    target: Target,
    /// The process that the bridge runs for it.
    slot: Option<Arc<Slot>>,
    place: usize,
    health: Health,
    open: Count,
}

/// A connection to a backend, which counts it for as long as this lives.
#[derive(Debug)]
pub struct Connected<'a, S> {
    /// What the dialling gave.
    pub stream: S,
    /// Where it leads.
    pub target: &'a Target,
    /// To be kept with the stream: the backend is busy with it until this is dropped.
    pub held: Held,
}

impl Backends {
    /// Backends that are there anyway, and those that the bridge runs.
    pub fn new(targets: Vec<Target>, slots: Vec<Arc<Slot>>, balancing: Balancing) -> Self {
        let spawned = slots.into_iter().map(|slot| (slot.target().clone(), Some(slot)));
        let all = targets.into_iter().map(|target| (target, None)).chain(spawned).enumerate();
        let backend = |(place, (target, slot))| Backend {
            target,
            slot,
            place,
            health: Health::default(),
            open: Count::default(),
        };
        Self { list: all.map(backend).collect(), balancing, turn: AtomicUsize::new(0) }
    }

    /// Connects a visitor by `dial`, within `wait`, to the backend that is the visitor's or, where that fails, to the others in
    /// their order. Each dial is told how long it may take: an equal part of what is left, so that one that does not answer
    /// leaves some for the others.
    pub async fn connect<'a, S, E, F>(
        &'a self,
        visit: Visit<'_>,
        wait: Duration,
        dial: impl Fn(&'a Target, Duration) -> F,
    ) -> Result<Connected<'a, S>, ConnectError<E>>
    where
        E: std::error::Error + 'static,
        F: Future<Output = Result<S, E>>,
    {
        let (end, mut last) = (Instant::now() + wait, None);
        let order = self.order(visit);
        for (at, backend) in order.iter().enumerate() {
            let others = u32::try_from(order.len() - at).unwrap_or(u32::MAX);
            let part = end.saturating_duration_since(Instant::now()) / others;
            // Counted before it is there, so that many who come at once do not all choose the same.
            let held = backend.open.hold();
            match dial(&backend.target, part).await {
                Ok(stream) => {
                    backend.works();
                    return Ok(Connected { stream, target: &backend.target, held });
                }
                Err(error) => {
                    backend.failed(&error, self.balancing.disable_time);
                    last = Some(ConnectError::Failed(error));
                }
            }
        }
        Err(last.unwrap_or_else(|| ConnectError::Down { again_in: self.again_in() }))
    }

    /// Those that may be tried, the visitor's own first.
    fn order(&self, visit: Visit<'_>) -> Vec<&Backend> {
        self.grow();
        let now = Instant::now();
        let mut candidates: Vec<_> = self.list.iter().filter(|backend| backend.is_up(now)).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.balancing.balance.sort(&mut candidates, visit, turn, self.list.len());
        candidates
    }

    /// Has one more process started if each that runs is busy.
    fn grow(&self) {
        let mut slots = self.list.iter().filter_map(|backend| Some((backend, backend.slot.as_ref()?)));
        // None that runs is one that is getting ready.
        let mut running = slots.clone().filter(|(_, slot)| slot.is_running()).peekable();
        if running.peek().is_some()
            && running.all(|(backend, _)| backend.open.get() > 0)
            && let Some((_, slot)) = slots.find(|(_, slot)| !slot.is_wanted())
        {
            slot.start();
        }
    }

    fn again_in(&self) -> Duration {
        let now = Instant::now();
        self.list.iter().map(|backend| backend.health.rest(now)).min().unwrap_or_default()
    }

    /// What is connected to each backend now, in the order in which they were given.
    #[cfg(test)]
    fn loads(&self) -> impl Iterator<Item = (&Target, usize)> {
        self.list.iter().map(|backend| (&backend.target, backend.open.get()))
    }
}

impl Backend {
    fn is_up(&self, now: Instant) -> bool {
        self.slot.as_ref().is_none_or(|slot| slot.is_running()) && self.health.rest(now).is_zero()
    }

    fn works(&self) {
        if let Some(away) = self.health.works(Instant::now()) {
            tracing::info!(backend = %self.target, away_ms = away.as_millis(), "the backend is back");
        }
    }

    fn failed(&self, error: &impl std::error::Error, disable_time: Duration) {
        // Once an outage: whoever comes meanwhile would only say the same.
        if self.health.failed(Instant::now(), disable_time) {
            tracing::warn!(backend = %self.target, %error, "the backend takes no connection");
        }
    }
}
