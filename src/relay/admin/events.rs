//! What happened to clients and tunnels, and who has a key.

use std::collections::BTreeMap;

use serde::Serialize;

use super::problem::Problem;
use super::query::{Ask, Query};
use crate::proto::limits::admin::EVENTS;
use crate::relay::Shared;
use crate::store::KeyRow;
use crate::tunnel::events::{Event, Events, Kind};

/// Reads what is asked for.
pub fn ask(query: &Query) -> Result<Ask<Kind, ()>, Problem> {
    query.ask(("kind", &query.kind), &Kind::ALL.map(|kind| (kind.as_str(), kind)), &[("newest", ())])
}

/// The page of events that is asked for, newest first.
pub fn page(events: &Events, ask: &Ask<Kind, ()>) -> Page {
    let newest = events.newest();
    let order = &ask.order;
    let wanted = |event: &Event| {
        order.lets(&event.kind)
            && (order.search.is_empty() || {
                let address = event.address.map(|address| address.to_string());
                let texts = [&event.tunnel, &event.owner, &event.reason, &address];
                order.finds(texts.into_iter().flatten().map(String::as_str))
            })
    };
    let (found, total) = events.find(wanted, ask.skip(), ask.size);
    Page {
        total,
        page: ask.page,
        size: ask.size,
        newest,
        events: found.into_iter().map(Shown::from).collect(),
    }
}

/// The newest of those that came after number `last`; `None`: there are none.
pub fn since(events: &Events, last: u64) -> Option<Page> {
    let newest = events.newest();
    if newest <= last {
        return None;
    }
    let (found, total) = events.find(|event| (last + 1..=newest).contains(&event.number), 0, EVENTS);
    let events: Vec<_> = found.into_iter().map(Shown::from).collect();
    (!events.is_empty()).then_some(Page { total, page: 1, size: EVENTS, newest, events })
}

/// Everybody who has a live key, by name: those of the configuration, and the `stored` ones.
pub fn keys(shared: &Shared, stored: Vec<KeyRow>) -> KeyList {
    let stored = stored.into_iter().map(|key| (key.name, Some(key.created_at)));
    let configured = shared.config.static_keys.iter().map(|key| (key.name.clone(), None));
    let mut keys: BTreeMap<(String, bool), Key> = BTreeMap::new();
    for (name, created_at) in configured.chain(stored) {
        let from = if created_at.is_some() { "store" } else { "configuration" };
        keys.insert((name.clone(), created_at.is_some()), Key { name, created_at, from, tunnels: 0 });
    }
    for tunnel in shared.registry.all() {
        for stored in [false, true] {
            if let Some(key) = keys.get_mut(&(tunnel.owner.as_str().to_owned(), stored)) {
                key.tunnels += 1;
            }
        }
    }
    KeyList { keys: keys.into_values().collect() }
}

/// Events of one page.
#[derive(Serialize)]
pub struct Page {
    total: usize,
    page: usize,
    size: usize,
    /// Number of the newest of all.
    pub newest: u64,
    events: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    number: u64,
    at: i64,
    kind: &'static str,
    tunnel: Option<String>,
    owner: Option<String>,
    address: Option<String>,
    reason: Option<String>,
}

impl From<Event> for Shown {
    fn from(event: Event) -> Self {
        let Event { number, at, kind, tunnel, owner, address, reason } = event;
        let address = address.map(|address| address.to_string());
        Self { number, at, kind: kind.as_str(), tunnel, owner, address, reason }
    }
}

/// All keys.
#[derive(Serialize)]
pub struct KeyList {
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Key {
    name: String,
    /// Unix milliseconds.
    created_at: Option<i64>,
    from: &'static str,
    tunnels: usize,
}
