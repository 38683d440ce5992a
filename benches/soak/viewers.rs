//! Viewers of a healthy tunnel: each operation must go as it should, every byte of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::http::{self, Head, check_body, send_body};
use crate::pattern;
use crate::tally::Tally;

/// One operation takes no longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two operations of one viewer.
const PAUSE: Duration = Duration::from_millis(20);
/// Requests on one kept connection.
const KEPT: u64 = 20;

/// The viewers, which go on until they are told to stop.
pub fn start(
    relay: SocketAddr,
    tunnels: &[&'static str],
    tally: &Arc<Tally>,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut viewers = JoinSet::new();
    for &tunnel in tunnels {
        for kind in [Kind::New, Kind::New, Kind::Kept, Kind::Upload, Kind::Events, Kind::Echo, Kind::Big] {
            let (tally, stop) = (Arc::clone(tally), stop.clone());
            viewers.spawn(async move {
                while !stop.is_cancelled() {
                    let start = Instant::now();
                    let done = timeout(PATIENCE, kind.run(relay, tunnel));
                    let done = done.await.context("it took too long").and_then(|done| done);
                    // A relay that is away is not asked a thousand times a second.
                    sleep(if done.is_ok() { PAUSE } else { PAUSE * 10 }).await;
                    tally.note(kind.name(), start, done);
                }
            });
        }
    }
    viewers
}

#[derive(Clone, Copy)]
enum Kind {
    New,
    Kept,
    Upload,
    Events,
    Echo,
    Big,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::New => "download, new connection",
            Self::Kept => "downloads, kept connection",
            Self::Upload => "upload",
            Self::Events => "server-sent events",
            Self::Echo => "WebSocket echo",
            Self::Big => "20 MB both ways",
        }
    }

    async fn run(self, relay: SocketAddr, tunnel: &str) -> Result<()> {
        match self {
            Self::New => download(relay, tunnel, some(200_000)).await,
            Self::Kept => kept(relay, tunnel).await,
            Self::Upload => upload(relay, tunnel, some(300_000)).await,
            Self::Events => events(relay, tunnel, 1 + some(50)).await,
            Self::Echo => echo(relay, tunnel).await,
            Self::Big => {
                download(relay, tunnel, 20_000_000).await?;
                upload(relay, tunnel, 20_000_000).await
            }
        }
    }
}

/// Some number below `most`, another one each time.
pub fn some(most: u64) -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) % most
}

/// A GET on a connection of its own.
pub async fn download(relay: SocketAddr, tunnel: &str, length: u64) -> Result<()> {
    let mut viewer = http::open(relay).await?;
    let head = get(&mut viewer, tunnel, length, "Connection: close\r\n").await?;
    check_body(&mut viewer, head.length()).await?;
    ensure!(viewer.read(&mut [0]).await? == 0, "something came behind the body");
    Ok(())
}

async fn get(viewer: &mut http::Viewer, tunnel: &str, length: u64, more: &str) -> Result<Head> {
    let request = format!("GET /down/{length} HTTP/1.1\r\nHost: {tunnel}.soak.test\r\n{more}\r\n");
    viewer.write_all(request.as_bytes()).await?;
    let head = Head::read(viewer).await?.context("no answer")?;
    ensure!(head.status() == 200, "status {}", head.status());
    ensure!(head.length() == length, "length {}", head.length());
    Ok(head)
}

async fn kept(relay: SocketAddr, tunnel: &str) -> Result<()> {
    let mut viewer = http::open(relay).await?;
    for number in 0..KEPT {
        let head =
            get(&mut viewer, tunnel, some(50_000), "").await.with_context(|| format!("request {number}"))?;
        check_body(&mut viewer, head.length()).await?;
        if head.get("connection") == Some("close") {
            break;
        }
    }
    Ok(())
}

/// A PUT on a connection of its own.
pub async fn upload(relay: SocketAddr, tunnel: &str, length: u64) -> Result<()> {
    let mut viewer = http::open(relay).await?;
    let head = format!(
        "PUT /up HTTP/1.1\r\nHost: {tunnel}.soak.test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    viewer.write_all(head.as_bytes()).await?;
    let sent = send_body(&mut viewer, length).await;
    // An answer says more than that nothing more was taken.
    match Head::read(&mut viewer).await {
        Ok(Some(head)) if head.status() == 200 => sent,
        Ok(Some(head)) if head.status() == 422 => anyhow::bail!(http::WRONG_BYTE),
        Ok(Some(head)) => anyhow::bail!("status {}", head.status()),
        Ok(None) => anyhow::bail!("no answer"),
        Err(error) => Err(error),
    }
}

async fn events(relay: SocketAddr, tunnel: &str, count: u64) -> Result<()> {
    let mut viewer = http::open(relay).await?;
    let request =
        format!("GET /events/{count} HTTP/1.1\r\nHost: {tunnel}.soak.test\r\nConnection: close\r\n\r\n");
    viewer.write_all(request.as_bytes()).await?;
    let head = Head::read(&mut viewer).await?.context("no answer")?;
    ensure!(head.status() == 200, "status {}", head.status());
    let mut body = String::new();
    viewer.read_to_string(&mut body).await?;
    ensure!(body.ends_with("0\r\n\r\n"), "the events were cut");
    let mut rest = body.as_str();
    for event in 0..count {
        let event = format!("data: {event}\n\n");
        rest = rest.split_once(&event).with_context(|| format!("{event:?} is missing"))?.1;
    }
    Ok(())
}

async fn echo(relay: SocketAddr, tunnel: &str) -> Result<()> {
    let url = format!("ws://{tunnel}.soak.test/echo");
    let (mut socket, _) = client_async(url, TcpStream::connect(relay).await?).await?;
    for _ in 0..10 {
        let length = some(100_000);
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            bytes.extend_from_slice(pattern::piece(bytes.len() as u64, length));
        }
        let message = Message::binary(bytes);
        socket.send(message.clone()).await?;
        let echo = socket.next().await.context("no echo")??;
        ensure!(echo.is_binary(), "{echo:?} for an echo");
        ensure!(echo == message, http::WRONG_BYTE);
    }
    socket.close(None).await?;
    while let Some(Ok(message)) = socket.next().await {
        ensure!(message.is_close(), "something came at the end");
    }
    Ok(())
}

/// Viewers that leave at any point; what they see does not count.
pub async fn abort(relay: SocketAddr, tunnel: &'static str, count: u64) {
    let mut viewers = JoinSet::new();
    for number in 0..count {
        viewers.spawn(async move {
            let what = ["down/9999999", "endless", "events/99", "never"][number as usize % 4];
            let come = async {
                let mut viewer = http::open(relay).await?;
                let head = format!("GET /{what} HTTP/1.1\r\nHost: {tunnel}.soak.test\r\n\r\n");
                viewer.write_all(&head.as_bytes()[..head.len() - usize::from(number % 8 == 0)]).await?;
                let _ = viewer.read(&mut vec![0; 1 + some(50_000) as usize]).await;
                if number % 2 == 0 {
                    viewer.get_ref().set_zero_linger()?;
                }
                anyhow::Ok(())
            };
            let _ = timeout(Duration::from_millis(some(300)), come).await;
        });
    }
    viewers.join_all().await;
}

/// Readers and writers that nearly stand still, for `time`.
pub async fn dawdle(relay: SocketAddr, tunnel: &'static str, count: usize, time: Duration) {
    let mut viewers = JoinSet::new();
    for number in 0..count {
        viewers.spawn(timeout(time, async move {
            let mut viewer = http::open(relay).await?;
            let read = number % 2 == 0;
            let (what, length) = if read { ("GET /endless", 0) } else { ("PUT /up", u64::MAX / 2) };
            let head =
                format!("{what} HTTP/1.1\r\nHost: {tunnel}.soak.test\r\nContent-Length: {length}\r\n\r\n");
            viewer.write_all(head.as_bytes()).await?;
            let mut sent = 0;
            loop {
                sleep(Duration::from_millis(200)).await;
                if read {
                    viewer.read_exact(&mut [0; 1024]).await?;
                } else {
                    let piece = &pattern::piece(sent, u64::MAX)[..1024];
                    viewer.write_all(piece).await?;
                    sent += 1024;
                }
            }
            #[expect(unreachable_code, reason = "it says of what kind the errors are")]
            anyhow::Ok(())
        }));
    }
    viewers.join_all().await;
}
