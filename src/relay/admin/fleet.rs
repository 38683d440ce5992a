//! The list of clients: how each does, by search, health and order.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::problem::Problem;
use super::query::{Ask, Order, Query};
use super::rows::Snapshot;
use crate::link::sockets::pulse::{Beat, Health, Pulse, Sight};
use crate::tunnel::Tunnel;

/// What clients are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    Health,
    Tunnel,
    Owner,
    Address,
    Agent,
    Since,
    Reconnects,
    Silence,
    RoundTrip,
    P99,
    Missed,
}

const SORTS: [(&str, By); 11] = [
    ("health", By::Health),
    ("tunnel", By::Tunnel),
    ("owner", By::Owner),
    ("address", By::Address),
    ("agent", By::Agent),
    ("since", By::Since),
    ("reconnects", By::Reconnects),
    ("silence", By::Silence),
    ("round_trip", By::RoundTrip),
    ("p99", By::P99),
    ("missed", By::Missed),
];

/// Which clients, in which order.
pub type ClientOrder = Order<Health, By>;

/// Reads what is asked for.
pub fn ask(query: &Query) -> Result<Ask<Health, By>, Problem> {
    let health = Health::ALL.map(|health| (health.as_str(), health));
    query.ask(("health", &query.health), &health, &SORTS)
}

/// A client as it was when the rows were made.
pub struct Client {
    tunnel: Arc<Tunnel>,
    pulse: Arc<Pulse>,
    /// What was seen of it.
    pub sight: Sight,
    /// When its session began or ended, in Unix milliseconds.
    since: i64,
}

impl Client {
    /// The clients of a tunnel, seen `at` this time in Unix milliseconds.
    pub fn of(tunnel: &Arc<Tunnel>, at: i64) -> impl Iterator<Item = Self> + use<> {
        let tunnel = Arc::clone(tunnel);
        tunnel.pulses().into_iter().map(move |pulse| {
            let sight = pulse.sight();
            let since = at - i64::try_from(sight.since.as_millis()).unwrap_or(at);
            Self { tunnel: Arc::clone(&tunnel), pulse, sight, since }
        })
    }

    /// Whether it is connected.
    pub fn is_connected(&self) -> bool {
        self.sight.health.is_connected()
    }

    /// Whether the list has it.
    pub fn is_in(&self, order: &ClientOrder) -> bool {
        let identity = &self.sight.identity;
        order.lets(&self.sight.health)
            && (order.search.is_empty() || {
                let address = identity.address.to_string();
                let texts = [self.tunnel.name.as_str(), self.tunnel.owner.as_str(), &address];
                order.finds(texts.into_iter().chain(identity.agent.as_deref()))
            })
    }

    /// Which of two comes first in the list.
    pub fn compare(&self, other: &Self, order: &ClientOrder) -> Ordering {
        let (a, b) = (&self.sight, &other.sight);
        let main = match order.sort {
            By::Health => order.compare(Some(a.health), Some(b.health)),
            By::Tunnel => order.compare(Some(&self.tunnel.name), Some(&other.tunnel.name)),
            By::Owner => order.compare(Some(self.tunnel.owner.as_str()), Some(other.tunnel.owner.as_str())),
            By::Address => order.compare(Some(a.identity.address), Some(b.identity.address)),
            By::Agent => order.compare(a.identity.agent.as_deref(), b.identity.agent.as_deref()),
            By::Since => order.compare(Some(self.since), Some(other.since)),
            By::Reconnects => order.compare(Some(a.reconnects), Some(b.reconnects)),
            By::Silence => order.compare(Some(a.silence), Some(b.silence)),
            By::RoundTrip => order.compare(a.round_trip, b.round_trip),
            By::P99 => order.compare(a.p99, b.p99),
            By::Missed => order.compare(Some(a.missed), Some(b.missed)),
        };
        let names = || self.tunnel.name.cmp(&other.tunnel.name);
        main.then_with(names).then_with(|| a.session.cmp(&b.session))
    }

    /// As JSON shows it.
    pub fn show(&self) -> Shown<'_> {
        let sight = &self.sight;
        Shown {
            id: sight.session,
            tunnel: &self.tunnel.name,
            tunnel_id: self.tunnel.id,
            owner: self.tunnel.owner.as_str(),
            health: sight.health.as_str(),
            address: sight.identity.address.to_string(),
            agent: sight.identity.agent.as_deref(),
            level: sight.identity.speaks.as_str(),
            since: self.since,
            reconnects: sight.reconnects,
            silence_ms: sight.silence.as_millis(),
            longest_silence_ms: sight.longest_silence.as_millis(),
            round_trip_ms: sight.round_trip.map(ms),
            p99_ms: sight.p99.map(ms),
            pings: sight.pings,
            pongs: sight.pongs,
            missed: sight.missed,
            strip: self.pulse.strip().into_iter().map(letter).collect(),
            spread: None,
        }
    }

    /// The same with how its round trips are spread.
    pub fn show_with_spread(&self) -> Shown<'_> {
        let spread = self.pulse.spread();
        let buckets = spread.buckets().map(|(below, count)| Bucket { below_ms: below.map(ms), count });
        Shown { spread: Some(buckets.collect()), ..self.show() }
    }
}

/// The page of clients that is asked for.
pub fn page<'a>(snapshot: &'a Snapshot, ask: &Ask<Health, By>) -> Page<'a> {
    let found = snapshot.clients_by(&ask.order);
    let clients = ask.of(&found).iter().map(|at| snapshot.clients[*at].show()).collect();
    Page { total: found.len(), page: ask.page, size: ask.size, clients }
}

/// The client whose session has that id.
pub fn find(snapshot: &Snapshot, session: Uuid) -> Option<&Client> {
    snapshot.clients.iter().find(|client| client.sight.session == session)
}

/// Milliseconds, with fractions.
pub fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// A tick of the strip: nothing was asked, or missed, or on a scale in which each letter is twice the one before.
fn letter(beat: Option<Beat>) -> char {
    match beat {
        None => '.',
        Some(Beat::Missed) => 'x',
        Some(Beat::Pong(after)) => {
            let below = |letter: u8| after < Duration::from_millis(1 << (letter - b'a'));
            char::from((b'a'..b'p').find(|letter| below(*letter)).unwrap_or(b'p'))
        }
    }
}

/// Clients of one page.
#[derive(Serialize)]
pub struct Page<'a> {
    total: usize,
    page: usize,
    size: usize,
    clients: Vec<Shown<'a>>,
}

/// A client in JSON.
#[derive(Serialize)]
pub struct Shown<'a> {
    id: Uuid,
    tunnel: &'a str,
    tunnel_id: Uuid,
    owner: &'a str,
    health: &'static str,
    address: String,
    agent: Option<&'a str>,
    level: &'static str,
    since: i64,
    reconnects: u32,
    silence_ms: u128,
    longest_silence_ms: u128,
    round_trip_ms: Option<f64>,
    p99_ms: Option<f64>,
    pings: u32,
    pongs: u32,
    missed: u32,
    strip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<Vec<Bucket>>,
}

#[derive(Serialize)]
struct Bucket {
    below_ms: Option<f64>,
    count: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_letter_of_a_strip_is_twice_the_one_before() {
        let pong = |micros| letter(Some(Beat::Pong(Duration::from_micros(micros))));
        for (micros, expected) in [
            (0, 'a'),
            (999, 'a'),
            (1_000, 'b'),
            (1_999, 'b'),
            (2_000, 'c'),
            (16_383_999, 'o'),
            (16_384_000, 'p'),
            (59_000_000, 'p'),
        ] {
            assert_eq!(pong(micros), expected, "{micros}");
        }
        assert_eq!([letter(None), letter(Some(Beat::Missed))], ['.', 'x']);
    }
}
