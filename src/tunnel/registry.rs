//! All tunnels of this relay, by name and by id, in step with the store.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::MutexGuard;
use uuid::Uuid;

use super::events::{Event, Events, Kind};
use super::news::News;
use super::policy::{Given, Policy, Scope};
use super::ports::{NoPorts, Opened, Ports};
use super::quota::{Quota, Quotas};
use super::{CreateError, Domains, Spec, Tunnel, rfc3339, unix_ms};
use crate::auth::Owner;
use crate::link::sockets::{End, Session};
use crate::proto::api::{CreateTunnel, NEVER};
use crate::proto::limits::{Limits, drain};
use crate::proto::message::{Drain, Level};
use crate::proto::name::Name;
use crate::proto::policy as written;
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

    /// Creates a tunnel, or takes up the caller's own of that name; `true` says that it is new. A name that belongs to
    /// the caller is had again whatever became of its tunnel, and is never counted as one more.
    pub async fn create(
        &self,
        owner: &Owner,
        request: CreateTunnel,
    ) -> Result<(Arc<Tunnel>, bool), CreateError> {
        let wanted = request.name.as_deref().map(str::trim).map(str::to_ascii_lowercase).unwrap_or_default();
        let before = self.owned(owner, &wanted).map(|tunnel| tunnel.spec());
        let quota = self.quotas.of(owner);
        let hashes = request.auth_pass.is_some()
            || request.policy.as_ref().is_some_and(|policy| policy.auth.is_some());
        let body_limit = self.body_limit;
        let check = move || Spec::check(&request, before.as_deref(), body_limit);
        // Only a password takes long.
        let (spec, name) = if hashes {
            let failed = || Err(StoreError::Other("a task has failed".to_owned()).into());
            quota.hashing.run(check).await.unwrap_or_else(failed)?
        } else {
            check()?
        };
        if let Some(taken) =
            spec.domains.iter().find(|host| self.domains.tunnel_of(host).is_some_and(|name| name != wanted))
        {
            return Err(CreateError::DomainTaken(taken.clone()));
        }
        let _writing = loop {
            if let Some(tunnel) = self.owned(owner, &wanted)
                && self.take_up(&tunnel, spec.clone()).await?
            {
                return Ok((tunnel, false));
            }
            let writing = self.writing(&quota).await;
            // Another request may have made it meanwhile.
            if self.owned(owner, &wanted).is_none() {
                break writing;
            }
        };
        if let Some(most) = self.quotas.tunnels()
            && self.by_name.iter().filter(|tunnel| tunnel.owner == *owner).count() >= most
        {
            return Err(CreateError::TooMany(most));
        }
        quota.create().map_err(|(most, wait)| CreateError::TooOften { most, wait })?;
        let mut spec = spec;
        let opened = self.find_port(owner, name.as_ref().map(Name::as_str), &mut spec).await?;
        let tunnel = match name {
            Some(name) => self
                .add(owner, &quota, &name, spec)
                .await?
                .ok_or_else(|| CreateError::Taken(name.to_string()))?,
            None => loop {
                if let Some(tunnel) = self.add(owner, &quota, &generated(), spec.clone()).await? {
                    break tunnel;
                }
            },
        };
        opened.into_iter().for_each(Opened::keep);
        self.events.add(Event::of(Kind::Created, &tunnel));
        Ok((tunnel, true))
    }

    fn owned(&self, owner: &Owner, name: &str) -> Option<Arc<Tunnel>> {
        self.by_name(name).filter(|tunnel| tunnel.owner == *owner)
    }

    /// Whether the tunnel has not ended: a row of one that has is never written as open again.
    fn is_there(&self, tunnel: &Arc<Tunnel>) -> bool {
        self.by_uuid(tunnel.id).is_some_and(|current| Arc::ptr_eq(&current, tunnel))
    }

    /// `false`: it has ended meanwhile.
    async fn take_up(&self, tunnel: &Arc<Tunnel>, mut spec: Spec) -> Result<bool, CreateError> {
        // A client that comes back with the name we made up for it does not thereby choose it.
        spec.chosen = tunnel.spec().chosen;
        let asked = spec.policy.clone();
        spec.settle(&tunnel.spec())?;
        let port = tunnel.spec().port;
        let keeps_port = self.keeps_port(&mut spec, port);
        let unchanged = keeps_port && *tunnel.spec() == spec;
        // Without a change nothing needs writing, so that clients come back even while the disk is full.
        let writes = !unchanged || spec.ttl.is_some() || tunnel.expires_at().is_some();
        let _writing = if writes { Some(self.writing(&tunnel.quota).await) } else { None };
        if !self.is_there(tunnel) {
            return Ok(false);
        }
        let mut opened = None;
        if !keeps_port {
            opened = self.find_port(&tunnel.owner, Some(&tunnel.name), &mut spec).await?;
        }
        let before = if unchanged {
            // A client that comes back must not undo an extension.
            tunnel.expire_no_earlier(spec.ttl);
            None
        } else {
            // Another policy may have been put there while this waited for its turn.
            (spec.policy, spec.asked) = (asked, None);
            spec.settle(&tunnel.spec())?;
            let ttl = spec.ttl;
            Some((tunnel.replace_spec(Arc::new(spec)), tunnel.expire_after(ttl)))
        };
        let written = if writes { self.write(tunnel, false).await } else { Ok(()) };
        match (written, before) {
            (Ok(()), before) => {
                if let Some((before, _)) = before {
                    self.lead(tunnel, &before.domains);
                }
                opened.into_iter().for_each(Opened::keep);
                self.port_changed(tunnel, port);
                Ok(true)
            }
            (Err(StoreError::Unavailable(_) | StoreError::Superseded), None) => {
                opened.into_iter().for_each(Opened::keep);
                self.port_changed(tunnel, port);
                Ok(true)
            }
            (Err(error), before) => {
                if let Some((spec, expiry)) = before {
                    tunnel.replace_spec(spec);
                    tunnel.expire_at(expiry);
                }
                Err(error.into())
            }
        }
    }

    async fn add(
        &self,
        owner: &Owner,
        quota: &Arc<Quota>,
        name: &Name,
        spec: Spec,
    ) -> Result<Option<Arc<Tunnel>>, CreateError> {
        let ttl = spec.ttl;
        let (owner, quota) = (owner.clone(), Arc::clone(quota));
        let tunnel = Tunnel::new(Uuid::new_v4(), name.to_string(), owner, quota, unix_ms(), spec, None);
        tunnel.expire_after(ttl);
        let tunnel = Arc::new(tunnel);
        // The store decides between two who want a name at once.
        match self.store.put_tunnel(tunnel.to_row(false)).await? {
            Put::Taken => Ok(None),
            Put::PortTaken => Err(CreateError::PortTaken(tunnel.spec().port.unwrap_or(0))),
            Put::Newer => Err(StoreError::Superseded.into()),
            Put::Stored => {
                self.insert(Arc::clone(&tunnel));
                Ok(Some(tunnel))
            }
        }
    }

    /// The right to write. Of one owner only one call at a time waits among those of others, so that however many it
    /// makes, theirs wait for no more than one of them.
    async fn writing<'a>(&'a self, quota: &'a Quota) -> (MutexGuard<'a, ()>, MutexGuard<'a, ()>) {
        let turn = quota.writing.lock().await;
        (self.writing.lock().await, turn)
    }

    /// Writes a tunnel that is ours.
    async fn write(&self, tunnel: &Tunnel, closed: bool) -> Result<(), StoreError> {
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

    /// Ends a tunnel for good; its client is told to stop. The name stays reserved. `false`: it had ended before.
    pub async fn delete(&self, tunnel: &Arc<Tunnel>) -> Result<bool, StoreError> {
        let _writing = self.writing(&tunnel.quota).await;
        if !self.is_there(tunnel) {
            return Ok(false);
        }
        self.write(tunnel, true).await?;
        self.remove(tunnel);
        tunnel.end(End::Deleted);
        self.events.add(Event::of(Kind::Deleted, tunnel));
        Ok(true)
    }

    /// Turns viewers away, or lets them in again. `false`: the tunnel has ended.
    pub async fn suspend(&self, tunnel: &Arc<Tunnel>, suspended: bool) -> Result<bool, StoreError> {
        let _writing = self.writing(&tunnel.quota).await;
        if !self.is_there(tunnel) {
            return Ok(false);
        }
        let before = tunnel.is_suspended();
        tunnel.set_suspended(suspended);
        self.write(tunnel, false).await.inspect_err(|_| tunnel.set_suspended(before))?;
        if suspended != before {
            let kind = if suspended { Kind::Suspended } else { Kind::Resumed };
            self.events.add(Event::of(kind, tunnel));
        }
        Ok(true)
    }

    /// Sets the end of a tunnel to `ttl` from now; `None` is never. `false`: the tunnel has ended.
    pub async fn extend(&self, tunnel: &Arc<Tunnel>, ttl: Option<Duration>) -> Result<bool, StoreError> {
        let _writing = self.writing(&tunnel.quota).await;
        if !self.is_there(tunnel) {
            return Ok(false);
        }
        let before = tunnel.expire_after(ttl);
        self.write(tunnel, false).await.inspect_err(|_| {
            tunnel.expire_at(before);
        })?;
        let end = tunnel.expires_at().map_or_else(|| NEVER.to_owned(), rfc3339);
        self.events.add(Event::of(Kind::Extended, tunnel).because(format!("ends {end}")));
        Ok(true)
    }

    /// Puts a policy in the place of the tunnel's, for viewers that come from now on; `None` takes it away. `false`: the
    /// tunnel has ended.
    pub async fn set_policy(
        &self,
        tunnel: &Arc<Tunnel>,
        wanted: Option<written::Policy>,
    ) -> Result<bool, CreateError> {
        let (before, body_limit) = (tunnel.spec(), self.body_limit);
        let hashes = wanted.as_ref().is_some_and(|wanted| wanted.auth.is_some());
        let check = move || {
            let Some(wanted) = wanted else { return Ok(None) };
            let proto = before.proto;
            let (has_auth, before) = (before.auth.is_some(), before.policy.as_deref());
            Policy::check(&wanted, &Given { body_limit, has_auth, before, scope: Scope::of(proto) })
        };
        // Only a password takes long.
        let policy = if hashes {
            let failed = || StoreError::Other("a task has failed".to_owned());
            tunnel.quota.hashing.run(check).await.ok_or_else(failed)??
        } else {
            check()?
        };
        let _writing = self.writing(&tunnel.quota).await;
        if !self.is_there(tunnel) {
            return Ok(false);
        }
        let before = tunnel.spec();
        tunnel.replace_spec(Arc::new(before.with_policy(policy.map(Arc::new))?));
        self.write(tunnel, false).await.inspect_err(|_| {
            tunnel.replace_spec(before);
        })?;
        Ok(true)
    }

    /// Forgets a tunnel whose time is over. The store lets go of the name when its reservation ends.
    pub(super) fn expire(&self, tunnel: &Arc<Tunnel>) {
        self.remove(tunnel);
        tunnel.end(End::Expired);
        self.events.add(Event::of(Kind::Expired, tunnel));
    }

    /// Tells every client that the relay goes, and when to come back: spread out, so that they do not come all at once.
    /// `within` is what requests under way have to finish. The longest time that a client was told, or `None` if there
    /// is no client that can be told.
    pub fn drain_sessions(&self, within: Duration) -> Option<Duration> {
        let sessions = self.all().into_iter().flat_map(|tunnel| tunnel.all_sessions());
        let sessions: Vec<_> = sessions.collect();
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
        let spread = (drain::PER_CLIENT * count).clamp(drain::SPREAD_LEAST, drain::SPREAD_MOST);
        let told = sessions.iter().any(|session| session.level() == Level::Two);
        for session in sessions {
            drain_session(&session, within, spread);
        }
        told.then_some(spread)
    }

    /// Stops what runs through all tunnels.
    pub fn stop_running(&self) {
        self.all().iter().for_each(|tunnel| tunnel.stop_running());
    }

    /// Ends every session, as the relay stops.
    pub fn end_sessions(&self) {
        for tunnel in self.all() {
            tunnel.all_sessions().for_each(|session| session.end(End::Restart));
        }
    }
}

/// Tells one client that the relay goes, and to come back within `spread`.
pub fn drain_session(session: &Session, within: Duration, spread: Duration) {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let reconnect_ms = u64::from(Uuid::new_v4().as_fields().0) % ms(spread).saturating_add(1);
    session.drain(Drain { deadline_ms: ms(within), reconnect_ms });
}

/// Whether a row is of a tunnel that goes on.
pub(super) fn is_live(row: &TunnelRow) -> bool {
    !row.closed && row.expires_at.is_none_or(|at| at > unix_ms())
}

fn generated() -> Name {
    let bytes = Uuid::new_v4().into_bytes();
    // The bytes of a v4 UUID that carry no version or variant bits.
    Name::generated([bytes[0], bytes[1], bytes[2], bytes[3], bytes[10], bytes[11]])
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::Poll;

    use super::*;
    use crate::store::Sqlite;

    #[tokio::test]
    async fn one_owners_many_writes_do_not_hold_up_anothers() {
        let registry = Registry::open(Arc::new(Sqlite::memory().unwrap()), &Limits::default()).await.unwrap();
        let order = Mutex::new(Vec::new());
        let create = async |owner: &'static str| {
            let wanted = CreateTunnel { local_port: 1, ..CreateTunnel::default() };
            registry.create(&Owner::from(owner), wanted).await.unwrap();
            order.lock().unwrap().push(owner);
        };
        let held = registry.writing.lock().await;
        let mut calls: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
        for owner in ["alice"; 20].into_iter().chain(["bob"]) {
            calls.push(Box::pin(create(owner)));
        }
        // All of them wait now.
        poll_fn(|cx| {
            assert!(calls.iter_mut().all(|call| call.as_mut().poll(cx).is_pending()));
            Poll::Ready(())
        })
        .await;
        drop(held);
        futures_util::future::join_all(calls).await;
        let order = order.into_inner().unwrap();
        let bobs = order.iter().position(|owner| *owner == "bob").unwrap();
        assert!(bobs <= 1, "{order:?}");
    }

    #[tokio::test]
    async fn a_change_that_comes_after_the_end_does_not_open_the_tunnel_again() {
        let store: Arc<dyn Store> = Arc::new(Sqlite::memory().unwrap());
        let registry = Registry::open(Arc::clone(&store), &Limits::default()).await.unwrap();
        let wanted = CreateTunnel { local_port: 1, name: Some("web".into()), ..CreateTunnel::default() };
        let (tunnel, _) = registry.create(&Owner::from("alice"), wanted.clone()).await.unwrap();
        assert_eq!(registry.delete(&tunnel).await, Ok(true));
        assert_eq!(registry.delete(&tunnel).await, Ok(false));
        assert_eq!(registry.suspend(&tunnel, true).await, Ok(false));
        assert_eq!(registry.extend(&tunnel, Some(Duration::from_secs(60))).await, Ok(false));
        let spec = (*tunnel.spec()).clone();
        assert!(!registry.take_up(&tunnel, spec).await.unwrap());
        assert!(Registry::open(store, &Limits::default()).await.unwrap().all().is_empty());
        let (again, is_new) = registry.create(&Owner::from("alice"), wanted).await.unwrap();
        assert!(is_new && again.id != tunnel.id);
    }
}
