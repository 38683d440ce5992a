//! What operators see of a relay: how many of what there are, at most once a second however many ask.

pub mod metrics;
mod process;
pub mod scrape;

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::fresh::Fresh;
use crate::link::sockets::pulse::Health;
use crate::tunnel::unix_ms;

/// A count is good for this long.
const FRESH: Duration = Duration::from_secs(1);

/// Counts of one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Census {
    /// Clients, in the order of [`Health::ALL`].
    pub clients: [usize; Health::ALL.len()],
    /// Of those that are connected, the longest time since one came or answered a ping.
    pub silence: Duration,
    /// Tunnels that a client serves.
    pub online: usize,
    /// Tunnels that none serves.
    pub offline: usize,
    /// Tunnels that turn viewers away, of either sort.
    pub suspended: usize,
    /// Requests and connections of viewers under way.
    pub viewers: usize,
    /// Viewers that wait for a client that is away.
    pub waiting_for_client: usize,
    /// Data sockets between two viewers.
    pub idle: usize,
}

/// The last count.
pub struct Observer {
    /// When the relay began, in Unix milliseconds by the clock as it stood then.
    pub started: i64,
    census: Fresh<Arc<Census>>,
    pages: metrics::Pages,
}

impl Default for Observer {
    fn default() -> Self {
        Self { started: unix_ms(), census: Fresh::new(FRESH), pages: metrics::Pages::default() }
    }
}

impl Observer {
    /// How many there are now, or were less than a second ago. With thousands of clients it takes milliseconds, in which
    /// others that ask wait for the same.
    pub fn census(&self, shared: &Shared) -> Arc<Census> {
        self.census.get_or_make(|| Arc::new(count(shared)))
    }
}

fn count(shared: &Shared) -> Census {
    let mut census = Census::default();
    for tunnel in shared.registry.all() {
        for pulse in tunnel.pulses() {
            let (health, silence) = pulse.health();
            census.clients[health as usize] += 1;
            if health.is_connected() {
                census.silence = census.silence.max(silence);
            }
        }
        let mut online = false;
        for session in tunnel.all_sessions() {
            online = true;
            census.idle += session.idle_lanes();
        }
        census.online += usize::from(online);
        census.offline += usize::from(!online);
        census.suspended += usize::from(tunnel.is_suspended());
        census.viewers += tunnel.traffic.viewers.load(std::sync::atomic::Ordering::Relaxed);
        census.waiting_for_client += tunnel.waiting();
    }
    census
}
