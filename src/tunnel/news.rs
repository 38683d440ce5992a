//! What another process has written, such as the relay that this one replaces: taken up from the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::registry::is_live;
use super::{Registry, Tunnel};
use crate::link::sockets::End;
use crate::store::{StoreError, TunnelRow};

/// What the store has said is new and has not been looked at: it says so only once.
#[derive(Default)]
pub(super) struct News {
    tunnels: AtomicBool,
    keys: AtomicBool,
    /// Held while the news are taken up: whoever asks meanwhile waits for them.
    learning: tokio::sync::Mutex<()>,
}

impl News {
    /// Whether the keys are to be looked at; the caller does so now.
    pub(super) fn take_keys(&self) -> bool {
        self.keys.swap(false, Ordering::Relaxed)
    }

    /// The keys are to be looked at again.
    pub(super) fn put_back_keys(&self) {
        self.keys.store(true, Ordering::Relaxed);
    }
}

impl Registry {
    /// A session began whose key was found good a moment ago: one that was revoked since is found at the next look.
    pub fn look_at_keys(&self) {
        self.news.put_back_keys();
    }

    /// Asks the store whether another process has written, and takes up what it wrote: tunnels that it created, changed
    /// or deleted, and what it counted.
    pub async fn learn(&self) {
        let _learning = self.news.learning.lock().await;
        if self.store.changed().await.unwrap_or(false) {
            self.news.tunnels.store(true, Ordering::Relaxed);
            self.news.keys.store(true, Ordering::Relaxed);
        }
        if self.news.tunnels.swap(false, Ordering::Relaxed)
            && let Err(error) = self.read_all().await
        {
            tracing::debug!(%error, "tunnels not read; trying again");
            self.news.tunnels.store(true, Ordering::Relaxed);
        }
    }

    async fn read_all(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        for row in self.store.load_tunnels().await? {
            match self.by_uuid(row.id) {
                Some(tunnel) => self.take_up_row(&tunnel, &row),
                // One of our own that is not here has ended.
                None if row.generation == self.generation || !is_live(&row) => {}
                None => match Tunnel::from_row(&row, &self.quotas) {
                    Ok(tunnel) => self.insert(Arc::new(tunnel)),
                    Err(error) => tracing::error!(tunnel = row.name, %error, "tunnel not taken up"),
                },
            }
        }
        Ok(())
    }

    fn take_up_row(&self, tunnel: &Arc<Tunnel>, row: &TunnelRow) {
        tunnel.traffic.learn(row);
        if row.generation == self.generation {
            return;
        }
        if row.closed {
            self.remove(tunnel);
            tunnel.end(End::Deleted);
            return;
        }
        let before = tunnel.spec();
        match tunnel.adopt(row) {
            Ok(()) => self.lead(tunnel, &before.domains),
            Err(error) => tracing::error!(tunnel = row.name, %error, "tunnel not taken up"),
        }
        self.port_changed(tunnel, before.port);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::Owner;
    use crate::proto::api::CreateTunnel;
    use crate::proto::limits::Limits;
    use crate::store::{Sqlite, Store};
    use crate::tunnel::quota::Quotas;

    async fn registry(dir: &std::path::Path) -> Registry {
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(dir).unwrap());
        Registry::open(store, &Limits::default()).await.unwrap()
    }

    async fn create(registry: &Registry, name: &str, port: i64) -> Arc<Tunnel> {
        let wanted = CreateTunnel { local_port: port, name: Some(name.into()), ..CreateTunnel::default() };
        let owner = Owner::from("alice");
        let wanted = registry.check(&owner, wanted).await.unwrap();
        registry.create(&owner, wanted).await.unwrap().0
    }

    #[tokio::test]
    async fn what_one_process_does_to_tunnels_the_other_takes_up() {
        let dir = tempfile::tempdir().unwrap();
        let old = registry(dir.path()).await;
        let (kept, deleted) = (create(&old, "kept", 1).await, create(&old, "deleted", 1).await);
        let new = registry(dir.path()).await;
        let late = create(&old, "late", 1).await;
        old.delete(&deleted).await.unwrap();
        old.suspend(&kept, true).await.unwrap();
        assert!(new.by_name("late").is_none());
        new.learn().await;
        assert_eq!(new.by_name("late").unwrap().id, late.id);
        assert!(new.by_name("deleted").is_none());
        assert!(new.by_name("kept").unwrap().is_suspended());

        // The other way, too; and what the newer one has written the older one undoes no more.
        let at_new = create(&new, "kept", 2).await;
        assert_eq!(at_new.id, kept.id);
        new.suspend(&at_new, false).await.unwrap();
        let refused = old.extend(&kept, Some(Duration::from_secs(60))).await;
        assert_eq!(refused, Err(StoreError::Superseded));
        old.learn().await;
        assert_eq!((kept.spec().local_port, kept.is_suspended(), kept.expires_at()), (2, false, None));
        new.delete(&at_new).await.unwrap();
        old.learn().await;
        assert!(old.by_name("kept").is_none());
    }

    #[tokio::test]
    async fn counters_of_both_processes_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let old = registry(dir.path()).await;
        let at_old = create(&old, "web", 1).await;
        let count = |tunnel: &Tunnel, requests: usize| (0..requests).for_each(|_| tunnel.traffic.request());
        let requests = |tunnel: &Tunnel| tunnel.traffic.requests.load(Ordering::Relaxed);
        count(&at_old, 3);
        old.save().await;
        count(&at_old, 2);
        let new = registry(dir.path()).await;
        let at_new = new.by_name("web").unwrap();
        assert_eq!(requests(&at_new), 3);
        count(&at_new, 10);
        new.save().await;
        old.save().await;
        old.save().await;
        new.learn().await;
        old.learn().await;
        assert_eq!((requests(&at_old), requests(&at_new)), (15, 15));
        new.save().await;
        drop((old, new));
        let after = registry(dir.path()).await;
        assert_eq!(requests(&after.by_name("web").unwrap()), 15);
    }

    #[test]
    fn what_could_not_be_saved_is_part_of_the_next_save() {
        let spec = crate::tunnel::Spec::check(
            &CreateTunnel { local_port: 1, ..CreateTunnel::default() },
            None,
            None,
        );
        let (id, owner) = (uuid::Uuid::new_v4(), Owner::from("alice"));
        let quota = Quotas::new(&Limits::default()).of(&owner);
        let tunnel = Tunnel::new(id, "web".into(), owner, quota, 0, spec.unwrap().0, None);
        tunnel.traffic.request();
        let lost = tunnel.take_activity().unwrap();
        tunnel.traffic.request();
        tunnel.not_saved(&lost);
        assert_eq!((lost.requests, tunnel.take_activity().unwrap().requests), (1, 2));
        assert!(tunnel.take_activity().is_none(), "nothing has happened since");
        tunnel.not_saved(&lost);
        assert_eq!(tunnel.take_activity().unwrap().requests, 1);
    }
}
