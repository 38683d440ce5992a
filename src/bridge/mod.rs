//! The bridge: a server of WebSockets in front of services that speak TCP, as websockify and mod_wstunnel are.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use adit::bridge::{Bridge, BridgeConfig};
//!
//! let bridge = Bridge::new(BridgeConfig::to("localhost:5900".parse()?))?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:6080").await?;
//! // Until the future given last is ready; then sessions are closed with 1001.
//! bridge.run([listener.into()], std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

mod admit;
mod backends;
mod begun;
mod coded;
mod config;
mod dial;
mod front;
mod handshake;
mod in_use;
mod listen;
mod metrics;
mod pinned;
mod reach;
mod record;
mod refusal;
mod routes;
mod session;
mod shared;
mod socket;
mod spawn;
mod story;
mod target;
mod tls;
mod tokens;
mod traffic;
mod web;
mod wrap;

pub use admit::{Admit, AdmitError};
pub use backends::{Balance, Balancing};
pub use coded::{FrameType, TextMessages};
pub use config::{Authorities, BridgeConfig, Dialling, Route, ServerTls, Service, TargetTls};
pub use dial::{DialError, DiallingError};
pub use listen::{Accepted, Listener};
pub use record::Recorder;
pub use routes::{Key, Matcher, Pattern};
pub use spawn::{Place, Spawn, SpawnError};
pub use target::{Target, TargetError};
pub use tls::TlsError;
pub use tokens::{TokenSetupError, Tokens};
pub use web::{Page, Web, WebConfig, WebError, extra_headers};
pub use wrap::{Wrap, WrapError, WrapMode, Wrapped};

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::proto::limits::bridge::{LAST_BYTES, LAST_GOODBYES};
pub use crate::stream::server_tls::Pair;
use shared::Shared;
use spawn::Processes;

/// Why there is no bridge with these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// TLS of viewers.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The way to targets.
    #[error(transparent)]
    Dialling(#[from] DiallingError),
}

/// A bridge that is ready to serve.
pub struct Bridge {
    shared: Arc<Shared>,
    metrics: Option<TcpListener>,
    processes: Option<Processes>,
}

impl Bridge {
    /// Reads the files that `config` names; nothing is dialled or listened at.
    pub fn new(config: BridgeConfig) -> Result<Self, BridgeError> {
        Ok(Self { shared: Arc::new(Shared::new(config)?), metrics: None, processes: None })
    }

    /// The same, with a page of metrics for scrapers at `listener`.
    #[must_use]
    pub fn with_metrics(self, listener: TcpListener) -> Self {
        Self { metrics: Some(listener), ..self }
    }

    /// Starts the backends that the settings have the bridge run, and tells if one cannot be; otherwise they are started by
    /// [`Bridge::run`], which tries again until they are. To be called within a tokio runtime.
    pub async fn spawn(&mut self) -> Result<(), SpawnError> {
        self.processes = Some(Processes::start(&self.shared.slots).await?);
        Ok(())
    }

    /// Serves viewers at `listeners` until `shutdown` is ready or, as far as the settings have it so, nobody is there any more. What
    /// goes on then is closed as they say. To be called within a tokio runtime.
    pub async fn run(
        self,
        listeners: impl IntoIterator<Item = Listener>,
        shutdown: impl Future<Output = ()>,
    ) {
        let Self { shared, metrics, processes } = self;
        let processes = processes.unwrap_or_else(|| Processes::keep(&shared.slots));
        // Whatever ends this, nothing goes on without it.
        let _cut = shared.ending.cut.clone().drop_guard();
        let _metrics = metrics
            .map(|listener| metrics::serve(listener, Arc::clone(&shared.counts)))
            .map(|serving| AbortOnDropHandle::new(tokio::spawn(serving)));
        let _looks = looks(&shared);
        for listener in listeners {
            shared.tasks.spawn(listen::accept(Arc::clone(&shared), listener));
        }
        let asked = tokio::select! {
            () = shutdown => true,
            () = alone(&shared) => false,
        };
        tracing::info!(sessions = *shared.sessions().borrow(), asked, "the bridge ends");
        end(&shared).await;
        processes.end().await;
    }

    /// Serves the one connection that was accepted elsewhere, to its end or that of `shutdown`.
    pub async fn serve(self, connection: Accepted, shutdown: impl Future<Output = ()>) {
        let Self { shared, processes, .. } = self;
        let processes = processes.unwrap_or_else(|| Processes::keep(&shared.slots));
        let _cut = shared.ending.cut.clone().drop_guard();
        let serving = Arc::clone(&shared);
        let _looks = looks(&shared);
        let task = shared.tasks.spawn(async move { listen::serve(&serving, connection).await });
        tokio::select! {
            () = shutdown => {}
            _ = task => {}
        }
        end(&shared).await;
        processes.end().await;
    }
}

/// Looks for revoked tokens, for as long as what is returned is kept.
fn looks(shared: &Shared) -> JoinSet<()> {
    shared.revoking().into_iter().map(|tokens| async move { tokens.watch().await }).collect()
}

/// Nothing is accepted any more, sessions get their time, then their 1001, and what is left is cut.
async fn end(shared: &Shared) {
    shared.ending.deaf.cancel();
    shared.tasks.close();
    let _ = timeout(shared.config.drain, shared.tasks.wait()).await;
    shared.ending.closing.cancel();
    if timeout(LAST_GOODBYES + LAST_BYTES, shared.tasks.wait()).await.is_err() {
        tracing::warn!(left = shared.tasks.len(), "not every session ended in time; the rest is cut");
        shared.ending.cut.cancel();
        // Each has its record to write.
        let _ = timeout(LAST_GOODBYES, shared.tasks.wait()).await;
    }
}

/// Waits until the settings want an end as nobody is there: after the one session, after a time in all, or at a stretch.
async fn alone(shared: &Shared) {
    let config = &shared.config;
    if !config.run_once && config.timeout.is_none() && config.idle_timeout.is_none() {
        // To look would cost two wakes for each session.
        return std::future::pending().await;
    }
    let mut sessions = shared.sessions();
    let mut left = config.timeout.unwrap_or(Duration::MAX);
    loop {
        if sessions.wait_for(|sessions| *sessions == 0).await.is_err() {
            return;
        }
        if config.run_once && shared.has_begun() {
            return;
        }
        let began = Instant::now();
        let wait = left.min(config.idle_timeout.unwrap_or(Duration::MAX));
        tokio::select! {
            () = sleep(wait) => return,
            // It need not be seen while it is there.
            changed = sessions.changed() => if changed.is_err() {
                return;
            },
        }
        left = left.saturating_sub(began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_cut_at_the_end_still_writes_its_record() {
        let shared = Shared::new(BridgeConfig::to("localhost:1".parse().unwrap())).unwrap();
        let (cut, written) = (shared.ending.cut.clone(), Arc::new(()));
        let story = Arc::clone(&written);
        shared.tasks.spawn(async move {
            cut.cancelled().await;
            drop(story);
        });
        end(&shared).await;
        assert_eq!(Arc::strong_count(&written), 1);
    }

    #[tokio::test]
    async fn a_session_that_came_and_went_between_two_looks_was_the_one() {
        let mut config = BridgeConfig::to("localhost:1".parse().unwrap());
        config.run_once = true;
        let shared = Arc::new(Shared::new(config).unwrap());
        let mut alone = Box::pin(alone(&shared));
        assert!(alone.as_mut().now_or_never().is_none());
        drop(shared.enter());
        assert!(alone.as_mut().now_or_never().is_some());
    }
}
