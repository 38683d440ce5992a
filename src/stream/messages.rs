//! A WebSocket of whole small messages, for control sockets: pings are answered, and every send has a deadline.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{self, CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::proto::frame::Role;

/// Whoever takes nothing off its socket for this long is dead.
const SEND_WAIT: Duration = Duration::from_secs(10);
/// For the close handshake.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// The library's default of 128 KiB would be held by every idle socket.
const READ_BUFFER: usize = 1024;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A text or binary message: the protocol makes no difference.
    Message(Bytes),
    /// The answer to a ping, with its payload.
    Pong(Bytes),
    /// The end: the code and reason of the close frame, or a bare end of the connection.
    Closed(Option<(u16, String)>),
}

/// Why the socket is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum MessagesError {
    /// The connection failed, or ended without a goodbye.
    #[error("the connection broke{}", cause(.0))]
    Broken(Option<io::Error>),
    /// Nothing that was sent went out for ten seconds.
    #[error("the other end does not read any more")]
    Stuck,
    /// A message was over the limit.
    #[error("the other end sent a message over the limit")]
    TooBig,
    /// A text message was no UTF-8.
    #[error("the other end sent a text that is no UTF-8")]
    NotText,
    /// The framing rules were broken.
    #[error("the other end breaks the protocol: {0}")]
    Protocol(String),
}

fn cause(error: &Option<io::Error>) -> String {
    error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
}

impl From<Error> for MessagesError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::Broken(Some(error)),
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(
                ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
            ) => Self::Broken(None),
            Error::Capacity(_) => Self::TooBig,
            Error::Utf8(_) => Self::NotText,
            error => Self::Protocol(error.to_string()),
        }
    }
}

/// The socket after its handshake.
pub struct Messages<IO>(WebSocketStream<IO>);

impl<IO: AsyncRead + AsyncWrite + Unpin> Messages<IO> {
    /// `already` is what was read behind the handshake; `most` is the size in bytes of the largest message taken.
    pub async fn new(io: IO, role: Role, already: Vec<u8>, most: usize) -> Self {
        let role = match role {
            Role::Server => protocol::Role::Server,
            Role::Client => protocol::Role::Client,
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * most)
            .max_message_size(Some(most))
            .max_frame_size(Some(most));
        Self(WebSocketStream::from_partially_read(io, already, role, Some(config)).await)
    }

    /// What comes next; pings are answered meanwhile. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Result<Event, MessagesError> {
        loop {
            return match self.0.next().await.transpose()? {
                Some(Message::Text(text)) => Ok(Event::Message(text.into())),
                Some(Message::Binary(data)) => Ok(Event::Message(data)),
                Some(Message::Pong(payload)) => Ok(Event::Pong(payload)),
                Some(Message::Close(frame)) => {
                    Ok(Event::Closed(frame.map(|frame| (frame.code.into(), frame.reason.to_string()))))
                }
                None => Ok(Event::Closed(None)),
                Some(Message::Ping(_)) => {
                    // The library has queued the pong; it goes out with the flush.
                    in_time(self.0.flush()).await?;
                    continue;
                }
                Some(Message::Frame(_)) => continue,
            };
        }
    }

    /// Sends a text message.
    pub async fn text(&mut self, text: String) -> Result<(), MessagesError> {
        in_time(self.0.send(Message::text(text))).await
    }

    /// Sends a ping of at most 125 bytes.
    pub async fn ping(&mut self, payload: Bytes) -> Result<(), MessagesError> {
        in_time(self.0.send(Message::Ping(payload))).await
    }

    /// Says goodbye and waits shortly for the answer, so that the code is not lost in a reset.
    pub async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let closing = async {
            // Refused after the other end's own close frame; reading on then sends the answer to that.
            let _ = self.0.close(Some(frame)).await;
            while let Some(Ok(_)) = self.0.next().await {}
        };
        let _ = timeout(CLOSE_WAIT, closing).await;
    }
}

async fn in_time(sending: impl Future<Output = Result<(), Error>>) -> Result<(), MessagesError> {
    timeout(SEND_WAIT, sending).await.map_err(|_| MessagesError::Stuck)?.map_err(Into::into)
}
