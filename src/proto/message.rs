//! Control messages, each one JSON object in a text message (`protocol.md`, sections "Control socket" and "Level two").

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The subprotocol of level two.
pub const ADIT_1: &str = "adit.1";

/// Which protocol a control session speaks. Its data sockets follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// No subprotocol: only `connection` with its id is said, nothing is heard.
    Base,
    /// `adit.1`.
    Two,
}

impl Level {
    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Two => "two",
        }
    }
}

/// What the relay says to a client. A client ignores types and fields that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ToClient {
    /// The first message of a session of level two.
    Welcome(Welcome),
    /// A viewer waits: open a data socket with this id within the claim time. On a standby data socket: this is it now.
    Connection(Connection),
    /// The connection is not wanted any more: do not open its data socket.
    Cancel {
        /// Of the connection.
        id: String,
    },
    /// Hold so many unassigned data sockets open from now on.
    Standby {
        /// How many; 0 is none.
        want: u32,
    },
    /// The relay is about to stop: open a new control socket, and finish here what runs.
    Drain(Drain),
    /// The tunnel, or the token of the session, ends soon.
    Expiring(Expiring),
    /// The answer to `auth`.
    Auth(AuthResult),
    /// The relay could not read what the client sent; the session goes on.
    Error {
        /// What was wrong, for the author of the client.
        message: String,
    },
    /// The session ends now; the close frame follows.
    Closed {
        /// Why.
        reason: ClosedReason,
        /// The same for people.
        message: String,
    },
    /// A message of a later version; to be ignored.
    #[serde(other)]
    Unknown,
}

/// The numbers of a session, so that a client need know none beforehand. Times are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Names the session: a new control socket of the same client gives it as `successor_of`.
    pub session: String,
    /// Name and version of the relay's software.
    #[serde(default)]
    pub relay: String,
    /// Between two pings of the relay.
    pub ping_interval_ms: u64,
    /// Either side is dead when it owes a pong for this long.
    pub pong_timeout_ms: u64,
    /// From `connection` to the data socket.
    pub claim_ms: u64,
    /// What the relay takes and does at most.
    #[serde(default)]
    pub limits: SessionLimits,
}

/// Limits of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionLimits {
    /// Bytes of one control message, in either direction.
    pub control_message_bytes: u64,
    /// Bytes of one data message of the relay.
    pub data_message_bytes: u64,
    /// Connections that may wait to be taken up at the same time.
    pub waiting: u64,
    /// Standby data sockets that the relay may ask for.
    pub standby: u64,
}

/// A viewer's connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// A UUID of 122 random bits, written as 36 URL-safe characters.
    pub id: String,
    /// What the bytes are; absent at base level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    /// Address and port of the viewer as the relay sees it; absent at base level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_addr: Option<String>,
}

/// How a relay stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// After this the relay ends what still runs, in milliseconds from now.
    pub deadline_ms: u64,
    /// When this client is to connect anew, in milliseconds from now: clients are spread over a while.
    pub reconnect_ms: u64,
}

/// Something ends soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring {
    /// `tunnel` or `token`.
    pub what: String,
    /// RFC 3339.
    pub at: String,
    /// The same in milliseconds from now: the clocks of two machines differ.
    pub in_ms: u64,
}

/// Whether a fresh token was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthResult {
    /// If not, the former one stays in force.
    pub accepted: bool,
    /// Milliseconds until the token in force ends; absent: it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
    /// Why not, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosedReason {
    /// The tunnel's lifetime is over.
    Expired,
    /// Its owner deleted the tunnel.
    Deleted,
    /// Another live client of the same key has taken over.
    Replaced,
    /// A new control socket of the same client has taken over.
    Succeeded,
    /// The key was revoked.
    Revoked,
    /// The token's time is over.
    TokenExpired,
    /// The relay stops.
    Restart,
    /// The client did not answer pings.
    Stale,
    /// The client broke RFC 6455.
    ProtocolError,
    /// A message of the client was over the limit.
    MessageTooBig,
    /// A reason of a later version.
    #[serde(other)]
    Unknown,
}

impl ClosedReason {
    /// The client has nothing to come back for: the tunnel is over, or somebody else's.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Expired | Self::Deleted | Self::Replaced)
    }
}

/// What a client of level two says to the relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ToRelay {
    /// The target cannot be reached: the viewer gets its answer now.
    Reject(Reject),
    /// A fresh key or token for this session.
    Auth {
        /// As behind `Bearer`.
        token: String,
    },
    /// A message of a later version; to be ignored.
    #[serde(other)]
    Unknown,
}

/// A connection that the client cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Of the connection.
    pub id: String,
    /// A word for programs, such as `refused` or `timed_out`.
    #[serde(default)]
    pub reason: String,
    /// What the viewer is told, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl ToClient {
    /// The message as the text of one WebSocket message.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads one message; anything unreadable is [`ToClient::Unknown`], as a client must not die of it.
    pub fn from_json(text: &[u8]) -> Self {
        read(text).unwrap_or(Self::Unknown)
    }
}

impl ToRelay {
    /// The message as the text of one WebSocket message.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads one message. The error says what is wrong with it, for the author of the client.
    pub fn from_json(text: &[u8]) -> Result<Self, String> {
        read(text)
    }
}

fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    // serde would take an array for the fields in their order.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err("expected a JSON object".to_owned());
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}
