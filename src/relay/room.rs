//! Room for connections: how many there may be, so that descriptors do not run out, and who gets the last places.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::crowd::{self, Crowd};
use crate::proto::limits::{Limits, descriptors};
use crate::stream::descriptors::limit;
use crate::sync::{Count, Held};
use crate::tally::Counter;

/// The places of all connections, those of clients and data sockets too.
///
/// Whether a new connection is a viewer's or a client's is known only once it has spoken, so anybody gets a place. But a
/// viewer that needs a data socket is promised a place for that, or turned away: if viewers could have all of them, no
/// client would get through to serve even one.
pub struct Room {
    places: Arc<Semaphore>,
    /// Connections that have one.
    taken: Count,
    /// Those of each address, where there is a limit.
    crowd: Option<Arc<Crowd>>,
    /// Data sockets that are announced, and have no place yet.
    promised: AtomicUsize,
    /// Places that are promised to nobody: for clients that come back.
    reserve: usize,
    /// With fewer left than this, no connection is kept for a next request.
    scarce: usize,
    /// All places; `None`: there is no limit.
    most: Option<usize>,
    /// Times that accepting had to wait for a place.
    pub full: Counter,
    /// Connections that were closed as their address had all that it may.
    pub crowded: Counter,
}

/// Leave to accept one connection.
pub type Permit = OwnedSemaphorePermit;

/// One connection's place, until it is dropped.
pub struct Place {
    _permit: Permit,
    of_address: Option<crowd::Place>,
    _taken: Held,
}

/// A place that is kept for a data socket.
pub struct Promise<'a>(&'a Room);

impl Room {
    /// Room for so many connections, and for so many of each address.
    pub fn new(most: usize, per_address: Option<usize>) -> Self {
        let limit = (most < Semaphore::MAX_PERMITS).then_some(most);
        let most = most.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(most));
        let (reserve, scarce) = (most / descriptors::RESERVE, most / descriptors::SCARCE);
        let (taken, crowd) = (Count::default(), per_address.map(Crowd::new));
        let (full, crowded) = (Counter::default(), Counter::default());
        let promised = AtomicUsize::new(0);
        Self { places, taken, crowd, promised, reserve, scarce, most: limit, full, crowded }
    }

    /// Leave to accept, as soon as there is a place.
    pub async fn enter(&self) -> Option<Permit> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(permit);
        }
        self.full.increment();
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// How many connections there may be; `None`: any number.
    pub fn most(&self) -> Option<usize> {
        self.most
    }

    /// Leave for a descriptor of the relay's own, such as a listener, if connections are left enough of them.
    pub fn spare(&self) -> Option<Permit> {
        let promised = self.promised.load(Ordering::Relaxed);
        (self.left(promised) > self.reserve)
            .then(|| Arc::clone(&self.places).try_acquire_owned().ok())
            .flatten()
    }

    /// The place of a connection that was accepted; `None`: its address, where it counts, has all that it may.
    pub fn place(&self, permit: Permit, address: Option<IpAddr>) -> Option<Place> {
        let of_address = match (&self.crowd, address) {
            (Some(crowd), Some(address)) => Some(self.among(crowd, address)?),
            _ => None,
        };
        Some(Place { _permit: permit, of_address, _taken: self.taken.hold() })
    }

    /// Counts a connection among those of an address that it turns out to be of; `false`: that has all that it may.
    pub fn count(&self, place: &mut Place, address: IpAddr) -> bool {
        let Some(crowd) = &self.crowd else { return true };
        place.of_address = self.among(crowd, address);
        place.of_address.is_some()
    }

    fn among(&self, crowd: &Arc<Crowd>, address: IpAddr) -> Option<crowd::Place> {
        let place = crowd.enter(address);
        if place.is_none() {
            self.crowded.increment();
        }
        place
    }

    /// Connections that are open.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    fn left(&self, promised: usize) -> usize {
        self.places.available_permits().saturating_sub(promised)
    }

    /// Keeps a place for one more data socket, if there is one.
    pub fn promise(&self) -> Option<Promise<'_>> {
        let one_more = |promised| (self.left(promised) > self.reserve).then_some(promised + 1);
        self.promised.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Promise(self))
    }

    /// Whether connections should make room for others.
    pub fn is_scarce(&self) -> bool {
        self.left(self.promised.load(Ordering::Relaxed)) < self.scarce
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.0.promised.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections these limits and the system allow.
pub fn most(limits: &Limits) -> usize {
    let by_system = limit().map(|most| most.saturating_sub(descriptors::OUR_OWN).max(descriptors::LEAST));
    limits.connections.unwrap_or(usize::MAX).min(by_system.unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn viewers_are_promised_no_place_that_is_not_there() {
        let room = Room::new(16, None);
        let mut places = Vec::new();
        for _ in 0..10 {
            places.push(room.enter().await);
        }
        assert!(!room.is_scarce());
        let promises: Vec<_> = std::iter::from_fn(|| room.promise()).collect();
        assert_eq!(promises.len(), 16 - 10 - 16 / descriptors::RESERVE);
        assert!(room.is_scarce());
        drop(promises);
        assert!(room.promise().is_some() && !room.is_scarce());
        for _ in 0..6 {
            places.push(room.enter().await);
        }
        assert!(room.promise().is_none());
        places.clear();
        assert!(room.promise().is_some());
        assert!(Room::new(usize::MAX, None).promise().is_some());
    }
}
