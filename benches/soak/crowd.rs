//! Scripted clients of the base level: thousands that are idle, and storms of those that come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::house::{KEY, create, delete};

/// Clients that are made at the same time.
const LANES: usize = 16;
/// Bytes of each buffer of a client: there are thousands.
const BUFFER: usize = 1024;
/// For one control socket to open.
const OPEN_WAIT: Duration = Duration::from_secs(30);

/// Many idle clients, each with a tunnel of its own.
pub struct Crowd {
    relay: SocketAddr,
    ids: Vec<String>,
    clients: JoinSet<()>,
}

impl Crowd {
    /// Creates `count` tunnels and connects their clients.
    pub async fn gather(relay: SocketAddr, count: usize) -> Result<Self> {
        let mut lanes = JoinSet::new();
        for lane in 0..LANES {
            lanes.spawn(async move {
                let mut made = Vec::new();
                for number in (lane..count).step_by(LANES) {
                    let id = create(relay, KEY, &format!("crowd-{number}"), "").await?;
                    let socket = control(relay, KEY, &id).await?;
                    made.push((id, socket));
                }
                anyhow::Ok(made)
            });
        }
        let mut crowd = Self { relay, ids: Vec::new(), clients: JoinSet::new() };
        while let Some(made) = lanes.join_next().await {
            for (id, socket) in made?? {
                crowd.ids.push(id);
                crowd.clients.spawn(idle(socket));
            }
        }
        Ok(crowd)
    }

    /// How many clients the relay has not closed.
    pub fn alive(&mut self) -> usize {
        while self.clients.try_join_next().is_some() {}
        self.clients.len()
    }

    /// `rate` clients a second come back for `time`, each in the place of itself: how many did, and how many were refused.
    pub async fn storm(&mut self, rate: u32, time: Duration) -> (u64, u64) {
        let (back, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut ticks = interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (until, mut coming) = (Instant::now() + time, JoinSet::new());
        for id in self.ids.clone().into_iter().cycle() {
            ticks.tick().await;
            if Instant::now() > until {
                break;
            }
            let (relay, back, refused) = (self.relay, Arc::clone(&back), Arc::clone(&refused));
            coming.spawn(async move {
                let socket = control(relay, KEY, &id).await;
                if socket.is_ok() { &back } else { &refused }.fetch_add(1, Ordering::Relaxed);
                socket
            });
        }
        while let Some(came) = coming.join_next().await {
            if let Ok(Ok(socket)) = came {
                self.clients.spawn(idle(socket));
            }
        }
        (back.load(Ordering::Relaxed), refused.load(Ordering::Relaxed))
    }

    /// All leave, and their tunnels are deleted.
    pub async fn leave(mut self) -> Result<()> {
        self.clients.shutdown().await;
        let (mut lanes, ids) = (JoinSet::new(), Arc::new(self.ids));
        for lane in 0..LANES {
            let (relay, ids) = (self.relay, Arc::clone(&ids));
            lanes.spawn(async move {
                for id in ids.iter().skip(lane).step_by(LANES) {
                    delete(relay, id).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(deleted) = lanes.join_next().await {
            deleted??;
        }
        Ok(())
    }
}

/// Opens the control socket of a tunnel at base level, that is, without a subprotocol.
pub async fn control(relay: SocketAddr, key: &str, id: &str) -> Result<WebSocketStream<TcpStream>> {
    let opening = async {
        let mut request = format!("ws://{relay}/ws/control?tunnel_id={id}").into_client_request()?;
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {key}").parse()?);
        let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(BUFFER);
        let stream = TcpStream::connect(relay).await?;
        anyhow::Ok(client_async_with_config(request, stream, Some(config)).await?.0)
    };
    timeout(OPEN_WAIT, opening).await.context("no control socket in time")?
}

/// Reads, by which pings are answered, until the relay ends it.
pub async fn idle(mut socket: WebSocketStream<TcpStream>) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            break;
        }
    }
}
