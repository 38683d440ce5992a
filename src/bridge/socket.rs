//! A viewer's WebSocket as the bridge speaks it: a stream of bytes with a coding, pings and an end that has a code.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::coded::{Coding, FrameType, Incoming, NotText, begins_character, put_base64, whole_characters};
use crate::proto::frame::{Decoder, Event, MAX_CONTROL, Opcode, Role};
use crate::proto::limits::bridge::{AHEAD, BUFFER, EMPTY_AT_ONCE, MESSAGE, PONGS};
use crate::stream::Duplex;
use crate::stream::any::AnyStream;
use crate::stream::frames::{fill_frame, put_frame};
use crate::stream::read::{ReadBuffer, ReadSize};
use crate::stream::splice::{Moved, Splice};
use crate::stream::turn::give_way;

/// What carries a viewer's WebSocket.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {
    /// Whether a drop says to the viewer all that a shutdown does.
    fn ends_by_drop(&self) -> bool {
        false
    }

    /// It is dropped after what is written next, which may go out together with the end.
    fn end_follows(&self) {}
}

impl Connection for AnyStream {
    fn ends_by_drop(&self) -> bool {
        self.ends_by_drop()
    }

    fn end_follows(&self) {
        self.end_follows();
    }
}

/// A stream of HTTP/2.
impl Connection for TokioIo<Upgraded> {}

/// How the viewer's side ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// By a close frame, with its code if it had one.
    Closed(Option<u16>),
    /// Without one.
    Left,
    /// It broke the rules: what our close frame says of that.
    Broke(u16, String),
    /// Its connection failed.
    Failed(io::ErrorKind),
}

/// What looks at the bytes that go through, as the target sends and gets them.
pub(super) trait Tap: Send {
    /// These came from the viewer; `whole`: their message ends with them.
    fn received(&mut self, data: &[u8], whole: bool);
    /// These came from the target.
    fn sent(&mut self, data: &[u8]);
    /// So much has gone in all, and this has come and not gone.
    fn moved(&mut self, moved: Moved, waits: Waits);
}

/// For whom something waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    pub(super) for_target: bool,
    pub(super) for_viewer: bool,
}

/// The socket after its handshake. It is no more than flushed when its writing is shut down: what ends it is
/// [`Socket::say_close`].
pub(super) struct Socket<S> {
    io: S,
    decoder: Decoder,
    input: ReadBuffer,
    incoming: Incoming,
    coding: Coding,
    /// Encoded frames on their way out, from `output_at` on.
    output: BytesMut,
    output_at: usize,
    fill: ReadSize,
    /// Bytes of the target that are to be encoded; between two reads, the begin of a character.
    scratch: BytesMut,
    pong_due: Option<Bytes>,
    /// How the viewer's side ended, once it has.
    pub(super) end: Option<End>,
    close_sent: bool,
    /// How often something came from the viewer.
    pub(super) heard: u64,
    pub(super) tap: Option<Box<dyn Tap>>,
    /// What was heard before there was a target.
    ahead: VecDeque<Bytes>,
}

impl<S: Connection> Socket<S> {
    /// `already` was read behind the handshake; a data frame of more than `largest` bytes ends the socket with 1009.
    pub(super) fn new(io: S, already: BytesMut, coding: Coding, largest: u64) -> Self {
        Self {
            io,
            decoder: Decoder::new(Role::Server).with_largest(largest),
            input: ReadBuffer::new(already, BUFFER),
            incoming: Incoming::new(coding),
            coding,
            output: BytesMut::new(),
            output_at: 0,
            fill: ReadSize::new(BUFFER),
            scratch: BytesMut::new(),
            pong_due: None,
            end: None,
            close_sent: false,
            heard: 0,
            tap: None,
            ahead: VecDeque::new(),
        }
    }

    /// What is queued is the last, and nothing more is waited for if the viewer has closed: then its end goes along.
    pub(super) fn end_follows(&self) {
        if matches!(self.end, Some(End::Closed(_))) && self.io.ends_by_drop() {
            self.io.end_follows();
        }
    }

    /// To be polled until there is a target: ready when none is needed any more, as the viewer has ended and has said nothing
    /// for it. What it says is kept, as far as it is not too much, and is what [`Duplex::poll_chunk`] gives first.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = AHEAD;
        room -= self.ahead.iter().map(weight).sum::<usize>().min(room);
        while self.end.is_none() && room > 0 {
            // An error is an end, too.
            if let Ok(Some(chunk)) = ready!(self.poll_fresh(cx)) {
                room -= weight(&chunk).min(room);
                self.ahead.push_back(chunk);
            }
        }
        if self.end.is_some() && self.ahead.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Sends a ping behind what waits to be sent.
    pub(super) fn ping(&mut self) {
        if !self.close_sent {
            put_frame(&mut self.output, Role::Server, Opcode::Ping, b"adit");
        }
    }

    /// Tells who looks on what a turn has moved.
    pub(super) fn tell(&mut self, splice: &Splice) {
        let waits = Waits { for_target: splice.outward_waits(), for_viewer: self.is_stuck() };
        if let Some(tap) = &mut self.tap {
            tap.moved(splice.moved, waits);
        }
    }

    /// Whether something waits to be taken by the viewer.
    pub(super) fn is_stuck(&self) -> bool {
        !self.output.is_empty()
    }

    /// Queues the close frame; `None` has no code (RFC 6455, section 5.5.1). Later ones count for nothing.
    pub(super) fn say_close(&mut self, code: Option<u16>, reason: &str) {
        if self.close_sent {
            return;
        }
        self.close_sent = true;
        let mut payload = BytesMut::with_capacity(MAX_CONTROL);
        if let Some(code) = code {
            payload.extend_from_slice(&code.to_be_bytes());
            let mut most = reason.len().min(MAX_CONTROL - 2);
            while !reason.is_char_boundary(most) {
                most -= 1;
            }
            payload.extend_from_slice(&reason.as_bytes()[..most]);
        }
        put_frame(&mut self.output, Role::Server, Opcode::Close, &payload);
    }

    /// Waits for the viewer's close frame, or its end, and throws away what comes before; then ends our direction of the
    /// connection, unless its drop does, which is to follow. The caller sets the deadline.
    pub(super) fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.end.is_none() {
            let _ = ready!(self.poll_chunk(cx));
        }
        match self.end {
            // What follows a broken frame is no frame: only its end tells.
            Some(End::Broke(..)) => self.input.poll_discard(cx, Pin::new(&mut self.io)),
            _ if self.io.ends_by_drop() => Poll::Ready(()),
            _ => Pin::new(&mut self.io).poll_shutdown(cx).map(drop),
        }
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.output_at < self.output.len() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.output[self.output_at..]));
            match written {
                Ok(0) => return Poll::Ready(Err(self.failed(io::ErrorKind::WriteZero.into()))),
                Ok(count) => self.output_at += count,
                Err(error) => return Poll::Ready(Err(self.failed(error))),
            }
        }
        self.output.clear();
        self.output_at = 0;
        if let Some(payload) = self.pong_due.take()
            && !self.close_sent
        {
            put_frame(&mut self.output, Role::Server, Opcode::Pong, &payload);
            return self.drain(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and queues the whole characters that there are as a text message. An error where something else is behind
    /// them, at the next call: what is queued goes before it.
    fn poll_fill_text(
        &mut self,
        cx: &mut Context<'_>,
        source: Pin<&mut (dyn AsyncRead + Send + Unpin)>,
    ) -> Poll<io::Result<usize>> {
        let not_text = || Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, NotText)));
        if !self.scratch.is_empty() && !begins_character(&self.scratch) {
            return not_text();
        }
        let count = ready!(self.fill.poll_read(cx, source, &mut self.scratch, MESSAGE))?;
        if count == 0 && !self.scratch.is_empty() {
            return not_text();
        }
        let whole = whole_characters(&self.scratch);
        if whole > 0 {
            let text = self.scratch.split_to(whole);
            put_frame(&mut self.output, Role::Server, Opcode::Text, &text);
            if let Some(tap) = &mut self.tap {
                tap.sent(&text);
            }
        }
        Poll::Ready(Ok(count))
    }

    fn failed(&mut self, error: io::Error) -> io::Error {
        self.end.get_or_insert(End::Failed(error.kind()));
        error
    }

    fn broke(&mut self, code: u16, reason: String) -> io::Error {
        let error = io::Error::new(io::ErrorKind::InvalidData, reason.clone());
        self.end = Some(End::Broke(code, reason));
        error
    }

    /// Pongs wait behind what is sent, as long as they are few; of a flood only the newest is answered (section 5.5.3).
    fn answer(&mut self, payload: Bytes) {
        if self.close_sent {
        } else if self.output.len() - self.output_at < PONGS {
            put_frame(&mut self.output, Role::Server, Opcode::Pong, &payload);
        } else {
            self.pong_due = Some(payload);
        }
    }

    /// The bytes for the target in what was decoded; none in a frame that has none.
    fn heed(&mut self, event: Event) -> io::Result<Bytes> {
        let (data, text) = (Bytes::new(), self.decoder.is_text());
        let data = match event {
            Event::Data(data) => data,
            Event::EmptyMessage | Event::End => data,
            Event::Ping(payload) => {
                self.answer(payload);
                return Ok(data);
            }
            Event::Pong(_) => return Ok(data),
            Event::Close(code) => {
                self.end = Some(End::Closed(code));
                return Ok(data);
            }
        };
        let ends = self.decoder.at_rest();
        self.incoming.take(data, text, ends).map_err(|unfit| self.broke(unfit.0, unfit.1.to_owned()))
    }

    /// The next bytes for the target that were not heard before.
    fn poll_fresh(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        for _ in 0..EMPTY_AT_ONCE {
            match &self.end {
                None => {}
                Some(End::Closed(_) | End::Left) => return Poll::Ready(Ok(None)),
                Some(End::Broke(..)) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                Some(End::Failed(kind)) => return Poll::Ready(Err((*kind).into())),
            }
            match self.decoder.next(&mut self.input.bytes) {
                Ok(Some(event)) => {
                    let data = self.heed(event)?;
                    if !data.is_empty() {
                        if let Some(tap) = &mut self.tap {
                            tap.received(&data, self.decoder.at_rest());
                        }
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
                Ok(None) => {
                    let read = self.input.poll_read_from(cx, Pin::new(&mut self.io));
                    if read.is_pending() && self.is_stuck() {
                        // The pong waits for no data of the target.
                        let _ = self.drain(cx);
                        let _ = Pin::new(&mut self.io).poll_flush(cx);
                    }
                    match ready!(read) {
                        Ok(0) => self.end = Some(End::Left),
                        Ok(_) => self.heard = self.heard.wrapping_add(1),
                        Err(error) => return Poll::Ready(Err(self.failed(error))),
                    }
                }
                Err(error) => {
                    return Poll::Ready(Err(self.broke(error.close_code(), error.to_string())));
                }
            }
        }
        give_way(cx);
        Poll::Pending
    }
}

/// What a piece takes of memory, roughly.
fn weight(chunk: &Bytes) -> usize {
    chunk.len() + size_of::<Bytes>()
}

impl<S: Connection> Duplex for Socket<S> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        match self.ahead.pop_front() {
            Some(chunk) => Poll::Ready(Ok(Some(chunk))),
            None => self.poll_fresh(cx),
        }
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Poll<io::Result<usize>> {
        if self.close_sent || matches!(self.end, Some(End::Closed(_))) {
            // Nothing may follow a close frame, and who has sent one wants no more.
            return Poll::Pending;
        }
        ready!(self.drain(cx))?;
        let source = Pin::new(source);
        let opcode = match self.coding {
            Coding::Plain(FrameType::Binary, _) => Opcode::Binary,
            Coding::Plain(FrameType::Text, _) => return self.poll_fill_text(cx, source),
            Coding::Base64 => {
                let count = ready!(self.fill.poll_read(cx, source, &mut self.scratch, MESSAGE))?;
                if count > 0 {
                    put_base64(&mut self.output, &self.scratch);
                    if let Some(tap) = &mut self.tap {
                        tap.sent(&self.scratch);
                    }
                    self.scratch.clear();
                }
                return Poll::Ready(Ok(count));
            }
        };
        let out = (&mut self.output, &mut self.output_at);
        let count = ready!(fill_frame(cx, source, &mut self.fill, MESSAGE, (Role::Server, opcode), out))?;
        if let Some(tap) = &mut self.tap
            && count > 0
        {
            tap.sent(&self.output[self.output.len() - count..]);
        }
        Poll::Ready(Ok(count))
    }

    fn half_closes(&self) -> bool {
        true
    }

    fn is_over(&self) -> bool {
        matches!(self.end, Some(End::Closed(_)))
    }

    fn rest(&mut self) {
        self.input.rest();
        self.scratch = BytesMut::from(&self.scratch[..]);
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
        if self.ahead.is_empty() {
            self.ahead = VecDeque::new();
        }
        self.fill.rest();
    }
}

impl<S: Connection> AsyncWrite for Socket<S> {
    /// What the target sends comes by [`Duplex::poll_fill`], which knows the coding.
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        let flushed = ready!(Pin::new(&mut self.io).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.failed(error)))
    }

    /// Only a flush: the target has ended, and the viewer may still have something to say to it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
