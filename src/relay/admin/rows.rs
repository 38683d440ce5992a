//! The rows of all lists: one walk over the registry a second at most, however many look.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::fleet::{Client, ClientOrder};
use super::problem::Problem;
use super::tunnels::{Row, TunnelOrder};
use crate::proto::limits::admin::{AT_ONCE, KEPT, ORDERS};
use crate::relay::Shared;
use crate::sync::lock;
use crate::tunnel::unix_ms;

/// What there was at one moment.
pub struct Snapshot {
    /// For its age.
    taken: Instant,
    /// The same in Unix milliseconds.
    pub at: i64,
    /// The clients of all tunnels.
    pub clients: Vec<Client>,
    /// All tunnels.
    pub tunnels: Vec<Row>,
    client_orders: Orders<ClientOrder>,
    tunnel_orders: Orders<TunnelOrder>,
}

/// Positions of rows, by what was asked for.
type Orders<O> = Mutex<HashMap<O, Arc<[usize]>>>;

/// The last snapshot, and the places of those who make lists.
pub struct Rows {
    last: Mutex<Option<Arc<Snapshot>>>,
    places: Arc<Semaphore>,
}

impl Default for Rows {
    fn default() -> Self {
        Self { last: Mutex::default(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Rows {
    /// What there is, or was less than a second ago.
    pub fn snapshot(&self, shared: &Shared) -> Arc<Snapshot> {
        // Held during the walk: whoever asks meanwhile wants the same.
        let mut last = lock(&self.last);
        if let Some(snapshot) = &*last
            && snapshot.taken.elapsed() < KEPT
        {
            return Arc::clone(snapshot);
        }
        let snapshot = Arc::new(Snapshot::take(shared));
        *last = Some(Arc::clone(&snapshot));
        snapshot
    }

    /// Runs `work`, which takes milliseconds, beside the async threads, and with few of its sort at a time.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Problem::failed())?;
        let work = move || {
            let _place = place;
            work()
        };
        spawn_blocking(work).await.map_err(|_| Problem::failed())
    }
}

impl Snapshot {
    fn take(shared: &Shared) -> Self {
        let (taken, at) = (Instant::now(), unix_ms());
        let (mut clients, mut tunnels) = (Vec::new(), Vec::new());
        // A copy of the list: no lock is held while each is looked at.
        for tunnel in shared.registry.all() {
            clients.extend(Client::of(&tunnel, at));
            tunnels.push(Row::of(tunnel));
        }
        let (client_orders, tunnel_orders) = (Mutex::default(), Mutex::default());
        Self { taken, at, clients, tunnels, client_orders, tunnel_orders }
    }

    /// The clients that are asked for, in order.
    pub fn clients_by(&self, order: &ClientOrder) -> Arc<[usize]> {
        ordered(&self.client_orders, order, || {
            let mut found = positions(&self.clients, |client| client.is_in(order));
            found.sort_unstable_by(|one, other| self.clients[*one].compare(&self.clients[*other], order));
            found
        })
    }

    /// The tunnels that are asked for, in order.
    pub fn tunnels_by(&self, order: &TunnelOrder) -> Arc<[usize]> {
        ordered(&self.tunnel_orders, order, || {
            let mut found = positions(&self.tunnels, |tunnel| tunnel.is_in(order));
            found.sort_unstable_by(|one, other| self.tunnels[*one].compare(&self.tunnels[*other], order));
            found
        })
    }
}

fn positions<T>(rows: &[T], wanted: impl Fn(&T) -> bool) -> Vec<usize> {
    rows.iter().enumerate().filter(|(_, row)| wanted(row)).map(|(at, _)| at).collect()
}

fn ordered<O: Clone + Eq + Hash>(
    orders: &Orders<O>,
    order: &O,
    make: impl FnOnce() -> Vec<usize>,
) -> Arc<[usize]> {
    // Not held while rows are sorted: another order may be wanted.
    if let Some(known) = lock(orders).get(order) {
        return Arc::clone(known);
    }
    let made: Arc<[usize]> = make().into();
    let mut orders = lock(orders);
    if orders.len() < ORDERS {
        orders.insert(order.clone(), Arc::clone(&made));
    }
    made
}
