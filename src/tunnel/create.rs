//! What an owner may ask of a tunnel, checked.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use uuid::Uuid;

use crate::auth::password::{self, BasicAuth, PasswordError};
use crate::proto::api::{Balance, CreateTunnel, TARGET_HTTP1, TARGET_HTTP2};
use crate::proto::duration;
use crate::proto::name::{Name, NameError};
use crate::store::{StoreError, TunnelRow};

/// Why a tunnel was not created; each has a code of its own in the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// `local_port` is out of range.
    #[error("local_port must be 1 to 65535")]
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
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        let auth = |spec: &Self| spec.auth.as_ref().map(|auth| auth.to_text());
        (self.chosen, self.local_port, self.ttl, self.reuse, self.http2, self.replica)
            == (other.chosen, other.local_port, other.ttl, other.reuse, other.http2, other.replica)
            && self.device_name == other.device_name
            && self.source == other.source
            && self.host_header == other.host_header
            && auth(self) == auth(other)
    }
}

/// Longest text for display that is kept.
const MAX_LABEL: usize = 255;

impl Spec {
    /// Checks a request: the spec and the wanted name. A password is hashed here, which takes tens of milliseconds:
    /// call it where that may block. `before` keeps its hash if user and password are still the same.
    pub fn check(request: &CreateTunnel, before: Option<&Self>) -> Result<(Self, Option<Name>), CreateError> {
        let local_port =
            u16::try_from(request.local_port).ok().filter(|port| *port != 0).ok_or(CreateError::Port)?;
        let name = filled(&request.name).map(Name::parse).transpose()?;
        let ttl = filled(&request.ttl).map(duration::parse).transpose()?.filter(|ttl| !ttl.is_zero());
        let host_header = filled(&request.host_header).map(host).transpose()?;
        let auth = match (filled(&request.auth_user), filled(&request.auth_pass)) {
            (None, None) => None,
            (Some(user), Some(pass)) => match before.and_then(|before| before.auth.clone()) {
                Some(same) if same.matches(user, pass) => Some(same),
                _ => Some(Arc::new(BasicAuth::from_text(&password::hash(user, pass)?)?)),
            },
            _ => return Err(CreateError::Auth),
        };
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
        };
        Ok((spec, name))
    }

    /// A stored password that cannot be read is an error: the tunnel must not open to everybody by that.
    pub(super) fn from_row(row: &TunnelRow) -> Result<Self, PasswordError> {
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
            kind: "http".to_owned(),
            port: None,
            target_proto: self.http2.then(|| TARGET_HTTP2.to_owned()),
            replica: self.replica,
            policy: None,
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

fn host(text: &str) -> Result<HeaderValue, CreateError> {
    let authority: http::uri::Authority = text.parse().map_err(|_| CreateError::HostHeader)?;
    if authority.as_str().contains('@') {
        return Err(CreateError::HostHeader);
    }
    HeaderValue::from_str(text).map_err(|_| CreateError::HostHeader)
}
