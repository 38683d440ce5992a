//! What time does to tunnels: expiry, the end of reservations, idle data sockets, saving of counters.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::events::{Event, Kind};
use super::{Registry, Tunnel};
use crate::auth::Keys;

/// How exact an expiry is, and how often idle data sockets are looked after.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// A tunnel at rest is looked after at one of so many times: if it were at each, with thousands of clients the looks would be
/// a third of what an idle relay does.
const RESTING: u8 = 8;
/// Counters of at most this much time are lost when the process is killed.
const SAVE_EVERY: Duration = Duration::from_secs(30);

impl Registry {
    /// Looks after all tunnels; runs until dropped.
    pub async fn tend(self: Arc<Self>, keys: Arc<Keys>) {
        let mut ticks = interval(TEND_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut saved, mut turn) = (Instant::now(), 0);
        loop {
            ticks.tick().await;
            turn = (turn + 1) % RESTING;
            for tunnel in self.due(turn) {
                if tunnel.is_over() {
                    tracing::info!(tunnel = tunnel.name, "tunnel expired");
                    self.expire(&tunnel);
                } else if !tunnel.tend() {
                    tunnel.wake();
                }
            }
            self.quotas.tend();
            self.learn().await;
            self.open_ports(false);
            if self.news.take_keys() && !self.end_revoked(&keys).await {
                self.news.put_back_keys();
            }
            if saved.elapsed() >= SAVE_EVERY {
                saved = Instant::now();
                self.save().await;
            }
        }
    }

    /// The tunnels that were in use, or had something to do, when they were looked after last; and those at rest whose turn
    /// it is.
    fn due(&self, turn: u8) -> Vec<Arc<Tunnel>> {
        let is_due = |tunnel: &Tunnel| tunnel.was_woken() || tunnel.id.as_bytes()[0] % RESTING == turn;
        self.by_name.iter().filter(|tunnel| is_due(tunnel)).map(|tunnel| Arc::clone(&tunnel)).collect()
    }

    /// Writes what was counted since the last time. What cannot be written now is part of the next time.
    pub async fn save(&self) {
        let (tunnels, activities): (Vec<_>, Vec<_>) = self
            .all()
            .into_iter()
            .filter_map(|tunnel| tunnel.take_activity().map(|taken| (tunnel, taken)))
            .unzip();
        if activities.is_empty() {
            return;
        }
        if let Err(error) = self.store.save_activity(activities.clone()).await {
            for (tunnel, activity) in tunnels.iter().zip(&activities) {
                tunnel.not_saved(activity);
            }
            tracing::warn!(%error, "counters not saved; trying again in {SAVE_EVERY:?}");
        }
    }

    /// Ends the sessions of keys that are no longer valid; `false`: the keys cannot be read now.
    async fn end_revoked(&self, keys: &Keys) -> bool {
        // The keys say themselves when they cannot be read.
        let Ok(live) = keys.live_owners().await else { return false };
        for tunnel in self.all() {
            if tunnel.end_if_revoked(live.get(&tunnel.owner).copied()) {
                tracing::info!(
                    tunnel = tunnel.name,
                    owner = tunnel.owner.as_str(),
                    "key revoked; session ended"
                );
                self.events.add(Event::of(Kind::Revoked, &tunnel));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Owner;
    use crate::proto::api::CreateTunnel;
    use crate::proto::limits::Limits;
    use crate::store::Sqlite;

    async fn registry_with_a_tunnel() -> (Registry, Arc<Tunnel>) {
        let registry = Registry::open(Arc::new(Sqlite::memory().unwrap()), &Limits::default()).await.unwrap();
        let owner = Owner::from("alice");
        let wanted = registry.check(&owner, CreateTunnel { local_port: 1, ..CreateTunnel::default() }).await;
        let (tunnel, _) = registry.create(&owner, wanted.unwrap()).await.unwrap();
        (registry, tunnel)
    }

    /// In how many of the next turns something is looked after.
    fn looks(registry: &Registry) -> usize {
        let look = |turn| {
            let due = registry.due(turn);
            due.iter().filter(|tunnel| !tunnel.tend()).for_each(|tunnel| tunnel.wake());
            due.len()
        };
        (0..RESTING).map(look).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_at_rest_has_its_turn_and_one_in_use_has_each() {
        let (registry, tunnel) = registry_with_a_tunnel().await;
        looks(&registry);
        assert_eq!(looks(&registry), 1, "nobody came");
        tunnel.request();
        assert_eq!(looks(&registry), usize::from(RESTING), "its rates fade");
        for _ in 0..10 {
            looks(&registry);
        }
        assert_eq!(looks(&registry), 1, "they have faded");
        tunnel.expire_after(Some(Duration::from_secs(30)));
        assert_eq!(looks(&registry), usize::from(RESTING), "its end is near");
    }
}
