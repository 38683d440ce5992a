//! The relay: listeners, the HTTP front, the REST API and the sockets of clients, put together.

pub mod config;

mod accept;
pub mod acme;
mod admin;
mod api;
mod attached;
mod carry;
mod counts;
mod crowd;
pub mod domains;
mod drain;
mod ending;
mod errors;
mod exchange;
mod extended;
mod fetch;
mod forward;
mod fresh;
mod front;
mod grpc;
mod handover;
mod listen;
mod multiplex;
mod object;
mod observe;
#[doc(hidden)]
pub mod onward;
mod own_cookies;
mod policy;
mod proxied;
mod proxy;
pub mod public_url;
mod reach;
mod replicas;
#[doc(hidden)]
pub mod rewrite;
mod room;
#[doc(hidden)]
pub mod route;
#[doc(hidden)]
pub mod sample;
mod secure;
mod shared;
#[doc(hidden)]
pub mod spans;
mod taskcluster;
mod tcp;
pub mod tls;
mod upgrade;
mod viewer;

#[doc(hidden)]
pub use admin::USER as ADMIN;
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

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt;
use http::HeaderValue;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::auth::Keys;
use crate::auth::password::PasswordError;
use crate::link::peer::Predecessor;
use crate::link::sockets::Pending;
use crate::proto::limits::descriptors;
use crate::proto::limits::wsmux::RELAY_HELD_IN_ALL;
use crate::store::{Store, StoreError};
use crate::stream::courier::Courier;
use crate::stream::tcp as sockets;
use crate::stream::unix;
use crate::stream::wsmux::Budget;
use crate::tunnel::Registry;
use acme::{Acme, AcmeError};
use admin::Door;
use config::RelayConfig;
use counts::Open;
use domains::Prover;
use ending::Ending;
use exchange::Ledger;
use handover::Sockets;
use observe::Observer;
use room::Room;
use route::Routes;
use shared::Shared;
use spans::{Spans, SpansError};
use tcp::OpenPorts;
use tls::{Tls, TlsError};

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
    /// No certificates can be ordered.
    #[error(transparent)]
    Acme(#[from] AcmeError),
    /// There is no TLS as it is wanted.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No spans can be sent.
    #[error(transparent)]
    Spans(#[from] SpansError),
    /// The dashboard's password cannot be used.
    #[error("admin-password: {0}")]
    AdminPassword(#[from] PasswordError),
    /// A running relay was not replaced.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    /// A path cannot be listened at.
    #[error("listen: cannot listen at unix:{path}: {error}", path = path.display())]
    BindPath {
        /// The path.
        path: std::path::PathBuf,
        /// Why not.
        error: std::io::Error,
    },
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

/// The sockets of a relay, bound by its caller (port 0 is any free one).
#[derive(Default)]
pub struct Listeners {
    /// Where viewers and clients come in. The last of them, as many as `listen_tls` of the configuration has, are for TLS
    /// alone.
    pub tcp: Vec<TcpListener>,
    /// The same by a path. Their files are the caller's to remove.
    pub unix: Vec<UnixListener>,
    /// Where the operator comes in.
    pub admin: Option<TcpListener>,
    /// Where metrics are read by whoever reaches it.
    pub metrics: Option<TcpListener>,
}

/// A running relay.
pub struct Relay {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// For a successor.
    sockets: Sockets,
    tasks: Vec<AbortOnDropHandle<()>>,
    /// What a stop takes away.
    files: Vec<unix::File>,
}

impl Relay {
    /// Binds all addresses of `config` and starts serving on them.
    pub async fn bind(config: RelayConfig, keys: Keys, store: Arc<dyn Store>) -> Result<Self, RelayError> {
        // An IPv6 wildcard takes IPv4 connections too, unless another address is there for these.
        let beside_ipv4 = |port| config.addresses().any(|other| other.is_ipv4() && other.port() == port);
        let bind = |option, address: SocketAddr| {
            let only_ipv6 = address.is_ipv6() && beside_ipv4(address.port());
            sockets::listen(address, only_ipv6).map_err(|error| RelayError::Bind { option, address, error })
        };
        let mut listeners = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            listeners.push(bind("listen", *address)?);
        }
        for address in &config.listen_tls {
            listeners.push(bind("listen-tls", *address)?);
        }
        let mut paths = Vec::with_capacity(config.listen_unix.len());
        for path in &config.listen_unix {
            let bound = unix::listen(path, config.unix_mode);
            paths.push(bound.map_err(|error| RelayError::BindPath { path: path.clone(), error })?);
        }
        let admin = bind("admin-listen", config.admin_listen)?;
        let metrics = config.metrics_listen.map(|address| bind("metrics-listen", address)).transpose()?;
        let files = config.listen_unix.iter().filter_map(|path| unix::File::at(path)).collect();
        let listeners = Listeners { tcp: listeners, unix: paths, admin: Some(admin), metrics };
        let mut relay = Self::start(config, listeners, keys, store).await?;
        relay.files = files;
        Ok(relay)
    }

    /// Starts serving on `listeners`, which the caller has bound.
    pub async fn start(
        config: RelayConfig,
        listeners: Listeners,
        keys: Keys,
        store: Arc<dyn Store>,
    ) -> Result<Self, RelayError> {
        let sockets = Sockets::new(listeners, config.listen_tls.len());
        Self::serve(config, sockets, None, keys, store).await
    }

    /// Takes the place of the running relay that gave `inheritance`, once everything else is there. If this fails, that
    /// one goes on.
    pub async fn succeed(
        config: RelayConfig,
        inheritance: Inheritance,
        keys: Keys,
        store: Arc<dyn Store>,
    ) -> Result<Self, RelayError> {
        let Inheritance { mut listeners, tls, files, courier } = inheritance;
        // A running relay without it, or with another address, leaves it to us.
        if let (None, Some(address)) = (&listeners.metrics, config.metrics_listen) {
            let bound = sockets::listen(address, false);
            let failed = |error| RelayError::Bind { option: "metrics-listen", address, error };
            listeners.metrics = Some(bound.map_err(failed)?);
        }
        let paths = listeners.unix.iter().filter_map(unix::path_of);
        // What the running relay has made is ours to take away, at our end.
        let files = paths.filter(|_| files).filter_map(|path| unix::File::at(&path)).collect();
        let sockets = Sockets::new(listeners, tls);
        let mut relay = Self::serve(config, sockets, Some(courier), keys, store).await?;
        relay.files = files;
        Ok(relay)
    }

    async fn serve(
        mut config: RelayConfig,
        sockets: Sockets,
        predecessor: Option<Courier>,
        keys: Keys,
        store: Arc<dyn Store>,
    ) -> Result<Self, RelayError> {
        let addresses = sockets.addresses()?.listen;
        let tls = Tls::open(&config)?.map(Arc::new);
        let spans = Spans::open(config.otlp_endpoint.as_deref())?;
        let plain = addresses.len().saturating_sub(sockets.tls);
        let most = room::most(&config.limits);
        config.limits.standby = config.limits.standby.min(most / descriptors::STANDBY);
        let room = Arc::new(Room::new(most, config.limits.connections_per_address));
        let ports =
            Arc::new(OpenPorts::new(config.tcp_ports.clone(), config.tcp_addresses(), Arc::clone(&room)));
        let registry = Registry::open(Arc::clone(&store), &config.limits).await?;
        let registry = Arc::new(registry.with_ports(Arc::clone(&ports) as Arc<_>));
        let mut tasks = Vec::new();
        let mut before = Predecessor::none();
        if let Some(mut courier) = predecessor {
            let late = handover::ready(&mut courier).await?;
            // It may have made a tunnel a moment ago.
            registry.learn().await;
            for worker in late.workers {
                registry.inherit_worker(&worker.id, worker.suspended);
            }

            ports.adopt(late.ports, |port| registry.by_port(port).is_some());
            let limits = &config.limits;
            let (predecessor, carrying) = Predecessor::new(courier, limits.claim_wait, limits.into());
            tasks.push(own(carrying));
            before = predecessor;
        }
        registry.open_ports(true);
        let door = Arc::new(Door::open(&config).await?);
        let (keys, pending) = (Arc::new(keys), Arc::new(Pending::default()));
        let ending = Arc::new(Ending::default());
        let routes = Routes::new(&config, addresses.get(plain).or(addresses.first()).copied())
            .with_domains(registry.domains());
        let mut acme = None;
        if let Some(tls) = tls.as_ref().filter(|_| config.acme.is_wanted()) {
            let (certificates, registry) = (Arc::clone(&tls.certificates), Arc::clone(&registry));
            let (opened, asked) = Acme::open(&config, certificates, registry, routes.clone(), store).await?;
            let keeping = Arc::clone(&opened).keep(asked);
            tasks.push(own(ending.begun.clone().run_until_cancelled_owned(keeping).map(drop)));
            acme = Some(opened);
        }
        let (sessions, open) = (TaskTracker::new(), Arc::new(Open::default()));
        let refusals = Arc::new(api::Counted::default());
        let api = api::router(api::Api {
            registry: Arc::clone(&registry),
            keys: Arc::clone(&keys),
            pending: Arc::clone(&pending),
            predecessor: before.clone(),
            ending: Arc::clone(&ending),
            routes: routes.clone(),
            prover: Prover::new(config.domain_proof, config.dns_server),
            limits: Arc::new(config.limits.clone()),
            sessions: sessions.clone(),
            open: Arc::clone(&open),
            room: Arc::clone(&room),
            refusals: Arc::clone(&refusals),
        });
        let via = HeaderValue::from_str(&errors::request_id()).unwrap_or(HeaderValue::from_static("adit"));
        let ledger = Arc::new(Ledger::new(config.log_exchanges, Arc::clone(&ending)));
        let shared = Arc::new(Shared {
            http1: http1(&config.limits),
            http2: listen::http2(&config.limits),
            room,
            tls,
            acme,
            config,
            routes,
            registry: Arc::clone(&registry),
            ports,
            api,
            via,
            ledger,
            observer: Observer::default(),
            door,
            pending,
            keys: Arc::clone(&keys),
            ending,
            open,
            spans,
            refusals,
            predecessor: before,
            streams_budget: Budget::new(RELAY_HELD_IN_ALL),
            tasks: TaskTracker::new(),
            sessions,
            questions: TaskTracker::new(),
        });
        tasks.push(own(registry.tend(keys)));
        for (at, listener) in sockets.listen.iter().enumerate() {
            sockets::tune(listener.as_ref());
            let tls_port = at >= plain;
            let serve =
                move |shared, stream, remote, place| listen::serve(shared, stream, remote, place, tls_port);
            let accepting = listen::accept(Arc::clone(&shared), Arc::clone(listener), serve);
            tasks.push(own(accepting));
        }
        for listener in &sockets.unix {
            tasks.push(own(listen::accept_unix(Arc::clone(&shared), Arc::clone(listener))));
        }
        if let Some(tls) = &shared.tls {
            tasks.push(own(Arc::clone(tls).reload_now_and_then()));
        }
        tasks.push(own(tcp::keep(Arc::clone(&shared))));
        if let Some(admin) = &sockets.admin {
            tasks.push(own(admin::serve(Arc::clone(admin), Arc::clone(&shared))));
        }
        if let Some(metrics) = &sockets.metrics {
            tasks.push(own(observe::scrape::serve(Arc::clone(metrics), Arc::clone(&shared))));
        }
        Ok(Self { shared, addresses, sockets, tasks, files: Vec::new() })
    }

    /// From now on another process that is started on the same data directory can take over. An error leaves the relay
    /// without that.
    pub fn let_successors_in(&mut self) -> std::io::Result<()> {
        let socket = handover::Published::new(&self.shared.config.data_dir)?;
        let sockets = Sockets { files: !self.files.is_empty(), ..self.sockets.clone() };
        let serving = handover::serve(Arc::clone(&self.shared), socket, sockets);
        self.tasks.push(own(serving));
        Ok(())
    }

    /// Until another process has taken over; then the relay is to [`retire`](Relay::retire).
    pub async fn handed_over(&self) {
        self.shared.ending.handed_over().await;
    }

    /// Takes up certificates that have changed in their files; without a call this is done now and then.
    pub fn reload(&self) {
        if let Some(tls) = &self.shared.tls {
            tls.reload();
        }
    }

    /// Number of the process that has taken over, where the system tells.
    pub fn successor(&self) -> Option<u32> {
        self.shared.ending.successor()
    }

    /// Where it listens by a path.
    pub fn paths(&self) -> Vec<std::path::PathBuf> {
        self.sockets.unix.iter().filter_map(|listener| unix::path_of(listener)).collect()
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.sockets.admin.as_ref()?.local_addr().ok()
    }

    /// Where metrics are read, if not on the admin listener alone.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.sockets.metrics.as_ref()?.local_addr().ok()
    }

    /// A link that logs into the dashboard, good once and for ten minutes, if no password is set and there is an admin
    /// listener. It is a secret.
    pub fn dashboard_link(&self) -> Option<String> {
        let address = self.admin_address()?;
        let token = self.shared.door.invite()?;
        // Nobody can go to a wildcard.
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Some(format!("http://{}/login?token={token}", SocketAddr::new(host, address.port())))
    }

    /// Its own URL.
    pub fn public_url(&self) -> &str {
        self.shared.routes.public_url()
    }
}

/// A task that ends when its handle is dropped.
fn own(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}
