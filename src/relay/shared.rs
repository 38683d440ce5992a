//! What all connections of a relay share.

use std::sync::Arc;

use http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use tokio_util::task::TaskTracker;

use super::acme::Acme;
use super::admin::Door;
use super::api::Counted;
use super::config::RelayConfig;
use super::counts::Open;
use super::ending::Ending;
use super::exchange::Ledger;
use super::observe::Observer;
use super::room::Room;
use super::route::Routes;
use super::spans::Spans;
use super::tcp::OpenPorts;
use super::tls::Tls;
use crate::auth::Keys;
use crate::link::peer::Predecessor;
use crate::link::sockets::Pending;
use crate::stream::wsmux::Budget;
use crate::tunnel::Registry;

/// One for each relay.
pub struct Shared {
    pub config: RelayConfig,
    pub routes: Routes,
    pub registry: Arc<Registry>,
    /// Those that lead to tunnels.
    pub ports: Arc<OpenPorts>,
    pub api: axum::Router,
    pub http1: http1::Builder,
    pub http2: http2::Builder<TokioExecutor>,
    /// Names this relay in forwarded requests, so that loops are seen.
    pub via: HeaderValue,
    /// How to speak TLS, if that is wanted.
    pub tls: Option<Arc<Tls>>,
    /// Orders certificates, if that is wanted.
    pub acme: Option<Arc<Acme>>,
    /// Room for connections.
    pub room: Arc<Room>,
    /// Connections that wait for their data socket.
    pub pending: Arc<Pending>,
    pub keys: Arc<Keys>,
    pub ending: Arc<Ending>,
    /// What exchanges came to.
    pub ledger: Arc<Ledger>,
    /// Counts for operators.
    pub observer: Observer,
    /// How operators come in.
    pub door: Arc<Door>,
    /// What is open.
    pub open: Arc<Open>,
    /// Has a span of each exchange, if that is wanted.
    pub spans: Option<Arc<Spans>>,
    /// Calls of the API that were refused.
    pub refusals: Arc<Counted>,
    /// The process whose listeners we have, while it lives.
    pub predecessor: Predecessor,
    /// What all sessions with streams in them may hold together.
    pub streams_budget: Budget,
    /// Connections of viewers and what was upgraded from them, see [`Shared::spawn`].
    pub tasks: TaskTracker,
    /// Control sockets, which outlive the viewers at a shutdown.
    pub sessions: TaskTracker,
    /// What a successor asks for.
    pub questions: TaskTracker,
}

impl Shared {
    /// Data sockets that carry an exchange, where so many are `idle` between two.
    pub fn in_use(&self, idle: usize) -> usize {
        self.open.data_sockets.get().saturating_sub(idle + self.pending.standby())
    }

    /// Runs `task` among those that the end of the relay waits for, until it cuts what still runs.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.ending.cut.clone().run_until_cancelled_owned(task));
    }
}
