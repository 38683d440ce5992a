//! The head of a target's response: parsed strictly, and what it says of its body and of the connection.

use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

/// Headers of one response; a target that sends more is broken or hostile.
const MAX_HEADERS: usize = 128;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Why a target's response head was refused; the viewer gets 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not HTTP/1 at all, or a malformed line.
    #[error("the response head is not HTTP/1")]
    Malformed,
    /// Over the limit on heads.
    #[error("the response head is too large")]
    TooLarge,
    /// Lengths that differ, are signed or too large.
    #[error("the response has a malformed Content-Length")]
    ContentLength,
    /// A transfer coding other than `chunked` alone.
    #[error("the response has an unknown Transfer-Encoding")]
    TransferEncoding,
}

/// How the end of a body is told (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none, whatever the headers say.
    Empty,
    /// So many bytes.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Everything until the stream ends.
    UntilClose,
}

/// A parsed response head.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status, 100 to 999.
    pub status: StatusCode,
    /// As they came, in order.
    pub headers: HeaderMap,
    version: Version,
}

impl ResponseHead {
    /// Reads a head from the front of `input` without copying the values: the head and its size, or `None` while it
    /// is incomplete. More than `limit` bytes are an error.
    pub fn parse(input: &Bytes, limit: usize) -> Result<Option<(Self, usize)>, HeadError> {
        let mut lines = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let size = match parser.parse_response_with_uninit_headers(&mut response, input, &mut lines) {
            Ok(httparse::Status::Complete(size)) if size <= limit => size,
            Ok(httparse::Status::Partial) if input.len() <= limit => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
            Err(_) => return Err(HeadError::Malformed),
        };
        let status =
            response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(HeadError::Malformed)?;
        let version = if response.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        let mut headers = HeaderMap::with_capacity(response.headers.len());
        for line in response.headers.iter() {
            let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| HeadError::Malformed)?;
            let value = HeaderValue::from_maybe_shared(input.slice_ref(line.value));
            headers.append(name, value.map_err(|_| HeadError::Malformed)?);
        }
        Ok(Some((Self { status, headers, version }, size)))
    }

    /// How the body of this response to a request with `method` is framed.
    pub fn framing(&self, method: &Method) -> Result<Framing, HeadError> {
        let status = self.status.as_u16();
        if method == Method::HEAD || matches!(status, 100..=199 | 204 | 304) {
            return Ok(Framing::Empty);
        }
        let mut codings = self.headers.get_all(header::TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next() {
            let chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
            if !chunked || codings.next().is_some() || self.version == Version::HTTP_10 {
                return Err(HeadError::TransferEncoding);
            }
            return Ok(Framing::Chunked);
        }
        Ok(self.content_length()?.map_or(Framing::UntilClose, Framing::Length))
    }

    /// The length that the head declares, which a response to HEAD does without sending it.
    pub fn content_length(&self) -> Result<Option<u64>, HeadError> {
        let mut length = None;
        for value in self.headers.get_all(header::CONTENT_LENGTH) {
            let text = value.to_str().map_err(|_| HeadError::ContentLength)?;
            for part in text.split(',').map(str::trim) {
                let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                let number = part.parse::<u64>().ok().filter(|_| digits).ok_or(HeadError::ContentLength)?;
                if length.is_some_and(|before| before != number) {
                    return Err(HeadError::ContentLength);
                }
                length = Some(number);
            }
        }
        Ok(length)
    }

    /// Whether the target keeps the connection open after this response, going by the head alone.
    pub fn keeps_alive(&self) -> bool {
        let ambiguous = self.headers.contains_key(header::TRANSFER_ENCODING)
            && self.headers.contains_key(header::CONTENT_LENGTH);
        let keep = match self.version {
            Version::HTTP_10 => list_contains(&self.headers, &header::CONNECTION, "keep-alive"),
            _ => !list_contains(&self.headers, &header::CONNECTION, "close"),
        };
        keep && !ambiguous
    }

    /// The `timeout` of the target's `Keep-Alive` header.
    pub fn keep_alive_timeout(&self) -> Option<Duration> {
        let value = self.headers.get(KEEP_ALIVE)?.to_str().ok()?;
        let timeout = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
        timeout.trim().trim_matches('"').parse().ok().map(Duration::from_secs)
    }
}

/// Whether the comma-separated list in all headers `name` has `token`, without regard to case.
pub fn list_contains(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &'static str) -> ResponseHead {
        ResponseHead::parse(&Bytes::from_static(text.as_bytes()), 65536).unwrap().unwrap().0
    }

    #[test]
    fn a_head_is_complete_only_with_its_empty_line() {
        let whole = Bytes::from_static(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody");
        assert!(ResponseHead::parse(&whole.slice(..20), 100).unwrap().is_none());
        let (head, size) = ResponseHead::parse(&whole, 100).unwrap().unwrap();
        assert_eq!((head.status, size), (StatusCode::OK, 25));
        assert_eq!(head.headers["a"], "b");
        assert_eq!(ResponseHead::parse(&whole, 10).unwrap_err(), HeadError::TooLarge);
        let noise = Bytes::from_static(b"SSH-2.0-OpenSSH_9.2\r\n");
        assert_eq!(ResponseHead::parse(&noise, 100).unwrap_err(), HeadError::Malformed);
    }

    #[test]
    fn the_framing_follows_rfc_9112_section_6_3() {
        for (text, method, framing) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::GET, Ok(Framing::Length(5))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::HEAD, Ok(Framing::Empty)),
            ("HTTP/1.1 304 OK\r\nContent-Length: 5\r\n\r\n", Method::GET, Ok(Framing::Empty)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", Method::GET, Ok(Framing::Length(5))),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", Method::GET, Err(HeadError::ContentLength)),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", Method::GET, Err(HeadError::ContentLength)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Method::GET, Ok(Framing::Chunked)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                Method::GET,
                Err(HeadError::TransferEncoding),
            ),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Method::GET,
                Err(HeadError::TransferEncoding),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Method::GET, Ok(Framing::UntilClose)),
        ] {
            assert_eq!(head(text).framing(&method), framing, "{text}");
        }
    }

    #[test]
    fn the_connection_is_kept_only_when_both_sides_can_agree_on_the_end() {
        assert!(head("HTTP/1.1 200 OK\r\n\r\n").keeps_alive());
        assert!(!head("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n").keeps_alive());
        assert!(!head("HTTP/1.0 200 OK\r\n\r\n").keeps_alive());
        assert!(head("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n").keeps_alive());
        assert!(
            !head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n").keeps_alive()
        );
        let node = head("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\n\r\n");
        assert_eq!(node.keep_alive_timeout(), Some(Duration::from_secs(5)));
    }

    proptest! {
        /// A head that comes in portions is incomplete until its last byte, and then what it is in one.
        #[test]
        fn any_split_of_a_head_gives_the_same_head(
            lines in prop::collection::vec(("[A-Za-z-]{1,10}", "[ -~]{0,20}"), 0..8),
            status in 100u16..1000,
            body in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let text: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = format!("HTTP/1.1 {status} What\r\n{text}\r\n");
            let wire = Bytes::from([head.as_bytes(), &body].concat());
            let (whole, size) = ResponseHead::parse(&wire, 65536).unwrap().unwrap();
            prop_assert_eq!((size, whole.status.as_u16(), whole.headers.len()), (head.len(), status, lines.len()));
            for (name, value) in &lines {
                prop_assert!(whole.headers.get_all(name.as_str()).iter().any(|found| found == value.trim_ascii()));
            }
            for cut in 0..head.len() {
                prop_assert!(ResponseHead::parse(&wire.slice(..cut), 65536).unwrap().is_none());
            }
        }

        #[test]
        fn noise_in_a_head_never_panics(noise in prop::collection::vec(any::<u8>(), 0..100), text in "[ -~\r\n]{0,80}") {
            let wire = [b"HTTP/1.1 200 OK\r\n", text.as_bytes(), &noise, b"\r\n\r\n"].concat();
            if let Ok(Some((head, size))) = ResponseHead::parse(&Bytes::from(wire.clone()), 65536) {
                prop_assert!(size <= wire.len());
                let _ = (head.framing(&Method::GET), head.keeps_alive(), head.keep_alive_timeout());
            }
        }
    }
}
