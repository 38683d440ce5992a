//! A very small HTTP/1.1 client, enough to ask a server on loopback one thing at a time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::process::Server;

/// How long one answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// How long a server may take to become ready.
const READY_WAIT: Duration = Duration::from_secs(15);
/// The largest head we read.
const MAX_HEAD: usize = 16 * 1024;

/// A keep-alive connection.
pub struct Connection(TcpStream);

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends one request (a whole head, and a body if there is one) and returns the status and the body. Only
    /// responses with a Content-Length are understood.
    pub async fn ask(&mut self, request: &str) -> Result<(u16, Vec<u8>)> {
        timeout(ANSWER_WAIT, self.ask_unlimited(request)).await.context("no answer in time")?
    }

    async fn ask_unlimited(&mut self, request: &str) -> Result<(u16, Vec<u8>)> {
        self.0.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = head_end(&bytes) {
                break end;
            }
            ensure!(bytes.len() < MAX_HEAD, "the head of the response is too large");
            ensure!(self.0.read_buf(&mut bytes).await? > 0, "the connection ended before the response head");
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).context("odd status line")?;
        let Some(length) = content_length(&head)? else { bail!("no Content-Length in:\n{head}") };
        let mut body = bytes.split_off(end);
        while body.len() < length {
            ensure!(self.0.read_buf(&mut body).await? > 0, "the connection ended inside the response");
        }
        body.truncate(length);
        Ok((status, body))
    }
}

/// Where the body begins, if the head is complete.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of Content-Length, if there is one.
pub fn content_length(head: &str) -> Result<Option<usize>> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let value =
        lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value).next();
    value.map(|value| value.trim().parse().context("Content-Length is no number")).transpose()
}

/// Waits until `GET path` with this Host is answered 200, while `server` lives; returns the body.
pub async fn wait_ready(server: &mut Server, address: SocketAddr, host: &str, path: &str) -> Result<Vec<u8>> {
    let deadline = Instant::now() + READY_WAIT;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    loop {
        server.check()?;
        let answer = async { Connection::open(address).await?.ask(&request).await }.await;
        let why = match answer {
            Ok((200, body)) => return Ok(body),
            Ok((status, body)) => format!("status {status}: {}", String::from_utf8_lossy(&body)),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!("{} is not ready at http://{address}{path} ({why}):\n{}", server.name, server.log_tail());
        }
        sleep(Duration::from_millis(50)).await;
    }
}
