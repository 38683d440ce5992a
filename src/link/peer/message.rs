//! What a relay and its successor say to each other about clients and viewers.

use serde::{Deserialize, Serialize};

/// What the successor says on the socket that it took over through.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToPredecessor {
    /// It serves from now on.
    Ready,
    /// A socket comes along, over which it asks one [`Question`].
    Question,
}

/// What the successor asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// A client has dialled for this connection, which we have not announced. If it may, [`Dialled`] follows.
    Claim {
        /// Id of the connection.
        id: String,
        /// Whose the key is that came along.
        bearer: Option<Holder>,
    },
    /// A viewer wants a stream to the client of this tunnel. If there is one, the bytes follow, as WebSocket messages of
    /// level two: only so can an end be told from a break.
    Open {
        /// Name of the tunnel.
        tunnel: String,
        /// The viewer, as address and port.
        remote: String,
        /// What the bytes will be; absent: `http`.
        #[serde(default)]
        proto: String,
    },
}

/// The holder of a key or token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The owner.
    pub owner: String,
    /// The one tunnel that a token may be limited to.
    pub tunnel: Option<String>,
}

/// What the predecessor answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The claim is good.
    Claimed,
    /// The stream is there.
    Opened {
        /// The end of one direction leaves the other one open.
        half_close: bool,
    },
    /// The client says that it cannot reach the target.
    Rejected {
        /// A word for programs.
        reason: String,
        /// For the viewer.
        message: Option<String>,
    },
    /// No.
    Refused(Refusal),
}

/// Why the predecessor refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It knows no such connection, or has no session of this tunnel.
    Unknown,
    /// The connection is another key's.
    Foreign,
    /// The connection is of level two, and no key came along.
    KeyNeeded,
    /// The client was told and did not come.
    NotClaimed,
    /// Too many viewers wait for this client.
    TooManyWaiting,
}

/// The data socket of a claimed connection, as a descriptor that comes along.
#[derive(Debug, Serialize, Deserialize)]
pub struct Dialled {
    /// Bytes that were read behind its handshake; they follow this line.
    pub already: usize,
}
