//! A worker: reached through streams in one WebSocket, as Taskcluster's websocktunnel has it, at the relay's own program of
//! that name or at one of ours.

mod carry;
mod heard;
mod register;
mod runner;
mod token;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::runner::Runner;
use super::connector::{Connector, KeyError, bearer};
use super::event::{End, Event, Events, Omitted};
use super::target::Target;
use crate::auth::Secret;
use crate::proto::worker::{ID_RULE, is_worker_id};

/// What a worker is, and where.
pub struct WorkerOptions {
    /// The relay; a key of its own plays no part.
    pub connector: Arc<Connector>,
    /// Under which it registers.
    pub id: WorkerId,
    /// What its viewers reach.
    pub target: Target,
    /// The token for `id`. Until there is one the worker waits; another one counts from the next registration on, and
    /// what runs goes on. When the sender is dropped the last one has to do.
    pub tokens: watch::Receiver<Option<WorkerToken>>,
    /// Connections told as events in a second; the others are counted. Without any, news of tokens are not told either.
    pub connections_per_second: u32,
}

/// The id of a worker: letters, digits, `_`, `~`, `.`, `%` and `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerId(String);

/// That is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of a worker: it has {ID_RULE}, and nothing else")]
pub struct WorkerIdError(String);

impl WorkerId {
    /// Reads an id.
    pub fn parse(text: &str) -> Result<Self, WorkerIdError> {
        if is_worker_id(text) { Ok(Self(text.to_owned())) } else { Err(WorkerIdError(text.to_owned())) }
    }

    /// The id as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A token that can be sent.
#[derive(Debug, Clone)]
pub struct WorkerToken(Secret);

impl WorkerToken {
    /// Takes what can stand in a header, without the white space around it.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        bearer(text.trim()).map(|_| Self(Secret::new(text.trim())))
    }

    fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// A running worker. Dropping it ends it at once, without a goodbye.
pub struct Worker {
    stop: CancellationToken,
    omitted: Omitted,
    task: AbortOnDropHandle<End>,
}

impl Worker {
    /// Starts it. It comes back for as long as the relay does not refuse it. The receiver need not be read: events that
    /// find no room are dropped.
    pub fn start(options: WorkerOptions) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = Events::new(options.connections_per_second);
        let stop = CancellationToken::new();
        let omitted = events.omitted();
        let runner = Runner::new(options, events, stop.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(runner.run()));
        (Self { stop, omitted, task }, receiver)
    }

    /// Asks it to end in order: no new streams, running ones get two seconds, the relay is told goodbye.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> End {
        (&mut self.task).await.unwrap_or(End::Failed)
    }

    /// Connections since the last call that were not told as events.
    pub fn take_omitted(&self) -> u64 {
        self.omitted.take()
    }
}
