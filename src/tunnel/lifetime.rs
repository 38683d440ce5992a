//! What time does to tunnels: expiry, the end of reservations, idle data sockets, saving of counters.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Registry;
use super::events::{Event, Kind};
use crate::auth::Keys;

/// How exact an expiry is, and how often idle data sockets are looked after.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Counters of at most this much time are lost when the process is killed.
const SAVE_EVERY: Duration = Duration::from_secs(30);

impl Registry {
    /// Looks after all tunnels; runs until dropped.
    pub async fn tend(self: Arc<Self>, keys: Arc<Keys>) {
        let mut ticks = interval(TEND_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saved = Instant::now();
        loop {
            ticks.tick().await;
            for tunnel in self.all() {
                tunnel.traffic.tick();
                // Asked for once: with thousands of tunnels this loop is a third of what an idle relay does.
                let (session, others) = tunnel.sessions();
                if tunnel.is_expired() || (session.is_none() && tunnel.is_forgotten()) {
                    tracing::info!(tunnel = tunnel.name, "tunnel expired");
                    self.expire(&tunnel);
                } else if let Some(session) = session {
                    tunnel.tend(&session, &others);
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
