//! Bytes on their way: WebSockets as byte streams, handshakes, splicing, socket options.

#[cfg(any(feature = "relay", feature = "bridge"))]
pub mod announced;
#[cfg(any(feature = "client", feature = "relay", feature = "bridge"))]
pub mod any;
#[cfg(any(feature = "client", feature = "relay", feature = "bridge"))]
pub mod call;
#[cfg(feature = "relay")]
pub mod courier;
#[cfg(any(feature = "relay", feature = "bridge"))]
pub mod descriptors;
pub mod frames;
pub mod handshake;
pub mod messages;
pub mod read;
#[cfg(any(feature = "relay", feature = "bridge"))]
pub mod server_tls;
pub mod splice;
pub mod tcp;
#[cfg(any(feature = "client", feature = "relay", feature = "bridge"))]
pub mod tls;
pub mod turn;
#[cfg(any(feature = "relay", feature = "bridge"))]
pub mod unix;
pub mod websocket;
pub mod wsmux;

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions, with the extras that make it quick and that let it wait idle.
///
/// Writing is `AsyncWrite`; `poll_shutdown` ends our direction, as far as the stream has such an end.
pub trait Duplex: AsyncWrite + Send + Unpin {
    /// The next bytes as they came, without copying; `None` is the end. Never empty.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>>;

    /// Reads once from `source` into our own write buffer and hands it on: the bytes taken, 0 at the source's end.
    /// Bytes are on their way only after a flush.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Poll<io::Result<usize>>;

    /// Sends a sign of life that asks for an answer, where the stream has one.
    fn ping(&mut self) {}

    /// Whether the last [`Duplex::ping`] was answered. A stream that has no such thing says yes.
    fn ponged(&self) -> bool {
        true
    }

    /// Puts a text message before the next bytes, where the stream has messages. Only on one that waits.
    fn say(&mut self, _text: &str) {}

    /// Whether the end of one direction leaves the other one open.
    fn half_closes(&self) -> bool {
        false
    }

    /// Whether both directions were ended at once: nothing that is still written is read.
    fn is_over(&self) -> bool {
        false
    }

    /// Says goodbye as far as that can be done at once, where dropping the stream would look like breaking off.
    fn dismiss(&mut self) {}

    /// Gives large buffers back while the stream waits.
    fn rest(&mut self) {}
}
