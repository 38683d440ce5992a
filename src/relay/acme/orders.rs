//! Which orders may be placed when: one at a time for a name, later and later after failures, and so many in all.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::proto::limits::acme;

/// What has become of orders of late.
#[derive(Default)]
pub struct Orders {
    names: HashMap<String, Tries>,
    /// When the last ones were placed.
    placed: VecDeque<Instant>,
}

#[derive(Default)]
struct Tries {
    running: bool,
    failures: u32,
    not_before: Option<Instant>,
}

impl Orders {
    /// Whether one for `name` could be placed now.
    pub fn may_begin(&self, name: &str, now: Instant) -> bool {
        let free = self.names.get(name).is_none_or(|tries| {
            !tries.running && tries.not_before.is_none_or(|not_before| not_before <= now)
        });
        let recent = self.placed.iter().filter(|placed| now.duration_since(**placed) < acme::WINDOW).count();
        free && recent < acme::ORDERS
    }

    /// Places one, if that may be.
    pub fn begin(&mut self, name: &str, now: Instant) -> bool {
        if !self.may_begin(name, now) {
            return false;
        }
        while self.placed.front().is_some_and(|placed| now.duration_since(*placed) >= acme::WINDOW) {
            self.placed.pop_front();
        }
        self.placed.push_back(now);
        self.names.entry(name.to_owned()).or_default().running = true;
        true
    }

    /// One has ended; after a failure, the time until the next try.
    pub fn end(&mut self, name: &str, done: bool, now: Instant) -> Duration {
        if done {
            self.names.remove(name);
            return Duration::ZERO;
        }
        let tries = self.names.entry(name.to_owned()).or_default();
        tries.running = false;
        let wait = (acme::RETRY_LEAST * 2_u32.saturating_pow(tries.failures)).min(acme::RETRY_MOST);
        tries.failures = tries.failures.saturating_add(1).min(30);
        tries.not_before = Some(now + wait);
        wait
    }

    /// Whether one is under way for `name`.
    pub fn is_running(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|tries| tries.running)
    }

    /// Whether the last one for `name` failed.
    pub fn has_failed(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|tries| !tries.running && tries.failures > 0)
    }

    /// When a failed one for `name` may be tried again.
    pub fn not_before(&self, name: &str) -> Option<Instant> {
        self.names.get(name)?.not_before
    }

    /// Forgets failures of names that nobody has any more.
    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        self.names.retain(|name, tries| tries.running || known(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_order_waits_longer_each_time_and_a_good_one_begins_anew() {
        let (mut orders, now) = (Orders::default(), Instant::now());
        let mut at = now;
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert!(orders.begin("web.test", at));
            assert!(!orders.begin("web.test", at), "one at a time");
            let wait = orders.end("web.test", false, at);
            assert!(!orders.may_begin("web.test", at));
            at += wait;
            waits.push(wait);
        }
        assert_eq!(waits[..3], [acme::RETRY_LEAST, acme::RETRY_LEAST * 2, acme::RETRY_LEAST * 4]);
        assert_eq!(waits[11], acme::RETRY_MOST);
        assert!(orders.begin("web.test", at));
        orders.end("web.test", true, at);
        assert!(orders.begin("web.test", at) && orders.is_running("web.test"));
    }

    #[test]
    fn there_are_only_so_many_in_a_while() {
        let (mut orders, now) = (Orders::default(), Instant::now());
        for at in 0..acme::ORDERS {
            assert!(orders.begin(&format!("{at}.test"), now));
        }
        assert!(!orders.begin("more.test", now));
        assert!(orders.begin("more.test", now + acme::WINDOW));
    }
}
