//! What all exchanges of a relay came to.

use std::sync::Arc;
use std::time::Duration;

use crate::relay::ending::Ending;
use crate::relay::errors::LABELS;
use crate::tally::{Counter, Histogram};

/// The first digit of a status, or that the viewer was sent none.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// The cause of what went well.
pub const OK: &str = "ok";

/// Of all exchanges since the process began; each closes by one entry.
pub struct Ledger {
    /// Whether each is written to the log as well.
    pub written: bool,
    /// Tells why exchanges are cut.
    pub ending: Arc<Ending>,
    /// By class, and by cause: first what went well.
    closed: [[Counter; LABELS.len() + 1]; CLASSES.len()],
    /// Bytes of bodies from viewers.
    pub bytes_in: Counter,
    /// Bytes of bodies to viewers, as they go.
    pub bytes_out: Counter,
    /// From a request to the head of its response.
    pub first_byte: Histogram,
    /// From a request to the end of its response.
    pub total: Histogram,
}

impl Ledger {
    /// An empty one.
    pub fn new(written: bool, ending: Arc<Ending>) -> Self {
        Self {
            written,
            ending,
            closed: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            first_byte: Histogram::default(),
            total: Histogram::default(),
        }
    }

    /// One has ended.
    pub(super) fn close(&self, status: Option<u16>, cause: Option<&str>, lasted: Duration) {
        let class = status.map_or(0, |status| usize::from(status / 100).min(CLASSES.len() - 1));
        let cause = cause.and_then(|cause| LABELS.binary_search(&cause).ok()).map_or(0, |at| at + 1);
        self.closed[class][cause].increment();
        self.total.record(lasted);
    }

    /// How many there are of each class and cause that there are any of.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        CLASSES
            .into_iter()
            .zip(&self.closed)
            .flat_map(|(class, by_cause)| {
                let causes = std::iter::once(OK).chain(LABELS);
                causes.zip(by_cause).map(move |(cause, count)| (class, cause, count.get()))
            })
            .filter(|(_, _, count)| *count > 0)
    }

    /// How many there are of a cause, of all classes.
    pub fn of(&self, cause: &str) -> u64 {
        self.closed().filter(|(_, other, _)| *other == cause).map(|(_, _, count)| count).sum()
    }
}
