//! Which metrics there are, and where each comes from. Labels have few values, which are known beforehand: no client, tunnel,
//! key or address is among them.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use tokio::runtime::RuntimeMetrics;

use super::page::Page;
use crate::link::sockets::pulse::Health;
use crate::relay::Shared;
use crate::relay::exchange::OK;
use crate::relay::observe::Census;
use crate::relay::observe::process::Process;
use crate::tally::Counter;

/// What is at fault when the relay, or the machine that it runs on, fails a viewer: these count from 0 on, so that the first
/// one is seen as a change. Alerts on the error budget read them.
const OURS: [&str; 5] = ["auth_busy", "draining", "internal", "relay_full", "signature_busy"];

/// Limits that answer viewers with a cause of their own.
const LIMITS_OF_VIEWERS: [(&str, &str); 12] = [
    ("body_bytes", "body_too_large"),
    ("connections", "relay_full"),
    ("head_bytes", "head_too_large"),
    ("password_checks", "auth_busy"),
    ("rate", "rate_limited"),
    ("signature_checks", "signature_busy"),
    ("slow_bodies", "slow_body"),
    ("slow_heads", "slow_head"),
    ("target_bytes", "target_too_long"),
    ("viewers_per_key", "viewers_per_key"),
    ("waiting_per_key", "waiting_per_key"),
    ("waiting_per_tunnel", "too_many_waiting"),
];

/// Limits that answer clients and owners with a code of their own.
const LIMITS_OF_CLIENTS: [(&str, &str); 4] = [
    ("clients_per_tunnel", "too_many_clients"),
    ("creations_per_key", "too_many_creations"),
    ("standby_per_tunnel", "too_many_standby"),
    ("tunnels_per_key", "too_many_tunnels"),
];

/// All of them. With thousands of clients it takes milliseconds.
pub fn write(page: &mut Page<'_>, shared: &Shared, runtime: &RuntimeMetrics) -> fmt::Result {
    let census = shared.observer.census(shared);
    relay(page, shared)?;
    clients(page, shared, &census)?;
    claims(page, shared)?;
    exchanges(page, shared)?;
    held(page, shared, &census)?;
    limits(page, shared)?;
    store(page, shared)?;
    certificates(page, shared)?;
    tasks(page, runtime)?;
    process(page, shared)
}

fn relay(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    page.info("adit_build", "Which program runs.", "version", env!("CARGO_PKG_VERSION"))?;
    let ready = if shared.ending.is_stopping() { 0.0 } else { 1.0 };
    page.gauge("adit_ready", "1 while requests are taken, 0 from the moment that the relay stops.", ready)
}

fn clients(page: &mut Page<'_>, shared: &Shared, census: &Census) -> fmt::Result {
    let tally = &shared.pending.tally;
    page.gauges(
        "adit_clients",
        "Clients by health: alive answer their pings, late have one unanswered for longer than usual, dead were lost and \
         have not come back, away left in order.",
        "health",
        Health::ALL.into_iter().zip(census.clients).map(|(health, count)| (health.as_str(), count as f64)),
    )?;
    page.gauge(
        "adit_clients_longest_silence_seconds",
        "Longest time since one of the connected clients came or answered a ping, whatever else it sent.",
        census.silence.as_secs_f64(),
    )?;
    page.counters(
        "adit_control_sessions_begun",
        "Control sessions that began, by what their clients speak.",
        "level",
        tally.begun().map(|(level, count)| (level.as_str(), count)),
    )?;
    page.counters(
        "adit_control_sessions_ended",
        "Control sessions that ended, by reason.",
        "reason",
        tally.ended(),
    )?;
    page.counter("adit_pings", "Pings sent on control sockets.", tally.pings.get())?;
    page.counter("adit_pongs", "Pings that were answered before the next one.", tally.pongs.get())?;
    page.counter(
        "adit_pings_missed",
        "Pings that were not answered before the next one.",
        tally.missed.get(),
    )?;
    page.histogram(
        "adit_ping_round_trip_seconds",
        "From a ping on a control socket to its pong.",
        &tally.round_trip.snapshot(),
    )
}

fn claims(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let tally = &shared.pending.tally;
    page.counters(
        "adit_claims",
        "Viewers that needed a data socket, by how they got it (reused, standby, claimed) or why not.",
        "outcome",
        tally.outcomes().map(|(outcome, count)| (outcome.as_str(), count)),
    )?;
    page.histogram(
        "adit_claim_wait_seconds",
        "From the notification of a client to the data socket that it opened.",
        &tally.claim_wait.snapshot(),
    )
}

fn exchanges(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let ledger = &shared.ledger;
    let mut closed: Vec<_> = ledger.closed().collect();
    for (class, cause) in [("2xx", OK)].into_iter().chain(OURS.map(|cause| ("5xx", cause))) {
        if !closed.iter().any(|(known, other, _)| (*known, *other) == (class, cause)) {
            closed.push((class, cause, 0));
        }
    }
    page.counters_by_two(
        "adit_exchanges",
        "Exchanges with viewers, and connections of TCP and TLS tunnels, that are over, by cause (ok: nothing went wrong) \
         and class of the status (none: the viewer was sent no status).",
        ("cause", "class"),
        closed.into_iter().map(|(class, cause, count)| (cause, class, count)),
    )?;
    page.counters(
        "adit_body_bytes",
        "Bytes of bodies, from viewers (in, counted when the exchange is over) and to them (out, as they go).",
        "direction",
        [("in", ledger.bytes_in.get()), ("out", ledger.bytes_out.get())],
    )?;
    page.histogram(
        "adit_first_byte_seconds",
        "From a request to the head of its target's response.",
        &ledger.first_byte.snapshot(),
    )?;
    page.histogram(
        "adit_exchange_seconds",
        "From a request to the end of its response, of all exchanges that are over.",
        &ledger.total.snapshot(),
    )
}

fn held(page: &mut Page<'_>, shared: &Shared, census: &Census) -> fmt::Result {
    page.gauges(
        "adit_tunnels",
        "Tunnels, by whether a client serves them.",
        "state",
        [("online", census.online as f64), ("offline", census.offline as f64)],
    )?;
    page.gauge(
        "adit_tunnels_suspended",
        "Tunnels, online or offline, that turn viewers away as their owner wants.",
        census.suspended as f64,
    )?;
    page.gauge("adit_viewers", "Exchanges and connections of viewers under way.", census.viewers as f64)?;
    page.gauges(
        "adit_viewers_waiting",
        "Viewers that wait, for a client that is away or for a data socket that a client was told of.",
        "for",
        [("client", census.waiting_for_client as f64), ("claim", shared.pending.waiting() as f64)],
    )?;
    let (idle, standby) = (census.idle, shared.pending.standby());
    let in_use = shared.in_use(idle);
    page.gauges(
        "adit_data_sockets",
        "Data sockets, by what they do: idle between two exchanges, standby before the first, or in use.",
        "state",
        [("idle", idle as f64), ("standby", standby as f64), ("in_use", in_use as f64)],
    )?;
    page.gauge(
        "adit_connections",
        "Connections on the public listeners, of viewers and of clients with their data sockets.",
        shared.room.taken() as f64,
    )?;
    page.gauge(
        "adit_connections_limit",
        "Connections that there may be.",
        shared.room.most().map_or(f64::INFINITY, |most| most as f64),
    )
}

fn limits(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let viewers = LIMITS_OF_VIEWERS.map(|(limit, cause)| (limit, shared.ledger.of(cause)));
    let clients = LIMITS_OF_CLIENTS.map(|(limit, code)| (limit, shared.refusals.of(code)));
    let room = [("accept", shared.room.full.get()), ("connections_per_address", shared.room.crowded.get())];
    page.counters(
        "adit_limits_hit",
        "Times that somebody was turned away, or had to wait (accept), by a limit of the relay or of an owner.",
        "limit",
        viewers.into_iter().chain(clients).chain(room),
    )?;
    page.counters(
        "adit_api_refused",
        "Calls of the REST API and handshakes of clients that were refused, by code.",
        "code",
        shared.refusals.each(),
    )
}

fn store(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let tally = shared.registry.store_tally();
    let count = |of: fn(&crate::store::Tally) -> &Counter| tally.map_or(0, |tally| of(tally).get());
    page.counters(
        "adit_store_calls",
        "Calls of the database, by outcome; unanswered ones took longer than their callers wait.",
        "outcome",
        [
            ("ok", count(|tally| &tally.ok)),
            ("failed", count(|tally| &tally.failed)),
            ("unanswered", count(|tally| &tally.unanswered)),
        ],
    )?;
    let took = tally.map(|tally| tally.took.snapshot()).unwrap_or_default();
    page.histogram(
        "adit_store_call_seconds",
        "How long calls of the database took, without their wait.",
        &took,
    )?;
    page.gauge("adit_store_queue", "Calls that wait for the database.", shared.registry.unstored() as f64)?;
    page.gauge(
        "adit_store_last_success_age_seconds",
        "Time since a call of the database was done, or the relay began. Without calls it grows, too.",
        tally.map(|tally| tally.since_done().as_secs_f64()),
    )
}

fn certificates(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let (file, acme) = shared.tls.as_ref().map_or((None, None), |tls| tls.certificates.first_ends());
    let ends = [("file", file), ("acme", acme)].into_iter().filter_map(|(source, end)| {
        Some((source, end?.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()))
    });
    page.gauges(
        "adit_certificate_expiry_timestamp_seconds",
        "When the first of the certificates ends to be good, of those in files and of those that were ordered.",
        "source",
        ends,
    )?;
    let count = |of: fn(&crate::relay::acme::Acme) -> &Counter| {
        shared.acme.as_deref().map_or(0, |acme| of(acme).get())
    };
    page.counters(
        "adit_certificate_orders",
        "Certificates ordered from the authority, by outcome.",
        "outcome",
        [("ok", count(|acme| &acme.issued)), ("failed", count(|acme| &acme.failed))],
    )
}

fn tasks(page: &mut Page<'_>, runtime: &RuntimeMetrics) -> fmt::Result {
    page.gauge("adit_runtime_tasks", "Tasks that have not ended.", runtime.num_alive_tasks() as f64)?;
    page.gauge("adit_runtime_workers", "Threads that run tasks.", runtime.num_workers() as f64)?;
    page.gauge(
        "adit_runtime_queue",
        "Tasks that are ready and belong to no thread yet.",
        runtime.global_queue_depth() as f64,
    )?;
    let busy = (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker)).sum();
    page.seconds_counter(
        "adit_runtime_busy_seconds",
        "Time that these threads were not idle, together.",
        busy,
    )
}

/// Names as Prometheus has them for every process.
fn process(page: &mut Page<'_>, shared: &Shared) -> fmt::Result {
    let process = Process::now();
    page.seconds_counter(
        "process_cpu_seconds",
        "Time on processors, of the user and the system.",
        process.cpu,
    )?;
    page.gauge(
        "process_resident_memory_bytes",
        "Memory that is resident.",
        process.resident.map(|bytes| bytes as f64),
    )?;
    page.gauge("process_open_fds", "Descriptors that are open.", process.open.map(|count| count as f64))?;
    page.gauge(
        "process_max_fds",
        "Descriptors that there may be.",
        process.most.map_or(f64::INFINITY, |most| most as f64),
    )?;
    page.gauge(
        "process_start_time_seconds",
        "When the relay began, by the clock as it stood then.",
        shared.observer.started as f64 / 1e3,
    )
}
