//! The relay: listeners, the HTTP front, the REST API and the sockets of clients, put together.

pub mod config;

mod admin;
mod api;
mod counts;
mod crowd;
mod drain;
mod ending;
mod errors;
mod exchange;
mod extended;
mod forward;
mod front;
mod grpc;
mod handover;
mod listen;
mod multiplex;
#[doc(hidden)]
pub mod onward;
mod proxy;
mod reach;
mod replicas;
#[doc(hidden)]
pub mod rewrite;
mod room;
#[doc(hidden)]
pub mod route;
#[doc(hidden)]
pub mod sample;
mod upgrade;
mod viewer;

pub use api::openapi;
#[doc(hidden)]
pub use errors::Cause;
#[doc(hidden)]
pub use forward::wanted_upgrade;
#[doc(hidden)]
pub use front::check;
pub use handover::{Inheritance, TakeOverError, is_answered, take_over};
#[doc(hidden)]
pub use listen::http1;

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::auth::Keys;
use crate::link::peer::Predecessor;
use crate::link::sockets::Pending;
use crate::proto::limits::descriptors;
use crate::store::{Store, StoreError};
use crate::stream::courier::Courier;
use crate::stream::tcp;
use crate::tunnel::Registry;
use config::RelayConfig;
use counts::Open;
use ending::Ending;
use handover::Sockets;
use room::Room;
use route::Routes;

/// What all connections share.
struct Shared {
    config: RelayConfig,
    routes: Routes,
    registry: Arc<Registry>,
    api: axum::Router,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    /// Names this relay in forwarded requests, so that loops are seen.
    via: HeaderValue,
    /// Room for connections.
    room: Arc<Room>,
    /// Connections that wait for their data socket.
    pending: Arc<Pending>,
    keys: Arc<Keys>,
    ending: Arc<Ending>,
    /// What is open.
    open: Arc<Open>,
    /// The process whose listeners we have, while it lives.
    predecessor: Predecessor,
    /// Connections of viewers and what was upgraded from them.
    tasks: TaskTracker,
    /// Control sockets, which outlive the viewers at a shutdown.
    sessions: TaskTracker,
    /// What a successor asks for.
    questions: TaskTracker,
}

/// Why a relay did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener has no address.
    #[error("a listener cannot be used: {0}")]
    Listener(#[from] std::io::Error),
    /// A running relay was not replaced.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    /// An address cannot be listened on.
    #[error("{option}: cannot listen on {address}: {error}")]
    Bind {
        /// The option that names the address.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
}

/// A running relay.
pub struct Relay {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// For a successor.
    sockets: Sockets,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Relay {
    /// Binds all addresses of `config` and starts serving on them.
    pub async fn bind(config: RelayConfig, keys: Keys, store: Arc<dyn Store>) -> Result<Self, RelayError> {
        // An IPv6 wildcard takes IPv4 connections too, unless another address is there for these.
        let beside_ipv4 = |port| config.listen.iter().any(|other| other.is_ipv4() && other.port() == port);
        let bind = |option, address: SocketAddr| {
            let only_ipv6 = address.is_ipv6() && beside_ipv4(address.port());
            tcp::listen(address, only_ipv6).map_err(|error| RelayError::Bind { option, address, error })
        };
        let mut listeners = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            listeners.push(bind("listen", *address)?);
        }
        let admin = bind("admin-listen", config.admin_listen)?;
        Self::start(config, listeners, Some(admin), keys, store).await
    }

    /// Starts serving on `listeners`, which the caller has bound (port 0 is any free one), and on `admin`.
    pub async fn start(
        config: RelayConfig,
        listeners: Vec<TcpListener>,
        admin: Option<TcpListener>,
        keys: Keys,
        store: Arc<dyn Store>,
    ) -> Result<Self, RelayError> {
        Self::serve(config, Sockets::new(listeners, admin), None, keys, store).await
    }

    /// Takes the place of the running relay that gave `inheritance`, once everything else is there. If this fails, that
    /// one goes on.
    pub async fn succeed(
        config: RelayConfig,
        inheritance: Inheritance,
        keys: Keys,
        store: Arc<dyn Store>,
    ) -> Result<Self, RelayError> {
        let Inheritance { listeners, admin, courier } = inheritance;
        Self::serve(config, Sockets::new(listeners, admin), Some(courier), keys, store).await
    }

    async fn serve(
        mut config: RelayConfig,
        sockets: Sockets,
        predecessor: Option<Courier>,
        keys: Keys,
        store: Arc<dyn Store>,
    ) -> Result<Self, RelayError> {
        let addresses = sockets.addresses()?.listen;
        let most = room::most(&config.limits);
        config.limits.standby = config.limits.standby.min(most / descriptors::STANDBY);
        let room = Arc::new(Room::new(most, config.limits.connections_per_address));
        let registry = Arc::new(Registry::open(store, &config.limits).await?);
        let own = |task| AbortOnDropHandle::new(task);
        let mut tasks = Vec::new();
        let mut before = Predecessor::none();
        if let Some(mut courier) = predecessor {
            handover::ready(&mut courier).await?;
            let limits = &config.limits;
            let (predecessor, carrying) = Predecessor::new(courier, limits.claim_wait, limits.into());
            tasks.push(own(tokio::spawn(carrying)));
            before = predecessor;
        }
        let (keys, pending) = (Arc::new(keys), Arc::new(Pending::default()));
        let ending = Arc::new(Ending::default());
        let routes = Routes::new(&config, addresses.first().copied());
        let (sessions, open) = (TaskTracker::new(), Arc::new(Open::default()));
        let api = api::router(api::Api {
            registry: Arc::clone(&registry),
            keys: Arc::clone(&keys),
            pending: Arc::clone(&pending),
            predecessor: before.clone(),
            ending: Arc::clone(&ending),
            routes: routes.clone(),
            limits: Arc::new(config.limits.clone()),
            sessions: sessions.clone(),
            open: Arc::clone(&open),
            room: Arc::clone(&room),
        });
        let via = HeaderValue::from_str(&errors::request_id()).unwrap_or(HeaderValue::from_static("adit"));
        let shared = Arc::new(Shared {
            http1: http1(&config.limits),
            http2: listen::http2(&config.limits),
            room,
            config,
            routes,
            registry: Arc::clone(&registry),
            api,
            via,
            pending,
            keys: Arc::clone(&keys),
            ending,
            open,
            predecessor: before,
            tasks: TaskTracker::new(),
            sessions,
            questions: TaskTracker::new(),
        });
        tasks.push(own(tokio::spawn(registry.tend(keys))));
        for listener in &sockets.listen {
            tcp::tune(listener.as_ref());
            tasks.push(own(tokio::spawn(listen::accept(Arc::clone(&shared), Arc::clone(listener)))));
        }
        if let Some(admin) = &sockets.admin {
            tasks.push(own(tokio::spawn(admin::serve(Arc::clone(admin), Arc::clone(&shared)))));
        }
        Ok(Self { shared, addresses, sockets, tasks })
    }

    /// From now on another process that is started on the same data directory can take over. An error leaves the relay
    /// without that.
    pub fn let_successors_in(&mut self) -> std::io::Result<()> {
        let socket = handover::Published::new(&self.shared.config.data_dir)?;
        let serving = handover::serve(Arc::clone(&self.shared), socket, self.sockets.clone());
        self.tasks.push(AbortOnDropHandle::new(tokio::spawn(serving)));
        Ok(())
    }

    /// Until another process has taken over; then the relay is to [`retire`](Relay::retire).
    pub async fn handed_over(&self) {
        self.shared.ending.handed_over().await;
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.sockets.admin.as_ref()?.local_addr().ok()
    }

    /// Its own URL.
    pub fn public_url(&self) -> &str {
        self.shared.routes.public_url()
    }
}
