//! What time does to tunnels: expiry, the end of reservations, idle data sockets, saving of counters.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Registry;
use crate::auth::{Keys, Owner};
use crate::link::sockets::End;

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
                if tunnel.is_expired() || tunnel.unseen_for() > tunnel.reserved_for() {
                    tracing::info!(tunnel = tunnel.name, "tunnel expired");
                    self.expire(&tunnel);
                } else if let Some(session) = tunnel.session() {
                    session.tend();
                }
            }
            if self.store.changed().await.unwrap_or(false) {
                self.end_revoked(&keys).await;
            }
            if saved.elapsed() >= SAVE_EVERY {
                saved = Instant::now();
                self.save().await;
            }
        }
    }

    /// Writes the counters. What cannot be written now is written the next time: the values are totals.
    pub async fn save(&self) {
        let rows = self.all().iter().map(|tunnel| tunnel.activity()).collect();
        if let Err(error) = self.store.save_activity(rows).await {
            tracing::warn!(%error, "counters not saved; trying again in {SAVE_EVERY:?}");
        }
    }

    /// Ends the sessions of keys that are no longer valid.
    async fn end_revoked(&self, keys: &Keys) {
        let live: HashSet<Owner> = match keys.live_owners().await {
            Ok(live) => live,
            Err(error) => {
                tracing::warn!(%error, "keys not read; sessions go on with the keys known");
                return;
            }
        };
        for tunnel in self.all() {
            if !live.contains(&tunnel.owner)
                && let Some(session) = tunnel.session()
            {
                tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), "key revoked; session ended");
                session.end(End::Revoked);
            }
        }
    }
}
