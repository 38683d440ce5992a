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
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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

/// A read buffer that grows while reads fill it. A stream that waits for little holds no memory for it.
#[derive(Debug)]
pub struct ReadBuffer {
    /// What was read and not yet taken.
    pub bytes: BytesMut,
    size: ReadSize,
}

impl ReadBuffer {
    /// A buffer with `bytes` already read that grows to `most`.
    pub fn new(bytes: BytesMut, most: usize) -> Self {
        Self { bytes, size: ReadSize::new(most) }
    }

    /// Reads once: the number of bytes, 0 at the end.
    pub fn poll_read_from<R: AsyncRead + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        source: Pin<&mut R>,
    ) -> Poll<io::Result<usize>> {
        self.size.poll_read(cx, source, &mut self.bytes, usize::MAX)
    }

    /// Gives large buffers back if nothing is buffered.
    pub fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.size.rest();
        }
    }
}

/// How much is read at one go: little at first, four times as much after each read that was filled.
#[derive(Debug, Clone, Copy)]
pub struct ReadSize {
    now: usize,
    most: usize,
}

impl ReadSize {
    /// The first size: enough for a request.
    pub const LEAST: usize = 4 * 1024;

    /// Grows to `most`.
    pub fn new(most: usize) -> Self {
        Self { now: Self::LEAST, most: most.max(Self::LEAST) }
    }

    /// Reads once behind what is in `bytes`, `most` at most: the number of bytes, 0 at the end. Memory is only taken for
    /// what is there, as long as that is little: it is read into the stack then, and copied.
    pub fn poll_read<R: AsyncRead + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        source: Pin<&mut R>,
        bytes: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let mut room = self.now.min(most);
        let count = if room <= Self::LEAST {
            let mut stack = [const { MaybeUninit::uninit() }; Self::LEAST];
            let mut little = ReadBuf::uninit(&mut stack[..room]);
            ready!(source.poll_read(cx, &mut little))?;
            bytes.extend_from_slice(little.filled());
            little.filled().len()
        } else {
            // Half of it is room enough: asking for all would allocate anew after each read whose bytes are still in use.
            if bytes.capacity() - bytes.len() < room / 2 {
                bytes.reserve(room);
            }
            room = room.min(bytes.capacity() - bytes.len());
            ready!(poll_read_buf(source, cx, &mut bytes.limit(room)))?
        };
        if count == room {
            self.now = (self.now * 4).min(self.most);
        } else if count < self.now / 8 {
            self.now = (self.now / 2).max(Self::LEAST);
        }
        Poll::Ready(Ok(count))
    }

    /// Begins anew.
    pub fn rest(&mut self) {
        self.now = Self::LEAST;
    }
}
