//! The list of tunnels: who is there, what goes through each, and how viewers fare.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use uuid::Uuid;

use super::fleet::{self, Client};
use super::problem::Problem;
use super::query::{Ask, Order, Query};
use super::rows::Snapshot;
use crate::relay::route::Routes;
use crate::tally::Snapshot as Durations;
use crate::tunnel::{Tunnel, unix_ms};

/// Whether viewers get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// A client serves it.
    Online,
    /// None does.
    Offline,
    /// Viewers are turned away.
    Suspended,
}

impl State {
    const ALL: [Self; 3] = [Self::Online, Self::Offline, Self::Suspended];

    fn of(tunnel: &Tunnel, clients: usize) -> Self {
        match (tunnel.is_suspended(), clients) {
            (true, _) => Self::Suspended,
            (false, 0) => Self::Offline,
            (false, _) => Self::Online,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Suspended => "suspended",
        }
    }
}

/// What tunnels are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    Name,
    Owner,
    Age,
    Viewers,
    Requests,
    Bytes,
    Wait,
    Failures,
}

const SORTS: [(&str, By); 8] = [
    ("name", By::Name),
    ("owner", By::Owner),
    ("age", By::Age),
    ("viewers", By::Viewers),
    ("requests", By::Requests),
    ("bytes", By::Bytes),
    ("wait", By::Wait),
    ("failures", By::Failures),
];

/// Which tunnels, in which order.
pub type TunnelOrder = Order<State, By>;

/// Reads what is asked for.
pub fn ask(query: &Query) -> Result<Ask<State, By>, Problem> {
    query.ask(("state", &query.state), &State::ALL.map(|state| (state.as_str(), state)), &SORTS)
}

/// A tunnel, with what it is sorted by as it was when the rows were made.
pub struct Row {
    tunnel: Arc<Tunnel>,
    state: State,
    viewers: usize,
    requests: u64,
    bytes: u64,
    /// In microseconds.
    wait: Option<u64>,
    failures: u64,
    /// Requests and bytes a second.
    pub rates: (f32, f32),
}

impl Row {
    /// Of this tunnel, now.
    pub fn of(tunnel: Arc<Tunnel>) -> Self {
        let traffic = &tunnel.traffic;
        Self {
            state: State::of(&tunnel, tunnel.clients()),
            viewers: traffic.viewers.load(Relaxed),
            requests: traffic.requests.load(Relaxed),
            bytes: traffic.bytes_in.load(Relaxed) + traffic.bytes_out.load(Relaxed),
            wait: traffic.waits().quantile(0.99).map(|seconds| (seconds * 1e6) as u64),
            failures: traffic.failures().iter().map(|(_, count)| count).sum(),
            rates: traffic.rates(),
            tunnel,
        }
    }

    /// Whether the list has it.
    pub fn is_in(&self, order: &TunnelOrder) -> bool {
        order.lets(&self.state) && order.finds([self.tunnel.name.as_str(), self.tunnel.owner.as_str()])
    }

    /// Which of two comes first in the list.
    pub fn compare(&self, other: &Self, order: &TunnelOrder) -> Ordering {
        let (a, b) = (&self.tunnel, &other.tunnel);
        let main = match order.sort {
            By::Name => order.compare(Some(&a.name), Some(&b.name)),
            By::Owner => order.compare(Some(a.owner.as_str()), Some(b.owner.as_str())),
            // The youngest is the one that was made last.
            By::Age => order.compare(Some(-a.created_at), Some(-b.created_at)),
            By::Viewers => order.compare(Some(self.viewers), Some(other.viewers)),
            By::Requests => order.compare(Some(self.requests), Some(other.requests)),
            By::Bytes => order.compare(Some(self.bytes), Some(other.bytes)),
            By::Wait => order.compare(self.wait, other.wait),
            By::Failures => order.compare(Some(self.failures), Some(other.failures)),
        };
        main.then_with(|| a.name.cmp(&b.name))
    }
}

/// The page of tunnels that is asked for.
pub fn page<'a>(snapshot: &'a Snapshot, routes: &Routes, ask: &Ask<State, By>) -> Page<'a> {
    let found = snapshot.tunnels_by(&ask.order);
    let tunnels = ask.of(&found).iter().map(|at| show(&snapshot.tunnels[*at].tunnel, routes)).collect();
    Page { total: found.len(), page: ask.page, size: ask.size, tunnels }
}

/// A tunnel with its clients.
pub fn one(tunnel: &Arc<Tunnel>, routes: &Routes) -> serde_json::Result<Vec<u8>> {
    let clients: Vec<Client> = Client::of(tunnel, unix_ms()).collect();
    let sessions = Some(clients.iter().map(Client::show).collect());
    serde_json::to_vec(&Shown { sessions, ..show(tunnel, routes) })
}

fn show<'a>(tunnel: &'a Tunnel, routes: &Routes) -> Shown<'a> {
    let traffic = &tunnel.traffic;
    let (requests_per_s, bytes_per_s) = traffic.rates();
    let sessions: Vec<_> = tunnel.all_sessions().collect();
    Shown {
        id: tunnel.id,
        name: &tunnel.name,
        url: routes.url_of_tunnel(tunnel),
        owner: tunnel.owner.as_str(),
        proto: tunnel.spec().proto.as_str(),
        state: State::of(tunnel, sessions.len()).as_str(),
        created_at: tunnel.created_at,
        expires_at: tunnel.expires_at(),
        clients: sessions.len(),
        viewers: traffic.viewers.load(Relaxed),
        requests: traffic.requests.load(Relaxed),
        requests_per_s: rate(requests_per_s),
        bytes_in: traffic.bytes_in.load(Relaxed),
        bytes_out: traffic.bytes_out.load(Relaxed),
        bytes_per_s: rate(bytes_per_s),
        wait: Quantiles::of(&traffic.waits()),
        failures: traffic.failures().into_iter().collect(),
        idle_data_sockets: sessions.iter().map(|session| session.idle_lanes()).sum(),
        standby_data_sockets: sessions.iter().map(|session| session.standby_lanes()).sum(),
        last_active: traffic.last_active(),
        sessions: None,
    }
}

/// A rate as it is shown: the third digit behind the point says nothing.
pub fn rate(rate: f32) -> f64 {
    (f64::from(rate) * 100.0).round() / 100.0
}

/// Tunnels of one page.
#[derive(Serialize)]
pub struct Page<'a> {
    total: usize,
    page: usize,
    size: usize,
    tunnels: Vec<Shown<'a>>,
}

/// What half of all durations, and 99 of 100, are not above.
#[derive(Serialize)]
pub struct Quantiles {
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

impl Quantiles {
    /// Of these durations.
    pub fn of(durations: &Durations) -> Self {
        let ms = |q| durations.quantile(q).map(|seconds| (seconds * 1e6).round() / 1e3);
        Self { p50_ms: ms(0.5), p99_ms: ms(0.99) }
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    id: Uuid,
    name: &'a str,
    url: String,
    owner: &'a str,
    proto: &'static str,
    state: &'static str,
    created_at: i64,
    expires_at: Option<i64>,
    clients: usize,
    viewers: usize,
    requests: u64,
    requests_per_s: f64,
    bytes_in: u64,
    bytes_out: u64,
    bytes_per_s: f64,
    wait: Quantiles,
    failures: BTreeMap<&'static str, u64>,
    idle_data_sockets: usize,
    standby_data_sockets: usize,
    last_active: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<Vec<fleet::Shown<'a>>>,
}
