//! Tunnels of Taskcluster's workers: they come with their clients, go a while after them, and are in no store.

use std::sync::Arc;

use dashmap::Entry;
use uuid::Uuid;

use super::Registry;
use crate::auth::Owner;
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

    /// Ids of those that are connected.
    pub fn workers(&self) -> Vec<String> {
        let connected = self.by_name.iter().filter(|tunnel| tunnel.session().is_some());
        connected.filter_map(|tunnel| tunnel.name.strip_prefix(WORKER).map(str::to_owned)).collect()
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
