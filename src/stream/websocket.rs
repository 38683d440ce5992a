//! A WebSocket as a byte stream: payload goes through as it comes, frame by frame, without gathering messages.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Duplex;
use super::frames::{fill_frame, put_frame};
use super::read::{ReadBuffer, ReadSize};
use super::turn::give_way;
use crate::proto::close;
use crate::proto::frame::{Decoder, Event, HeaderBytes, MAX_CONTROL, Opcode, Role};
use crate::proto::limits::Limits;

/// Payload up to this is copied behind its header; more goes out by a vectored write.
const COPY_UP_TO: usize = 16 * 1024;
/// Frames without payload that are read at one go. A peer that sends nothing else must not hold whoever reads.
const EMPTY_AT_ONCE: usize = 64;
/// Frames put into one vectored write.
const FRAMES_AT_ONCE: usize = 16;

/// How much the two directions may hold.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Read and fill buffers grow to this.
    pub buffer: usize,
    /// Payload bytes of one message that we send.
    pub message: usize,
}

impl From<&Limits> for Sizes {
    fn from(limits: &Limits) -> Self {
        Self { buffer: limits.in_flight_bytes, message: limits.data_message_bytes }
    }
}

/// A WebSocket after its handshake, as a stream of bytes. Text and binary messages are read alike, binary ones
/// written; pings are answered.
///
/// At base level empty messages are skipped and the end of the TCP stream between messages is a normal end, as the
/// public clients send no close frame; inside one it is an error. At level two ([`WebSocket::with_half_close`]) an
/// empty message ends one direction, and whoever goes away without a word, or with a code other than 1000, has broken
/// off.
pub struct WebSocket<S> {
    io: S,
    role: Role,
    sizes: Sizes,
    decoder: Decoder,
    input: ReadBuffer,
    /// Payload that an `AsyncRead` caller had no room for.
    leftover: Bytes,
    /// Encoded bytes on their way out, from `output_at` on.
    output: BytesMut,
    output_at: usize,
    /// Payload bytes that a header already sent still promises.
    owed: usize,
    fill: ReadSize,
    pong_due: Option<Bytes>,
    pings: Pings,
    /// Empty messages end a direction.
    half_close: bool,
    read_ended: bool,
    /// Our empty message is on its way: this is what of `output` goes out up to its end.
    end_owed: Option<usize>,
    close_sent: bool,
}

#[derive(Debug, Default)]
struct Pings {
    sent: u32,
    due: bool,
    answered: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Wraps `io` after the handshake; `already` is what was read behind it (the first frame often comes along).
    pub fn new(io: S, role: Role, already: BytesMut, sizes: Sizes) -> Self {
        Self {
            io,
            role,
            sizes,
            decoder: Decoder::new(role),
            input: ReadBuffer::new(already, sizes.buffer),
            leftover: Bytes::new(),
            output: BytesMut::new(),
            output_at: 0,
            owed: 0,
            fill: ReadSize::new(sizes.buffer),
            pong_due: None,
            pings: Pings::default(),
            half_close: false,
            read_ended: false,
            end_owed: None,
            close_sent: false,
        }
    }

    /// The same at level two of the protocol.
    pub fn with_half_close(self) -> Self {
        Self { half_close: true, ..self }
    }

    /// The stream that carries the frames.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// The next bytes; none of them where a message ends by a fragment without payload. `None` is the end.
    fn next_event(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        for _ in 0..EMPTY_AT_ONCE {
            if self.read_ended {
                return Poll::Ready(Ok(None));
            }
            match self.decoder.next(&mut self.input.bytes) {
                Ok(Some(Event::Data(data))) => return Poll::Ready(Ok(Some(data))),
                Ok(Some(Event::EmptyMessage)) if self.half_close => {
                    self.read_ended = true;
                    if self.end_owed.is_some() {
                        self.queue_close(close::DONE);
                        let _ = self.drain(cx);
                    }
                }
                Ok(Some(Event::EmptyMessage)) => {}
                Ok(Some(Event::End)) => return Poll::Ready(Ok(Some(Bytes::new()))),
                // Only the newest ping is answered (RFC 6455, section 5.5.3), so a flood of them stays bounded.
                Ok(Some(Event::Ping(payload))) => self.pong_due = Some(payload),
                Ok(Some(Event::Pong(payload))) => {
                    self.pings.answered |= payload[..] == self.pings.sent.to_be_bytes();
                }
                Ok(Some(Event::Close(code))) => {
                    self.read_ended = true;
                    let code = code.unwrap_or(close::DONE);
                    self.queue_close(code);
                    // Whoever reads the end drops us; a socket that takes nothing any more is not waited for.
                    let _ = self.drain(cx);
                    // A base client that says more than goodbye has failed as well.
                    let fine = code == close::DONE || (!self.half_close && code == close::GOING_AWAY);
                    if !fine || (self.half_close && !self.decoder.at_rest()) {
                        let text = format!("the other end broke off with code {code}");
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, text)));
                    }
                }
                Ok(None) => {
                    let read = self.input.poll_read_from(cx, Pin::new(&mut self.io));
                    if read.is_pending() && (self.pong_due.is_some() || self.close_sent) {
                        // The pong waits for no data of ours. Whoever is gone may have sent something before that.
                        let _ = self.drain(cx);
                    }
                    if ready!(read)? == 0 {
                        self.read_ended = true;
                        if self.half_close || !self.decoder.at_rest() || !self.input.bytes.is_empty() {
                            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                        }
                    }
                }
                Err(error) => {
                    self.read_ended = true;
                    self.queue_close(close::PROTOCOL_ERROR);
                    let _ = self.drain(cx);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            }
        }
        give_way(cx);
        Poll::Pending
    }

    /// The whole message that comes next, of `most` bytes at most, gathered in `message`; `None` is the end. To be
    /// called before anything else is read.
    pub fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        while let Some(data) = ready!(self.next_event(cx))? {
            if message.len() + data.len() > most {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the message is too long",
                )));
            }
            message.extend_from_slice(&data);
            if self.decoder.at_rest() {
                return Poll::Ready(Ok(Some(message.split().freeze())));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Ends both directions at once, with the code that says why.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<io::Result<()>> {
        self.queue_close(code);
        ready!(self.drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Throws away what still comes until the transport ends: one that is dropped with something unread in it is reset,
    /// and what was sent last may be lost. The caller sets the deadline.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.input.poll_discard(cx, Pin::new(&mut self.io))
    }

    fn queue_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        put_frame(&mut self.output, self.role, opcode, payload);
    }

    fn queue_close(&mut self, code: u16) {
        // A frame that was begun and not finished cannot be followed by a close frame.
        if !self.close_sent && self.owed == 0 {
            self.close_sent = true;
            self.queue_frame(Opcode::Close, &code.to_be_bytes());
        }
    }

    /// Writes out all that is queued, with the pong or ping that is due where a frame boundary allows one.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.owed == 0 && !self.close_sent {
            if let Some(payload) = self.pong_due.take() {
                self.queue_frame(Opcode::Pong, &payload[..payload.len().min(MAX_CONTROL)]);
            }
            if std::mem::take(&mut self.pings.due) {
                let payload = self.pings.sent.to_be_bytes();
                self.queue_frame(Opcode::Ping, &payload);
            }
        }
        while self.output_at < self.output.len() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.output[self.output_at..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output_at += count;
            self.end_owed = self.end_owed.map(|owed| owed.saturating_sub(count));
        }
        self.output.clear();
        self.output_at = 0;
        Poll::Ready(Ok(()))
    }

    /// A vectored write of frames whose payload stays where it is: how many bytes of `data` went out.
    fn write_frames(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.drain(cx))?;
        let owed = self.owed.min(data.len());
        let mut parts = [None; FRAMES_AT_ONCE];
        let mut rest = &data[owed..];
        if owed == self.owed {
            for part in &mut parts {
                if rest.is_empty() {
                    break;
                }
                let (payload, after) = rest.split_at(rest.len().min(self.sizes.message));
                *part = Some((HeaderBytes::new(Opcode::Binary, true, payload.len(), None), payload));
                rest = after;
            }
        }
        let mut slices = [IoSlice::new(&[]); 2 * FRAMES_AT_ONCE + 1];
        slices[0] = IoSlice::new(&data[..owed]);
        let mut used = 1;
        for (header, payload) in parts.iter().flatten() {
            slices[used] = IoSlice::new(header.as_ref());
            slices[used + 1] = IoSlice::new(payload);
            used += 2;
        }
        let mut sent = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..used]))?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        // What went out, counted in payload; a header cut in the middle is finished by `drain`.
        let mut written = sent.min(owed);
        sent -= written;
        self.owed -= written;
        for (header, payload) in parts.iter().flatten() {
            if sent == 0 {
                break;
            }
            let header = header.as_ref();
            let of_header = sent.min(header.len());
            self.output.extend_from_slice(&header[of_header..]);
            let of_payload = (sent - of_header).min(payload.len());
            self.owed = payload.len() - of_payload;
            written += of_payload;
            sent -= of_header + of_payload;
        }
        if written == 0 {
            // Only header bytes went out; the caller must not see a zero.
            return self.write_frames(cx, data);
        }
        Poll::Ready(Ok(written))
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for WebSocket<S> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if !self.leftover.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.leftover))));
        }
        loop {
            match ready!(self.next_event(cx))? {
                Some(data) if data.is_empty() => {}
                data => return Poll::Ready(Ok(data)),
            }
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Poll<io::Result<usize>> {
        ready!(self.drain(cx))?;
        let (size, most, role) = (&mut self.fill, self.sizes.message, self.role);
        let out = (&mut self.output, &mut self.output_at);
        fill_frame(cx, Pin::new(source), size, most, (role, Opcode::Binary), out)
    }

    fn ping(&mut self) {
        self.pings = Pings { sent: self.pings.sent.wrapping_add(1), due: true, answered: false };
    }

    fn ponged(&self) -> bool {
        self.pings.sent == 0 || self.pings.answered
    }

    fn say(&mut self, text: &str) {
        self.queue_frame(Opcode::Text, text.as_bytes());
    }

    fn dismiss(&mut self) {
        if self.half_close {
            let _ = self.poll_close(&mut Context::from_waker(Waker::noop()), close::DONE);
        }
    }

    fn half_closes(&self) -> bool {
        self.half_close
    }

    fn is_over(&self) -> bool {
        self.close_sent
    }

    fn rest(&mut self) {
        self.input.rest();
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
        self.fill.rest();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.close_sent || this.end_owed.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.role == Role::Server && (data.len() > COPY_UP_TO || this.owed > 0) {
            return this.write_frames(cx, data);
        }
        ready!(this.drain(cx))?;
        let take = data.len().min(this.sizes.message);
        this.queue_frame(Opcode::Binary, &data[..take]);
        // The bytes are ours now: an error shows at the next call, pending at the flush.
        let _ = this.drain(cx)?;
        Poll::Ready(Ok(take))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// At base level, and when the other direction has ended, sends the close frame and ends the TCP direction;
    /// otherwise an empty message says that we send no more.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = if self.half_close && !self.read_ended {
            if self.end_owed.is_none() && !self.close_sent && self.owed == 0 {
                self.queue_frame(Opcode::Binary, &[]);
                self.end_owed = Some(self.output.len() - self.output_at);
            }
            self.as_mut().poll_flush(cx)
        } else {
            self.poll_close(cx, close::DONE)
        };
        match shut {
            // Whoever goes once our end is out misses a pong or our goodbye. What is missing of its own end, reading tells.
            Poll::Ready(Err(_)) if self.end_owed == Some(0) => Poll::Ready(Ok(())),
            shut => shut,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut chunk) = ready!(self.poll_chunk(cx))? else { return Poll::Ready(Ok(())) };
        let take = chunk.len().min(out.remaining());
        out.put_slice(&chunk[..take]);
        chunk.advance(take);
        self.leftover = chunk;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
