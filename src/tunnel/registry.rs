//! All tunnels of this relay, by name and by id, in step with the store.

mod changes;
mod creation;
mod goodbye;
mod workers;

pub use creation::Wanted;
pub use goodbye::drain_session;
pub use workers::WORKER;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use dashmap::DashMap;
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::events::Events;
use super::news::News;
use super::ports::{NoPorts, Ports};
use super::quota::{Quota, Quotas};
use super::{Domains, Tunnel, unix_ms};
use crate::auth::Owner;
use crate::link::sockets::End;
use crate::proto::limits::Limits;
use crate::store::{Put, Store, StoreError, TunnelRow};

/// Every live tunnel. Names whose tunnel has ended stay reserved in the store.
pub struct Registry {
    pub(super) by_name: DashMap<String, Arc<Tunnel>>,
    by_id: DashMap<Uuid, Arc<Tunnel>>,
    pub(super) by_port: DashMap<u16, Arc<Tunnel>>,
    pub(super) ports: Arc<dyn Ports>,
    pub(super) store: Arc<dyn Store>,
    pub(super) quotas: Quotas,
    /// Of this process: rows of another one were written by somebody else.
    pub(super) generation: i64,
    /// Held from the look at what an owner has to the new tunnel, so that of two creations at once the second sees the
    /// first; and over each write and the reading of all rows, so that what is read is not older than what we wrote.
    pub(super) writing: tokio::sync::Mutex<()>,
    /// When the last tunnel was created, in Unix milliseconds.
    pub(super) youngest: AtomicI64,
    pub(super) news: News,
    domains: Domains,
    /// What happened, for operators.
    pub events: Events,
    /// Bytes of a body, at most.
    body_limit: Option<u64>,
}

impl Registry {
    /// Loads what the store has: known tunnels answer 503 until their clients are back.
    pub async fn open(store: Arc<dyn Store>, limits: &Limits) -> Result<Self, StoreError> {
        let generation = store.begin().await?;
        let rows = store.load_tunnels().await?;
        let registry = Self {
            by_name: DashMap::new(),
            by_id: DashMap::new(),
            by_port: DashMap::new(),
            ports: Arc::new(NoPorts),
            store,
            quotas: Quotas::new(limits),
            generation,
            youngest: AtomicI64::new(0),
            writing: Default::default(),
            news: News::default(),
            domains: Domains::default(),
            events: Events::default(),
            body_limit: limits.body_bytes,
        };
        for row in rows.iter().filter(|row| is_live(row)) {
            let tunnel = Tunnel::from_row(row, &registry.quotas)
                .map_err(|error| StoreError::Corrupt(format!("tunnel {}: {error}", row.name)))?;
            registry.insert(Arc::new(tunnel));
        }
        Ok(registry)
    }

    /// The tunnel of that name, in lower case.
    pub fn by_name(&self, name: &str) -> Option<Arc<Tunnel>> {
        self.by_name.get(name).map(|tunnel| Arc::clone(&tunnel))
    }

    /// The tunnel with that id.
    pub fn by_id(&self, id: &str) -> Option<Arc<Tunnel>> {
        self.by_uuid(Uuid::parse_str(id).ok()?)
    }

    pub(super) fn by_uuid(&self, id: Uuid) -> Option<Arc<Tunnel>> {
        self.by_id.get(&id).map(|tunnel| Arc::clone(&tunnel))
    }

    /// Hosts that lead to tunnels.
    pub fn domains(&self) -> Domains {
        self.domains.clone()
    }

    /// The tunnels of one key, oldest first.
    pub fn owned_by(&self, owner: &Owner) -> Vec<Arc<Tunnel>> {
        let mut tunnels = self.all();
        tunnels.retain(|tunnel| tunnel.owner == *owner);
        tunnels.sort_by_key(|tunnel| (tunnel.created_at, tunnel.id));
        tunnels
    }

    /// All tunnels, in no order.
    pub fn all(&self) -> Vec<Arc<Tunnel>> {
        self.by_name.iter().map(|tunnel| Arc::clone(&tunnel)).collect()
    }

    /// How many there are, by name and by id.
    pub fn counts(&self) -> (usize, usize) {
        (self.by_name.len(), self.by_id.len())
    }

    /// Calls that wait for the store.
    pub fn unstored(&self) -> usize {
        self.store.waiting()
    }

    /// What calls of the store came to, if it counts them.
    pub fn store_tally(&self) -> Option<&crate::store::Tally> {
        self.store.tally()
    }

    /// Whether the tunnel has not ended: a row of one that has is never written as open again.
    fn is_there(&self, tunnel: &Arc<Tunnel>) -> bool {
        self.by_uuid(tunnel.id).is_some_and(|current| Arc::ptr_eq(&current, tunnel))
    }

    /// The right to write. Of one owner only one call at a time waits among those of others, so that however many it
    /// makes, theirs wait for no more than one of them.
    async fn writing<'a>(&'a self, quota: &'a Quota) -> (MutexGuard<'a, ()>, MutexGuard<'a, ()>) {
        let turn = quota.writing.lock().await;
        (self.writing.lock().await, turn)
    }

    /// Writes a tunnel that is ours.
    async fn write(&self, tunnel: &Tunnel, closed: bool) -> Result<(), StoreError> {
        if tunnel.is_worker() {
            return Ok(());
        }
        match self.store.put_tunnel(tunnel.to_row(closed)).await? {
            Put::Newer => Err(StoreError::Superseded),
            Put::PortTaken => Err(StoreError::Unavailable("another tunnel has the port".to_owned())),
            Put::Stored | Put::Taken => Ok(()),
        }
    }

    /// Leads the tunnel's hosts to it, and those that it had `before` no more.
    pub(super) fn lead(&self, tunnel: &Tunnel, before: &[String]) {
        let spec = tunnel.spec();
        for host in before.iter().filter(|host| !spec.domains.contains(host)) {
            self.domains.release(host, &tunnel.name);
        }
        for host in &spec.domains {
            if let Err(other) = self.domains.claim(host, &tunnel.name) {
                tracing::warn!(host, tunnel = tunnel.name, other, "a domain leads to another tunnel already");
            }
        }
    }

    pub(super) fn insert(&self, tunnel: Arc<Tunnel>) {
        self.lead(&tunnel, &[]);
        self.by_id.insert(tunnel.id, Arc::clone(&tunnel));
        self.port_changed(&tunnel, None);
        if let Some(before) = self.by_name.insert(tunnel.name.clone(), tunnel) {
            self.by_id.remove(&before.id);
            before.spec().port.into_iter().for_each(|port| self.leave_port(&before, port));
            // Another process has made it anew; its client finds it there.
            before.end(End::Restart);
        }
    }

    pub(super) fn remove(&self, tunnel: &Arc<Tunnel>) {
        self.by_id.remove(&tunnel.id);
        if self.by_name.remove_if(&tunnel.name, |_, current| Arc::ptr_eq(current, tunnel)).is_some() {
            for host in &tunnel.spec().domains {
                self.domains.release(host, &tunnel.name);
            }
        }
        tunnel.spec().port.into_iter().for_each(|port| self.leave_port(tunnel, port));
    }
}

/// Whether a row is of a tunnel that goes on.
pub(super) fn is_live(row: &TunnelRow) -> bool {
    !row.closed && row.expires_at.is_none_or(|at| at > unix_ms())
}
