//! Bytes on their way: WebSockets as byte streams, handshakes, splicing, socket options.

#[cfg(feature = "client")]
pub mod any;
#[cfg(feature = "relay")]
pub mod courier;
#[cfg(feature = "relay")]
pub mod descriptors;
pub mod handshake;
pub mod messages;
pub mod splice;
pub mod tcp;
#[cfg(feature = "client")]
pub mod tls;
pub mod turn;
pub mod websocket;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

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

/// A read buffer that starts small, grows while reads fill it and is given back when idle.
#[derive(Debug)]
pub struct ReadBuffer {
    /// What was read and not yet taken.
    pub bytes: BytesMut,
    size: usize,
    most: usize,
}

impl ReadBuffer {
    /// The first size: enough for a request, little enough for thousands of idle streams.
    pub const START: usize = 4 * 1024;

    /// A buffer with `bytes` already read that grows to `most`.
    pub fn new(bytes: BytesMut, most: usize) -> Self {
        Self { bytes, size: Self::START, most: most.max(Self::START) }
    }

    /// Reads once: the number of bytes, 0 at the end.
    pub fn poll_read_from<R: AsyncRead + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        source: Pin<&mut R>,
    ) -> Poll<io::Result<usize>> {
        // Half of the size is room enough: asking for all of it would allocate anew after each small message.
        if self.bytes.capacity() - self.bytes.len() < self.size / 2 {
            self.bytes.reserve(self.size);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let Poll::Ready(count) = poll_read_buf(source, cx, &mut self.bytes)? else { return Poll::Pending };
        if count == room {
            self.size = (self.size * 4).min(self.most);
        } else if count < self.size / 8 && self.size > Self::START {
            self.size /= 2;
        }
        Poll::Ready(Ok(count))
    }

    /// Frees the memory if nothing is buffered; the next read allocates again.
    pub fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.size = Self::START;
        }
    }
}
