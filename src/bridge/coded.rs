//! What the payload of messages means: bytes as they are, text that must be UTF-8, or base64 in text.

use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};
use data_encoding::BASE64;

use crate::proto::close;
use crate::proto::frame::{HeaderBytes, Opcode};

/// How bytes of the target are sent to the viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrameType {
    /// Binary messages.
    #[default]
    Binary,
    /// Text messages, for targets that write nothing but UTF-8, as others are closed by browsers: what is none ends the session
    /// with 1011. A character that comes in two parts is sent in one.
    Text,
}

/// What becomes of text messages of the viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextMessages {
    /// The socket is closed with 1003, as websockify does.
    #[default]
    Refuse,
    /// They go to the target as they are, once they are known to be UTF-8 (RFC 6455, section 8.1).
    Pass,
}

impl FromStr for FrameType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "binary" => Ok(Self::Binary),
            "text" => Ok(Self::Text),
            _ => Err(format!("{text:?}: expected binary or text")),
        }
    }
}

impl FromStr for TextMessages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "pass" => Ok(Self::Pass),
            _ => Err(format!("{text:?}: expected refuse or pass")),
        }
    }
}

/// Both directions of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// Bytes as they are.
    Plain(FrameType, TextMessages),
    /// The subprotocol `base64`.
    Base64,
}

/// Why a message is not taken: the code of the close frame, and its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfit(pub u16, pub &'static str);

/// What a target writes cannot be sent as text (RFC 6455, section 8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the target sends what is no UTF-8, and so no text: it needs --frame-type binary")]
pub(super) struct NotText;

/// How many bytes of `data` are whole characters; what is behind them is no text, or the begin of one more.
pub(super) fn whole_characters(data: &[u8]) -> usize {
    std::str::from_utf8(data).map_or_else(|error| error.valid_up_to(), str::len)
}

/// Whether `data` may be the begin of one character.
pub(super) fn begins_character(data: &[u8]) -> bool {
    std::str::from_utf8(data).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

const TEXT: Unfit = Unfit(close::UNSUPPORTED, "text messages are not taken here");
const NOT_UTF8: Unfit = Unfit(close::NOT_TEXT, "the text is no UTF-8");
const NOT_BASE64: Unfit = Unfit(close::NOT_TEXT, "the message is no base64");

/// The payload that comes in, at whatever boundaries it comes.
pub(super) struct Incoming {
    coding: Coding,
    /// What the last portion of the message ends with that is no whole character, or no four of base64.
    rest: [u8; 4],
    resting: usize,
    /// The padding of base64 has come: nothing may follow in this message.
    padded: bool,
}

impl Incoming {
    pub(super) fn new(coding: Coding) -> Self {
        Self { coding, rest: [0; 4], resting: 0, padded: false }
    }

    /// The bytes for the target in this portion of a message; `text`: it is one of text, `ends`: nothing follows of it.
    pub(super) fn take(&mut self, data: Bytes, text: bool, ends: bool) -> Result<Bytes, Unfit> {
        match self.coding {
            Coding::Plain(_, TextMessages::Refuse) if text => Err(TEXT),
            Coding::Plain(_, TextMessages::Pass) if text => {
                self.check_utf8(&data, ends)?;
                Ok(data)
            }
            Coding::Plain(..) => Ok(data),
            Coding::Base64 => self.decode(&data, ends),
        }
    }

    fn check_utf8(&mut self, mut data: &[u8], ends: bool) -> Result<(), Unfit> {
        // A character that was cut is completed byte by byte: four are the longest.
        while self.resting > 0 {
            let Some((first, others)) = data.split_first() else { break };
            (self.rest[self.resting], data) = (*first, others);
            self.resting += 1;
            match std::str::from_utf8(&self.rest[..self.resting]) {
                Ok(_) => self.resting = 0,
                Err(error) if error.error_len().is_some() => return Err(NOT_UTF8),
                Err(_) => {}
            }
        }
        if let Err(error) = std::str::from_utf8(data) {
            if error.error_len().is_some() {
                return Err(NOT_UTF8);
            }
            let rest = &data[error.valid_up_to()..];
            self.rest[..rest.len()].copy_from_slice(rest);
            self.resting = rest.len();
        }
        if ends && self.resting > 0 { Err(NOT_UTF8) } else { Ok(()) }
    }

    fn decode(&mut self, data: &[u8], ends: bool) -> Result<Bytes, Unfit> {
        let mut out = BytesMut::with_capacity(BASE64.decode_len(data.len().div_ceil(4) * 4).unwrap_or(0) + 3);
        let mut data = data;
        if self.resting > 0 {
            let take = data.len().min(4 - self.resting);
            self.rest[self.resting..self.resting + take].copy_from_slice(&data[..take]);
            (self.resting, data) = (self.resting + take, &data[take..]);
            if self.resting == 4 {
                self.resting = 0;
                let four = self.rest;
                self.decode_whole(&four, &mut out)?;
            }
        }
        if self.resting == 0 {
            let (whole, rest) = data.split_at(data.len() / 4 * 4);
            self.decode_whole(whole, &mut out)?;
            self.rest[..rest.len()].copy_from_slice(rest);
            self.resting = rest.len();
        }
        if ends {
            self.padded = false;
            if self.resting > 0 {
                return Err(NOT_BASE64);
            }
        }
        Ok(out.freeze())
    }

    fn decode_whole(&mut self, whole: &[u8], out: &mut BytesMut) -> Result<(), Unfit> {
        if whole.is_empty() {
            return Ok(());
        }
        // The library takes one padded text behind another.
        let inside = memchr::memchr(b'=', whole).is_some_and(|at| at + 2 < whole.len());
        if self.padded || inside {
            return Err(NOT_BASE64);
        }
        self.padded = whole.ends_with(b"=");
        let (start, room) = (out.len(), BASE64.decode_len(whole.len()).map_err(|_| NOT_BASE64)?);
        out.put_bytes(0, room);
        let count = BASE64.decode_mut(whole, &mut out[start..]).map_err(|_| NOT_BASE64)?;
        out.truncate(start + count);
        Ok(())
    }
}

/// Puts `data` behind what is in `out`, as one text message of base64.
pub(super) fn put_base64(out: &mut BytesMut, data: &[u8]) {
    let length = BASE64.encode_len(data.len());
    out.extend_from_slice(HeaderBytes::new(Opcode::Text, true, length, None).as_ref());
    let start = out.len();
    out.put_bytes(0, length);
    BASE64.encode_mut(data, &mut out[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(coding: Coding, portions: &[&[u8]]) -> Result<Vec<u8>, Unfit> {
        let (mut incoming, mut all) = (Incoming::new(coding), Vec::new());
        for (at, portion) in portions.iter().enumerate() {
            let ends = at + 1 == portions.len();
            all.extend_from_slice(&incoming.take(Bytes::copy_from_slice(portion), true, ends)?);
        }
        Ok(all)
    }

    /// In portions of each size.
    fn cut(coding: Coding, message: &[u8]) -> Vec<Result<Vec<u8>, Unfit>> {
        let cut = |size| message.chunks(size).collect::<Vec<_>>();
        (1..=message.len().max(1)).map(|size| take(coding, &cut(size))).collect()
    }

    #[test]
    fn text_is_utf8_wherever_it_is_cut() {
        let text = Coding::Plain(FrameType::Text, TextMessages::Pass);
        let good = "aä€😀\u{10ffff}z".as_bytes();
        assert!(cut(text, good).iter().all(|taken| taken.as_deref() == Ok(good)));
        for bad in
            [&b"a\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"a\xf0\x9f\x98"]
        {
            assert!(cut(text, bad).iter().all(|taken| *taken == Err(NOT_UTF8)), "{bad:?}");
        }
        assert_eq!(take(Coding::Plain(FrameType::Binary, TextMessages::Refuse), &[b"a"]), Err(TEXT));
    }

    #[test]
    fn base64_is_decoded_wherever_it_is_cut_and_each_message_by_itself() {
        let good = b"R0lGODlhAQABAIAAAAUEBA==";
        let bytes = BASE64.decode(good).unwrap();
        assert!(cut(Coding::Base64, good).iter().all(|taken| taken.as_ref() == Ok(&bytes)));
        for bad in [&b"aGVsbG8"[..], b"aGVs!G8=", b"aGVsbG8=aGVs", b"a", b"===="] {
            assert!(cut(Coding::Base64, bad).iter().all(|taken| *taken == Err(NOT_BASE64)), "{bad:?}");
        }
        let mut incoming = Incoming::new(Coding::Base64);
        for _ in 0..2 {
            let taken = incoming.take(Bytes::from_static(b"aGVsbG8="), true, true);
            assert_eq!(taken.as_deref(), Ok(&b"hello"[..]));
        }
        let mut out = BytesMut::new();
        put_base64(&mut out, b"hello");
        assert_eq!(&out[..], b"\x81\x08aGVsbG8=");
    }
}
