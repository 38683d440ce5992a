//! A value that is made anew when somebody asks for it and the last one is too old.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// The last one, and when it was made.
pub struct Fresh<T> {
    good_for: Duration,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Fresh<T> {
    /// None yet; each is good for so long.
    pub fn new(good_for: Duration) -> Self {
        Self { good_for, last: Mutex::default() }
    }

    /// The last one, if it is good.
    pub fn get(&self) -> Option<T> {
        self.good(&lock(&self.last))
    }

    /// The last one, if it is good, or what `make` gives now. Whoever asks meanwhile waits: they want the same.
    pub fn get_or_make(&self, make: impl FnOnce() -> T) -> T {
        let mut last = lock(&self.last);
        if let Some(good) = self.good(&last) {
            return good;
        }
        let made = (Instant::now(), make());
        last.insert(made).1.clone()
    }

    /// One that was made just now.
    pub fn set(&self, value: T) {
        *lock(&self.last) = Some((Instant::now(), value));
    }

    fn good(&self, last: &Option<(Instant, T)>) -> Option<T> {
        last.as_ref().filter(|(at, _)| at.elapsed() < self.good_for).map(|(_, value)| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_is_made_when_it_is_asked_for_and_none_is_good() {
        let fresh = Fresh::new(Duration::from_secs(1));
        assert_eq!((fresh.get(), fresh.get_or_make(|| 1), fresh.get_or_make(|| 2)), (None, 1, 1));
        advance(Duration::from_secs(1)).await;
        assert_eq!((fresh.get(), fresh.get_or_make(|| 3), fresh.get()), (None, 3, Some(3)));
        fresh.set(4);
        assert_eq!(fresh.get_or_make(|| 5), 4);
    }
}
