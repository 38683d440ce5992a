//! The one way in which a mutex is taken here, and in which those who wait, or are open, are counted.

#[cfg(any(feature = "relay", feature = "bridge"))]
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes `mutex` even if a holder panicked: nothing is left half-done while one is held, so what it guards is usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of those that `count` counts, until dropped.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    /// One more, unless there are `most` already. Who finds no room is not counted for a moment either, in which it
    /// would take the room of another.
    pub(crate) fn enter(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let more = |before| (before < most).then_some(before + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(count))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many there are of something: as many as it gave guards that are not dropped.
#[cfg(any(feature = "relay", feature = "bridge"))]
#[derive(Debug, Default)]
pub(crate) struct Count(Arc<()>);

/// One of those that a [`Count`] counts, until dropped.
#[cfg(any(feature = "relay", feature = "bridge"))]
#[derive(Debug)]
pub(crate) struct Held {
    _one: Arc<()>,
}

#[cfg(any(feature = "relay", feature = "bridge"))]
impl Count {
    /// One more.
    pub(crate) fn hold(&self) -> Held {
        Held { _one: Arc::clone(&self.0) }
    }

    /// How many there are.
    pub(crate) fn get(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_who_come_at_once_exactly_as_many_get_in_as_there_is_room_for() {
        for most in 0..4 {
            let count = AtomicUsize::new(0);
            let start = std::sync::Barrier::new(4);
            let entered: usize = std::thread::scope(|scope| {
                let enter = || {
                    start.wait();
                    let entered = Counted::enter(&count, most);
                    start.wait();
                    usize::from(entered.is_some())
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(enter)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!((entered, count.load(Ordering::Relaxed)), (most, 0));
        }
    }
}
