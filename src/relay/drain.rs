//! The end of a relay: what is under way finishes, clients are told, counters are saved.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::Relay;
use super::ending::Kind;
use crate::link::sockets::Pending;

/// For the goodbyes to clients.
const GOODBYE: Duration = Duration::from_secs(3);
/// How often connections that wait to be claimed are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

impl Relay {
    /// Stops: accepts nothing new, lets requests finish within the drain time, tells clients to reconnect, saves.
    pub async fn shutdown(self) {
        let shared = &self.shared;
        let (limits, ending) = (&shared.config.limits, &shared.ending);
        let deadline = Instant::now() + limits.drain;
        ending.begin(Kind::Stopping);
        shared.registry.drain_sessions(limits.drain);
        // Clients take up what they were told of over new connections, so these are let in until they have. What is
        // announced between the last look and the close is waited for as well.
        let claims = deadline.min(Instant::now() + limits.claim_wait);
        let _ = timeout_at(claims, all_claimed(&shared.pending)).await;
        shared.pending.close();
        let _ = timeout_at(claims, all_claimed(&shared.pending)).await;
        ending.deaf.cancel();
        ending.closing.cancel();
        shared.tasks.close();
        if timeout_at(deadline, shared.tasks.wait()).await.is_err() {
            tracing::warn!(left = shared.tasks.len(), "not everything finished in time; the rest is cut");
            ending.cut.cancel();
        }
        self.say_goodbye().await;
    }

    /// Ends the sessions that are left and saves.
    async fn say_goodbye(self) {
        let shared = &self.shared;
        shared.registry.end_sessions();
        shared.sessions.close();
        let _ = timeout(GOODBYE, shared.sessions.wait()).await;
        shared.registry.save().await;
        drop(self.tasks);
    }
}

/// Until no announced connection waits for its data socket.
async fn all_claimed(pending: &Pending) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while pending.waiting() > 0 {
        looks.tick().await;
    }
}
