//! Heads of requests and responses, out of portions of any size: only what an observer needs of them.

use std::mem::MaybeUninit;

use super::body::{Body, CHUNKED};

/// Bytes of a head that is gathered; a larger one is not observed.
const MOST: usize = 64 * 1024;
/// Headers that are looked at.
const LINES: usize = 128;

/// A head whose beginning came in an earlier portion.
#[derive(Default)]
pub(super) struct Head {
    begun: Vec<u8>,
}

/// What became of a portion.
pub(super) enum Gathered<T> {
    /// The head is complete, and off the front of the data.
    Some(T),
    /// It is not complete; all data was taken.
    More,
    /// This is no head.
    Lost,
}

/// Facts and the size of the head; `Ok(None)` while it is incomplete.
type Parsed<T> = Result<Option<(T, usize)>, ()>;

impl Head {
    /// Reads a head off the front of `data`. Most heads come in one portion, and are then not copied.
    pub(super) fn gather<T>(&mut self, data: &mut &[u8], parse: impl Fn(&[u8]) -> Parsed<T>) -> Gathered<T> {
        if self.begun.is_empty() {
            match parse(data) {
                Ok(Some((facts, size))) => {
                    *data = &data[size..];
                    return Gathered::Some(facts);
                }
                Ok(None) if data.len() <= MOST => self.begun.extend_from_slice(data),
                _ => return Gathered::Lost,
            }
            *data = &[];
            return Gathered::More;
        }
        // Up to the end of each line, as only there a head can end.
        while !data.is_empty() {
            let line = memchr::memchr(b'\n', data).map_or(data.len(), |at| at + 1);
            let (taken, rest) = data.split_at(line);
            self.begun.extend_from_slice(taken);
            *data = rest;
            if self.begun.len() > MOST {
                return Gathered::Lost;
            }
            if !self.begun.ends_with(b"\n\r\n") && !self.begun.ends_with(b"\n\n") {
                continue;
            }
            match parse(&self.begun) {
                Ok(Some((facts, _))) => {
                    self.begun = Vec::new();
                    return Gathered::Some(facts);
                }
                Ok(None) => {}
                Err(()) => return Gathered::Lost,
            }
        }
        Gathered::More
    }
}

pub(super) struct RequestFacts {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Option<Body>,
}

impl RequestFacts {
    pub(super) fn parse(data: &[u8]) -> Parsed<Self> {
        let mut lines = [const { MaybeUninit::uninit() }; LINES];
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(data, &mut lines).map_err(drop)?;
        let httparse::Status::Complete(size) = parsed else { return Ok(None) };
        let (Some(method), Some(path)) = (request.method, request.path) else { return Err(()) };
        let body = framing(request.headers)?.unwrap_or(Body::Length(0));
        let body = (body != Body::Length(0)).then_some(body);
        Ok(Some((Self { method: method.to_owned(), path: path.to_owned(), body }, size)))
    }
}

pub(super) struct ResponseFacts {
    pub(super) status: u16,
    pub(super) body: Option<Body>,
}

impl ResponseFacts {
    /// The answer to a request with `method`.
    pub(super) fn parse(data: &[u8], method: &str) -> Parsed<Self> {
        let mut lines = [const { MaybeUninit::uninit() }; LINES];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let parsed =
            parser.parse_response_with_uninit_headers(&mut response, data, &mut lines).map_err(drop)?;
        let httparse::Status::Complete(size) = parsed else { return Ok(None) };
        let status = response.code.ok_or(())?;
        let body = match status {
            100..=199 | 204 | 304 => None,
            _ if method == "HEAD" => None,
            _ => Some(framing(response.headers)?.unwrap_or(Body::UntilClose)),
        };
        Ok(Some((Self { status, body: body.filter(|body| *body != Body::Length(0)) }, size)))
    }
}

/// What the headers say of the body.
fn framing(headers: &[httparse::Header<'_>]) -> Result<Option<Body>, ()> {
    let mut length = None;
    for line in headers {
        if line.name.eq_ignore_ascii_case("transfer-encoding") {
            let chunked = line.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
            return if chunked { Ok(Some(CHUNKED)) } else { Err(()) };
        }
        if line.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(line.value).map_err(drop)?;
            let number = text.trim().parse::<u64>().map_err(drop)?;
            length = Some(Body::Length(number));
        }
    }
    Ok(length)
}
