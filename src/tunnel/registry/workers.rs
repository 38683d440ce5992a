//! Tunnels of Taskcluster's workers: they come with their clients, go a while after them, and are in no store.

use std::sync::Arc;

use dashmap::Entry;
use uuid::Uuid;

use super::Registry;
use crate::auth::Owner;
use crate::proto::name::Name;
use crate::tunnel::{Spec, Tunnel, unix_ms};

/// Begins the names of such tunnels, and no others. What follows is the id: upper and lower case differ there.
pub const WORKER: char = '/';

/// Owns them in what operators see: no key has such a name.
const OWNER: &str = "(taskcluster)";

impl Registry {
    /// The tunnel of the worker `id`, if it is known.
    pub fn worker(&self, id: &str) -> Option<Arc<Tunnel>> {
        self.by_name(&name_of(id))
    }

    /// The tunnel whose host has this label below the base domain: a key's goes before a worker's, and an id that could not be
    /// the name of a key's has none.
    pub fn by_label(&self, label: &str) -> Option<Arc<Tunnel>> {
        let worker = || self.worker(Name::parse(label).ok()?.as_str());
        self.by_name(label).or_else(worker)
    }

    /// Ids of all that are known, and whether they are suspended.
    pub fn workers(&self) -> Vec<(String, bool)> {
        let worker =
            |tunnel: &Tunnel| Some((tunnel.name.strip_prefix(WORKER)?.to_owned(), tunnel.is_suspended()));
        self.by_name.iter().filter_map(|tunnel| worker(&tunnel)).collect()
    }

    /// Makes the tunnel of a worker that another process knows.
    pub fn inherit_worker(&self, id: &str, suspended: bool) {
        self.admit_worker(id).set_suspended(suspended);
    }

    /// The tunnel of the worker `id`, made if there is none. The caller vouches for the id.
    pub fn admit_worker(&self, id: &str) -> Arc<Tunnel> {
        let name = name_of(id);
        // Each has a quota of its own: workers are not one tenant.
        let quota = self.quotas.of(&Owner::from(name.as_str()));
        match self.by_name.entry(name) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(place) => {
                let (uuid, name) = (Uuid::new_v4(), place.key().clone());
                let owner = Owner::from(OWNER);
                let tunnel = Tunnel::new(uuid, name, owner, quota, unix_ms(), Spec::of_worker(), None);
                let tunnel = Arc::new(tunnel);
                self.by_id.insert(uuid, Arc::clone(&tunnel));
                place.insert(Arc::clone(&tunnel));
                tunnel
            }
        }
    }
}

fn name_of(id: &str) -> String {
    format!("{WORKER}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::limits::Limits;
    use crate::store::Sqlite;

    #[tokio::test]
    async fn workers_have_hosts_where_no_key_and_no_rule_has_the_name() {
        let registry = Registry::open(Arc::new(Sqlite::memory().unwrap()), &Limits::default()).await.unwrap();
        for id in ["www", "web", "Web", "a.b"] {
            registry.admit_worker(id);
        }
        let found = |label| registry.by_label(label).map(|tunnel| tunnel.name.clone());
        assert_eq!(found("web"), Some("/web".to_owned()));
        assert_eq!([found("www"), found("a.b"), found("none")], [None, None, None]);
    }

    #[tokio::test]
    async fn a_worker_that_is_suspended_is_so_at_the_next_process() {
        let open = || async {
            Registry::open(Arc::new(Sqlite::memory().unwrap()), &Limits::default()).await.unwrap()
        };
        let (old, new) = (open().await, open().await);
        let tunnel = old.admit_worker("a");
        old.admit_worker("b");
        assert_eq!(old.suspend(&tunnel, true).await, Ok(true));
        for (id, suspended) in old.workers() {
            new.inherit_worker(&id, suspended);
        }
        let suspended = |id| new.worker(id).unwrap().is_suspended();
        assert!(suspended("a") && !suspended("b"));
    }
}
