//! What becomes of a tunnel that is there: its end, suspension, extension and policy, each in step with the store.

use std::sync::Arc;
use std::time::Duration;

use super::Registry;
use crate::link::sockets::End;
use crate::proto::policy as written;
use crate::store::StoreError;
use crate::tunnel::events::{Event, Kind};
use crate::tunnel::policy::{Given, Policy, Scope};
use crate::tunnel::{CreateError, Tunnel, rfc3339};

impl Registry {
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
        let end = tunnel.expires_at().map_or_else(|| "never".to_owned(), rfc3339);
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
    pub(in crate::tunnel) fn expire(&self, tunnel: &Arc<Tunnel>) {
        self.remove(tunnel);
        // A worker that comes back at this moment is no worker whose time is over.
        let is_over = tunnel.is_expired() || !tunnel.is_worker();
        tunnel.end(if is_over { End::Expired } else { End::Restart });
        self.events.add(Event::of(Kind::Expired, tunnel));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Owner;
    use crate::proto::api::CreateTunnel;
    use crate::proto::limits::Limits;
    use crate::store::{Sqlite, Store};

    #[tokio::test]
    async fn a_change_that_comes_after_the_end_does_not_open_the_tunnel_again() {
        let store: Arc<dyn Store> = Arc::new(Sqlite::memory().unwrap());
        let registry = Registry::open(Arc::clone(&store), &Limits::default()).await.unwrap();
        let wanted = CreateTunnel { local_port: 1, name: Some("web".into()), ..CreateTunnel::default() };
        let owner = Owner::from("alice");
        let wanted = async || registry.check(&owner, wanted.clone()).await.unwrap();
        let (tunnel, _) = registry.create(&owner, wanted().await).await.unwrap();
        assert_eq!(registry.delete(&tunnel).await, Ok(true));
        assert_eq!(registry.delete(&tunnel).await, Ok(false));
        assert_eq!(registry.suspend(&tunnel, true).await, Ok(false));
        assert_eq!(registry.extend(&tunnel, Some(Duration::from_secs(60))).await, Ok(false));
        let spec = (*tunnel.spec()).clone();
        assert!(!registry.take_up(&tunnel, spec, false).await.unwrap());
        assert!(Registry::open(store, &Limits::default()).await.unwrap().all().is_empty());
        let (again, is_new) = registry.create(&owner, wanted().await).await.unwrap();
        assert!(is_new && again.id != tunnel.id);
    }
}
