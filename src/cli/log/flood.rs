//! Decides once for all that write records whether this one is among those that are too many of their kind.

use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use tracing::{Event, Level, Subscriber, callsite};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::limit::{LeftOut, Limit};
use crate::sync::lock;

/// Records that the operator asked for one by one: the closing records of exchanges and sessions, and what is said of records.
const UNLIMITED: [&str; 3] = ["adit::exchange", "adit::session", super::LEFT_OUT];

/// Takes records out.
#[derive(Clone)]
pub(super) struct Flood {
    limit: Arc<Mutex<Limit<callsite::Identifier>>>,
    began: Instant,
}

impl Flood {
    pub(super) fn new() -> Self {
        Self { limit: Arc::default(), began: Instant::now() }
    }

    /// What was left out in windows that are over; all of it at the end.
    pub(super) fn left_out(&self, at_the_end: bool) -> Vec<LeftOut> {
        lock(&self.limit).left_out(self.began.elapsed(), at_the_end)
    }
}

impl<S: Subscriber> Layer<S> for Flood {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let of = event.metadata();
        // Finer levels are for somebody who looks for something, and wants to see all of it.
        let limited = *of.level() <= Level::INFO && !UNLIMITED.contains(&of.target());
        let place = || format!("{}:{}", of.target(), of.line().unwrap_or_default());
        !limited || lock(&self.limit).admit(of.callsite(), self.began.elapsed(), place)
    }
}
