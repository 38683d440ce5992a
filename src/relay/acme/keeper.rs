//! Looks after the certificates: orders what is asked for and what the relay itself needs, and renews early.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Acme;
use super::order::OrderError;
use crate::proto::limits::acme;
use crate::relay::tls::Certificate;
use crate::sync::lock;

type Ended = (String, Result<(), OrderError>);

impl Acme {
    /// Runs until it is dropped; names that viewers ask for come through `asked`.
    pub async fn keep(self: Arc<Self>, mut asked: mpsc::Receiver<String>) {
        let mut orders: JoinSet<Ended> = JoinSet::new();
        loop {
            let next = self.look(&mut orders);
            tokio::select! {
                biased;
                Some(ended) = orders.join_next() => self.end(ended.ok()),
                Some(name) = asked.recv(), if orders.len() < acme::AT_ONCE => self.begin(name, &mut orders),
                () = sleep_until(next) => {}
            }
        }
    }

    fn begin(self: &Arc<Self>, name: String, orders: &mut JoinSet<Ended>) {
        if orders.len() < acme::AT_ONCE && lock(&self.orders).begin(&name, Instant::now()) {
            tracing::info!(name, "ordering a certificate");
            let acme = Arc::clone(self);
            orders.spawn(async move {
                let ended = acme.order(&name).await;
                (name, ended)
            });
        }
    }

    fn end(&self, ended: Option<Ended>) {
        let Some((name, result)) = ended else { return };
        let wait = lock(&self.orders).end(&name, result.is_ok(), Instant::now());
        if result.is_ok() { &self.issued } else { &self.failed }.increment();
        match result {
            Ok(()) => tracing::info!(name, "certificate issued"),
            Err(error) => {
                let again = wait.as_secs();
                match self.certificates.ordered(&name) {
                    Some(_) => {
                        tracing::warn!(%error, name, again, "certificate not renewed; the one before stays")
                    }
                    None => tracing::warn!(%error, name, again, "no certificate; it is tried again"),
                }
            }
        }
        self.ended.send_replace(());
    }

    /// Orders what is due; when the next is.
    fn look(self: &Arc<Self>, orders: &mut JoinSet<Ended>) -> Instant {
        let now = Instant::now();
        let mut next = now + acme::LOOK_EVERY;
        for (name, due) in self.needed(now) {
            let retry = lock(&self.orders).not_before(&name);
            let due = retry.map_or(due, |retry| retry.max(due));
            if due <= now {
                self.begin(name, orders);
            } else {
                next = next.min(due);
            }
        }
        lock(&self.orders).retain(|name| self.is_needed(name));
        next.max(now + Duration::from_secs(1))
    }

    /// Names that are to have a certificate at any time, and when theirs is to be ordered.
    fn needed(&self, now: Instant) -> Vec<(String, Instant)> {
        let mut own: Vec<String> = self.own.clone();
        if self.config.dns_hook.is_some()
            && let Some(base) = &self.base_domain
        {
            own.retain(|name| name != base);
            own.push(format!("*.{base}"));
        }
        let of_file = |name: &str| self.certificates.is_of_file(name.trim_start_matches("*."));
        own.retain(|name| !of_file(name));
        let own = own.into_iter().map(|name| {
            let due = self.certificates.ordered(&name).map_or(now, |certificate| renewal(&certificate, now));
            (name, due)
        });
        let others = self.certificates.all_ordered().into_iter().filter(|(name, _)| self.is_needed(name));
        let mut all: Vec<_> =
            own.chain(others.map(|(name, certificate)| (name, renewal(&certificate, now)))).collect();
        all.sort();
        all.dedup_by(|one, other| one.0 == other.0);
        all
    }

    fn is_needed(&self, name: &str) -> bool {
        name.starts_with("*.") || self.may_have(name)
    }
}

/// When two thirds of a certificate's time are over.
fn renewal(certificate: &Certificate, now: Instant) -> Instant {
    let (begin, end) = certificate.good;
    let due = begin + end.duration_since(begin).unwrap_or_default() * 2 / 3;
    now + due.duration_since(SystemTime::now()).unwrap_or_default()
}
