//! The memory for each viewer that holds a response open, of the relay and of nginx.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::adit::Relay;
use crate::machine::Tools;
use crate::nginx::{Buffering, start_proxy};
use crate::process::TempDir;
use crate::targets::Targets;

/// Viewers that connect at the same time, well below what may wait for a claim.
const WAVE: usize = 20;
/// Viewers that come before the memory is read for the first time.
const FIRST: usize = WAVE;
/// What one viewer may wait for the beginning of its response.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// Let the servers finish what the connecting left to do, before their memory is read.
const SETTLE: Duration = Duration::from_secs(3);

/// KiB for each open viewer.
pub struct PerViewer {
    /// Of the nginx proxy.
    pub nginx: f64,
    /// Of the relay.
    pub relay: f64,
    /// Of the client.
    pub client: f64,
}

/// Opens so many viewers on each system, one system after the other. Both are new, because memory that earlier
/// requests left free in them would hide what viewers need.
pub async fn measure(
    tools: &Tools,
    temp: &TempDir,
    backend: SocketAddr,
    targets: &Targets,
    count: usize,
) -> Result<PerViewer> {
    let proxy = start_proxy(tools, temp, "viewers-proxy", backend, targets, Buffering::Default).await?;
    let memory = || Ok((proxy.server.memory_kib()?, 0.0));
    let (nginx, _) = open(proxy.address, "localhost", targets, count, memory).await?;
    let system = Relay::start(temp, "viewers").await?;
    let tunnel = system.expose("slow", targets.slow).await?;
    let memory = || Ok((tunnel.client.memory_kib()?, system.memory_kib()?));
    let (client, relay) = open(system.address, &tunnel.host, targets, count, memory).await?;
    eprintln!("{count} open viewers: nginx {nginx:.1} KiB each; relay {relay:.1}, client {client:.1}");
    Ok(PerViewer { nginx, relay, client })
}

/// Opens the viewers and returns by how much each of the two figures of `memory` grew for one.
async fn open(
    address: SocketAddr,
    host: &str,
    targets: &Targets,
    count: usize,
    memory: impl Fn() -> Result<(f64, f64)>,
) -> Result<(f64, f64)> {
    let mut viewers = Vec::new();
    more(address, host, FIRST, &mut viewers).await?;
    sleep(SETTLE).await;
    let before = memory()?;
    more(address, host, count, &mut viewers).await?;
    sleep(SETTLE).await;
    let after = memory()?;
    let held = targets.held.load(Ordering::Relaxed);
    ensure!(held == viewers.len(), "the target holds {held} responses of {} viewers", viewers.len());
    drop(viewers);

    // The next system must not be blamed for these.
    let deadline = Instant::now() + ANSWER_WAIT;
    while targets.held.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
    ensure!(
        targets.held.load(Ordering::Relaxed) == 0,
        "responses go on although their viewers at {address} left"
    );
    Ok(((after.0 - before.0) / count as f64, (after.1 - before.1) / count as f64))
}

/// Adds `count` viewers, in waves.
async fn more(address: SocketAddr, host: &str, count: usize, viewers: &mut Vec<TcpStream>) -> Result<()> {
    let mut left = count;
    while left > 0 {
        let mut wave = JoinSet::new();
        for _ in 0..left.min(WAVE) {
            wave.spawn(viewer(address, format!("GET /slow HTTP/1.1\r\nHost: {host}\r\n\r\n")));
        }
        left -= wave.len();
        while let Some(stream) = wave.join_next().await {
            viewers.push(stream??);
        }
    }
    Ok(())
}

/// One viewer that has got the first chunk of its response.
async fn viewer(address: SocketAddr, request: String) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let read = async {
        while !bytes.windows(5).any(|window| window == b"hello") {
            ensure!(
                stream.read_buf(&mut bytes).await? > 0,
                "a viewer got no open response but: {}",
                String::from_utf8_lossy(&bytes)
            );
        }
        Ok(())
    };
    timeout(ANSWER_WAIT, read).await.context("a viewer waits in vain for its response")??;
    Ok(stream)
}
