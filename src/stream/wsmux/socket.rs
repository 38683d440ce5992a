//! The WebSocket under a session: frames in as they come, and out many at a time.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::proto::frame::{Decoder, Event, FrameError, HeaderBytes, MAX_CONTROL, Opcode, Role, apply_mask};
use crate::proto::limits::wsmux::READ;
use crate::proto::wsmux::{Head, Output};
use crate::stream::read::ReadBuffer;
use crate::stream::websocket::random_mask;

/// Payload up to this is copied behind its head; more goes out from where it is.
const COPY_UP_TO: usize = 2 * 1024;
/// Parts of one vectored write.
const PARTS: usize = 64;

/// What came.
#[derive(Debug)]
pub(super) enum Came {
    /// A piece of a binary message; `true` with the last one, which may be empty.
    Piece(Bytes, bool),
    /// A text message.
    Text,
    /// A pong.
    Pong,
    /// The close frame, with its code.
    Close(Option<u16>),
}

/// A WebSocket after its handshake. Pings are answered, the newest one at least.
pub(super) struct Socket<IO> {
    io: IO,
    role: Role,
    decoder: Decoder,
    input: ReadBuffer,
    pong: Option<Bytes>,
    /// What goes out, in order; behind it `heads`.
    output: VecDeque<BytesMut>,
    heads: BytesMut,
    unflushed: bool,
    /// Bytes that have gone out.
    pub(super) sent: u64,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Socket<IO> {
    pub(super) fn new(io: IO, role: Role, already: BytesMut) -> Self {
        Self {
            io,
            role,
            decoder: Decoder::new(role),
            input: ReadBuffer::new(already, READ),
            pong: None,
            output: VecDeque::new(),
            heads: BytesMut::new(),
            unflushed: false,
            sent: 0,
        }
    }

    /// What is next of that which was read; `None` asks for [`Socket::poll_read`].
    pub(super) fn next(&mut self) -> Result<Option<Came>, FrameError> {
        while let Some(event) = self.decoder.next(&mut self.input.bytes)? {
            let text = self.decoder.is_text();
            return Ok(Some(match event {
                Event::Data(_) | Event::EmptyMessage | Event::End if text => Came::Text,
                Event::Data(data) => Came::Piece(data, self.decoder.at_rest()),
                Event::EmptyMessage | Event::End => Came::Piece(Bytes::new(), true),
                Event::Pong(_) => Came::Pong,
                Event::Close(code) => Came::Close(code),
                // Only the newest one is answered (RFC 6455, section 5.5.3), so a flood of them stays bounded.
                Event::Ping(payload) => {
                    self.pong = Some(Bytes::copy_from_slice(&payload));
                    continue;
                }
            }));
        }
        Ok(None)
    }

    /// Reads once: the number of bytes, 0 at the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.input.poll_read_from(cx, Pin::new(&mut self.io))
    }

    /// Gives large buffers back if nothing is in them.
    pub(super) fn rest(&mut self) {
        self.input.rest();
        if self.is_clear() {
            self.heads = BytesMut::new();
            self.output = VecDeque::new();
        }
    }

    /// Nothing waits to go out but a pong.
    pub(super) fn is_clear(&self) -> bool {
        self.output.is_empty() && self.heads.is_empty()
    }

    /// Puts the pong that is due before whatever goes out next. Only where nothing waits: of pings that come while nothing
    /// goes out, only the newest is answered.
    pub(super) fn answer(&mut self) {
        if self.is_clear()
            && let Some(payload) = self.pong.take()
        {
            self.control(Opcode::Pong, &payload[..payload.len().min(MAX_CONTROL)]);
        }
    }

    /// Bytes that wait to go out.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.heads.len() + self.output.iter().map(BytesMut::len).sum::<usize>()
    }

    /// Puts it behind what goes out.
    pub(super) fn push(&mut self, output: Output) {
        match output {
            Output::Ping => self.control(Opcode::Ping, &[]),
            Output::Close(code, reason) => self.control(Opcode::Close, &close_payload(code, reason)),
            Output::Frame(head, payload) => self.message(head, payload),
        }
    }

    fn mask(&self) -> Option<[u8; 4]> {
        (self.role == Role::Client).then(random_mask)
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8]) {
        let mask = self.mask();
        self.heads.extend_from_slice(HeaderBytes::new(opcode, true, payload.len(), mask).as_ref());
        self.copy(payload, mask, 0);
    }

    fn message(&mut self, head: Head, mut payload: BytesMut) {
        let (mask, head) = (self.mask(), head.as_ref());
        let header = HeaderBytes::new(Opcode::Binary, true, head.len() + payload.len(), mask);
        self.heads.extend_from_slice(header.as_ref());
        self.copy(head, mask, 0);
        if payload.len() <= COPY_UP_TO {
            return self.copy(&payload, mask, head.len());
        }
        if let Some(mask) = mask {
            apply_mask(&mut payload, mask, head.len());
        }
        self.output.push_back(self.heads.split());
        self.output.push_back(payload);
    }

    /// Copies `payload`, which stands `at` bytes behind the begin of its frame's.
    fn copy(&mut self, payload: &[u8], mask: Option<[u8; 4]>, at: usize) {
        let start = self.heads.len();
        self.heads.extend_from_slice(payload);
        if let Some(mask) = mask {
            apply_mask(&mut self.heads[start..], mask, at);
        }
    }

    /// Writes all that waits.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.answer();
        if !self.heads.is_empty() {
            self.output.push_back(self.heads.split());
        }
        while !self.output.is_empty() {
            let mut parts = [IoSlice::new(&[]); PARTS];
            let mut used = 0;
            for (part, bytes) in parts.iter_mut().zip(&self.output) {
                *part = IoSlice::new(bytes);
                used += 1;
            }
            let count = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &parts[..used]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.went(count);
            self.unflushed = true;
            if self.is_clear() {
                self.answer();
                self.output.extend((!self.heads.is_empty()).then(|| self.heads.split()));
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn went(&mut self, mut count: usize) {
        self.sent += count as u64;
        while let Some(first) = self.output.front_mut() {
            if count < first.len() {
                return first.advance(count);
            }
            count -= first.len();
            self.output.pop_front();
        }
    }

    /// Ends the transport and throws away what still comes: one that is dropped with something unread in it is reset, and
    /// what was sent last may be lost. The caller sets the deadline.
    pub(super) async fn gone(&mut self) {
        let _ = std::future::poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await;
        loop {
            self.input.bytes.clear();
            let read = std::future::poll_fn(|cx| self.poll_read(cx)).await;
            if !matches!(read, Ok(1..)) {
                return;
            }
        }
    }
}

fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    let mut most = reason.len().min(MAX_CONTROL - payload.len());
    while !reason.is_char_boundary(most) {
        most -= 1;
    }
    payload.extend_from_slice(&reason.as_bytes()[..most]);
    payload
}
