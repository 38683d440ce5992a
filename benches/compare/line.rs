//! A slow line between client and relay, which can be cut: a proxy on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

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
