//! The JSON of the REST API, with the types that the public clients decode (`protocol.md`, section "REST").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::policy::Policy;

/// What viewers of a tunnel speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Proto {
    /// HTTP: the relay reads each request.
    #[default]
    Http,
    /// Anything over TCP: a port of the relay leads to the tunnel, and the bytes are passed on as they are.
    Tcp,
    /// TLS, whose handshake names the tunnel (SNI); the bytes are passed on as they are, so the target has the
    /// certificate and the relay reads nothing.
    Tls,
}

impl Proto {
    /// As it is written: `http`, `tcp` or `tls`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Whether bytes are passed on without being read.
    pub fn is_raw(self) -> bool {
        self != Self::Http
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no [`Proto`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write http, tcp or tls")]
pub struct NoProto;

impl FromStr for Proto {
    type Err = NoProto;

    fn from_str(text: &str) -> Result<Self, NoProto> {
        [Self::Http, Self::Tcp, Self::Tls].into_iter().find(|proto| proto.as_str() == text).ok_or(NoProto)
    }
}

/// A version of HAProxy's PROXY protocol, by which a target learns who its viewer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl ProxyProtocol {
    /// As it is written: `v1` or `v2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

impl fmt::Display for ProxyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no [`ProxyProtocol`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write v1 or v2")]
pub struct NoProxyProtocol;

impl FromStr for ProxyProtocol {
    type Err = NoProxyProtocol;

    fn from_str(text: &str) -> Result<Self, NoProxyProtocol> {
        [Self::V1, Self::V2].into_iter().find(|version| version.as_str() == text).ok_or(NoProxyProtocol)
    }
}

/// Version of the API, sent as `X-NullBore-API` and in `/health`.
pub const API_VERSION: &str = "1";

/// `POST /v1/tunnels`. Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct CreateTunnel {
    /// Port of the target on the client's machine, for display only; 0 or absent: it has none.
    #[cfg_attr(feature = "relay", schema(minimum = 0, maximum = 65535))]
    pub local_port: i64,
    /// The wanted name; absent or empty: the relay makes one up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long the tunnel lives, such as `1h30m` (units `d`, `h`, `m`, `s`, `ms`); absent, empty or `0`: until it is
    /// deleted. It counts from each creation, but for those with `resume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// `true`: a client comes back to its tunnel. If that is still there, it ends when it would have, whatever `ttl` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<bool>,
    /// Name of the client's machine, for display.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// What made the tunnel, such as `cli`, for display.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// User that viewers must give (HTTP basic authentication); only together with `auth_pass`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_user: Option<String>,
    /// Password that viewers must give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_pass: Option<String>,
    /// `Host` that the target sees instead of the viewer's; absent: the viewer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_header: Option<String>,
    /// `false`: each data socket carries one request only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<bool>,
    /// Hosts of the caller's own that lead to the tunnel, too, such as `www.example.com`; at most 20, each proven by a TXT
    /// entry in DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<String>>,
    /// What its owner wants of viewers. It takes the place of the tunnel's policy if it is another than the last creation
    /// asked for, so that a client that comes back undoes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// What viewers speak: `http`, `tcp` or `tls`; absent: `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    /// The wanted port of the relay, only with `tcp`; absent: the one that the name had before, or a free one.
    #[cfg_attr(feature = "relay", schema(minimum = 1, maximum = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<i64>,
    /// `v1` or `v2`: each connection to the target begins with a header of this version of the PROXY protocol, which
    /// names the viewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<String>,
    /// What the target speaks: `h2` (HTTP/2 with prior knowledge, as gRPC servers do), or `http1`; absent: `http1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_proto: Option<String>,
    /// `true`: the tunnel may have several clients at the same time, each of which asks for it so. `false` or absent: the
    /// newest client takes over from all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<bool>,
    /// How viewers are shared among them, only with `replica`: `least-busy` or `sticky`; absent: `least-busy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
}

/// How viewers are shared among several clients of one tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Balance {
    /// The next one goes to whoever has the fewest requests under way.
    #[default]
    LeastBusy,
    /// Those of one address go to the same client, as long as it is there.
    Sticky,
}

impl Balance {
    /// As it is written: `least-busy` or `sticky`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastBusy => "least-busy",
            Self::Sticky => "sticky",
        }
    }
}

/// The text is no [`Balance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write least-busy or sticky")]
pub struct NoBalance;

impl FromStr for Balance {
    type Err = NoBalance;

    fn from_str(text: &str) -> Result<Self, NoBalance> {
        [Self::LeastBusy, Self::Sticky].into_iter().find(|balance| balance.as_str() == text).ok_or(NoBalance)
    }
}

/// `target_proto` of a target that speaks HTTP/2 with prior knowledge.
pub const TARGET_HTTP2: &str = "h2";
/// `target_proto` of a target that speaks HTTP/1.1.
pub const TARGET_HTTP1: &str = "http1";

/// A tunnel as its owner sees it. Times are RFC 3339 strings, durations Go's notation, counters integers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Tunnel {
    /// UUID of the tunnel; names its control socket.
    pub id: String,
    /// The name in the URL.
    pub slug: String,
    /// Name of the owning key.
    pub client_id: String,
    /// As given at creation.
    pub local_port: i64,
    /// The name that was asked for; absent when it was made up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Lifetime; `0s` is none.
    pub ttl: String,
    /// Always `relay`.
    pub mode: String,
    /// When it was created.
    pub created_at: String,
    /// When it ends; `0001-01-01T00:00:00Z` is never.
    pub expires_at: String,
    /// Bytes from viewers to the target.
    pub bytes_in: u64,
    /// Bytes from the target to viewers.
    pub bytes_out: u64,
    /// Requests of viewers.
    pub requests: u64,
    /// When the last request came; `0001-01-01T00:00:00Z` is never.
    pub last_active: String,
    /// Viewers get 503 while it is set.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// A client holds its control socket.
    pub connected: bool,
    /// How many clients hold one. Relays that know of one only leave it out.
    pub clients: u64,
    /// The tunnel may have several; absent where it may not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replica: bool,
    /// How viewers are shared among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    /// As given at creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// As given at creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Hosts of the owner's own that lead to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Names of the rules of its policy, none where there is no policy. Absent: the relay knows no policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Vec<String>>,
    /// Where viewers go: always absolute; `tcp://HOST:PORT` where they speak `tcp`.
    /// What the target speaks; absent where that is HTTP/1.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_proto: Option<String>,
    /// Where viewers go: always absolute.
    pub public_url: String,
    /// What viewers speak: `http`, `tcp` or `tls`. Relays that know only `http` leave it out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub proto: String,
    /// The relay's port that leads to the tunnel, where viewers speak `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<u16>,
    /// As given at creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<String>,
}

/// The time that stands for "never" in this API: Go's zero time.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// `POST /v1/tunnels/{id}/suspend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
pub struct Suspend {
    /// Whether viewers are turned away with 503.
    pub suspended: bool,
}

/// Answer to a suspension; both values are strings, as the public clients read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
pub struct Suspended {
    /// `suspended` or `resumed`.
    pub status: String,
    /// `true` or `false`.
    pub suspended: String,
}

/// `POST /v1/tunnels/{id}/extend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
pub struct Extend {
    /// The tunnel ends this long from now; `0`: never.
    pub ttl: String,
}

/// `POST /v1/tunnels/{id}/inspection`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
pub struct Inspection {
    /// Whether requests are to be recorded; this relay records none, so only `false` succeeds.
    pub enabled: bool,
}

/// Answer to the call of inspection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
pub struct InspectionState {
    /// Whether requests are recorded.
    pub inspection_enabled: bool,
}

/// `GET /health`: flat, all values strings, as the public clients read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// Version of the relay.
    pub version: String,
    /// Version of this API: `1`.
    pub api_version: String,
}

/// `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
pub struct Version {
    /// Version of the relay.
    pub version: String,
    /// Version of this API: `1`.
    pub api_version: String,
}

/// Every error of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
pub struct ApiError {
    /// What happened and what to do, for people.
    pub error: String,
    /// What happened, for programs; one of the codes in `protocol.md`.
    pub code: String,
    /// Also in the header `X-Request-ID` and in the relay's log.
    pub request_id: String,
}
