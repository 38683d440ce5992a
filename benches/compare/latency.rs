//! The first request of a tunnel over a slow line: a proxy on loopback delays what passes between client and relay.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use crate::adit::Relay;
use crate::http::Connection;
use crate::line::Line;
use crate::process::TempDir;

/// Round trips between client and relay.
pub const DELAYS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
/// Tunnels of each measurement; each has one first request.
const TUNNELS: usize = 7;
/// After its URL is printed, a client opens its standby sockets: three round trips, and time for the processes.
const SETTLE: Duration = Duration::from_millis(300);

/// Medians of the time to the first byte of a tunnel's first response.
pub struct Latency {
    /// The round trip.
    pub delay: Duration,
    /// Of the target itself.
    pub direct: Duration,
    /// With standby sockets.
    pub standby: Duration,
    /// Without: the viewer waits for the handshakes of TCP and WebSocket.
    pub without: Duration,
}

/// Measures for each of [`DELAYS`].
pub async fn measure(temp: &TempDir, target: SocketAddr) -> Result<Vec<Latency>> {
    let with = Relay::start(temp, "latency-standby").await?;
    let without = Relay::start_with(temp, "latency-without", &["--standby-per-tunnel", "0"]).await?;
    let mut found = Vec::new();
    for delay in DELAYS {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..TUNNELS {
            times[0].push(first_byte(target, &target.to_string()).await?);
            for (at, relay) in [(1, &with), (2, &without)] {
                let line = Line::start(relay.address, delay).await?;
                let name = format!("first-{}-{round}", delay.as_millis());
                let tunnel = relay.expose_by(line.address, &name, target).await?;
                sleep(SETTLE + 3 * delay).await;
                times[at].push(first_byte(relay.address, &tunnel.host).await?);
            }
        }
        let [direct, standby, without] = times.map(median);
        found.push(Latency { delay, direct, standby, without });
    }
    Ok(found)
}

/// Time until a small response is there, on a new connection.
async fn first_byte(address: SocketAddr, host: &str) -> Result<Duration> {
    let began = Instant::now();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let (status, _) = Connection::open(address).await?.ask(&request).await?;
    ensure!(status == 200, "{host} answers {status}");
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
