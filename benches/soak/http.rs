//! HTTP/1.1 by hand, both as a viewer and as a target: heads, and bodies of the pattern.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::pattern;

/// Buffer of each connection.
const BUFFER: usize = 64 * 1024;

/// A viewer's connection to the relay.
pub type Viewer = BufReader<TcpStream>;

/// Connects.
pub async fn open(relay: SocketAddr) -> Result<Viewer> {
    Ok(BufReader::with_capacity(BUFFER, TcpStream::connect(relay).await?))
}

/// First line and headers of a message.
pub struct Head(String);

impl Head {
    /// Reads one; `None` at the end of the stream.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin + AsyncBufReadExt)) -> Result<Option<Self>> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut text).await? == 0 {
                ensure!(text.is_empty(), "the stream ended within a head");
                return Ok(None);
            }
        }
        Ok(Some(Self(String::from_utf8_lossy(&text).into_owned())))
    }

    /// A part of the first line.
    pub fn part(&self, number: usize) -> &str {
        self.0.split_ascii_whitespace().nth(number).unwrap_or_default()
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.part(1).parse().unwrap_or(0)
    }

    /// The value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The length of the body.
    pub fn length(&self) -> u64 {
        self.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
    }
}

/// Sends a body of the pattern.
pub async fn send_body(stream: &mut (impl AsyncWrite + Unpin), length: u64) -> Result<()> {
    let mut sent = 0;
    while sent < length {
        let piece = pattern::piece(sent, length);
        stream.write_all(piece).await?;
        sent += piece.len() as u64;
    }
    Ok(())
}

/// Reads a body that must be the pattern.
pub async fn check_body(stream: &mut (impl AsyncRead + Unpin), length: u64) -> Result<()> {
    let (mut read, mut buffer) = (0, vec![0; BUFFER]);
    while read < length {
        let most = usize::try_from(length - read).unwrap_or(usize::MAX).min(BUFFER);
        let count = stream.read(&mut buffer[..most]).await?;
        ensure!(count > 0, "the body ended after {read} of {length} bytes");
        if !pattern::is_right(read, &buffer[..count]) {
            bail!(WRONG_BYTE);
        }
        read += count as u64;
    }
    Ok(())
}

/// What no window excuses.
pub const WRONG_BYTE: &str = "a wrong byte";

/// A request whose response has a short body: status and body.
pub async fn ask(relay: SocketAddr, request: &str) -> Result<(u16, String)> {
    let mut viewer = open(relay).await?;
    viewer.write_all(request.as_bytes()).await?;
    let head = Head::read(&mut viewer).await?.context("no answer")?;
    let mut body = Vec::new();
    viewer.take(head.length()).read_to_end(&mut body).await?;
    Ok((head.status(), String::from_utf8_lossy(&body).into_owned()))
}
