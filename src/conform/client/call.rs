//! One request of the client to the scripted relay: read byte by byte, looked at, and answered in any way.

use std::io;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{Reader, Writer, first, halves};
use crate::conform::case::Ended;
use crate::conform::trace::{Trace, Way};
use crate::proto::http1::{BodyReader, Framing, Piece};
use crate::stream::handshake::accept_of;

/// Bytes of a head, and of a body.
const MOST: usize = 256 * 1024;
/// Header lines.
const LINES: usize = 100;

/// A request whose head, and body if there is one, have come.
pub(super) struct Call {
    pub(super) method: String,
    /// Without the query, and with one slash at its beginning.
    pub(super) path: String,
    /// The whole request target as it came.
    pub(super) target: String,
    headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    stream: TcpStream,
    already: BytesMut,
    /// What the trace calls the connection.
    pub(super) who: String,
    trace: Trace,
}

impl Call {
    /// Reads a request; `None` if the connection ended before, or brought no HTTP.
    pub(super) async fn read(mut stream: TcpStream, who: String, trace: &Trace) -> Option<Self> {
        let mut input = BytesMut::new();
        let (mut call, size) = loop {
            if let Some(parsed) = head(&input)? {
                break parsed;
            }
            if input.len() > MOST || stream.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
        };
        trace.text(Way::Came, &who, &String::from_utf8_lossy(&input[..size]));
        let _ = input.split_to(size);
        let length: usize =
            find(&call.headers, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if find(&call.headers, "transfer-encoding").is_some() {
            call.body = chunked(&mut stream, &mut input).await?;
        } else {
            while input.len() < length.min(MOST) {
                if stream.read_buf(&mut input).await.ok()? == 0 {
                    return None;
                }
            }
            call.body = input.split_to(length.min(input.len())).freeze();
        }
        if !call.body.is_empty() {
            trace.text(Way::Came, &who, &String::from_utf8_lossy(&call.body));
        }
        let Parsed { method, target, headers, body } = call;
        let path = format!("/{}", target.split('?').next().unwrap_or_default().trim_start_matches('/'));
        Some(Self { method, path, target, headers, body, stream, already: input, who, trace: trace.clone() })
    }

    /// The value of a header, without regard to the case of its name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// A header with several values, or several headers, as a list.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let items = values.flat_map(|(_, value)| value.split(','));
        items.map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    }

    /// A parameter of the query, decoded.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// What stands behind `Bearer`.
    pub(super) fn bearer(&self) -> Option<&str> {
        let (scheme, key) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    }

    /// The body as an object of JSON.
    pub(super) fn json(&self) -> Result<Value, Ended> {
        let read = serde_json::from_slice(&self.body).ok().filter(Value::is_object);
        read.ok_or_else(|| {
            let came = format!("its body was \"{}\"", first(&self.body));
            Ended::failed(format!("{} {} to have a JSON object as its body", self.method, self.path), came)
        })
    }

    /// Answers with JSON, and closes the connection.
    pub(super) async fn answer(self, status: u16, body: &Value) {
        self.answer_with(status, "Content-Type: application/json\r\n", &body.to_string()).await;
    }

    /// A refusal of REST, with its code.
    pub(super) async fn refuse(self, status: u16, code: &str) {
        self.answer(status, &json!({ "error": "the kit refuses this", "code": code, "request_id": "kit" }))
            .await;
    }

    /// Any answer; `headers` are whole lines.
    pub(super) async fn answer_with(mut self, status: u16, headers: &str, body: &str) {
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} Kit\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        self.trace.text(Way::Sent, &self.who, &text);
        // Whether the client has left meanwhile shows in what it does next.
        let _ = self.stream.write_all(text.as_bytes()).await;
        let _ = self.stream.shutdown().await;
    }

    /// Drops the connection without an answer.
    pub(super) fn drop_it(self) {
        self.trace.text(Way::Sent, &self.who, "no answer: the connection is dropped");
    }

    /// Answers the handshake of a WebSocket; `protocol` is the subprotocol that the answer names.
    pub(super) async fn switch(self, protocol: Option<&str>) -> io::Result<(Reader, Writer)> {
        let accept = accept_of(self.header("sec-websocket-key").unwrap_or_default());
        self.switch_with(protocol, &accept).await
    }

    /// The same with any `Sec-WebSocket-Accept`.
    pub(super) async fn switch_with(
        mut self,
        protocol: Option<&str>,
        accept: &str,
    ) -> io::Result<(Reader, Writer)> {
        let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        let text = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
        );
        self.trace.text(Way::Sent, &self.who, &text);
        self.stream.set_nodelay(true)?;
        self.stream.write_all(text.as_bytes()).await?;
        Ok(halves(self.stream, self.already, &self.who, &self.trace))
    }
}

/// A head without its connection.
struct Parsed {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// `None`: it is no HTTP. `Some(None)`: it is incomplete.
fn head(input: &[u8]) -> Option<Option<(Parsed, usize)>> {
    let mut lines = [httparse::EMPTY_HEADER; LINES];
    let mut request = httparse::Request::new(&mut lines);
    let size = match request.parse(input).ok()? {
        httparse::Status::Complete(size) => size,
        httparse::Status::Partial => return Some(None),
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).trim().to_owned();
    let headers = request.headers.iter().map(|line| (line.name.to_owned(), text(line.value))).collect();
    let (method, target) = (request.method?.to_owned(), request.path?.to_owned());
    Some(Some((Parsed { method, target, headers, body: Bytes::new() }, size)))
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// A chunked body to its end.
async fn chunked(stream: &mut TcpStream, input: &mut BytesMut) -> Option<Bytes> {
    let (mut reader, mut body) = (BodyReader::new(Framing::Chunked), BytesMut::new());
    loop {
        let mut bytes = input.split().freeze();
        while !bytes.is_empty() {
            match reader.next(&mut bytes).ok()? {
                Some(Piece::Data(data)) if body.len() + data.len() <= MOST => body.extend_from_slice(&data),
                Some(Piece::Data(_)) => return None,
                Some(Piece::End(_)) => {
                    input.extend_from_slice(&bytes);
                    return Some(body.freeze());
                }
                None => break,
            }
        }
        input.extend_from_slice(&bytes);
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}
