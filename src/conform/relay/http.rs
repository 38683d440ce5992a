//! Requests as text, and one answer at a time, read by its own framing: what a careful viewer sees.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use super::Outcome;
use super::wire::{End, Wire};
use crate::conform::case::Ended;
use crate::conform::trace::Way;
use crate::proto::http1::{BodyReader, Framing, Piece, ResponseHead};

/// Bytes of the longest head that is read.
const HEAD: usize = 256 * 1024;
/// Characters of a body that a failure shows.
const SHOWN: usize = 200;

/// One request for the relay itself or a tunnel. `lines` are headers, each with its line end.
pub fn request(method: &str, target: &str, host: &str, lines: &str, body: &[u8]) -> Vec<u8> {
    let length = match (method, body.len()) {
        ("GET" | "HEAD" | "DELETE", 0) => String::new(),
        (_, length) => format!("Content-Length: {length}\r\n"),
    };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}{length}\r\n");
    [head.as_bytes(), body].concat()
}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as far as it came, without its coding.
    pub body: Bytes,
    /// What came behind a chunked body.
    pub trailers: HeaderMap,
    /// The body came to the end that its framing promises.
    pub complete: bool,
}

impl Answer {
    /// The next answer to a request with `method`; `expected` is what a silence fails.
    pub async fn read(wire: &mut Wire, method: &Method, expected: &str) -> Outcome<Self> {
        let head = head(wire, expected).await?;
        Self::behind(wire, head, method, expected).await
    }

    /// The answer that begins with `head`.
    pub async fn behind(
        wire: &mut Wire,
        head: ResponseHead,
        method: &Method,
        expected: &str,
    ) -> Outcome<Self> {
        let framing = head
            .framing(method)
            .map_err(|error| Ended::failed("an answer of HTTP/1.1", error.to_string()))?;
        let (status, headers) = (head.status.as_u16(), head.headers);
        // What follows is no body.
        let framing = if status == 101 { Framing::Empty } else { framing };
        let Body { bytes: body, trailers, complete } = body(wire, framing, expected).await?;
        Ok(Self { status, headers, body, trailers, complete })
    }

    /// A header as text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Outcome<Value> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Ended::failed("a body of JSON", format!("{} ({error})", self.shown())))
    }

    /// Fails unless it has this status, and its body came whole.
    pub fn must_be(self, status: u16, what: &str) -> Outcome<Self> {
        let expected = || format!("{status} {what}");
        if self.status != status {
            return Err(Ended::failed(expected(), self.shown()));
        }
        if !self.complete {
            return Err(Ended::failed(expected(), "its body was cut short"));
        }
        Ok(self)
    }

    /// Fails unless it is a refusal with this status, and says `code` if it says any: that all errors have one is asked by the
    /// cases about errors.
    pub fn refused(self, status: u16, code: &str, what: &str) -> Outcome<Self> {
        let answer = self.must_be(status, &format!("`{code}` {what}"))?;
        match answer.code() {
            Some(found) if found != code => Err(answer.without(code, what)),
            _ => Ok(answer),
        }
    }

    /// Fails unless it is an error of section 2.3 with this status and `code`.
    pub fn refused_with_code(self, status: u16, code: &str, what: &str) -> Outcome<Self> {
        let answer = self.must_be(status, &format!("`{code}` {what}"))?;
        if answer.code().as_deref() == Some(code) { Ok(answer) } else { Err(answer.without(code, what)) }
    }

    fn code(&self) -> Option<String> {
        let told = serde_json::from_slice::<Value>(&self.body).ok()?;
        told["code"].as_str().map(str::to_owned)
    }

    fn without(&self, code: &str, what: &str) -> Ended {
        Ended::failed(format!("{} with the code `{code}` {what}", self.status), self.shown())
    }

    /// In words, for a failure.
    pub fn shown(&self) -> String {
        let text: String = self.text().chars().take(SHOWN).collect();
        match text.is_empty() {
            true => format!("status {}", self.status),
            false => format!("status {} and {text:?}", self.status),
        }
    }
}

/// The next head that is not one of an interim answer.
pub async fn head(wire: &mut Wire, expected: &str) -> Outcome<ResponseHead> {
    loop {
        let input = Bytes::copy_from_slice(&wire.buffer);
        match ResponseHead::parse(&input, HEAD) {
            Ok(Some((head, size))) => {
                let bytes = wire.buffer.split_to(size);
                wire.trace(Way::Came, &String::from_utf8_lossy(&bytes));
                let interim =
                    head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS;
                if !interim {
                    return Ok(head);
                }
            }
            Ok(None) => {
                if !wire.more(expected).await? {
                    let how = match wire.end() {
                        End::Closed => "ended".to_owned(),
                        End::Broken(error) => format!("broke ({error})"),
                    };
                    let came = match wire.buffer.is_empty() {
                        true => format!("the connection {how} without an answer"),
                        false => format!("the connection {how} inside the head of the answer"),
                    };
                    return Err(Ended::failed(expected, came));
                }
            }
            Err(error) => {
                wire.trace(Way::Came, &String::from_utf8_lossy(&wire.buffer));
                return Err(Ended::failed(expected, format!("an answer that cannot be read: {error}")));
            }
        }
    }
}

/// What came behind a head.
pub struct Body {
    /// Without its coding.
    pub bytes: Bytes,
    /// Of a chunked one.
    pub trailers: HeaderMap,
    /// It came to the end that its framing promises.
    pub complete: bool,
}

/// Reads a body to its end.
pub async fn body(wire: &mut Wire, framing: Framing, expected: &str) -> Outcome<Body> {
    let (mut reader, mut whole) = (BodyReader::new(framing), BytesMut::new());
    let broken = |error| Ended::failed(expected, format!("a body that breaks HTTP: {error}"));
    let (complete, trailers) = loop {
        let mut input = wire.buffer.split().freeze();
        let piece = reader.next(&mut input).map_err(broken)?;
        wire.buffer = BytesMut::from(&input[..]);
        match piece {
            Some(Piece::Data(data)) => whole.extend_from_slice(&data),
            Some(Piece::End(trailers)) => break (true, trailers),
            None if wire.more(expected).await? => {}
            None => break (reader.complete_at_close() && wire.end() == End::Closed, None),
        }
    };
    wire.trace_bytes(Way::Came, "body", &whole);
    Ok(Body { bytes: whole.freeze(), trailers: trailers.unwrap_or_default(), complete })
}
