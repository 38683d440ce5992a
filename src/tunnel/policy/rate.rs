//! How many requests a viewer's address, or a tunnel, may make in a time; with bounded memory, in constant time.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::proto::limits::policy::{ADDRESSES, RATE};
use crate::sync::lock;

/// Who shares a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Per {
    /// Each address has its own; in IPv6 each network of 64 bits, which is what one subscriber has.
    Address,
    /// All viewers of the tunnel together.
    Tunnel,
}

/// A rate as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// So much of the time does one request take.
    cost: Duration,
    burst: u64,
    per: Per,
}

impl Rate {
    /// Reads `100/s`, `10/m` or `1000/h`, and what goes with it. All that is wrong at once.
    pub(super) fn read(rate: &str, burst: Option<u64>, per: Option<&str>) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let read = number_and_unit(rate);
        if read.is_none() {
            let rate: String = rate.chars().take(40).collect();
            wrong.push(format!(
                "rate_limit: {rate:?} is no rate; write a number from 1 to {RATE} and s, m or h, such as 100/s or 10/m"
            ));
        }
        if burst.is_some_and(|burst| !(1..=RATE).contains(&burst)) {
            wrong.push(format!("rate_limit: burst must be 1 to {RATE}"));
        }
        let per = match per {
            None | Some("address") => Per::Address,
            Some("tunnel") => Per::Tunnel,
            Some(_) => {
                wrong.push("rate_limit: per must be address or tunnel".to_owned());
                Per::Address
            }
        };
        match read {
            Some((number, unit)) if wrong.is_empty() => {
                let cost = Duration::from_nanos(unit.as_nanos() as u64 / number);
                Ok(Self { cost, burst: burst.unwrap_or(number), per })
            }
            _ => Err(wrong),
        }
    }

    pub(super) fn burst(self) -> u64 {
        self.burst
    }

    pub(super) fn per(self) -> &'static str {
        match self.per {
            Per::Address => "address",
            Per::Tunnel => "tunnel",
        }
    }
}

fn number_and_unit(rate: &str) -> Option<(u64, Duration)> {
    let (number, unit) = rate.split_once('/')?;
    let unit = match unit.trim() {
        "s" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3600,
        _ => return None,
    };
    let number = number.trim();
    let number = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten()?;
    (1..=RATE).contains(&number).then_some((number, Duration::from_secs(unit)))
}

/// A rate, and how far everybody is.
#[derive(Debug)]
pub(super) struct Limiter {
    pub(super) rate: Rate,
    start: Instant,
    table: Mutex<Table>,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, start: Instant::now(), table: Mutex::new(Table::new(ADDRESSES)) }
    }

    /// Counts a request or connection of that address; an error says after what time there is room for it.
    pub(super) fn take(&self, address: IpAddr) -> Result<(), Duration> {
        let whose = match self.rate.per {
            Per::Address => key(address),
            Per::Tunnel => 0,
        };
        let now = nanos(self.start.elapsed());
        let (cost, ahead) = (nanos(self.rate.cost), nanos(self.rate.cost).saturating_mul(self.rate.burst));
        lock(&self.table).take(whose, now, cost, ahead).map_err(Duration::from_nanos)
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

    fn take(&mut self, key: u64, now: u64, cost: u64, ahead: u64) -> Result<(), u64> {
        let at = loop {
            let set = self.set(key);
            if let Some(at) = set.clone().find(|at| self.entries[*at].key == key && self.entries[*at].due > 0)
            {
                break at;
            }
            let at = set.min_by_key(|at| self.entries[*at].due).unwrap_or(0);
            if self.entries[at].due <= now || self.entries.len() >= self.most {
                break at;
            }
            self.grow();
        };
        let due = self.entries[at].due.max(now).saturating_add(cost);
        let wait = (due - now).saturating_sub(ahead.max(cost));
        if wait > 0 {
            return Err(wait);
        }
        self.entries[at] = Entry { key, due };
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

    fn rate(text: &str, burst: Option<u64>) -> Rate {
        Rate::read(text, burst, None).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_has_its_burst_and_then_its_rate() {
        let limiter = Limiter::new(rate("10/m", Some(3)));
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(limiter.take(one), Ok(()));
        }
        assert_eq!(limiter.take(one), Err(Duration::from_secs(6)));
        assert_eq!(limiter.take(address("::ffff:192.0.2.1")), Err(Duration::from_secs(6)), "it is the same");
        assert_eq!(limiter.take(other), Ok(()));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!((limiter.take(one), limiter.take(one)), (Ok(()), Err(Duration::from_secs(6))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_and_a_tunnel_can_be_one() {
        let limiter = Limiter::new(rate("1/h", None));
        assert_eq!(limiter.take(address("2001:db8::1")), Ok(()));
        assert!(limiter.take(address("2001:db8::2:3")).is_err());
        assert_eq!(limiter.take(address("2001:db8:0:1::1")), Ok(()));
        let limiter = Limiter::new(Rate::read("1/h", None, Some("tunnel")).unwrap());
        assert_eq!(limiter.take(address("192.0.2.1")), Ok(()));
        assert_eq!(limiter.take(address("192.0.2.2")), Err(Duration::from_secs(3600)));
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, burst) in [("100/s", 100), ("10/m", 10), ("1000/hour", 1000), (" 5 / min ", 5)] {
            assert_eq!(rate(text, None).burst(), burst, "{text}");
        }
        for bad in ["", "100", "0/s", "-1/s", "+1/s", "1.5/s", "10/d", "1000001/s", "/s"] {
            assert!(Rate::read(bad, None, None).is_err(), "{bad}");
        }
        assert_eq!(Rate::read("x", Some(0), Some("y")).unwrap_err().len(), 3);
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
