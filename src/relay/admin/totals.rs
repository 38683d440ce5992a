//! What the rows come to, all together.

use std::time::Duration;

use super::fleet::Client;
use super::tunnels::{self, rate};

/// Sums over all clients and tunnels of one moment.
pub struct Totals {
    /// Times that clients came back.
    pub reconnects: u64,
    /// Of the last round trips of all clients that are connected.
    pub median: Option<Duration>,
    /// Of all tunnels, as they are shown.
    pub requests_per_s: f64,
    /// The same.
    pub bytes_per_s: f64,
}

impl Totals {
    /// Of these.
    pub fn of(clients: &[Client], tunnels: &[tunnels::Row]) -> Self {
        let rates = |which: fn(&(f32, f32)) -> f32| {
            // An empty sum would be minus nothing.
            rate(tunnels.iter().fold(0.0, |sum, tunnel| sum + which(&tunnel.rates)))
        };
        Self {
            reconnects: clients.iter().map(|client| u64::from(client.sight.reconnects)).sum(),
            median: median(clients),
            requests_per_s: rates(|rates| rates.0),
            bytes_per_s: rates(|rates| rates.1),
        }
    }
}

fn median(clients: &[Client]) -> Option<Duration> {
    let connected = clients.iter().filter(|client| client.is_connected());
    let mut last: Vec<Duration> = connected.filter_map(|client| client.sight.round_trip).collect();
    let middle = last.len() / 2;
    (!last.is_empty()).then(|| *last.select_nth_unstable(middle).1)
}
