//! Frames of wsmux, written, and read out of the pieces of a message as they come.

use bytes::{Buf, Bytes};

/// Bytes of the head of a frame: its kind and the stream.
const HEAD: usize = 5;
/// With the number of an ACK.
const LONGEST: usize = HEAD + 4;

const DATA: u8 = 0;
const SYN: u8 = 1;
const ACK: u8 = 2;
const FIN: u8 = 3;

/// How the other end broke the rules. Each ends the session with close code 1008, and its text as the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
#[non_exhaustive]
pub enum Breach {
    /// A message of under five bytes, or of an unknown kind.
    Header,
    /// A SYN or FIN with a payload, or an ACK without just four bytes.
    Payload,
    /// A text message.
    NotBinary,
    /// A SYN with an id of ours.
    Side,
    /// A SYN for a stream that there is.
    Duplicate,
    /// An ACK or FIN for a stream before it was opened or accepted.
    Early,
    /// More DAT than was acknowledged.
    Window,
    /// A window of more than 32 bits.
    Credit,
    /// DAT or FIN behind a FIN.
    AfterFin,
    /// Too many streams that are still to be accepted.
    TooManySyns,
    /// Too many streams.
    TooManyStreams,
    /// All streams that may wait to be accepted have waited in vain.
    Unaccepting,
}

impl Breach {
    /// The reason of the close frame: at most 123 bytes.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Header => "malformed header",
            Self::Payload => "malformed payload",
            Self::NotBinary => "unexpected non-binary websocket message",
            Self::Side => "SYN with an id of the other side",
            Self::Duplicate => "SYN for a stream that is open",
            Self::Early => "a frame before the stream was accepted",
            Self::Window => "more data than the window allows",
            Self::Credit => "a window of more than 4294967295 bytes",
            Self::AfterFin => "a frame after FIN",
            Self::TooManySyns => "too many un-accepted new incoming streams",
            Self::TooManyStreams => "too many streams",
            Self::Unaccepting => "no stream is accepted",
        }
    }
}

/// A frame, or a piece of a DAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of a stream; never none.
    Data {
        /// Its id.
        stream: u32,
        /// Part of the payload.
        payload: Bytes,
    },
    /// Opens a stream.
    Syn {
        /// Its id.
        stream: u32,
    },
    /// Accepts a stream, or allows more to be sent on it.
    Ack {
        /// Its id.
        stream: u32,
        /// So many bytes more.
        bytes: u32,
    },
    /// Ends a direction of a stream.
    Fin {
        /// Its id.
        stream: u32,
    },
}

/// What goes before the payload of a DAT, and all of any other frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; LONGEST],
    size: usize,
}

impl Head {
    fn new(kind: u8, stream: u32) -> Self {
        let mut bytes = [0; LONGEST];
        bytes[0] = kind;
        bytes[1..HEAD].copy_from_slice(&stream.to_le_bytes());
        Self { bytes, size: HEAD }
    }

    /// Of bytes of a stream.
    pub fn data(stream: u32) -> Self {
        Self::new(DATA, stream)
    }

    /// Opens a stream.
    pub fn syn(stream: u32) -> Self {
        Self::new(SYN, stream)
    }

    /// Accepts a stream, or allows `more` bytes.
    pub fn ack(stream: u32, more: u32) -> Self {
        let mut head = Self::new(ACK, stream);
        head.bytes[HEAD..].copy_from_slice(&more.to_le_bytes());
        head.size = LONGEST;
        head
    }

    /// Ends our direction of a stream.
    pub fn fin(stream: u32) -> Self {
        Self::new(FIN, stream)
    }
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// Reads frames out of the pieces of messages, without gathering them: a DAT is handed on piece by piece.
#[derive(Debug, Default)]
pub struct Reader {
    head: [u8; LONGEST],
    /// How much of it has come.
    size: usize,
}

impl Reader {
    /// The next piece of a binary message; `last` is true for the one that ends it, which may be empty. After an error the
    /// session is lost.
    pub fn piece(&mut self, mut piece: Bytes, last: bool) -> Result<Option<Frame>, Breach> {
        self.take(HEAD, &mut piece);
        if self.size > 0 && self.head[0] > FIN || self.size < HEAD && last {
            return Err(Breach::Header);
        }
        if self.size < HEAD {
            return Ok(None);
        }
        let kind = self.head[0];
        if kind == ACK {
            self.take(LONGEST, &mut piece);
        }
        if kind != DATA && !piece.is_empty() || kind == ACK && last && self.size < LONGEST {
            return Err(Breach::Payload);
        }
        let stream = le32(&self.head, 1);
        let frame = match kind {
            DATA => (!piece.is_empty()).then_some(Frame::Data { stream, payload: piece }),
            _ if !last => None,
            SYN => Some(Frame::Syn { stream }),
            ACK => Some(Frame::Ack { stream, bytes: le32(&self.head, HEAD) }),
            _ => Some(Frame::Fin { stream }),
        };
        if last {
            self.size = 0;
        }
        Ok(frame)
    }

    /// Fills the head up to `size` bytes.
    fn take(&mut self, size: usize, piece: &mut Bytes) {
        let count = size.saturating_sub(self.size).min(piece.len());
        self.head[self.size..self.size + count].copy_from_slice(&piece[..count]);
        self.size += count;
        piece.advance(count);
    }
}

fn le32(head: &[u8; LONGEST], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}
