//! What a tunnel is to be like, with everything else as usual.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_rustls::TlsConnector;

use super::{Tunnel, TunnelError};
use crate::auth::Secret;
use crate::client::connector::Connector;
use crate::client::dial::Dialer;
use crate::client::proxy::Proxies;
use crate::client::relay_url::RelayUrl;
use crate::client::session::Options;
use crate::client::target::Target;
use crate::client::tls;
use crate::proto::api::Balance;
use crate::proto::api::{Proto, ProxyProtocol};
use crate::proto::duration;
use crate::proto::name::Name;
use crate::proto::policy::Policy;

/// A tunnel to be. It is opened by [`serve`](Self::serve), [`expose`](Self::expose) or
/// [`expose_port`](Self::expose_port), all of them within a tokio runtime.
#[must_use = "a tunnel is opened by serve, expose or expose_port"]
pub struct TunnelBuilder {
    relay: String,
    key: Option<Secret>,
    proxies: Option<Proxies>,
    tls: Tls,
    name: Option<String>,
    ttl: Option<Duration>,
    auth: Option<(String, String)>,
    policy: Option<Policy>,
    host_header: Option<String>,
    reuse: bool,
    domains: Vec<String>,
    proto: Proto,
    remote_port: Option<u16>,
    proxy_protocol: Option<ProxyProtocol>,
    http2: bool,
    replica: Option<Balance>,
    requests_per_second: u32,
    reconnect: bool,
    wait: bool,
    probe: bool,
    device_name: Option<String>,
}

/// Whom a relay with TLS is verified by.
enum Tls {
    System,
    Ca(Vec<u8>),
    Config(Arc<rustls::ClientConfig>),
}

impl TunnelBuilder {
    pub(super) fn new(relay: String) -> Self {
        Self {
            relay,
            key: None,
            proxies: None,
            tls: Tls::System,
            name: None,
            ttl: None,
            auth: None,
            policy: None,
            host_header: None,
            reuse: true,
            domains: Vec::new(),
            proto: Proto::Http,
            remote_port: None,
            proxy_protocol: None,
            http2: false,
            replica: None,
            requests_per_second: 0,
            reconnect: true,
            wait: false,
            probe: false,
            device_name: None,
        }
    }

    /// The key on the relay; an empty one is none. It is shown nowhere.
    pub fn key(self, key: impl Into<String>) -> Self {
        let key = key.into();
        Self { key: (!key.is_empty()).then(|| Secret::new(key)), ..self }
    }

    /// The name in the URL. Without one the relay makes it up; it stays the same in either case.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// The tunnel ends after this, whole milliseconds; zero, as without it: when it is closed.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// Viewers must give this user and password (HTTP basic authentication).
    pub fn basic_auth(self, user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { auth: Some((user.into(), password.into())), ..self }
    }

    /// What is wanted of viewers besides: who may come, how often, what is signed, which headers change. The relay keeps it
    /// on every request; one that knows no policies is an error.
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// What the target finds in `Host`, in place of what viewers asked for.
    pub fn host_header(self, host: impl Into<String>) -> Self {
        Self { host_header: Some(host.into()), ..self }
    }

    /// `false`: each data socket, and so each connection to the target, carries one request only.
    pub fn reuse(self, reuse: bool) -> Self {
        Self { reuse, ..self }
    }

    /// A host of the caller's own that leads to the tunnel, too. Its TXT entry in DNS at `_adit.HOST` says
    /// `adit-owner=KEY`, with the name of the key. May be called several times.
    pub fn domain(mut self, host: impl Into<String>) -> Self {
        self.domains.push(host.into());
        self
    }

    /// What viewers speak; HTTP without this. With [`Proto::Tcp`] a port of the relay leads to the target, and the URL is
    /// `tcp://HOST:PORT`.
    pub fn proto(self, proto: Proto) -> Self {
        Self { proto, ..self }
    }

    /// The wanted port of the relay, for [`Proto::Tcp`]. Without this the relay chooses; it stays the same in either case.
    pub fn remote_port(self, port: u16) -> Self {
        Self { remote_port: Some(port), ..self }
    }

    /// Each connection to the target begins with a header of this version of the PROXY protocol, which names the viewer.
    pub fn proxy_protocol(self, version: ProxyProtocol) -> Self {
        Self { proxy_protocol: Some(version), ..self }
    }

    /// `true`: the target speaks HTTP/2 with prior knowledge, as gRPC servers do, and so does the relay with it; viewers of
    /// HTTP/1.1 are served as well. Requests are not told as events then. A service of this program speaks HTTP/1.1.
    pub fn http2(self, http2: bool) -> Self {
        Self { http2, ..self }
    }

    /// Shares the tunnel with other clients of the same key that ask for it too: viewers are balanced among them, and the
    /// end of one ends no other. Without this the newest client takes over from all others.
    pub fn replica(self, balance: Balance) -> Self {
        Self { replica: Some(balance), ..self }
    }

    /// Requests told as events in a second; beyond it they are counted. None are told without this.
    pub fn requests_per_second(self, most: u32) -> Self {
        Self { requests_per_second: most, ..self }
    }

    /// `false`: a relay that is lost ends the tunnel. It is found again otherwise, however long it takes.
    pub fn reconnect(self, reconnect: bool) -> Self {
        Self { reconnect, ..self }
    }

    /// `true`: a relay that is not reached at first is waited for, however long it takes. It is an error otherwise.
    pub fn wait_for_relay(self, wait: bool) -> Self {
        Self { wait, ..self }
    }

    /// `true`: once open, an event tells if the target cannot be reached, before a viewer finds out. Only of HTTP.
    pub fn probe(self, probe: bool) -> Self {
        Self { probe, ..self }
    }

    /// Name of this machine, for display in the list of tunnels.
    pub fn device_name(self, name: impl Into<String>) -> Self {
        Self { device_name: Some(name.into()), ..self }
    }

    /// The proxies on the way to the relay. Without this: those of the environment, `HTTPS_PROXY` and so on.
    pub fn proxies(self, proxies: Proxies) -> Self {
        Self { proxies: Some(proxies), ..self }
    }

    /// The relay's certificate is verified against these authorities, certificates in PEM, instead of the system's.
    pub fn ca(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { tls: Tls::Ca(pem.into()), ..self }
    }

    /// TLS with the relay as the caller has set it up. It must not offer HTTP/2.
    pub fn tls(self, config: Arc<rustls::ClientConfig>) -> Self {
        Self { tls: Tls::Config(config), ..self }
    }

    /// Opens the tunnel to a service of this program, such as an `axum::Router`; [`Target::service`] says more.
    pub async fn serve<S, B>(self, service: S) -> Result<Tunnel, TunnelError>
    where
        S: tower_service::Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: http_body::Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        self.open(Target::service(service)).await
    }

    /// Opens the tunnel to `3000`, `host:port`, `unix:/path` or, where viewers speak HTTP, `http://host[:port]` or
    /// `https://host[:port]`.
    pub async fn expose(self, target: &str) -> Result<Tunnel, TunnelError> {
        let target = Target::parse_for(self.proto, target)?;
        self.open(target).await
    }

    /// Opens the tunnel to the plain service at a port of this machine.
    pub async fn expose_port(self, port: u16) -> Result<Tunnel, TunnelError> {
        self.open(Target::port_here(port)).await
    }

    /// Opens the tunnel to `target`. It is open when this returns.
    pub async fn open(self, target: Target) -> Result<Tunnel, TunnelError> {
        let wait = self.wait;
        Tunnel::open(self.options(target)?, wait).await
    }

    fn options(self, target: Target) -> Result<Options, TunnelError> {
        if let Some(name) = &self.name {
            Name::parse(name)?;
        }
        if let Some(policy) = self.policy.as_ref().filter(|policy| !policy.mistakes().is_empty()) {
            return Err(TunnelError::Policy(policy.mistakes().join("; ")));
        }
        target.check_proxy_protocol(self.proxy_protocol)?;
        if self.http2 && target.here().is_some() {
            return Err(TunnelError::ServiceHttp2);
        }
        let relay = RelayUrl::parse(&self.relay)?;
        let dialer =
            Dialer::new(relay, self.proxies.unwrap_or_else(Proxies::from_env)).naming("the relay's URL");
        let dialer = match self.tls {
            Tls::System => dialer,
            Tls::Ca(pem) => dialer.with_tls(tls::trusting(&pem).map_err(TunnelError::Ca)?),
            Tls::Config(config) => dialer.with_tls(TlsConnector::from(config)),
        };
        let connector = Connector::new(dialer, self.key.as_ref())?;
        Ok(Options {
            name: self.name,
            ttl: self.ttl.map(duration::format),
            auth: self.auth,
            policy: self.policy.filter(|policy| !policy.is_empty()),
            host_header: self.host_header,
            reuse: self.reuse,
            domains: self.domains,
            proto: self.proto,
            remote_port: self.remote_port,
            proxy_protocol: self.proxy_protocol,
            http2: self.http2,
            replica: self.replica,
            requests_per_second: self.requests_per_second,
            exit_on_disconnect: !self.reconnect,
            probe: self.probe,
            device_name: self.device_name,
            ..Options::new(connector, target)
        })
    }
}

impl fmt::Debug for TunnelBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the key nor the viewers' password.
        f.debug_struct("TunnelBuilder")
            .field("relay", &self.relay)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
