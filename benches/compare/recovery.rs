//! How soon many clients are back after all of their connections broke at the same moment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit::client::{Event, Tunnel};
use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::adit::{KEY, Relay};
use crate::line::Line;
use crate::process::TempDir;

/// Clients, each with a tunnel of its own.
const CLIENTS: usize = 1_000;
/// For their standby sockets to be there.
const SETTLE: Duration = Duration::from_secs(3);
/// What one of them may take.
const WAIT: Duration = Duration::from_secs(60);

/// From the break to the word that viewers are served again.
pub struct Recovery {
    /// How many clients there were.
    pub clients: usize,
    /// Of half of them.
    pub median: Duration,
    /// Of all but one in a hundred.
    pub p99: Duration,
}

/// Connects the clients through a proxy that then drops all connections.
pub async fn measure(temp: &TempDir, target: SocketAddr) -> Result<Recovery> {
    let relay = Relay::start(temp, "recovery").await?;
    let line = Line::start(relay.address, Duration::ZERO).await?;
    let online = Arc::new(Barrier::new(CLIENTS + 1));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (url, target) = (format!("http://{}", line.address), target.to_string());
        let online = Arc::clone(&online);
        clients.spawn(async move {
            let tunnel = Tunnel::to(url).key(KEY).name(format!("recovery-{number}"));
            let mut tunnel = tunnel.expose(&target).await?;
            online.wait().await;
            while let Some(event) =
                timeout(WAIT, tunnel.next()).await.context("a client does not come back")?
            {
                if matches!(event, Event::Online { again: true, .. }) {
                    return Ok(Instant::now());
                }
            }
            bail!("a client has ended")
        });
    }
    timeout(WAIT, online.wait()).await.context("not all clients came online")?;
    sleep(SETTLE).await;
    let broken = Instant::now();
    line.cut();
    let mut times = Vec::with_capacity(CLIENTS);
    while let Some(back) = clients.join_next().await {
        times.push(back??.checked_duration_since(broken).context("a client was cut off before the break")?);
    }
    times.sort_unstable();
    let (median, p99) = (times[CLIENTS / 2], times[CLIENTS * 99 / 100]);
    eprintln!("{CLIENTS} clients are back after {median:.0?}, 99 of 100 after {p99:.0?}");
    Ok(Recovery { clients: CLIENTS, median, p99 })
}
