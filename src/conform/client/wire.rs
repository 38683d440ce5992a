//! The kit's end of a WebSocket, byte by byte: frames that no library would write, and an end that is told exactly.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::conform::case::Ended;
use crate::conform::trace::{Trace, Way};
use crate::proto::frame::{Decoder, Event, HeaderBytes, Opcode, Role};

/// Bytes that are read at one go.
const READ: usize = 256 * 1024;
/// Bytes of one of the kit's data messages; a relay's have no more (`protocol.md`, section 4).
pub(super) const MESSAGE: usize = 64 * 1024;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A close frame, with its code if it had one.
    Close(Option<u16>),
    /// The end of the TCP connection, between two messages.
    Fin,
    /// The same inside a message.
    Inside,
    /// A TCP reset, or another error.
    Reset,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(Some(code)) => write!(f, "a close frame with code {code}"),
            Self::Close(None) => f.write_str("a close frame without a code"),
            Self::Fin => f.write_str("the end of the TCP connection, without a close frame"),
            Self::Inside => f.write_str("the end of the TCP connection inside a message"),
            Self::Reset => f.write_str("a TCP reset"),
        }
    }
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// Payload of a text or binary message, in any portion.
    Data(Bytes),
    /// A message of total length zero.
    Empty,
    /// The last fragment of a message, without payload.
    MessageEnd,
    /// A ping.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// Nothing more comes.
    End(End),
}

/// The half that reads.
pub(super) struct Reader {
    half: OwnedReadHalf,
    buffer: BytesMut,
    decoder: Decoder,
    ended: Option<End>,
    who: String,
    trace: Trace,
}

/// The half that writes.
pub(super) struct Writer {
    half: OwnedWriteHalf,
    /// A close frame was sent.
    closed: bool,
    who: String,
    trace: Trace,
}

/// Both halves of an accepted WebSocket; `already` came behind its handshake.
pub(super) fn halves(stream: TcpStream, already: BytesMut, who: &str, trace: &Trace) -> (Reader, Writer) {
    let (read, write) = stream.into_split();
    let decoder = Decoder::new(Role::Server);
    let (who, trace) = (who.to_owned(), trace.clone());
    let writer = Writer { half: write, closed: false, who: who.clone(), trace: trace.clone() };
    (Reader { half: read, buffer: already, decoder, ended: None, who, trace }, writer)
}

impl Reader {
    /// What comes next; a broken frame is an error, told as a failure. After the end it is told again.
    pub(super) async fn next(&mut self) -> Result<Heard, Ended> {
        loop {
            if let Some(end) = self.ended {
                return Ok(Heard::End(end));
            }
            match self.decoder.next(&mut self.buffer) {
                Ok(Some(event)) => return Ok(self.told(event)),
                Ok(None) => {}
                Err(error) => {
                    let came = format!("{error} ({}: \"{}\")", self.who, first(&self.buffer));
                    return Err(Ended::failed("frames as RFC 6455 has them", came));
                }
            }
            self.buffer.reserve(READ);
            match self.half.read_buf(&mut self.buffer).await {
                Ok(0) if self.buffer.is_empty() && self.decoder.at_rest() => self.end(End::Fin),
                Ok(0) => self.end(End::Inside),
                Ok(_) => {}
                Err(_) => self.end(End::Reset),
            }
        }
    }

    /// Whether the payload that came last was one of text.
    pub(super) fn is_text(&self) -> bool {
        self.decoder.is_text()
    }

    /// Whether the payload that came last has ended its message.
    pub(super) fn at_rest(&self) -> bool {
        self.decoder.at_rest()
    }

    fn told(&mut self, event: Event) -> Heard {
        let kind = if self.is_text() { "text" } else { "binary" };
        let seen = |what: &str, bytes: &[u8]| self.trace.bytes(Way::Came, &self.who, what, bytes);
        match event {
            Event::Data(data) => {
                match std::str::from_utf8(&data) {
                    Ok(text) if self.is_text() => self.trace.text(Way::Came, &self.who, text),
                    _ => seen(kind, &data),
                }
                Heard::Data(data)
            }
            Event::EmptyMessage => {
                seen(&format!("empty {kind} message"), b"");
                Heard::Empty
            }
            Event::End => {
                seen("empty last fragment", b"");
                Heard::MessageEnd
            }
            Event::Ping(payload) => {
                seen("ping", &payload);
                Heard::Ping(payload)
            }
            Event::Pong(payload) => {
                seen("pong", &payload);
                Heard::Pong(payload)
            }
            Event::Close(code) => {
                self.end(End::Close(code));
                Heard::End(End::Close(code))
            }
        }
    }

    fn end(&mut self, end: End) {
        self.trace.text(Way::Came, &self.who, &end.to_string());
        self.ended = Some(end);
    }
}

impl Writer {
    /// One frame.
    pub(super) async fn frame(&mut self, opcode: Opcode, fin: bool, payload: &[u8]) -> io::Result<()> {
        let what = format!("{opcode:?}{}", if fin { "" } else { ", more follows" }).to_lowercase();
        match std::str::from_utf8(payload) {
            Ok(text) if opcode == Opcode::Text && fin => self.trace.text(Way::Sent, &self.who, text),
            _ => self.trace.bytes(Way::Sent, &self.who, &what, payload),
        }
        self.closed |= opcode == Opcode::Close;
        self.half.write_all(&frame(opcode, fin, payload)).await
    }

    /// Bytes as they are, which need not be frames.
    pub(super) async fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.trace.bytes(Way::Sent, &self.who, "raw", bytes);
        self.half.write_all(bytes).await
    }

    /// A close frame; `None`: one without a code.
    pub(super) async fn close(&mut self, code: Option<u16>, reason: &str) -> io::Result<()> {
        self.frame(Opcode::Close, true, &close_payload(code, reason)).await
    }

    /// Ends a connection on which the client has closed: by a close frame if there was none, and as a server does, first.
    pub(super) async fn answer_close(&mut self, code: Option<u16>) {
        if !self.closed {
            let _ = self.close(code, "").await;
        }
        self.fin().await;
    }

    /// Ends the TCP connection without another word.
    pub(super) async fn fin(&mut self) {
        self.trace.text(Way::Sent, &self.who, "the end of the TCP connection");
        let _ = self.half.shutdown().await;
    }

    /// Drops the connection by a reset, when the other half is dropped, too.
    pub(super) fn reset(self) {
        self.trace.text(Way::Sent, &self.who, "a TCP reset");
        let _ = socket2::SockRef::from(self.half.as_ref()).set_linger(Some(Duration::ZERO));
        self.half.forget();
    }
}

/// One frame as bytes.
pub(super) fn frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let header = HeaderBytes::new(opcode, fin, payload.len(), None);
    [header.as_ref(), payload].concat()
}

pub(super) fn close_payload(code: Option<u16>, reason: &str) -> Vec<u8> {
    code.map(|code| [&code.to_be_bytes()[..], reason.as_bytes()].concat()).unwrap_or_default()
}

/// The first of some bytes, for a failure.
pub(super) fn first(bytes: &[u8]) -> String {
    const MOST: usize = 60;
    let more = if bytes.len() > MOST { "…" } else { "" };
    format!("{}{more}", bytes[..bytes.len().min(MOST)].escape_ascii())
}
