//! The order in which backends are tried for a visitor.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use super::{Backend, Visit};

/// Which backend gets a visitor: mod_wstunnel's `wstunnel.balance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// The one with the fewest connections, of equals the first. lighttpd calls the same thing `fair` too.
    #[default]
    LeastConnection,
    /// Each in turn.
    RoundRobin,
    /// The same for the same path and host.
    Hash,
    /// The same for the same address of visitors.
    Sticky,
    /// Always the first; the others are where it may be instead. For wrapped programs; no setting names it.
    InOrder,
}

impl FromStr for Balance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fair" | "least-connection" => Ok(Self::LeastConnection),
            "round-robin" => Ok(Self::RoundRobin),
            "hash" => Ok(Self::Hash),
            "sticky" => Ok(Self::Sticky),
            _ => Err(format!("{text:?}: expected fair, least-connection, round-robin, hash or sticky")),
        }
    }
}

impl Balance {
    /// Sorts `candidates`: the first is the visitor's, the others are for when that one fails. `turn` grows by one with
    /// each visitor, and `count` is that of all backends.
    pub(super) fn sort(self, candidates: &mut [&Backend], visit: Visit<'_>, turn: usize, count: usize) {
        match self {
            Self::LeastConnection => candidates.sort_by_cached_key(|backend| backend.open.get()),
            Self::RoundRobin => {
                // By its place in the whole list: a backend that is down passes its turn to the next, and nobody else moves.
                let first = turn % count.max(1);
                candidates.sort_by_key(|backend| (backend.place + count - first) % count);
            }
            // Each key has an order of its own in which only those change places that come or go (rendezvous hashing).
            Self::Hash => {
                candidates.sort_by_cached_key(|backend| weight((visit.path, visit.authority), backend))
            }
            Self::Sticky => candidates.sort_by_cached_key(|backend| weight(visit.address, backend)),
            Self::InOrder => candidates.sort_by_key(|backend| backend.place),
        }
    }
}

fn weight(key: impl Hash, backend: &Backend) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, &backend.target).hash(&mut hasher);
    hasher.finish()
}
