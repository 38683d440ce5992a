//! The first request of a tunnel over a slow line: a proxy on loopback delays what passes between client and relay.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::adit::Relay;
use crate::http::Connection;
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

/// A proxy that holds everything back for half a round trip in each direction, and the first bytes of a connection for
/// the round trip that TCP's handshake takes on a real line.
pub struct Line {
    /// Where it begins.
    pub address: SocketAddr,
    cut: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Line {
    /// A line to `to` with this round trip.
    pub async fn start(to: SocketAddr, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (mut tasks, cut) = (JoinSet::new(), Arc::new(Notify::new()));
        let is_cut = Arc::clone(&cut);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let near = tokio::select! {
                    () = is_cut.notified() => {
                        connections.abort_all();
                        continue;
                    }
                    accepted = listener.accept() => match accepted {
                        Ok((near, _)) => near,
                        Err(_) => break,
                    },
                };
                connections.spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let _ = (near.set_nodelay(true), far.set_nodelay(true));
                    let open = Instant::now() + delay;
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    tokio::join!(
                        hold(near_read, far_write, delay / 2, open),
                        hold(far_read, near_write, delay / 2, open)
                    );
                });
            }
        });
        Ok(Self { address, cut, _tasks: tasks })
    }

    /// Drops all connections; new ones are taken.
    pub fn cut(&self) {
        self.cut.notify_one();
    }
}

/// Passes on what comes after `delay`, counted from `open` at the earliest.
async fn hold(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
    open: Instant,
) {
    let (queue, mut held) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now().max(open) + delay;
            if queue.send((due, buffer[..count].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = held.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
