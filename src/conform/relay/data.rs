//! A data socket in the hands of the probe: the request that comes, and the answer of a target that is made up.

use bytes::BytesMut;
use http::HeaderMap;

use super::Outcome;
use super::socket::{Came, Socket};
use crate::conform::case::Ended;
use crate::proto::frame::Opcode;

/// The answer of most targets here.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The head of an answer that lasts until the data socket ends.
pub const UNTIL_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";

/// A data socket.
pub struct Data {
    /// The WebSocket.
    pub socket: Socket,
    /// Payload that has come and was not read yet.
    bytes: BytesMut,
}

/// A request as it came to the target.
#[derive(Debug, Clone)]
pub struct Request {
    /// The request line.
    pub line: String,
    /// Headers.
    pub headers: HeaderMap,
    /// All of the head.
    pub head: String,
}

impl Request {
    /// A header as text, several joined by a comma; empty where it is absent.
    pub fn header(&self, name: &str) -> String {
        let all: Vec<_> = self
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        all.join(", ")
    }

    /// Fails unless the header has this value.
    pub fn must_have(&self, name: &str, value: &str) -> Outcome {
        if self.header(name) == value {
            return Ok(());
        }
        Err(Ended::failed(format!("the target gets `{name}: {value}`"), format!("the head {:?}", self.head)))
    }

    /// Fails if the header came.
    pub fn must_not_have(&self, name: &str) -> Outcome {
        if self.headers.contains_key(name) {
            return Err(Ended::failed(
                format!("the target gets no `{name}`"),
                format!("the head {:?}", self.head),
            ));
        }
        Ok(())
    }
}

impl Data {
    /// On an open socket.
    pub fn new(socket: Socket) -> Self {
        Self { socket, bytes: BytesMut::new() }
    }

    /// Waits for more payload; `false` is the end of what the relay sends.
    async fn more(&mut self, expected: &str) -> Outcome<bool> {
        loop {
            match self.socket.next(expected).await? {
                Came::Data(data) => {
                    self.bytes.extend_from_slice(&data);
                    return Ok(true);
                }
                Came::Ping(_) | Came::Pong(_) => {}
                Came::Empty | Came::Close(..) | Came::Ended(_) => return Ok(false),
            }
        }
    }

    /// The head of the next request.
    pub async fn request(&mut self) -> Outcome<Request> {
        let expected = "the request comes on the data socket";
        loop {
            if let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.bytes.split_to(end + 4);
                return read(&head);
            }
            if !self.more(expected).await? {
                let came = format!("it ended after {:?}", String::from_utf8_lossy(&self.bytes));
                return Err(Ended::failed(expected, came));
            }
        }
    }

    /// The next `count` bytes of payload.
    pub async fn exactly(&mut self, count: usize, expected: &str) -> Outcome<BytesMut> {
        while self.bytes.len() < count {
            if !self.more(expected).await? {
                let came = format!("the data socket ended after {} of {count} bytes", self.bytes.len());
                return Err(Ended::failed(expected, came));
            }
        }
        Ok(self.bytes.split_to(count))
    }

    /// Fails unless these bytes come.
    pub async fn expect_bytes(&mut self, bytes: &[u8]) -> Outcome {
        let expected = format!("the target gets {:?}", String::from_utf8_lossy(bytes));
        let came = self.exactly(bytes.len(), &expected).await?;
        if came == bytes {
            return Ok(());
        }
        Err(Ended::failed(expected, format!("{:?}", String::from_utf8_lossy(&came))))
    }

    /// What comes next that is no pong, and no ping.
    pub async fn next(&mut self, expected: &str) -> Outcome<Came> {
        loop {
            match self.socket.next(expected).await? {
                Came::Ping(_) | Came::Pong(_) => {}
                other => return Ok(other),
            }
        }
    }

    /// Sends bytes of the target in one binary message.
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) -> Outcome {
        self.socket.send(Opcode::Binary, true, bytes.as_ref()).await
    }

    /// Reads the next request and answers it with `ok`.
    pub async fn serve(&mut self) -> Outcome<Request> {
        let request = self.request().await?;
        self.say(OK).await?;
        Ok(request)
    }

    /// At level two: the target sends no more.
    pub async fn finish(&mut self) -> Outcome {
        self.say(b"").await
    }
}

fn read(head: &[u8]) -> Outcome<Request> {
    let broken = |what: String| Ended::failed("a request of HTTP/1.1 on the data socket", what);
    let mut lines = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut lines);
    request.parse(head).map_err(|error| broken(format!("{error}: {:?}", String::from_utf8_lossy(head))))?;
    let mut headers = HeaderMap::new();
    for header in request.headers.iter() {
        let name = ::http::HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|error| broken(error.to_string()))?;
        let value =
            ::http::HeaderValue::from_bytes(header.value).map_err(|error| broken(error.to_string()))?;
        headers.append(name, value);
    }
    let head = String::from_utf8_lossy(head).into_owned();
    let line = head.split("\r\n").next().unwrap_or_default().to_owned();
    Ok(Request { line, headers, head })
}
