//! The end of the relay, as tunnels and their clients see it.

use std::time::Duration;

use uuid::Uuid;

use super::Registry;
use crate::link::sockets::{End, Session};
use crate::proto::limits::drain;
use crate::proto::message::Drain;

impl Registry {
    /// Tells every client that the relay goes, and when to come back: spread out, so that they do not come all at once.
    /// `within` is what requests under way have to finish. The longest time that a client was told, or `None` if there
    /// is no client that can be told.
    pub fn drain_sessions(&self, within: Duration) -> Option<Duration> {
        let sessions = self.all().into_iter().flat_map(|tunnel| tunnel.all_sessions());
        let sessions: Vec<_> = sessions.collect();
        let count = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
        let spread = (drain::PER_CLIENT * count).clamp(drain::SPREAD_LEAST, drain::SPREAD_MOST);
        let told = sessions.iter().any(|session| session.speaks().is_told_of_drains());
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
