//! Control messages of the base protocol: one JSON object a text message (`protocol.md`, section "Control socket").

use serde::{Deserialize, Serialize};

/// What the relay says to a client. A client ignores types and fields that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ToClient {
    /// A viewer waits: open a data socket with this id within ten seconds.
    Connection {
        /// A UUID of 122 random bits, written as 36 URL-safe characters: it is the right to the connection.
        id: String,
    },
    /// A message of a later protocol version; to be ignored.
    #[serde(other)]
    Unknown,
}

impl ToClient {
    /// The message as the text of one WebSocket message.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads one message; anything unreadable is [`ToClient::Unknown`], as a client must not die of it.
    pub fn from_json(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or(Self::Unknown)
    }
}
