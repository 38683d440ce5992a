//! The WebSocket under a session: frames in as they come, and out many at a time.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::proto::frame::{Decoder, Event, HeaderBytes, MAX_CONTROL, Opcode, Role, apply_mask};
use crate::proto::limits::wsmux::READ;
use crate::proto::wsmux::{Ended, Head, Output};
use crate::stream::frames::{mask, put_frame, put_masked};
use crate::stream::read::ReadBuffer;

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
    /// Nothing more comes, and why.
    Broken(Ended),
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
    pub(super) fn next(&mut self) -> Option<Came> {
        loop {
            let event = match self.decoder.next(&mut self.input.bytes) {
                Ok(event) => event?,
                Err(error) => return Some(Came::Broken(Ended::Frame(error))),
            };
            return Some(match event {
                Event::Data(_) | Event::EmptyMessage | Event::End if self.decoder.is_text() => Came::Text,
                Event::Data(data) => Came::Piece(data, self.decoder.at_rest()),
                Event::EmptyMessage | Event::End => Came::Piece(Bytes::new(), true),
                Event::Pong(_) => Came::Pong,
                Event::Close(code) => Came::Close(code),
                // Only the newest one is answered (RFC 6455, section 5.5.3), so a flood of them stays bounded.
                Event::Ping(payload) => {
                    self.pong = Some(Bytes::copy_from_slice(&payload));
                    continue;
                }
            });
        }
    }

    /// Reads once, `most` bytes at most: the number of bytes, 0 at the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        self.input.poll_read_some(cx, Pin::new(&mut self.io), most)
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

    /// Puts out the pong that is due. Only where nothing waits: of pings that come while nothing goes out, only the newest is
    /// answered.
    fn answer(&mut self) {
        if self.is_clear()
            && let Some(payload) = self.pong.take()
        {
            self.control(Opcode::Pong, &payload);
        }
    }

    /// Bytes that wait to go out.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.heads.len() + self.output.iter().map(BytesMut::len).sum::<usize>()
    }

    /// Puts it behind what goes out, and behind the pong that is due.
    pub(super) fn push(&mut self, output: Output) {
        self.answer();
        match output {
            Output::Ping => self.control(Opcode::Ping, &[]),
            Output::Close(code, reason) => self.control(Opcode::Close, &close_payload(code, reason)),
            Output::Frame(head, payload) => self.message(head, payload),
        }
    }

    fn control(&mut self, opcode: Opcode, payload: &[u8]) {
        put_frame(&mut self.heads, self.role, opcode, payload);
    }

    fn message(&mut self, head: Head, mut payload: BytesMut) {
        let (mask, head) = (mask(self.role), head.as_ref());
        let header = HeaderBytes::new(Opcode::Binary, true, head.len() + payload.len(), mask);
        self.heads.extend_from_slice(header.as_ref());
        put_masked(&mut self.heads, head, mask, 0);
        if payload.len() <= COPY_UP_TO {
            return put_masked(&mut self.heads, &payload, mask, head.len());
        }
        if let Some(mask) = mask {
            apply_mask(&mut payload, mask, head.len());
        }
        self.output.push_back(self.heads.split());
        self.output.push_back(payload);
    }

    /// Writes all that waits, and the pong that is due behind it.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.answer();
            if self.is_clear() {
                break;
            }
            let mut parts = [IoSlice::new(&[]); PARTS];
            let mut used = 0;
            for (part, bytes) in parts.iter_mut().zip(self.output.iter().chain([&self.heads])) {
                *part = IoSlice::new(bytes);
                used += 1;
            }
            let count = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &parts[..used]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.went(count);
            self.unflushed = true;
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
        if count == self.heads.len() {
            // Unlike after an advance, the room in front is used again.
            self.heads.clear();
        } else {
            self.heads.advance(count);
        }
    }

    /// Ends the transport and throws away what still comes: one that is dropped with something unread in it is reset, and
    /// what was sent last may be lost. The caller sets the deadline.
    pub(super) async fn gone(&mut self) {
        let _ = poll_fn(|cx| Pin::new(&mut self.io).poll_shutdown(cx)).await;
        poll_fn(|cx| self.input.poll_discard(cx, Pin::new(&mut self.io))).await;
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
