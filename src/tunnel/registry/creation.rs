//! How a tunnel comes to be, or is taken up again by its owner.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::Registry;
use crate::auth::Owner;
use crate::proto::api::CreateTunnel;
use crate::proto::name::Name;
use crate::store::{Put, StoreError};
use crate::tunnel::events::{Event, Kind};
use crate::tunnel::ports::Opened;
use crate::tunnel::quota::Quota;
use crate::tunnel::{CreateError, Spec, Tunnel, unix_ms};

/// What a creation asks, found to be possible.
pub struct Wanted {
    /// Of the tunnel.
    pub spec: Spec,
    /// What the owner's tunnel of that name has now.
    pub before: Option<Arc<Spec>>,
    name: Option<Name>,
    resumes: bool,
}

impl Registry {
    /// Looks at a request by itself: nothing is taken by that.
    pub async fn check(&self, owner: &Owner, request: CreateTunnel) -> Result<Wanted, CreateError> {
        let name = request.name.as_deref().map(str::trim).map(str::to_ascii_lowercase).unwrap_or_default();
        let before = self.owned(owner, &name).map(|tunnel| tunnel.spec());
        let hashes = request.auth_pass.is_some()
            || request.policy.as_ref().is_some_and(|policy| policy.auth.is_some());
        let body_limit = self.body_limit;
        let resumes = request.resume.unwrap_or_default();
        let same = before.clone();
        let check = move || Spec::check(&request, same.as_deref(), body_limit);
        // Only a password takes long.
        let (spec, name) = if hashes {
            let failed = || Err(StoreError::Other("a task has failed".to_owned()).into());
            self.quotas.of(owner).hashing.run(check).await.unwrap_or_else(failed)?
        } else {
            check()?
        };
        Ok(Wanted { spec, before, name, resumes })
    }

    /// Creates a tunnel, or takes up the caller's own of that name; `true` says that it is new. A name that belongs to
    /// the caller is had again whatever became of its tunnel, and is never counted as one more.
    pub async fn create(&self, owner: &Owner, wanted: Wanted) -> Result<(Arc<Tunnel>, bool), CreateError> {
        let Wanted { mut spec, name, resumes, before: _ } = wanted;
        let wanted = name.as_ref().map(Name::as_str).unwrap_or_default();
        let quota = self.quotas.of(owner);
        if let Some(taken) =
            spec.domains.iter().find(|host| self.domains.tunnel_of(host).is_some_and(|name| name != wanted))
        {
            return Err(CreateError::DomainTaken(taken.clone()));
        }
        let _writing = loop {
            if let Some(tunnel) = self.owned(owner, wanted)
                && self.take_up(&tunnel, spec.clone(), resumes).await?
            {
                return Ok((tunnel, false));
            }
            let writing = self.writing(&quota).await;
            // Another request may have made it meanwhile.
            if self.owned(owner, wanted).is_none() {
                break writing;
            }
        };
        if let Some(most) = self.quotas.tunnels()
            && self.by_name.iter().filter(|tunnel| tunnel.owner == *owner).count() >= most
        {
            return Err(CreateError::TooMany(most));
        }
        quota.create().map_err(|(most, wait)| CreateError::TooOften { most, wait })?;
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

    /// `false`: it has ended meanwhile. Who resumes leaves its end as it is.
    pub(super) async fn take_up(
        &self,
        tunnel: &Arc<Tunnel>,
        mut spec: Spec,
        resumes: bool,
    ) -> Result<bool, CreateError> {
        // A client that comes back with the name we made up for it does not thereby choose it.
        spec.chosen = tunnel.spec().chosen;
        let asked = spec.policy.clone();
        spec.settle(&tunnel.spec())?;
        let port = tunnel.spec().port;
        let keeps_port = self.keeps_port(&mut spec, port);
        let unchanged = keeps_port && *tunnel.spec() == spec;
        // Without a change nothing needs writing, so that clients come back even while the disk is full.
        let writes = !unchanged || !resumes && (spec.ttl.is_some() || tunnel.expires_at().is_some());
        let _writing = if writes { Some(self.writing(&tunnel.quota).await) } else { None };
        if !self.is_there(tunnel) {
            return Ok(false);
        }
        let mut opened = None;
        if !keeps_port {
            opened = self.find_port(&tunnel.owner, Some(&tunnel.name), &mut spec).await?;
        }
        let before = if unchanged {
            if !resumes {
                // Clients that know no better say nothing when they come back; that must not undo an extension.
                tunnel.expire_no_earlier(spec.ttl);
            }
            None
        } else {
            // Another policy may have been put there while this waited for its turn.
            (spec.policy, spec.asked) = (asked, None);
            spec.settle(&tunnel.spec())?;
            let ttl = spec.ttl;
            let before = tunnel.replace_spec(Arc::new(spec));
            Some((before, if resumes { tunnel.expiry() } else { tunnel.expire_after(ttl) }))
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
        let tunnel = Tunnel::new(Uuid::new_v4(), name.to_string(), owner, quota, self.birth(), spec, None);
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

    /// When a tunnel is created, in Unix milliseconds. Of two in the same moment the second one is later, so that lists have
    /// them in their order; a clock that was set back is believed.
    fn birth(&self) -> i64 {
        const SAME: i64 = 1000;
        let (now, last) = (unix_ms(), self.youngest.load(Ordering::Relaxed));
        let birth = if (0..SAME).contains(&(last - now)) { last + 1 } else { now };
        self.youngest.store(birth, Ordering::Relaxed);
        birth
    }
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
    use crate::proto::limits::Limits;
    use crate::store::Sqlite;

    #[tokio::test]
    async fn one_owners_many_writes_do_not_hold_up_anothers() {
        let registry = Registry::open(Arc::new(Sqlite::memory().unwrap()), &Limits::default()).await.unwrap();
        let order = Mutex::new(Vec::new());
        let create = async |owner: &'static str| {
            let wanted = CreateTunnel { local_port: 1, ..CreateTunnel::default() };
            let owned = Owner::from(owner);
            let wanted = registry.check(&owned, wanted).await.unwrap();
            registry.create(&owned, wanted).await.unwrap();
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
    async fn tunnels_of_the_same_moment_are_listed_in_their_order() {
        let store = Arc::new(Sqlite::memory().unwrap());
        let registry = Registry::open(store, &Limits::default()).await.unwrap();
        let owner = Owner::from("alice");
        let mut ids = Vec::new();
        for _ in 0..50 {
            let wanted = registry.check(&owner, CreateTunnel::default()).await.unwrap();
            ids.push(registry.create(&owner, wanted).await.unwrap().0.id);
        }
        assert_eq!(registry.owned_by(&owner).iter().map(|tunnel| tunnel.id).collect::<Vec<_>>(), ids);
    }
}
