//! WebSocket frames (RFC 6455, section 5) as a pure state machine: payload is handed on as it comes, never gathered.

use bytes::{Buf, Bytes, BytesMut};

use super::close;

/// Longest frame header: 2 bytes, 8 of length, 4 of mask.
pub const MAX_HEADER: usize = 14;
/// Longest payload of a control frame (RFC 6455, section 5.5).
pub const MAX_CONTROL: usize = 125;

/// Which end of the socket we are. A server reads masked frames and writes plain ones, a client the reverse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end that accepted the handshake.
    Server,
    /// The end that asked for it.
    Client,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with the message begun before.
    Continuation,
    /// Begins a text message.
    Text,
    /// Begins a binary message.
    Binary,
    /// Ends the socket.
    Close,
    /// To be answered by a pong with the same payload.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

/// How a peer broke the framing rules; each ends the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A reserved bit is set, though no extension was agreed.
    #[error("reserved bits are set though no extension was agreed")]
    Reserved,
    /// An opcode that RFC 6455 does not define.
    #[error("unknown opcode {0:#x}")]
    Opcode(u8),
    /// A client's frame without mask, or a server's with one.
    #[error("the frame is masked the wrong way")]
    Mask,
    /// A length over 2^63, or one not written in the fewest bytes.
    #[error("the length is not written as RFC 6455 asks")]
    Length,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("a control frame is fragmented or too long")]
    Control,
    /// A continuation without a message, or a new message inside another.
    #[error("the fragments are out of order")]
    Order,
    /// A close frame with one byte, or with a code that must not be sent.
    #[error("the close frame is malformed")]
    Close,
    /// A data frame longer than is taken.
    #[error("the frame is too large")]
    TooLarge,
}

impl FrameError {
    /// The code that the close frame gives (RFC 6455, section 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Self::TooLarge => close::TOO_BIG,
            _ => close::PROTOCOL_ERROR,
        }
    }
}

/// What the decoder found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Payload of a text or binary message, unmasked, in any portion.
    Data(Bytes),
    /// A message of total length zero has ended.
    EmptyMessage,
    /// A message whose payload has come before has ended, by a fragment without any.
    End,
    /// To be answered by a pong with these bytes.
    Ping(Bytes),
    /// The answer to a ping.
    Pong(Bytes),
    /// The peer closes, with its code if it gave one.
    Close(Option<u16>),
}

/// Reads frames out of a buffer, at whatever boundaries the bytes arrive.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    /// Payload bytes of the current data frame that have not come yet.
    remaining: u64,
    mask: [u8; 4],
    mask_at: usize,
    /// A message has begun whose last frame has not ended.
    in_message: bool,
    /// The current frame is the last of its message.
    last: bool,
    /// The message is, or was, one of text.
    text: bool,
    message_bytes: u64,
    /// Payload bytes of the largest data frame that is taken.
    largest: u64,
}

impl Decoder {
    /// A decoder at the start of a socket.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            remaining: 0,
            mask: [0; 4],
            mask_at: 0,
            in_message: false,
            last: true,
            text: false,
            message_bytes: 0,
            largest: u64::MAX,
        }
    }

    /// The same, but a data frame whose header promises more than `largest` bytes is an error.
    pub fn with_largest(self, largest: u64) -> Self {
        Self { largest, ..self }
    }

    /// Neither inside a frame nor between the fragments of a message. With an empty buffer the peer owes nothing.
    pub fn at_rest(&self) -> bool {
        self.remaining == 0 && !self.in_message
    }

    /// Whether the message of the last payload, or the one that has ended last, is one of text.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// Takes the next event out of `buffer`; `None` asks for more bytes. After an error the socket is lost.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, FrameError> {
        loop {
            if self.remaining > 0 {
                return Ok(self.payload(buffer));
            }
            let Some(header) = Header::parse(buffer)? else { return Ok(None) };
            if header.masked != (self.role == Role::Server) {
                return Err(FrameError::Mask);
            }
            if header.opcode.is_control() {
                if !header.fin || header.payload > MAX_CONTROL as u64 {
                    return Err(FrameError::Control);
                }
                let length = header.payload as usize;
                if buffer.len() < header.size + length {
                    return Ok(None);
                }
                buffer.advance(header.size);
                let mut payload = buffer.split_to(length);
                apply_mask(&mut payload, header.mask, 0);
                return control_event(header.opcode, payload.freeze()).map(Some);
            }
            match (header.opcode, self.in_message) {
                (Opcode::Continuation, true) => {}
                (Opcode::Text | Opcode::Binary, false) => {
                    self.message_bytes = 0;
                    self.text = header.opcode == Opcode::Text;
                }
                _ => return Err(FrameError::Order),
            }
            if header.payload > self.largest {
                return Err(FrameError::TooLarge);
            }
            buffer.advance(header.size);
            (self.remaining, self.mask, self.mask_at) = (header.payload, header.mask, 0);
            self.last = header.fin;
            self.in_message = true;
            if self.remaining == 0 && self.last {
                self.in_message = false;
                let empty = self.message_bytes == 0;
                return Ok(Some(if empty { Event::EmptyMessage } else { Event::End }));
            }
        }
    }

    fn payload(&mut self, buffer: &mut BytesMut) -> Option<Event> {
        if buffer.is_empty() {
            return None;
        }
        let take =
            usize::try_from(self.remaining).map_or(buffer.len(), |remaining| remaining.min(buffer.len()));
        let mut payload = buffer.split_to(take);
        if self.role == Role::Server {
            apply_mask(&mut payload, self.mask, self.mask_at);
            self.mask_at = (self.mask_at + take) & 3;
        }
        self.remaining -= take as u64;
        self.message_bytes = self.message_bytes.saturating_add(take as u64);
        if self.remaining == 0 && self.last {
            self.in_message = false;
        }
        Some(Event::Data(payload.freeze()))
    }
}

fn control_event(opcode: Opcode, payload: Bytes) -> Result<Event, FrameError> {
    Ok(match opcode {
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        _ => match payload.len() {
            0 => Event::Close(None),
            1 => return Err(FrameError::Close),
            _ => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
                if !allowed || std::str::from_utf8(&payload[2..]).is_err() {
                    return Err(FrameError::Close);
                }
                Event::Close(Some(code))
            }
        },
    })
}

struct Header {
    size: usize,
    opcode: Opcode,
    fin: bool,
    masked: bool,
    mask: [u8; 4],
    payload: u64,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(FrameError::Reserved);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(FrameError::Opcode(first & 0x0f))?;
        let masked = second & 0x80 != 0;
        let (payload, mut size) = match second & 0x7f {
            126 => {
                let Some(field) = bytes.get(2..4) else { return Ok(None) };
                (u64::from(u16::from_be_bytes([field[0], field[1]])), 4)
            }
            127 => {
                let Some(field) = bytes.get(2..10).and_then(|field| field.try_into().ok()) else {
                    return Ok(None);
                };
                (u64::from_be_bytes(field), 10)
            }
            short => (u64::from(short), 2),
        };
        let shortest = match payload {
            0..126 => 2,
            126..65536 => 4,
            _ => 10,
        };
        if size != shortest || payload >> 63 != 0 {
            return Err(FrameError::Length);
        }
        let mut mask = [0; 4];
        if masked {
            let Some(field) = bytes.get(size..size + 4) else { return Ok(None) };
            mask.copy_from_slice(field);
            size += 4;
        }
        Ok(Some(Self { size, opcode, fin: first & 0x80 != 0, masked, mask, payload }))
    }
}

/// A frame header ready to be written.
#[derive(Debug, Clone, Copy)]
pub struct HeaderBytes {
    bytes: [u8; MAX_HEADER],
    size: usize,
}

impl HeaderBytes {
    /// The header of one whole frame with `payload` bytes; `mask` is given by clients only.
    pub fn new(opcode: Opcode, fin: bool, payload: usize, mask: Option<[u8; 4]>) -> Self {
        let mut bytes = [0; MAX_HEADER];
        bytes[0] = opcode.bits() | if fin { 0x80 } else { 0 };
        let mut size = match payload {
            0..126 => {
                bytes[1] = payload as u8;
                2
            }
            126..65536 => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
                10
            }
        };
        if let Some(mask) = mask {
            bytes[1] |= 0x80;
            bytes[size..size + 4].copy_from_slice(&mask);
            size += 4;
        }
        Self { bytes, size }
    }
}

impl AsRef<[u8]> for HeaderBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// XORs `data` with the four-byte `mask`, whose first used byte is `mask[at % 4]`. Masking and unmasking are the same.
pub fn apply_mask(data: &mut [u8], mask: [u8; 4], at: usize) {
    let mut key = mask;
    key.rotate_left(at & 3);
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut words = data.chunks_exact_mut(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: Opcode, fin: bool, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = HeaderBytes::new(opcode, fin, payload.len(), mask).as_ref().to_vec();
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        apply_mask(&mut bytes[start..], mask.unwrap_or_default(), 0);
        bytes
    }

    fn decode_all(role: Role, pieces: &[&[u8]]) -> Result<Vec<Event>, FrameError> {
        let (mut decoder, mut buffer, mut events) = (Decoder::new(role), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(event) = decoder.next(&mut buffer)? {
                events.push(event);
            }
        }
        Ok(events)
    }

    fn joined(events: &[Event]) -> Vec<u8> {
        events
            .iter()
            .flat_map(|event| if let Event::Data(data) = event { data.to_vec() } else { Vec::new() })
            .collect()
    }

    #[test]
    fn the_examples_of_rfc_6455_section_5_7() {
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(decode_all(Role::Server, &[&hello]), Ok(vec![Event::Data(Bytes::from_static(b"Hello"))]));
        let fragments = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
        assert_eq!(joined(&decode_all(Role::Client, &[&fragments]).unwrap()), b"Hello");
        let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
        assert_eq!(decode_all(Role::Client, &[&ping]), Ok(vec![Event::Ping(Bytes::from_static(b"Hello"))]));
    }

    #[test]
    fn each_breach_of_the_framing_rules_has_its_error() {
        for (bytes, error) in [
            (&[0xc2, 0x00][..], FrameError::Reserved),
            (&[0x83, 0x00], FrameError::Opcode(3)),
            (&[0x82, 0x80, 0, 0, 0, 0], FrameError::Mask),
            (&[0x82, 0x7e, 0x00, 0x7d], FrameError::Length),
            (&[0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff], FrameError::Length),
            (&[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::Length),
            (&[0x09, 0x00], FrameError::Control),
            (&[0x89, 0x7e, 0x00, 0x7e], FrameError::Control),
            (&[0x80, 0x00], FrameError::Order),
            (&[0x02, 0x01, b'a', 0x82, 0x00], FrameError::Order),
            (&[0x88, 0x01, 0x03], FrameError::Close),
            (&[0x88, 0x02, 0x03, 0xed], FrameError::Close),
        ] {
            assert_eq!(decode_all(Role::Client, &[bytes]).unwrap_err(), error, "{bytes:x?}");
        }
    }

    #[test]
    fn an_empty_message_is_told_from_an_empty_last_fragment() {
        assert_eq!(decode_all(Role::Client, &[&[0x82, 0x00]]), Ok(vec![Event::EmptyMessage]));
        assert_eq!(
            decode_all(Role::Client, &[&[0x02, 0x01, b'a', 0x80, 0x00]]),
            Ok(vec![Event::Data(Bytes::from_static(b"a")), Event::End])
        );
        assert_eq!(
            decode_all(Role::Client, &[&[0x02, 0x00, 0x00, 0x00, 0x80, 0x00]]),
            Ok(vec![Event::EmptyMessage])
        );
    }

    #[test]
    fn a_length_of_two_to_the_62_allocates_nothing() {
        let mut buffer = BytesMut::from(&[0x82, 0x7f, 0x40, 0, 0, 0, 0, 0, 0, 0, b'x'][..]);
        let mut decoder = Decoder::new(Role::Client);
        assert_eq!(decoder.next(&mut buffer), Ok(Some(Event::Data(Bytes::from_static(b"x")))));
        assert_eq!(decoder.next(&mut buffer), Ok(None));
        assert!(!decoder.at_rest());
    }

    /// `wire` in pieces that end at `ends`.
    fn at_each(ends: impl Iterator<Item = usize>, wire: &[u8]) -> Vec<&[u8]> {
        let mut from = 0;
        ends.map(|to| &wire[std::mem::replace(&mut from, to)..to]).collect()
    }

    proptest! {
        /// However the bytes are cut, the same payload comes out, with control frames between the fragments.
        #[test]
        fn any_split_of_the_input_gives_the_same_bytes(
            messages in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), 1usize..5), 1..6),
            mask in any::<[u8; 4]>(),
            cut in 1usize..40,
        ) {
            let (mut wire, mut sent) = (Vec::new(), Vec::new());
            for (payload, fragments) in &messages {
                sent.extend_from_slice(payload);
                let size = payload.len().div_ceil(*fragments).max(1);
                let parts: Vec<&[u8]> = if payload.is_empty() { vec![&[]] } else { payload.chunks(size).collect() };
                for (at, part) in parts.iter().enumerate() {
                    let opcode = if at == 0 { Opcode::Binary } else { Opcode::Continuation };
                    wire.extend(frame(opcode, at + 1 == parts.len(), part, Some(mask)));
                    wire.extend(frame(Opcode::Ping, true, b"p", Some(mask)));
                }
            }
            let pieces: Vec<&[u8]> = wire.chunks(cut).collect();
            let events = decode_all(Role::Server, &pieces).unwrap();
            prop_assert_eq!(joined(&events), sent);
            prop_assert!(events.iter().all(|event| !matches!(event, Event::Close(_) | Event::Pong(_))));
        }

        /// What is written is read again, in both roles and for each way to write a length.
        #[test]
        fn a_frame_of_any_size_comes_out_as_it_went_in(
            size in prop_oneof![0usize..130, Just(125), Just(126), Just(127), Just(65535), Just(65536), 65530usize..65545],
            mask in any::<[u8; 4]>(),
            seed in any::<u8>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let payload: Vec<u8> = (0..size).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
            for (role, mask) in [(Role::Server, Some(mask)), (Role::Client, None)] {
                let wire = frame(Opcode::Binary, true, &payload, mask);
                let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
                at.sort_unstable();
                let ends = at.iter().copied().chain([wire.len()]);
                let pieces: Vec<&[u8]> = at_each(ends, &wire);
                let events = decode_all(role, &pieces).unwrap();
                prop_assert_eq!(joined(&events), &payload[..]);
                prop_assert_eq!(events.contains(&Event::EmptyMessage), size == 0);
            }
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1usize..20) {
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            let _ = decode_all(Role::Server, &pieces);
        }
    }
}
