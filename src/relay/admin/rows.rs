//! The rows of all lists, out of one walk over the registry, and their orders.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use super::fleet::{Client, ClientOrder};
use super::totals::Totals;
use super::tunnels::{Row, TunnelOrder};
use crate::proto::limits::admin::ORDERS;
use crate::relay::Shared;
use crate::sync::lock;
use crate::tunnel::unix_ms;

/// What there was at one moment.
pub struct Snapshot {
    /// In Unix milliseconds.
    pub at: i64,
    /// The clients of all tunnels.
    pub clients: Vec<Client>,
    /// All tunnels.
    pub tunnels: Vec<Row>,
    /// What these come to.
    pub totals: Totals,
    client_orders: Orders<ClientOrder>,
    tunnel_orders: Orders<TunnelOrder>,
}

/// Positions of rows, by what was asked for.
type Orders<O> = Mutex<HashMap<O, Arc<[usize]>>>;

impl Snapshot {
    /// Of this moment: a walk over all tunnels.
    pub fn take(shared: &Shared) -> Self {
        let at = unix_ms();
        let (mut clients, mut tunnels) = (Vec::new(), Vec::new());
        // A copy of the list: no lock is held while each is looked at.
        for tunnel in shared.registry.all() {
            clients.extend(Client::of(&tunnel, at));
            tunnels.push(Row::of(tunnel));
        }
        let totals = Totals::of(&clients, &tunnels);
        let (client_orders, tunnel_orders) = (Mutex::default(), Mutex::default());
        Self { at, clients, tunnels, totals, client_orders, tunnel_orders }
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
