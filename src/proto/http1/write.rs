//! Request heads and chunk framing, written afresh from what was parsed, so that nothing ambiguous reaches a target.

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// How the request's body is framed towards the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBody {
    /// No body and no header about one.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The beginning of a request: the request line and the headers about the connection and the framing.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// Any method but CONNECT.
    pub method: &'a Method,
    /// Origin form or `*`, as raw as it came.
    pub target: &'a str,
    /// `None`: the request had no host (HTTP/1.0).
    pub host: Option<&'a [u8]>,
    /// Framing of the body.
    pub body: RequestBody,
    /// The protocols asked for by an upgrade request.
    pub upgrade: Option<&'a HeaderValue>,
    /// The viewer understands trailers.
    pub te_trailers: bool,
}

/// Begins a head in `out`; other headers and the end of the head follow.
pub fn request_head(out: &mut BytesMut, request: &RequestHead<'_>) {
    out.put_slice(request.method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(request.target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    if let Some(host) = request.host {
        line(out, b"Host", host);
    }
    match (request.upgrade, request.te_trailers) {
        (Some(protocols), te) => {
            line(out, b"Connection", if te { b"Upgrade, TE" } else { b"Upgrade" });
            line(out, b"Upgrade", protocols.as_bytes());
        }
        (None, true) => line(out, b"Connection", b"TE"),
        (None, false) => {}
    }
    if request.te_trailers {
        line(out, b"TE", b"trailers");
    }
    match request.body {
        RequestBody::None => {}
        RequestBody::Length(length) => line(out, b"Content-Length", length.to_string().as_bytes()),
        RequestBody::Chunked => line(out, b"Transfer-Encoding", b"chunked"),
    }
}

/// Appends one header, by the spelling that old targets look it up with.
pub fn header_line(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    line(out, canonical(name), value);
}

/// Appends the cookies of `headers` in one line: HTTP/2 may send each in a line of its own (RFC 9113, section 8.2.3).
pub fn cookie_line(out: &mut BytesMut, headers: &HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    let Some(first) = all.next() else { return };
    out.put_slice(b"Cookie: ");
    out.put_slice(first.as_bytes());
    for more in all {
        out.put_slice(b"; ");
        out.put_slice(more.as_bytes());
    }
    out.put_slice(b"\r\n");
}

/// Ends a head.
pub fn head_end(out: &mut BytesMut) {
    out.put_slice(b"\r\n");
}

fn line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// The usual spelling of the headers that old targets look up with regard to case; others stay in lower case.
fn canonical(name: &HeaderName) -> &[u8] {
    match name.as_str() {
        "accept" => b"Accept",
        "accept-encoding" => b"Accept-Encoding",
        "accept-language" => b"Accept-Language",
        "authorization" => b"Authorization",
        "content-type" => b"Content-Type",
        "origin" => b"Origin",
        "referer" => b"Referer",
        "sec-websocket-extensions" => b"Sec-WebSocket-Extensions",
        "sec-websocket-key" => b"Sec-WebSocket-Key",
        "sec-websocket-protocol" => b"Sec-WebSocket-Protocol",
        "sec-websocket-version" => b"Sec-WebSocket-Version",
        "user-agent" => b"User-Agent",
        "x-forwarded-for" => b"X-Forwarded-For",
        "x-forwarded-host" => b"X-Forwarded-Host",
        "x-forwarded-proto" => b"X-Forwarded-Proto",
        other => other.as_bytes(),
    }
}

/// The line before a chunk of `length` bytes; the chunk is followed by CR LF.
pub fn chunk_head(out: &mut BytesMut, length: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let width = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..width).rev() {
        out.put_u8(DIGITS[length >> (digit * 4) & 0xf]);
    }
    out.put_slice(b"\r\n");
}

/// The last chunk, with trailers where there are any.
pub fn chunked_end(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    out.put_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        line(out, canonical(name), value.as_bytes());
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_written_in_one_form_only() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1"));
        headers.append("x-odd", HeaderValue::from_bytes("é".as_bytes()).unwrap());
        headers.append("cookie", HeaderValue::from_static("b=2"));
        let mut out = BytesMut::new();
        request_head(
            &mut out,
            &RequestHead {
                method: &Method::POST,
                target: "/a%0d%0ab//c?x",
                host: Some(b"web.example"),
                body: RequestBody::Chunked,
                upgrade: None,
                te_trailers: true,
            },
        );
        cookie_line(&mut out, &headers);
        header_line(&mut out, &HeaderName::from_static("x-odd"), headers["x-odd"].as_bytes());
        head_end(&mut out);
        let want = "POST /a%0d%0ab//c?x HTTP/1.1\r\nHost: web.example\r\nConnection: TE\r\nTE: trailers\r\n\
                    Transfer-Encoding: chunked\r\nCookie: a=1; b=2\r\nx-odd: é\r\n\r\n";
        assert_eq!(std::str::from_utf8(&out).unwrap(), want);
    }

    #[test]
    fn chunk_sizes_are_plain_hex() {
        for (length, text) in
            [(0, "0\r\n"), (1, "1\r\n"), (16, "10\r\n"), (65535, "ffff\r\n"), (1 << 20, "100000\r\n")]
        {
            let mut out = BytesMut::new();
            chunk_head(&mut out, length);
            assert_eq!(out, text);
        }
    }
}
