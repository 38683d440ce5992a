//! What was done, how it went, and which failures had been announced.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::time::Instant;

use crate::http::WRONG_BYTE;

/// How the operations of one kind went.
#[derive(Default, Clone, Copy)]
pub struct Row {
    /// As it should be.
    pub ok: u64,
    /// Failed while the relay had been killed.
    pub excused: u64,
    /// Failed.
    pub failed: u64,
}

#[derive(Default)]
struct Inner {
    rows: BTreeMap<&'static str, Row>,
    failures: Vec<String>,
    /// From when to when the relay was away; the last one may be open.
    windows: Vec<(Instant, Option<Instant>)>,
}

/// Everything that was done.
#[derive(Default)]
pub struct Tally(Mutex<Inner>);

impl Tally {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how an operation of this kind, begun at `start`, went.
    pub fn note(&self, kind: &'static str, start: Instant, result: Result<()>) {
        let mut inner = self.inner();
        let excused = inner.windows.iter().any(|(_, end)| end.is_none_or(|end| end >= start));
        let row = inner.rows.entry(kind).or_default();
        match result {
            Ok(()) => row.ok += 1,
            Err(error) if excused && !error.to_string().contains(WRONG_BYTE) => row.excused += 1,
            Err(error) => {
                row.failed += 1;
                drop(inner);
                self.fail(format!("{kind}: {error:#}"));
            }
        }
    }

    /// A failure of its own.
    pub fn fail(&self, what: impl Display) {
        eprintln!("FAILED {what}");
        self.inner().failures.push(what.to_string());
    }

    /// The relay goes away, announced.
    pub fn window_begins(&self) {
        self.inner().windows.push((Instant::now(), None));
    }

    /// Every healthy tunnel is back.
    pub fn window_ends(&self) {
        if let Some((_, end @ None)) = self.inner().windows.last_mut() {
            *end = Some(Instant::now());
        }
    }

    /// Seconds in which the relay was away, in all.
    pub fn away(&self) -> f64 {
        let inner = self.inner();
        inner
            .windows
            .iter()
            .filter_map(|(start, end)| Some((*end)?.duration_since(*start).as_secs_f64()))
            .sum()
    }

    /// All kinds.
    pub fn rows(&self) -> Vec<(&'static str, Row)> {
        self.inner().rows.iter().map(|(kind, row)| (*kind, *row)).collect()
    }

    /// All failures.
    pub fn failures(&self) -> Vec<String> {
        self.inner().failures.clone()
    }
}
