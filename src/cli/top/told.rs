//! What the admin listener tells, as far as the terminal shows it; what is missing is nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The figures on top, and a list.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) summary: Summary,
    pub(super) list: List,
}

/// The relay in figures. Times are Unix milliseconds, durations milliseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Summary {
    pub(super) at: i64,
    pub(super) relay: Relay,
    pub(super) clients: BTreeMap<String, u64>,
    pub(super) longest_silence_ms: f64,
    pub(super) round_trip: RoundTrip,
    pub(super) pings: Pings,
    pub(super) reconnects: u64,
    pub(super) tunnels: BTreeMap<String, u64>,
    pub(super) viewers: u64,
    pub(super) waiting: u64,
    pub(super) requests: u64,
    pub(super) requests_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) claim_wait: Quantiles,
    pub(super) first_byte: Quantiles,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) data_sockets: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Relay {
    pub(super) version: String,
    pub(super) url: String,
    pub(super) started_at: i64,
    pub(super) state: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RoundTrip {
    pub(super) now_ms: Option<f64>,
    #[serde(flatten)]
    pub(super) all: Quantiles,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pings {
    pub(super) missed: u64,
}

/// What half of all durations, and 99 of 100, are not above.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Quantiles {
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

/// A page of one of the lists; the others are empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct List {
    pub(super) total: u64,
    pub(super) clients: Vec<Client>,
    pub(super) tunnels: Vec<Tunnel>,
    pub(super) events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) tunnel: String,
    pub(super) owner: String,
    pub(super) health: String,
    pub(super) address: String,
    pub(super) agent: Option<String>,
    pub(super) since: i64,
    pub(super) reconnects: u64,
    pub(super) silence_ms: f64,
    pub(super) round_trip_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) missed: u64,
    /// The last hour, oldest first: `.` nothing, `x` missed, `a` to `p` how long the pong took.
    pub(super) strip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tunnel {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) url: String,
    pub(super) owner: String,
    pub(super) state: String,
    pub(super) created_at: i64,
    pub(super) clients: u64,
    pub(super) viewers: u64,
    pub(super) requests: u64,
    pub(super) requests_per_s: f64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) bytes_per_s: f64,
    pub(super) wait: Quantiles,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) idle_data_sockets: u64,
    pub(super) standby_data_sockets: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) at: i64,
    pub(super) kind: String,
    pub(super) tunnel: Option<String>,
    pub(super) owner: Option<String>,
    pub(super) address: Option<String>,
    pub(super) reason: Option<String>,
}
