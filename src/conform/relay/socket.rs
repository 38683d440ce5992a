//! A WebSocket of a client, made by hand: it says what RFC 6455 forbids, too, and shows what came frame by frame.

use ::http::Method;
use bytes::{Bytes, BytesMut};

use super::Outcome;
use super::http::{self, Answer};
use super::wire::{End, Wire};
use crate::conform::case::Ended;
use crate::conform::trace::Way;
use crate::proto::frame::{Decoder, Event, HeaderBytes, MAX_HEADER, Opcode, Role, apply_mask};
use crate::proto::http1::ResponseHead;

/// The nonce of each handshake, and what it is answered by: the example of RFC 6455, section 1.3.
pub const NONCE: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A handshake that is right; cases take parts of it away. `lines` are more headers.
pub fn handshake(path: &str, host: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {NONCE}\r\n\r\n"
    )
}

/// One masked frame.
pub fn frame(opcode: Opcode, last: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = HeaderBytes::new(opcode, last, payload.len(), Some(MASK)).as_ref().to_vec();
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    apply_mask(&mut bytes[start..], MASK, 0);
    bytes
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// Payload of a message, in any portion.
    Data(Bytes),
    /// A message of total length zero.
    Empty,
    /// A ping; it is answered unless [`Socket::answers`] says otherwise.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// A close frame, with its code and its reason.
    Close(Option<u16>, String),
    /// The connection has ended.
    Ended(End),
}

impl Came {
    /// In words, for a failure.
    pub fn shown(&self) -> String {
        match self {
            Self::Data(bytes) => {
                format!("a message: {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]))
            }
            Self::Empty => "an empty message".into(),
            Self::Ping(_) => "a ping".into(),
            Self::Pong(_) => "a pong".into(),
            Self::Close(None, _) => "a close frame without a code".into(),
            Self::Close(Some(code), reason) => format!("a close frame with {code} and the reason {reason:?}"),
            Self::Ended(End::Closed) => "the end of the connection without a close frame".into(),
            Self::Ended(End::Broken(error)) => format!("the end of the connection ({error})"),
        }
    }
}

/// An open socket.
pub struct Socket {
    /// Its connection.
    pub wire: Wire,
    decoder: Decoder,
    /// Whether pings are answered as they are read.
    pub answers: bool,
    /// Payload bytes of the message that comes just now.
    message: u64,
    /// Payload bytes of the longest message that came.
    pub longest: u64,
}

impl Socket {
    /// Says `handshake` and reads the answer: a socket with the head that opened it, or the refusal.
    pub async fn open(mut wire: Wire, handshake: &str) -> Outcome<Result<(Self, ResponseHead), Answer>> {
        wire.say(handshake.as_bytes()).await?;
        let expected = "an answer to the handshake of a WebSocket";
        let head = http::head(&mut wire, expected).await?;
        if head.status != 101 {
            return Answer::behind(&mut wire, head, &Method::GET, expected).await.map(Err);
        }
        let accept = head.headers.get("sec-websocket-accept").and_then(|value| value.to_str().ok());
        if accept != Some(ACCEPT) {
            let expected = format!("Sec-WebSocket-Accept: {ACCEPT}, which belongs to the key");
            return Err(Ended::failed(expected, format!("{accept:?}")));
        }
        let socket =
            Self { wire, decoder: Decoder::new(Role::Client), answers: true, message: 0, longest: 0 };
        Ok(Ok((socket, head)))
    }

    /// Sends one frame.
    pub async fn send(&mut self, opcode: Opcode, last: bool, payload: &[u8]) -> Outcome {
        self.trace(Way::Sent, opcode, payload);
        self.wire.write(&frame(opcode, last, payload)).await
    }

    /// Sends bytes that may be no frame at all.
    pub async fn raw(&mut self, bytes: &[u8]) -> Outcome {
        self.wire.trace_bytes(Way::Sent, "bytes", bytes);
        self.wire.write(bytes).await
    }

    /// Sends a close frame.
    pub async fn close(&mut self, code: u16) -> Outcome {
        self.send(Opcode::Close, true, &code.to_be_bytes()).await
    }

    /// What comes next; `expected` is what a silence fails.
    pub async fn next(&mut self, expected: &str) -> Outcome<Came> {
        loop {
            let front = self.wire.buffer[..self.wire.buffer.len().min(MAX_HEADER + 125)].to_vec();
            let event = self.decoder.next(&mut self.wire.buffer);
            let event =
                event.map_err(|error| Ended::failed("frames as RFC 6455 has them", error.to_string()))?;
            let came = match event {
                None => match self.wire.more(expected).await? {
                    true => continue,
                    false if !self.decoder.at_rest() => Came::Ended(End::Broken("inside a message".into())),
                    false => Came::Ended(self.wire.end()),
                },
                Some(Event::End) => continue,
                Some(Event::Data(data)) => {
                    self.trace(Way::Came, if self.is_text() { Opcode::Text } else { Opcode::Binary }, &data);
                    self.message += data.len() as u64;
                    self.longest = self.longest.max(self.message);
                    if self.decoder.at_rest() {
                        self.message = 0;
                    }
                    Came::Data(data)
                }
                Some(Event::EmptyMessage) => {
                    self.trace(Way::Came, if self.is_text() { Opcode::Text } else { Opcode::Binary }, b"");
                    Came::Empty
                }
                Some(Event::Ping(payload)) => {
                    self.trace(Way::Came, Opcode::Ping, &payload);
                    if self.answers {
                        // A relay that closes reads no more; what it has said before is still to be heard.
                        let _ = self.send(Opcode::Pong, true, &payload).await;
                    }
                    Came::Ping(payload)
                }
                Some(Event::Pong(payload)) => {
                    self.trace(Way::Came, Opcode::Pong, &payload);
                    Came::Pong(payload)
                }
                Some(Event::Close(code)) => {
                    // The decoder tells the code alone; a server's close frame has a header of two bytes.
                    let reason = code.and_then(|_| front.get(4..2 + usize::from(*front.get(1)?)));
                    let reason = String::from_utf8_lossy(reason.unwrap_or_default()).into_owned();
                    self.wire
                        .trace(Way::Came, &format!("close frame, {}, {reason:?}", code.unwrap_or_default()));
                    Came::Close(code, reason)
                }
            };
            return Ok(came);
        }
    }

    fn trace(&self, way: Way, opcode: Opcode, payload: &[u8]) {
        match opcode {
            Opcode::Text => self.wire.trace(way, &String::from_utf8_lossy(payload)),
            opcode => self.wire.trace_bytes(way, &format!("{opcode:?}").to_lowercase(), payload),
        }
    }

    /// Whether the message of the last payload has come whole.
    pub fn at_rest(&self) -> bool {
        self.decoder.at_rest()
    }

    /// Whether the last payload was one of a text message.
    pub fn is_text(&self) -> bool {
        self.decoder.is_text()
    }

    /// Passes over what comes until it is the close frame: its code and reason. An end without one has neither.
    pub async fn closed(&mut self, expected: &str) -> Outcome<(Option<u16>, String)> {
        loop {
            match self.next(expected).await? {
                Came::Close(code, reason) => return Ok((code, reason)),
                Came::Ended(_) => return Ok((None, String::new())),
                _ => {}
            }
        }
    }

    /// Fails unless the relay closes with `code`; what comes before is passed over.
    pub async fn expect_close(&mut self, code: u16, why: &str) -> Outcome<String> {
        let expected = format!("a close frame with {code}, {why}");
        match self.closed(&expected).await? {
            (Some(found), reason) if found == code => Ok(reason),
            (Some(found), reason) => {
                Err(Ended::failed(expected, format!("a close frame with {found}: {reason}")))
            }
            (None, _) => Err(Ended::failed(expected, "the connection ended without one")),
        }
    }

    /// Fails unless the relay ends the socket, in whatever way.
    pub async fn expect_end(&mut self, expected: &str) -> Outcome {
        self.closed(expected).await.map(drop)
    }

    /// Asks for a pong and passes over what comes before it: all that was said before has been read by then.
    pub async fn ping(&mut self, payload: &[u8]) -> Outcome {
        let expected = "a pong with the payload of the ping";
        self.send(Opcode::Ping, true, payload).await?;
        loop {
            match self.next(expected).await? {
                Came::Pong(found) if found == payload => return Ok(()),
                end @ (Came::Close(..) | Came::Ended(_)) => return Err(Ended::failed(expected, end.shown())),
                _ => {}
            }
        }
    }
}

/// A whole message that has begun with `first`.
pub async fn message(socket: &mut Socket, first: Bytes, expected: &str) -> Outcome<Bytes> {
    let mut whole = BytesMut::from(&first[..]);
    while !socket.at_rest() {
        match socket.next(expected).await? {
            Came::Data(data) => whole.extend_from_slice(&data),
            Came::Ping(_) | Came::Pong(_) => {}
            other => return Err(Ended::failed(expected, format!("{} inside a message", other.shown()))),
        }
    }
    Ok(whole.freeze())
}
