//! What an owner may ask of a tunnel, checked.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use uuid::Uuid;

use crate::auth::password::{self, BasicAuth, PasswordError};
use crate::proto::api::{Balance, CreateTunnel, Proto, ProxyProtocol, TARGET_HTTP1, TARGET_HTTP2};
use crate::proto::duration;
use crate::proto::hostname;
use crate::proto::limits::domains::MOST;
use crate::proto::name::{Name, NameError};
use crate::store::{StoreError, TunnelRow};

use super::policy::{Given, Policy, PolicyError, Scope, stored};

/// Why a tunnel was not created; each has a code of its own in the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// `local_port` is out of range.
    #[error("local_port must be 1 to 65535; leave it out if there is none")]
    Port,
    /// The name breaks a rule.
    #[error("{0}")]
    Name(#[from] NameError),
    /// The lifetime is no duration.
    #[error("invalid ttl: {0}")]
    Ttl(#[from] duration::DurationError),
    /// One of user and password without the other.
    #[error("auth_user and auth_pass go together")]
    Auth,
    /// A user or password that no viewer could send.
    #[error("auth_user or auth_pass cannot be used: {0}")]
    Password(#[from] PasswordError),
    /// The host would not be valid in a request.
    #[error("host_header must be a host name with an optional port")]
    HostHeader,
    /// One of the hosts is no host name.
    #[error("{0:?} in domains is no host name such as www.example.com")]
    Domain(String),
    /// There are too many.
    #[error("a tunnel may have {MOST} domains")]
    TooManyDomains,
    /// A host leads to another tunnel.
    #[error("{0} leads to another tunnel already; close that one first")]
    DomainTaken(String),
    /// The policy cannot be kept as it is written.
    #[error("{0}")]
    Policy(#[from] PolicyError),
    /// `proto` is unknown.
    #[error("proto must be http, tcp or tls")]
    Proto,
    /// `proxy_protocol` is unknown.
    #[error("proxy_protocol must be v1 or v2")]
    ProxyProtocol,
    /// `remote_port` is out of range.
    #[error("remote_port must be 1 to 65535")]
    RemotePort,
    /// `remote_port` without `tcp`.
    #[error("remote_port is for tunnels of proto tcp; leave it out")]
    PortWithoutTcp,
    /// A field that only requests have, for a tunnel whose bytes are not read.
    #[error("{field} is for tunnels of proto http; a tunnel of proto {proto} passes bytes on unread")]
    OnlyHttp {
        /// The field.
        field: &'static str,
        /// What viewers speak.
        proto: Proto,
    },
    /// The relay has no ports for tunnels.
    #[error("this relay has no ports for TCP tunnels; its operator gives them with tcp-ports")]
    NoPorts,
    /// Names cannot be told apart without a domain.
    #[error(
        "a tunnel of proto tls is told by the name in the handshake; this relay's operator has not set base-domain"
    )]
    NoBaseDomain,
    /// The port is none of those that the relay gives.
    #[error("this relay gives the ports {from} to {to}; choose one of them, or none")]
    PortNotGiven {
        /// The first.
        from: u16,
        /// The last.
        to: u16,
    },
    /// The port belongs to another tunnel.
    #[error("the port {0} belongs to another tunnel; choose another, or none")]
    PortTaken(u16),
    /// Something else listens there.
    #[error(
        "the port {port} cannot be used, perhaps as another program on the relay's machine has it ({error}); choose another, or none"
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// What the system says.
        error: String,
    },
    /// Every port belongs to somebody.
    #[error("none of this relay's ports ({from} to {to}) is free; its operator can give more")]
    NoFreePort {
        /// The first.
        from: u16,
        /// The last.
        to: u16,
    },
    /// Another process has the ports by now.
    #[error("the relay restarts; try again shortly")]
    Draining,
    /// The target speaks something else.
    #[error("target_proto must be h2 or http1")]
    TargetProto,
    /// A balance that there is none of.
    #[error("balance must be least-busy or sticky")]
    Balance,
    /// A balance among one.
    #[error("balance is of tunnels with several clients: give replica as well")]
    BalanceAlone,
    /// A data socket for each request, to a target that is asked many things over one.
    #[error("reuse cannot be false where target_proto is h2: many requests share a data socket there")]
    SharedByNature,
    /// The target is told of one viewer on a connection that many share.
    #[error(
        "proxy_protocol cannot be together with target_proto h2 or replica: a connection is not one viewer's there; \
         X-Forwarded-For names each"
    )]
    ToldOfOne,
    /// The name is reserved for another key.
    #[error("the name '{0}' belongs to another key; choose another")]
    Taken(String),
    /// The key has as many tunnels as it may.
    #[error(
        "this key may have {0} tunnels (tunnels-per-key); close one first, or ask the relay's operator for more"
    )]
    TooMany(usize),
    /// The key has created as many tunnels as it may for now.
    #[error(
        "this key may create {most} tunnels a minute (creations-per-key); the relay's operator can raise that"
    )]
    TooOften {
        /// In a minute.
        most: usize,
        /// Until the next one.
        wait: Duration,
    },
    /// Nothing can be written now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What its owner asked of a tunnel.
#[derive(Clone)]
pub struct Spec {
    /// The owner chose the name.
    pub chosen: bool,
    /// Port of the target, for display.
    pub local_port: u16,
    /// Lifetime; `None` is until deleted.
    pub ttl: Option<Duration>,
    /// Name of the client's machine, for display.
    pub device_name: Option<String>,
    /// What made the tunnel, for display.
    pub source: Option<String>,
    /// `Host` that the target sees instead of the viewer's.
    pub host_header: Option<HeaderValue>,
    /// Whether a data socket may carry more than one request.
    pub reuse: bool,
    /// The target speaks HTTP/2, with prior knowledge.
    pub http2: bool,
    /// Several clients may serve it at the same time, and so viewers are shared among them.
    pub replica: Option<Balance>,
    /// What viewers must give.
    pub auth: Option<Arc<BasicAuth>>,
    /// Hosts of its owner's own, in lower case and in order, each once.
    pub domains: Vec<String>,
    /// What else is wanted of viewers.
    pub policy: Option<Arc<Policy>>,
    /// What viewers speak.
    pub proto: Proto,
    /// The relay's port that leads to the tunnel. After [`Spec::check`]: the wanted one.
    pub port: Option<u16>,
    /// How the target is told of its viewer, before anything else on a connection.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What the last creation asked for, where another policy was put in its place since.
    pub(super) asked: Option<Option<Arc<Policy>>>,
}

/// Why a row is not taken up: the tunnel must not open to everybody by that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The stored password cannot be read.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The stored policy cannot be read.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        let auth = |spec: &Self| spec.auth.as_ref().map(|auth| auth.to_text());
        (self.chosen, self.local_port, self.ttl, self.reuse, self.http2, self.replica)
            == (other.chosen, other.local_port, other.ttl, other.reuse, other.http2, other.replica)
            && self.device_name == other.device_name
            && self.source == other.source
            && self.host_header == other.host_header
            && self.domains == other.domains
            && auth(self) == auth(other)
            && self.policy == other.policy
            && self.asked == other.asked
            && (self.proto, self.port, self.proxy_protocol) == (other.proto, other.port, other.proxy_protocol)
    }
}

/// Longest text for display that is kept.
const MAX_LABEL: usize = 255;

impl Spec {
    /// Checks a request: the spec and the wanted name. A password is hashed here, which takes tens of milliseconds:
    /// call it where that may block. `before` keeps its hashes of users and passwords that are still the same. The relay
    /// takes bodies of `body_limit` bytes.
    pub fn check(
        request: &CreateTunnel,
        before: Option<&Self>,
        body_limit: Option<u64>,
    ) -> Result<(Self, Option<Name>), CreateError> {
        let local_port = u16::try_from(request.local_port).map_err(|_| CreateError::Port)?;
        let name = filled(&request.name).map(Name::parse).transpose()?;
        let ttl = filled(&request.ttl).map(duration::parse).transpose()?.filter(|ttl| !ttl.is_zero());
        let host_header = filled(&request.host_header).map(host).transpose()?;
        let proto = filled(&request.proto)
            .map_or(Ok(Proto::Http), |text| text.parse().map_err(|_| CreateError::Proto))?;
        let only_http =
            [("auth_user", request.auth_user.is_some()), ("host_header", request.host_header.is_some())];
        // TLS names the host, so that a domain may lead there.
        let domains = hosts(request.domains.as_deref().unwrap_or_default())?;
        if proto == Proto::Tcp && !domains.is_empty() {
            return Err(CreateError::OnlyHttp { field: "domains", proto });
        }
        if let Some((field, _)) = only_http.into_iter().find(|(_, given)| *given && proto.is_raw()) {
            return Err(CreateError::OnlyHttp { field, proto });
        }
        let proxy_protocol = filled(&request.proxy_protocol).map(str::parse).transpose();
        let proxy_protocol = proxy_protocol.map_err(|_| CreateError::ProxyProtocol)?;
        let auth = match (filled(&request.auth_user), filled(&request.auth_pass)) {
            (None, None) => None,
            (Some(user), Some(pass)) => match before.and_then(|before| before.auth.clone()) {
                Some(same) if same.matches(user, pass) => Some(same),
                _ => Some(Arc::new(BasicAuth::from_text(&password::hash(user, pass)?)?)),
            },
            _ => return Err(CreateError::Auth),
        };
        let given = Given {
            body_limit,
            has_auth: auth.is_some(),
            before: before.and_then(Self::asked),
            scope: Scope::of(proto),
        };
        let policy =
            request.policy.as_ref().map(|policy| Policy::check(policy, &given)).transpose()?.flatten();
        let wanted_port =
            |port| u16::try_from(port).ok().filter(|port| *port != 0).ok_or(CreateError::RemotePort);
        let port = request.remote_port.map(wanted_port).transpose()?;
        if port.is_some() && proto != Proto::Tcp {
            return Err(CreateError::PortWithoutTcp);
        }
        let http2 = match filled(&request.target_proto) {
            None | Some(TARGET_HTTP1) => false,
            Some(TARGET_HTTP2) => true,
            Some(_) => return Err(CreateError::TargetProto),
        };
        let reuse = request.reuse.unwrap_or(true);
        if http2 && !reuse {
            return Err(CreateError::SharedByNature);
        }
        let balance = filled(&request.balance).map(|text| text.parse().map_err(|_| CreateError::Balance));
        let replica = match (request.replica.unwrap_or_default(), balance.transpose()?) {
            (true, balance) => Some(balance.unwrap_or_default()),
            (false, None) => None,
            (false, Some(_)) => return Err(CreateError::BalanceAlone),
        };
        if let Some(field) =
            [("target_proto", http2)].into_iter().find_map(|(field, given)| given.then_some(field))
            && proto.is_raw()
        {
            return Err(CreateError::OnlyHttp { field, proto });
        }
        if proxy_protocol.is_some() && proto == Proto::Http && (http2 || replica.is_some()) {
            return Err(CreateError::ToldOfOne);
        }
        let label = |text: &Option<String>| filled(text).map(|text| text.chars().take(MAX_LABEL).collect());
        let spec = Self {
            chosen: name.is_some(),
            local_port,
            ttl,
            device_name: label(&request.device_name),
            source: label(&request.source),
            host_header,
            reuse,
            http2,
            replica,
            auth,
            domains,
            policy: policy.map(Arc::new),
            asked: None,
            proto,
            port,
            proxy_protocol,
        };
        Ok((spec, name))
    }

    /// What a worker of Taskcluster has: HTTP, at whatever it joins its streams to.
    pub(super) fn of_worker() -> Self {
        Self {
            chosen: true,
            local_port: 0,
            ttl: None,
            device_name: None,
            source: Some("taskcluster".to_owned()),
            host_header: None,
            reuse: true,
            http2: false,
            replica: None,
            auth: None,
            domains: Vec::new(),
            policy: None,
            proto: Proto::Http,
            port: None,
            proxy_protocol: None,
            asked: None,
        }
    }

    /// The policy that the last creation asked for.
    fn asked(&self) -> Option<&Policy> {
        self.asked.as_ref().unwrap_or(&self.policy).as_deref()
    }

    /// A creation that asks for the same policy as the last one leaves in force what was put in its place since.
    pub(super) fn settle(&mut self, current: &Self) -> Result<(), CreateError> {
        if self.policy.as_deref() == current.asked() {
            (self.policy, self.asked) = (current.policy.clone(), current.asked.clone());
        }
        self.no_two_logins()
    }

    /// The same with another policy.
    pub(super) fn with_policy(&self, policy: Option<Arc<Policy>>) -> Result<Self, CreateError> {
        let asked = self.asked.clone().unwrap_or_else(|| self.policy.clone());
        let asked = Some(asked).filter(|asked| *asked != policy);
        let spec = Self { policy, asked, ..self.clone() };
        spec.no_two_logins().map(|()| spec)
    }

    fn no_two_logins(&self) -> Result<(), CreateError> {
        if self.auth.is_some() && self.policy.as_ref().is_some_and(|policy| policy.users.is_some()) {
            let text = "auth: the policy of this tunnel has users, and it cannot ask for auth_user besides; leave one of \
                        them out";
            return Err(PolicyError::Wrong(vec![text.to_owned()]).into());
        }
        Ok(())
    }

    /// A stored password or policy that cannot be read is an error. `before` keeps its state where nothing has changed.
    pub(super) fn from_row(row: &TunnelRow, before: Option<&Self>) -> Result<Self, RowError> {
        let (policy, asked) =
            stored::read(row.policy.as_deref(), before.and_then(|before| before.policy.as_deref()))?;
        Ok(Self {
            chosen: row.chosen,
            local_port: u16::try_from(row.local_port).unwrap_or(0),
            ttl: Some(Duration::from_secs(row.ttl_seconds)).filter(|ttl| !ttl.is_zero()),
            device_name: row.device_name.clone(),
            source: row.source.clone(),
            host_header: row.host_header.as_deref().and_then(|host| HeaderValue::from_str(host).ok()),
            reuse: row.reuse,
            replica: row.replica,
            http2: row.target_proto.as_deref() == Some(TARGET_HTTP2),
            auth: row.auth.as_deref().map(BasicAuth::from_text).transpose()?.map(Arc::new),
            domains: row
                .domains
                .as_deref()
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            policy,
            asked,
            proto: row.kind.parse().unwrap_or_default(),
            port: row.port,
            proxy_protocol: row.proxy_protocol.as_deref().and_then(|version| version.parse().ok()),
        })
    }

    pub(super) fn to_row(&self, id: Uuid) -> TunnelRow {
        TunnelRow {
            id,
            name: String::new(),
            owner: String::new(),
            chosen: self.chosen,
            local_port: i64::from(self.local_port),
            // Rounded up: a lifetime under a second is not "none".
            ttl_seconds: self.ttl.map_or(0, |ttl| ttl.as_millis().div_ceil(1000) as u64),
            device_name: self.device_name.clone(),
            source: self.source.clone(),
            host_header: self.host_header.as_ref().and_then(|host| host.to_str().ok()).map(str::to_owned),
            reuse: self.reuse,
            auth: self.auth.as_ref().map(|auth| auth.to_text()),
            kind: self.proto.as_str().to_owned(),
            port: self.port,
            proxy_protocol: self.proxy_protocol.map(|version| version.as_str().to_owned()),
            domains: (!self.domains.is_empty()).then(|| self.domains.join(" ")),
            policy: stored::write(self.policy.as_deref(), self.asked.as_ref().map(Option::as_deref)),
            target_proto: self.http2.then(|| TARGET_HTTP2.to_owned()),
            replica: self.replica,
            created_at: 0,
            expires_at: None,
            suspended: false,
            closed: false,
            reserved_until: 0,
            bytes_in: 0,
            bytes_out: 0,
            requests: 0,
            last_active: None,
            generation: 0,
        }
    }
}

/// As `Retry-After` has it: whole seconds, after which it is time.
pub fn seconds(wait: &Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn filled(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

/// Hosts of an owner's own as they are kept: each once, in lower case.
fn hosts(asked: &[String]) -> Result<Vec<String>, CreateError> {
    let mut domains = Vec::new();
    for text in asked {
        domains.push(hostname::parse(text.trim()).map_err(|_| CreateError::Domain(text.clone()))?);
    }
    domains.sort();
    domains.dedup();
    if domains.iter().any(|domain| !domain.contains('.')) {
        return Err(CreateError::Domain(domains.swap_remove(0)));
    }
    if domains.len() > MOST { Err(CreateError::TooManyDomains) } else { Ok(domains) }
}

fn host(text: &str) -> Result<HeaderValue, CreateError> {
    let authority: http::uri::Authority = text.parse().map_err(|_| CreateError::HostHeader)?;
    if authority.as_str().contains('@') {
        return Err(CreateError::HostHeader);
    }
    HeaderValue::from_str(text).map_err(|_| CreateError::HostHeader)
}
