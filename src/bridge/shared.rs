//! What all connections of a bridge share: its settings made ready, its counts, and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::BridgeError;
use super::admit::Admit;
use super::backends::Backends;
use super::config::{BridgeConfig, Route, Service};
use super::dial::Dialer;
use super::metrics::Counts;
use super::routes::Routes;
use super::spawn::{Slot, Spawn};
use super::tls::Tls;
use super::tokens::Tokens;
use crate::proto::limits::{bridge, viewer};
use crate::stream::descriptors;

/// A service that is ready to be used.
pub(super) struct Served {
    pub(super) config: Service,
    pub(super) dialer: Dialer,
    /// Those of a route.
    pub(super) backends: Option<Backends>,
    /// What a route asks of visitors, besides what everybody is asked.
    admit: Option<Arc<Admit>>,
}

impl Served {
    pub(super) fn new(config: Service) -> Result<Self, BridgeError> {
        let dialer = Dialer::new(&config.dialling)?;
        Ok(Self { config, dialer, backends: None, admit: None })
    }

    /// All that must let a visitor in.
    pub(super) fn admits(&self) -> impl Iterator<Item = &Arc<Admit>> {
        self.config.admit.iter().chain(&self.admit)
    }
}

/// Routes, and the processes to be of their backends.
type Ready = (Routes<Arc<Served>>, Vec<Arc<Slot>>);

fn routes(routes: &[Route]) -> Result<Ready, BridgeError> {
    let mut list = Vec::with_capacity(routes.len());
    let mut all_slots = Vec::new();
    for route in routes {
        let slots: Vec<_> = route.spawned.iter().cloned().flat_map(Spawn::slots).collect();
        all_slots.extend(slots.iter().cloned());
        let backends = Backends::new(route.backends.clone(), slots, route.balancing.clone());
        let (backends, admit) = (Some(backends), route.admit.clone());
        let served = Served { backends, admit, ..Served::new(route.service.clone())? };
        list.push((route.matcher.clone(), Arc::new(served)));
    }
    Ok((Routes::new(list), all_slots))
}

/// How a bridge ends.
#[derive(Default)]
pub(super) struct Ending {
    /// Nothing is accepted any more.
    pub(super) deaf: CancellationToken,
    /// Sessions are closed.
    pub(super) closing: CancellationToken,
    /// What is left is dropped.
    pub(super) cut: CancellationToken,
}

/// See above.
pub(super) struct Shared {
    pub(super) config: BridgeConfig,
    pub(super) served: Arc<Served>,
    routes: Routes<Arc<Served>>,
    /// Processes to be.
    pub(super) slots: Vec<Arc<Slot>>,
    pub(super) tls: Option<Tls>,
    /// Some target is told of the viewer's connection.
    pub(super) tells_targets: bool,
    pub(super) counts: Arc<Counts>,
    pub(super) ending: Ending,
    pub(super) tasks: TaskTracker,
    /// Leave to accept another connection.
    pub(super) room: Arc<Semaphore>,
    /// How many sessions there are.
    sessions: watch::Sender<usize>,
    /// The one session of a bridge that has but one has begun.
    begun: AtomicBool,
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<TokioExecutor>,
}

impl Shared {
    pub(super) fn new(config: BridgeConfig) -> Result<Self, BridgeError> {
        let served = Arc::new(Served::new(config.service.clone())?);
        let (routes, slots) = routes(&config.routes)?;
        let tls = config.tls.as_ref().map(Tls::new).transpose()?;
        let tells = |service: &Service| service.dialling.proxy_protocol.is_some();
        let tells_targets = tells(&config.service) || config.routes.iter().any(|route| tells(&route.service));
        // What a session takes; the rest is for listeners, logs and the runtime.
        let most = descriptors::limit().unwrap_or(usize::MAX) / bridge::DESCRIPTORS;
        let most = most.saturating_sub(crate::proto::limits::descriptors::OUR_OWN);
        let most = most.clamp(crate::proto::limits::descriptors::LEAST, Semaphore::MAX_PERMITS);
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(config.handshake_wait).max_buf_size(bridge::HEAD);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .enable_connect_protocol()
            .max_concurrent_streams(viewer::H2_STREAMS)
            .max_pending_accept_reset_streams(viewer::H2_PENDING_RESETS)
            .max_local_error_reset_streams(viewer::H2_ERROR_RESETS)
            .initial_stream_window_size(bridge::H2_STREAM_WINDOW)
            .initial_connection_window_size(bridge::H2_WINDOW)
            .max_send_buf_size(bridge::H2_SEND_BUFFER)
            .max_header_list_size(bridge::H2_HEAD)
            .keep_alive_interval(Some(bridge::H2_PING_EVERY))
            .keep_alive_timeout(bridge::H2_PONG_WAIT);
        Ok(Self {
            served,
            routes,
            slots,
            tls,
            tells_targets,
            counts: Arc::new(Counts::new()),
            ending: Ending::default(),
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(most)),
            sessions: watch::Sender::new(0),
            begun: AtomicBool::new(false),
            http1,
            http2,
            config,
        })
    }

    /// What serves a request for `path` at `host`.
    pub(super) fn served(&self, path: &str, host: &str) -> Arc<Served> {
        Arc::clone(self.routes.find(path, host).unwrap_or(&self.served))
    }

    /// All kinds of tokens whose sessions end with them.
    pub(super) fn revoking(&self) -> Vec<Arc<Tokens>> {
        let mut found: Vec<Arc<Tokens>> = Vec::new();
        for served in self.routes.all().chain([&self.served]) {
            let tokens = served.config.tokens.as_ref().filter(|tokens| tokens.is_revoking());
            // Services may share them.
            if let Some(tokens) =
                tokens.filter(|tokens| !found.iter().any(|other| Arc::ptr_eq(other, tokens)))
            {
                found.push(Arc::clone(tokens));
            }
        }
        found
    }

    /// A session may begin, and counts until the guard is dropped; `None`: there was one, and only one is wanted, or the end
    /// has begun.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Present> {
        self.sessions.send_modify(|sessions| *sessions += 1);
        // Counted before: whoever sees that the one has begun sees that it is there.
        let present = Present(Arc::clone(self));
        let taken = self.config.run_once && self.begun.swap(true, Ordering::AcqRel);
        (!taken && !self.ending.deaf.is_cancelled()).then_some(present)
    }

    /// How many sessions there are, and will be.
    pub(super) fn sessions(&self) -> watch::Receiver<usize> {
        self.sessions.subscribe()
    }

    /// Whether the only session has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }
}

/// A session that is there.
pub(super) struct Present(Arc<Shared>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.sessions.send_modify(|sessions| *sessions -= 1);
    }
}
