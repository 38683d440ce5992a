//! The relay in figures: what is on top of the dashboard, out of the counters that scrapers read.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fleet::ms;
use super::rows::Snapshot;
use super::tunnels::Quantiles;
use crate::link::sockets::pulse::Health;
use crate::relay::Shared;
use crate::relay::exchange::OK;

/// All figures; times are Unix milliseconds, durations milliseconds.
#[derive(Serialize)]
pub struct Summary<'a> {
    at: i64,
    relay: Relay<'a>,
    clients: BTreeMap<&'static str, usize>,
    longest_silence_ms: u128,
    round_trip: RoundTrip,
    pings: Pings,
    reconnects: u64,
    sessions: BTreeMap<&'static str, u64>,
    tunnels: Tunnels,
    viewers: usize,
    waiting: usize,
    requests: u64,
    requests_per_s: f64,
    bytes_in: u64,
    bytes_out: u64,
    bytes_per_s: f64,
    claim_wait: Quantiles,
    first_byte: Quantiles,
    claims: BTreeMap<&'static str, u64>,
    failures: BTreeMap<&'static str, u64>,
    data_sockets: DataSockets,
    /// Number of the newest.
    events: u64,
}

#[derive(Serialize)]
struct Relay<'a> {
    version: &'static str,
    url: &'a str,
    started_at: i64,
    state: &'static str,
}

#[derive(Serialize)]
struct RoundTrip {
    now_ms: Option<f64>,
    #[serde(flatten)]
    all: Quantiles,
}

#[derive(Serialize)]
struct Pings {
    sent: u64,
    answered: u64,
    missed: u64,
}

#[derive(Serialize)]
struct Tunnels {
    online: usize,
    offline: usize,
    suspended: usize,
}

#[derive(Serialize)]
struct DataSockets {
    idle: usize,
    standby: usize,
    in_use: usize,
}

impl<'a> Summary<'a> {
    /// Of this moment; what takes a walk over all tunnels is at most a second old.
    pub fn of(shared: &'a Shared, snapshot: &Snapshot) -> Self {
        let census = shared.observer.census(shared);
        let (tally, ledger, totals) = (&shared.pending.tally, &shared.ledger, &snapshot.totals);
        let (mut requests, mut failures) = (0, BTreeMap::new());
        for (_, cause, count) in ledger.closed() {
            requests += count;
            if cause != OK {
                *failures.entry(cause).or_insert(0) += count;
            }
        }
        let state = if shared.ending.has_begun() { "draining" } else { "serving" };
        Self {
            at: snapshot.at,
            relay: Relay {
                version: env!("CARGO_PKG_VERSION"),
                url: shared.routes.public_url(),
                started_at: shared.observer.started,
                state,
            },
            clients: Health::ALL.into_iter().map(Health::as_str).zip(census.clients).collect(),
            longest_silence_ms: census.silence.as_millis(),
            round_trip: RoundTrip {
                now_ms: totals.median.map(ms),
                all: Quantiles::of(&tally.round_trip.snapshot()),
            },
            pings: Pings { sent: tally.pings.get(), answered: tally.pongs.get(), missed: tally.missed.get() },
            reconnects: totals.reconnects,
            sessions: tally.begun().map(|(level, count)| (level.as_str(), count)).into(),
            tunnels: Tunnels { online: census.online, offline: census.offline, suspended: census.suspended },
            viewers: census.viewers,
            waiting: census.waiting_for_client + shared.pending.waiting(),
            requests,
            requests_per_s: totals.requests_per_s,
            bytes_in: ledger.bytes_in.get(),
            bytes_out: ledger.bytes_out.get(),
            bytes_per_s: totals.bytes_per_s,
            claim_wait: Quantiles::of(&tally.claim_wait.snapshot()),
            first_byte: Quantiles::of(&ledger.first_byte.snapshot()),
            claims: tally.outcomes().map(|(outcome, count)| (outcome.as_str(), count)).collect(),
            failures,
            data_sockets: DataSockets {
                idle: census.idle,
                standby: shared.pending.standby(),
                in_use: shared.in_use(census.idle),
            },
            events: shared.registry.events.newest(),
        }
    }
}
