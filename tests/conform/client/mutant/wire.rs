//! HTTP and WebSockets of the mutant, by hand: what a defect breaks must be within reach.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit::proto::frame::{Decoder, Event, HeaderBytes, Opcode, Role};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

/// An answer, and the connection that it came on.
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
    stream: TcpStream,
    left: BytesMut,
}

/// Sends a request of these lines, and reads its answer.
pub(super) async fn ask(at: &str, lines: &[String], body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(at).await?;
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{}\r\nHost: {at}\r\n{length}\r\n{body}", lines.join("\r\n"));
    stream.write_all(head.as_bytes()).await?;
    let mut left = BytesMut::new();
    let end = loop {
        if let Some(end) = left.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut left).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&left.split_to(end)).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut answer = Answer { status, head, body: Vec::new(), stream, left };
    let length: usize = answer.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while answer.left.len() < length {
        if answer.stream.read_buf(&mut answer.left).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    answer.body = answer.left.split_to(length).to_vec();
    Ok(answer)
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let line = |line: &str| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        self.head.lines().find_map(line)
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The WebSocket behind a 101.
    pub(super) fn socket(self) -> (Reader, Writer) {
        let (read, write) = self.stream.into_split();
        let decoder = Decoder::new(Role::Client);
        (Reader { half: read, buffer: self.left, decoder }, Arc::new(Mutex::new(Half(Some(write)))))
    }
}

/// What comes on a socket.
#[derive(Debug)]
pub(super) enum In {
    Data(Bytes),
    Empty,
    EmptyFragment,
    Ping(Bytes),
    Pong,
    Close(Option<u16>),
    /// The end of the connection between two messages.
    Fin,
    /// Any other end.
    Cut,
}

pub(super) struct Reader {
    half: OwnedReadHalf,
    buffer: BytesMut,
    decoder: Decoder,
}

pub(super) type Writer = Arc<Mutex<Half>>;

/// The half that writes. Dropped, it sends no end of its own: that comes with the connection's, which may be a reset.
pub(super) struct Half(Option<OwnedWriteHalf>);

impl Half {
    /// Ends the connection by a reset when the other half is dropped, too.
    pub(super) fn will_reset(&self) {
        if let Some(half) = &self.0 {
            let _ = socket2::SockRef::from(half.as_ref()).set_linger(Some(Duration::ZERO));
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Some(half) => half.write_all(bytes).await,
            None => Ok(()),
        }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            half.forget();
        }
    }
}

impl Reader {
    pub(super) async fn next(&mut self) -> In {
        loop {
            match self.decoder.next(&mut self.buffer) {
                Ok(Some(Event::Data(data))) => return In::Data(data),
                Ok(Some(Event::EmptyMessage)) => return In::Empty,
                Ok(Some(Event::End)) => return In::EmptyFragment,
                Ok(Some(Event::Ping(payload))) => return In::Ping(payload),
                Ok(Some(Event::Pong(_))) => return In::Pong,
                Ok(Some(Event::Close(code))) => return In::Close(code),
                Ok(None) => {}
                Err(_) => return In::Cut,
            }
            self.buffer.reserve(64 * 1024);
            match self.half.read_buf(&mut self.buffer).await {
                Ok(0) if self.buffer.is_empty() && self.decoder.at_rest() => return In::Fin,
                Ok(1..) => {}
                Ok(0) | Err(_) => return In::Cut,
            }
        }
    }

    /// The message of the last payload has ended with it.
    pub(super) fn at_rest(&self) -> bool {
        self.decoder.at_rest()
    }

    pub(super) fn is_text(&self) -> bool {
        self.decoder.is_text()
    }
}

/// Sends one frame. Its mask is zero, which is one.
pub(super) async fn send(writer: &Writer, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
    let header = HeaderBytes::new(opcode, true, payload.len(), Some([0; 4]));
    let frame = [header.as_ref(), payload].concat();
    writer.lock().await.write_all(&frame).await
}

/// Sends a close frame.
pub(super) async fn close(writer: &Writer, code: u16) -> io::Result<()> {
    send(writer, Opcode::Close, &code.to_be_bytes()).await
}
