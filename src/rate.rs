//! How often an address may do something in a time; with bounded memory, in constant time.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::proto::limits::policy::ADDRESSES;
use crate::sync::lock;

/// A rate, and how far everybody is.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// So much of the time does one take.
    cost: Duration,
    burst: u64,
    start: Instant,
    table: Mutex<Table>,
}

impl Limiter {
    /// One each `cost`, after `burst` that may come at once.
    pub(crate) fn new(cost: Duration, burst: u64) -> Self {
        Self { cost, burst, start: Instant::now(), table: Mutex::new(Table::new(ADDRESSES)) }
    }

    /// Counts one of that address, or of those together that have none; an error says after what time there is room for
    /// it. All of an IPv6 network of 64 bits, which is what one subscriber has, are one address.
    pub(crate) fn take(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        let (now, cost, ahead) = self.numbers();
        lock(&self.table).take(address.map_or(0, key), now, cost, ahead).map_err(Duration::from_nanos)
    }

    /// Whether there is room for one, without counting it.
    #[cfg(feature = "bridge")]
    pub(crate) fn look(&self, address: Option<IpAddr>) -> Result<(), Duration> {
        let (now, cost, ahead) = self.numbers();
        let asked = lock(&self.table).ask(address.map_or(0, key), now, cost, ahead);
        asked.map(drop).map_err(Duration::from_nanos)
    }

    /// The time, and what one takes and all at once may take.
    fn numbers(&self) -> (u64, u64, u64) {
        let cost = nanos(self.cost);
        (nanos(self.start.elapsed()), cost, cost.saturating_mul(self.burst))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One number for whoever shares a rate. IPv4 addresses stand where IPv6 has multicast, from which nobody comes.
fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => 0xff << 56 | u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// Entries that one key can be in.
const WAYS: usize = 8;

/// When what a key took is made up for, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    key: u64,
    due: u64,
}

/// Dues by key, in sets of [`WAYS`]: it grows up to `most` entries while those in a set are all in use. Beyond that a new
/// key takes over the smallest due of its set, so that nobody gets more than its rate, however many there are; it may get
/// less. An entry that is made up for is free.
#[derive(Debug)]
struct Table {
    entries: Vec<Entry>,
    most: usize,
    hasher: RandomState,
}

impl Table {
    fn new(most: usize) -> Self {
        Self { entries: vec![Entry::default(); WAYS], most, hasher: RandomState::new() }
    }

    fn set(&self, key: u64) -> std::ops::Range<usize> {
        let sets = self.entries.len() / WAYS;
        let at = (self.hasher.hash_one(key) as usize & (sets - 1)) * WAYS;
        at..at + WAYS
    }

    /// Where that key is, or would be.
    fn place(&mut self, key: u64, now: u64) -> usize {
        loop {
            let set = self.set(key);
            if let Some(at) = set.clone().find(|at| self.entries[*at].key == key && self.entries[*at].due > 0)
            {
                return at;
            }
            let at = set.min_by_key(|at| self.entries[*at].due).unwrap_or(0);
            if self.entries[at].due <= now || self.entries.len() >= self.most {
                return at;
            }
            self.grow();
        }
    }

    /// What has to be written where, if there is room for one more.
    fn ask(&mut self, key: u64, now: u64, cost: u64, ahead: u64) -> Result<(usize, Entry), u64> {
        let at = self.place(key, now);
        let due = self.entries[at].due.max(now).saturating_add(cost);
        let wait = (due - now).saturating_sub(ahead.max(cost));
        if wait > 0 { Err(wait) } else { Ok((at, Entry { key, due })) }
    }

    fn take(&mut self, key: u64, now: u64, cost: u64, ahead: u64) -> Result<(), u64> {
        let (at, entry) = self.ask(key, now, cost, ahead)?;
        self.entries[at] = entry;
        Ok(())
    }

    /// Twice as many sets: what was in one is in one of two, so it has room there.
    fn grow(&mut self) {
        let larger = vec![Entry::default(); self.entries.len() * 2];
        let entries = std::mem::replace(&mut self.entries, larger);
        for entry in entries.into_iter().filter(|entry| entry.due > 0) {
            if let Some(at) = self.set(entry.key).find(|at| self.entries[*at].due == 0) {
                self.entries[at] = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[cfg(feature = "bridge")]
    #[tokio::test(start_paused = true)]
    async fn a_look_takes_nothing_and_says_what_a_take_would() {
        let limiter = Limiter::new(Duration::from_secs(6), 2);
        let one = Some([192, 0, 2, 1].into());
        for _ in 0..10 {
            assert_eq!(limiter.look(one), Ok(()));
        }
        assert_eq!((limiter.take(one), limiter.take(one)), (Ok(()), Ok(())));
        assert_eq!(
            (limiter.look(one), limiter.take(one)),
            (Err(Duration::from_secs(6)), Err(Duration::from_secs(6)))
        );
        assert_eq!(limiter.look(None), Ok(()));
    }

    #[test]
    fn many_addresses_take_bounded_memory_and_nobody_gets_more() {
        const MOST: usize = 64;
        let mut table = Table::new(MOST);
        let mut taken = HashMap::<u64, u64>::new();
        for round in 0..20 {
            for key in 1..=1000 {
                if table.take(key, round + 1, 1000, 3000).is_ok() {
                    *taken.entry(key).or_default() += 1;
                }
            }
            assert!(table.entries.len() <= MOST);
        }
        assert!(taken.values().all(|count| *count <= 3), "{taken:?}");
        // Long after, everybody is as new.
        assert_eq!(table.take(7, 1_000_000, 1000, 3000), Ok(()));
    }

    proptest! {
        #[test]
        fn no_key_gets_more_than_its_burst_and_its_rate_in_any_time(
            steps in prop::collection::vec((0u64..40, 0u64..50), 1..400),
            cost in 1u64..200,
            burst in 1u64..6,
            most in prop_oneof![Just(8usize), Just(16), Just(64)],
        ) {
            let mut table = Table::new(most);
            let mut now = 1;
            let mut accepted: HashMap<u64, Vec<u64>> = HashMap::new();
            for (key, pause) in steps {
                now += pause;
                match table.take(key, now, cost, cost * burst) {
                    Ok(()) => accepted.entry(key).or_default().push(now),
                    // Whoever waits as told is let in, if nobody else comes.
                    Err(wait) => {
                        prop_assert!(wait > 0);
                        let mut alone = Table { entries: table.entries.clone(), most, hasher: table.hasher.clone() };
                        prop_assert_eq!(alone.take(key, now + wait, cost, cost * burst), Ok(()));
                    }
                }
            }
            prop_assert!(table.entries.len() <= most);
            for times in accepted.values() {
                for (first, from) in times.iter().enumerate() {
                    for (last, to) in times.iter().enumerate().skip(first) {
                        let count = (last - first + 1) as u64;
                        prop_assert!(count <= burst + (to - from) / cost + 1, "{} within {}", count, to - from);
                    }
                }
            }
        }
    }
}
