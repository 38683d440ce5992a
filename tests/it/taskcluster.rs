//! Workers of Taskcluster at the relay: how they register, how they are viewed, and what a bad one does to others.

mod register;
mod streams;
mod takeover;
mod viewers;

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use adit::auth::Secret;
use adit::auth::jwt::{Secrets, WorkerTokens};
use adit::relay::config::RelayConfig;
use adit::stream::handshake::{self, ConnectError};
use adit::wsmux::{Role, Session, Settings, Stream};
use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::rig::{Answer, Rig, soon};

/// Secret A.
pub const SECRET: &str = "test-secret";
/// Secret B.
pub const OTHER_SECRET: &str = "another-secret";

/// What takes tokens of both secrets.
pub fn tokens(audience: Option<&str>) -> WorkerTokens {
    let secrets = Secrets::new([SECRET, OTHER_SECRET].map(Secret::new).to_vec());
    WorkerTokens { secrets, audience: audience.map(str::to_owned) }
}

/// Now in Unix seconds.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A good token for `id`.
pub fn token(id: &str) -> String {
    tokens(None).mint(id, std::time::Duration::from_secs(3600), now() * 1000).unwrap()
}

/// A relay that takes workers.
pub async fn rig() -> Rig {
    rig_with(|_| {}).await
}

pub async fn rig_with(change: impl FnOnce(&mut RelayConfig)) -> Rig {
    Rig::with(|config| {
        config.worker_tokens = Some(tokens(None));
        // Hosts are no names of tunnels here, unless a test wants it.
        config.base_domain = None;
        change(config);
    })
    .await
}

/// A registered worker's WebSocket, with what was read behind the handshake; or the status of the refusal and its text.
pub async fn register(
    relay: SocketAddr,
    id: &str,
    token: &str,
) -> Result<(TcpStream, BytesMut, String), (u16, String)> {
    let io = TcpStream::connect(relay).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-websocktunnel-id", HeaderValue::from_str(id).unwrap());
    headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    let uri = format!("http://{relay}/").parse().unwrap();
    match soon(handshake::connect(io, &uri, headers)).await {
        Ok(opened) => {
            let url = opened.headers["x-websocktunnel-client-url"].to_str().unwrap().to_owned();
            Ok((opened.io, opened.already, url))
        }
        Err(ConnectError::Refused { status, body }) => Err((status.as_u16(), body)),
        Err(error) => panic!("{error}"),
    }
}

/// A worker's end of a session, driven while it is held.
pub struct Worker {
    pub session: Session,
    pub url: String,
    pub tasks: JoinSet<()>,
}

impl Worker {
    /// Registers, and leaves the streams to the test.
    pub async fn of(relay: SocketAddr, id: &str) -> Self {
        let (io, already, url) = register(relay, id, &token(id)).await.unwrap();
        let (session, driver) = Session::with_already(io, Role::Client, already, Settings::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            driver.run().await;
        });
        Self { session, url, tasks }
    }

    /// Registers, and joins each stream to a connection of `target`.
    pub async fn start(relay: SocketAddr, id: &str, target: SocketAddr) -> Self {
        let mut worker = Self::of(relay, id).await;
        let session = worker.session.clone();
        worker.tasks.spawn(async move {
            let mut joined = JoinSet::new();
            while let Some(mut stream) = session.accept().await {
                joined.spawn(async move {
                    if let Ok(mut tcp) = TcpStream::connect(target).await {
                        let _ = copy_bidirectional(&mut stream, &mut tcp).await;
                    }
                });
            }
        });
        worker
    }

    /// The next stream that the relay opens.
    pub async fn stream(&self) -> Stream {
        soon(self.session.accept()).await.expect("the session is over")
    }
}

/// A GET of `path` with these header lines, on a connection of its own.
pub async fn get(rig: &Rig, path: &str, lines: &str) -> Answer {
    rig.raw(format!("GET {path} HTTP/1.1\r\nHost: relay.test\r\n{lines}Connection: close\r\n\r\n")).await
}
