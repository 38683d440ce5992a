//! A viewer of HTTP/2 made by hand, which can break every rule: it writes frames and header blocks bit by bit.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::soon;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

pub const PROTOCOL_ERROR: u32 = 1;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// An integer of HPACK (RFC 7541, section 5.1) behind the bits of `first`.
fn integer(first: u8, prefix: u32, mut value: usize, block: &mut Vec<u8>) {
    let most = (1 << prefix) - 1;
    if value < most {
        return block.push(first | value as u8);
    }
    block.push(first | most as u8);
    value -= most;
    while value >= 128 {
        block.push(value as u8 | 0x80);
        value >>= 7;
    }
    block.push(value as u8);
}

/// A literal with a name of its own; `first` says whether it goes into the table (`0x40`) or not (`0`).
pub fn literal(first: u8, name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(first);
    for text in [name, value] {
        integer(0, 7, text.len(), block);
        block.extend_from_slice(text);
    }
}

pub fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    headers.iter().for_each(|(name, value)| literal(0, name.as_bytes(), value.as_bytes(), &mut block));
    block
}

pub fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":authority", "web.relay.test"), (":path", path)])
}

pub struct Http2(pub TcpStream);

/// What a stream, or its connection, came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The first byte of the response's header block: `0x88` is 200, `0x8c` is 400.
    Answer(u8),
    Reset(u32),
    GoAway(u32),
    Closed,
}

/// 200.
pub const OK: End = End::Answer(0x88);
pub const BAD_REQUEST: End = End::Answer(0x8c);
pub const NOT_FOUND: End = End::Answer(0x8d);

impl Http2 {
    /// After the preface, with these settings.
    pub async fn open(relay: SocketAddr, settings: &[u8]) -> Self {
        let mut stream = soon(TcpStream::connect(relay)).await.unwrap();
        let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, settings)].concat();
        stream.write_all(&hello).await.unwrap();
        Self(stream)
    }

    /// Kind, flags, stream and payload of the next frame.
    pub async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some((head[3], head[4], stream, payload))
    }

    /// Reads up to the end of the first stream.
    pub async fn end(&mut self) -> End {
        soon(async {
            while let Some((kind, _, stream, payload)) = self.next().await {
                let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
                match kind {
                    HEADERS if stream == 1 => return End::Answer(payload[0]),
                    RST_STREAM if stream == 1 => return End::Reset(code(0)),
                    GOAWAY if code(4) != 0 => return End::GoAway(code(4)),
                    _ => {}
                }
            }
            End::Closed
        })
        .await
    }
}
