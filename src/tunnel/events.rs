//! What happened to clients and tunnels, for operators: the last of it, in memory.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Mutex;

use super::{Tunnel, unix_ms};
use crate::proto::limits::events::{KEPT, REFUSALS_KEPT, TEXT_CHARS};
use crate::sync::lock;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A client came.
    Connected,
    /// A client took a tunnel from another one of its owner.
    TookOver,
    /// A client went.
    Disconnected,
    /// A client was told to connect anew.
    Drained,
    /// A tunnel was made.
    Created,
    /// A tunnel was deleted.
    Deleted,
    /// The time of a tunnel, or of its name, is over.
    Expired,
    /// Viewers are turned away.
    Suspended,
    /// Viewers are let in again.
    Resumed,
    /// A tunnel has another end.
    Extended,
    /// A key is good no more.
    Revoked,
    /// A client was turned away, or a call with a key that is not good.
    Refused,
}

impl Kind {
    /// All there are.
    pub const ALL: [Self; 12] = [
        Self::Connected,
        Self::TookOver,
        Self::Disconnected,
        Self::Drained,
        Self::Created,
        Self::Deleted,
        Self::Expired,
        Self::Suspended,
        Self::Resumed,
        Self::Extended,
        Self::Revoked,
        Self::Refused,
    ];

    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::TookOver => "took_over",
            Self::Disconnected => "disconnected",
            Self::Drained => "drained",
            Self::Created => "created",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Suspended => "suspended",
            Self::Resumed => "resumed",
            Self::Extended => "extended",
            Self::Revoked => "revoked",
            Self::Refused => "refused",
        }
    }
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Grows from one to the next; the first is 1.
    pub number: u64,
    /// Unix milliseconds.
    pub at: i64,
    /// What.
    pub kind: Kind,
    /// Name of the tunnel.
    pub tunnel: Option<String>,
    /// Name of the key that owns it.
    pub owner: Option<String>,
    /// Of the client.
    pub address: Option<IpAddr>,
    /// Why, or how.
    pub reason: Option<String>,
}

impl Event {
    /// Of `kind`, of nobody yet.
    pub fn new(kind: Kind) -> Self {
        let (tunnel, owner, address, reason) = (None, None, None, None);
        Self { number: 0, at: unix_ms(), kind, tunnel, owner, address, reason }
    }

    /// Of this tunnel.
    pub fn of(kind: Kind, tunnel: &Tunnel) -> Self {
        let (name, owner) = (tunnel.name.clone(), tunnel.owner.as_str().to_owned());
        Self { tunnel: Some(name), owner: Some(owner), ..Self::new(kind) }
    }

    /// The client comes from there.
    pub fn from(self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// What was asked for has this name, or would have it if it were one; cut.
    pub fn named(self, tunnel: &str) -> Self {
        Self { tunnel: Some(cut(tunnel)), ..self }
    }

    /// Why, or how; cut.
    pub fn because(self, reason: impl AsRef<str>) -> Self {
        Self { reason: Some(cut(reason.as_ref())), ..self }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS).collect()
}

/// The last events. Refusals are kept apart: there may be any number of them in a second.
#[derive(Default)]
pub struct Events(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    newest: u64,
    others: VecDeque<Event>,
    refusals: VecDeque<Event>,
}

impl Events {
    /// Adds one; the oldest of its sort may go for it.
    pub fn add(&self, event: Event) {
        let mut kept = lock(&self.0);
        kept.newest += 1;
        let number = kept.newest;
        let (events, most) = match event.kind {
            Kind::Refused => (&mut kept.refusals, REFUSALS_KEPT),
            _ => (&mut kept.others, KEPT),
        };
        if events.len() == most {
            events.pop_front();
        }
        events.push_back(Event { number, ..event });
    }

    /// Those that `wanted` picks, newest first, but no more than `most`, with the number of all that it picks.
    pub fn find(&self, wanted: impl Fn(&Event) -> bool, skip: usize, most: usize) -> (Vec<Event>, usize) {
        let kept = lock(&self.0);
        let (mut others, mut refusals) =
            (kept.others.iter().rev().peekable(), kept.refusals.iter().rev().peekable());
        let (mut found, mut count) = (Vec::new(), 0);
        loop {
            let newer = match (others.peek(), refusals.peek()) {
                (Some(other), Some(refusal)) if refusal.number > other.number => refusals.next(),
                (None, Some(_)) => refusals.next(),
                _ => others.next(),
            };
            let Some(event) = newer else { return (found, count) };
            if wanted(event) {
                if count >= skip && found.len() < most {
                    found.push(event.clone());
                }
                count += 1;
            }
        }
    }

    /// The number of the newest; 0: there was none.
    pub fn newest(&self) -> u64 {
        lock(&self.0).newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_pushes_out_nothing_but_refusals() {
        let events = Events::default();
        events.add(Event::new(Kind::Connected));
        (0..REFUSALS_KEPT + 10).for_each(|_| events.add(Event::new(Kind::Refused)));
        events.add(Event::new(Kind::Disconnected));
        let (found, all) = events.find(|_| true, 0, 3);
        let kinds: Vec<_> = found.iter().map(|event| event.kind).collect();
        assert_eq!((kinds, all), (vec![Kind::Disconnected, Kind::Refused, Kind::Refused], REFUSALS_KEPT + 2));
        let (found, all) = events.find(|event| event.kind == Kind::Connected, 0, 10);
        assert_eq!((found[0].number, all), (1, 1));
        assert_eq!(events.newest(), REFUSALS_KEPT as u64 + 12);
        assert!(events.find(|event| event.kind == Kind::Connected, 1, 10).0.is_empty());
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let events = Events::default();
        (0..KEPT + 5).for_each(|_| events.add(Event::new(Kind::Created)));
        let (found, all) = events.find(|_| true, KEPT - 1, 10);
        assert_eq!((found.len(), found[0].number, all), (1, 6, KEPT));
    }
}
