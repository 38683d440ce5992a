//! What the tests stand on: a bridge in this process, scripted targets, a viewer made by hand.

use std::net::SocketAddr;
use std::time::Duration;

use adit::bridge::{Bridge, BridgeConfig, Target};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::frame_bytes::{BINARY, CLOSE, frame};

/// No wait in a test is longer: a test that hangs says where.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `future`, but not for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("nothing happened in time")
}

/// A listener on a loopback port of its own, and the target that it is.
pub async fn target() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, target)
}

/// What the bridge dials next.
pub async fn accepted(listener: &TcpListener) -> TcpStream {
    soon(listener.accept()).await.unwrap().0
}

/// A target that sends everything back.
pub async fn echo() -> Target {
    let (listener, target) = target().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    target
}

/// A target that refuses connections.
pub async fn nobody() -> Target {
    target().await.1
}

/// A bridge of its own in this process.
pub struct Rig {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Rig {
    /// With the usual settings.
    pub async fn to(target: Target) -> Self {
        Self::with(target, |_| {}).await
    }

    /// With settings that `change` has changed.
    pub async fn with(target: Target, change: impl FnOnce(&mut BridgeConfig)) -> Self {
        let mut config = BridgeConfig::to(target);
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let bridge = Bridge::new(config).unwrap();
        let running = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            bridge.run([listener.into()], shutdown).await;
        });
        Self { address, stop: Some(stop), running }
    }

    /// A viewer's socket.
    pub async fn open(&self) -> Viewer<TcpStream> {
        self.open_with("/", "").await
    }

    /// The same, with these header lines beside the usual.
    pub async fn open_with(&self, path: &str, lines: &str) -> Viewer<TcpStream> {
        let (head, viewer) = self.ask(&handshake(path, lines)).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        viewer
    }

    /// The head that answers `request`, and the connection.
    pub async fn ask(&self, request: &str) -> (String, Viewer<TcpStream>) {
        let stream = soon(TcpStream::connect(self.address)).await.unwrap();
        ask(stream, request.as_bytes()).await
    }

    /// Has the end begin.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits for the end, which has begun.
    pub async fn ended(self) {
        soon(self.running).await.unwrap();
    }
}

/// The request of a handshake that is right, with more header lines, each with its end.
pub fn handshake(path: &str, lines: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n{lines}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The head that answers `bytes`, and the connection.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, bytes: &[u8]) -> (String, Viewer<S>) {
    soon(stream.write_all(bytes)).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = soon(stream.read_u8()).await else { break };
        head.push(byte);
    }
    (String::from_utf8(head).unwrap(), Viewer(stream))
}

/// A WebSocket after its handshake, which writes frames bit by bit and answers nothing.
pub struct Viewer<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin> Viewer<S> {
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.0.write_all(bytes.as_ref())).await.unwrap();
        soon(self.0.flush()).await.unwrap();
    }

    pub async fn send(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        self.write(frame(first, payload.as_ref())).await;
    }

    /// The first byte and the payload of the next frame; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        soon(async {
            let (first, second) = (self.0.read_u8().await.ok()?, self.0.read_u8().await.ok()?);
            let length = match second {
                126 => self.0.read_u16().await.ok()?.into(),
                127 => self.0.read_u64().await.ok()?,
                length => u64::from(length),
            };
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            Some((first, payload))
        })
        .await
    }

    /// So many bytes, in however many binary messages.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let (first, payload) = self.frame().await.expect("the end came first");
            assert_eq!(first, BINARY, "{payload:?}");
            all.extend(payload);
        }
        assert_eq!(all.len(), count);
        all
    }

    /// Code and reason of the close frame that comes next; 0 where it has none.
    pub async fn close(&mut self) -> (u16, String) {
        let (first, payload) = self.frame().await.expect("the end came without a close frame");
        assert_eq!(first, CLOSE, "{payload:?}");
        let Some((code, reason)) = payload.split_first_chunk() else { return (0, String::new()) };
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap())
    }

    /// The stream ends now.
    pub async fn end(&mut self) {
        assert_eq!(self.frame().await, None);
    }
}
