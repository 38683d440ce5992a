//! What the loud tenant does, on a thread of its own, until it is dropped.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::http::Connection;
use crate::relay::{HOST_LOUD, LOUD};
use crate::target::ENDLESS;

/// Viewers that were turned away come back after this.
const AGAIN: Duration = Duration::from_millis(20);

/// One way to be a nuisance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Flood,
    Hanging,
    Headers,
    SlowReaders,
    Bulk,
    Uploads,
    Storm,
    Unclaimed,
    All,
}

impl Kind {
    /// In the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Flood,
        Self::Hanging,
        Self::Headers,
        Self::SlowReaders,
        Self::Bulk,
        Self::Uploads,
        Self::Storm,
        Self::Unclaimed,
        Self::All,
    ];

    /// For the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Flood => "request flood, 64 connections",
            Self::Hanging => "512 requests that are never answered",
            Self::Headers => "heads of 60 KiB, 16 connections",
            Self::SlowReaders => "100 viewers that read 1 KiB/s",
            Self::Bulk => "4 downloads",
            Self::Uploads => "4 uploads",
            Self::Storm => "tunnels created and deleted, 16 connections",
            Self::Unclaimed => "300 viewers of a client that never claims",
            Self::All => "all of these together",
        }
    }

    fn viewers(self) -> usize {
        match self {
            Self::Flood => 64,
            Self::Hanging => 512,
            Self::Headers | Self::Storm => 16,
            Self::SlowReaders => 100,
            Self::Bulk | Self::Uploads => 4,
            Self::Unclaimed => 300,
            Self::All => 0,
        }
    }
}

/// One under way.
pub struct Abuse {
    runtime: Option<Runtime>,
}

impl Abuse {
    /// Begins it at the relay at `address`.
    pub fn start(kind: Kind, address: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        for kind in Kind::ALL.into_iter().filter(|one| *one == kind || kind == Kind::All) {
            if kind == Kind::Unclaimed {
                runtime.spawn(async move {
                    if let Err(error) = deaf_client(address).await {
                        eprintln!("no client that never claims: {error:#}");
                    }
                });
            }
            for _ in 0..kind.viewers() {
                runtime.spawn(async move {
                    loop {
                        // It ends when the relay turns it away.
                        let _ = viewer(kind, address).await;
                        sleep(AGAIN).await;
                    }
                });
            }
        }
        Ok(Self { runtime: Some(runtime) })
    }
}

impl Drop for Abuse {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn viewer(kind: Kind, address: SocketAddr) -> Result<()> {
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST_LOUD}\r\n{more}\r\n");
    match kind {
        Kind::Flood => repeat(address, &get("/", "")).await,
        Kind::Headers => {
            let header = format!("X-Filler: {}\r\n", "x".repeat(7500));
            repeat(address, &get("/", &header.repeat(8))).await
        }
        Kind::Hanging => read_on(address, &get("/hang", ""), None).await,
        Kind::SlowReaders => read_on(address, &get("/endless", ""), Some(Duration::from_secs(1))).await,
        Kind::Bulk => read_on(address, &get("/endless", ""), None).await,
        Kind::Uploads => {
            let mut stream = TcpStream::connect(address).await?;
            let head = format!("POST / HTTP/1.1\r\nHost: {HOST_LOUD}\r\nContent-Length: {ENDLESS}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let portion = vec![b'x'; 256 * 1024];
            loop {
                stream.write_all(&portion).await?;
            }
        }
        Kind::Storm => {
            let mut connection = Connection::open(address).await?;
            loop {
                let (status, body) = connection.ask(&call("POST", "", r#"{"local_port":1}"#)).await?;
                ensure!(status == 201, "{status}");
                let tunnel: serde_json::Value = serde_json::from_slice(&body)?;
                let id = tunnel["id"].as_str().context("no id")?;
                // An answer without a body has no length, which our small client asks for.
                let _ = connection.ask(&call("DELETE", &format!("/{id}"), "")).await;
                connection = Connection::open(address).await?;
            }
        }
        Kind::Unclaimed => {
            let request = "GET / HTTP/1.1\r\nHost: deaf.fair.localhost\r\n\r\n";
            read_on(address, request, None).await
        }
        Kind::All => Ok(()),
    }
}

/// Closed loop on one connection.
async fn repeat(address: SocketAddr, request: &str) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    loop {
        let (status, _) = connection.ask(request).await?;
        ensure!(status == 200, "{status}");
    }
}

/// Reads what comes until the end: all of it, or 1 KiB in each `pause`. A refusal ends it.
async fn read_on(address: SocketAddr, request: &str, pause: Option<Duration>) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; if pause.is_some() { 1024 } else { 256 * 1024 }];
    let mut first = true;
    loop {
        let count = stream.read(&mut buffer).await?;
        ensure!(count > 0, "the end");
        ensure!(!first || buffer.starts_with(b"HTTP/1.1 200"), "turned away");
        first = false;
        if let Some(pause) = pause {
            sleep(pause).await;
        }
    }
}

/// Holds the control socket of the tunnel `deaf`, and opens no data socket.
async fn deaf_client(address: SocketAddr) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    let (status, body) = connection.ask(&call("POST", "", r#"{"local_port":1,"name":"deaf"}"#)).await?;
    ensure!(status < 300, "{status}");
    let tunnel: serde_json::Value = serde_json::from_slice(&body)?;
    let id = tunnel["id"].as_str().context("no id")?;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /ws/control?tunnel_id={id} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {LOUD}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 64 * 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

fn call(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} /v1/tunnels{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {LOUD}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
