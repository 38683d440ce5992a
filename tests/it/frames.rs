//! A WebSocket client made by hand, which can break every rule: it writes frames bit by bit and answers nothing.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use crate::frame_bytes::*;
use crate::rig::{Answer, Rig, read_head, soon};

/// The request of a handshake that is right; tests take parts of it away.
pub fn handshake(path: &str, key: Option<&str>) -> String {
    let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\n{key}Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A socket after its handshake.
pub struct Raw(pub TcpStream);

impl Raw {
    /// The socket, or the head of the refusal.
    pub async fn open(relay: SocketAddr, path: &str, key: Option<&str>) -> Result<Self, Answer> {
        let mut stream = soon(TcpStream::connect(relay)).await.unwrap();
        stream.write_all(handshake(path, key).as_bytes()).await.unwrap();
        let head = soon(read_head(&mut stream)).await.unwrap();
        let answer = Answer::parse(&head);
        if answer.status == 101 { Ok(Self(stream)) } else { Err(answer) }
    }

    /// The control socket of the tunnel `name`, created for it.
    pub async fn control(rig: &Rig, key: &str, name: &str) -> Self {
        let id = rig.create(key, name).await["id"].as_str().unwrap().to_owned();
        Self::open(rig.address, &format!("/ws/control?tunnel_id={id}"), Some(key)).await.unwrap()
    }

    /// The data socket of a connection.
    pub async fn data(relay: SocketAddr, id: &str) -> Self {
        Self::open(relay, &format!("/ws/data?id={id}"), None).await.unwrap()
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.0.write_all(bytes.as_ref())).await.unwrap();
    }

    pub async fn send(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        self.write(frame(first, payload.as_ref())).await;
    }

    /// The first byte and the payload of the next frame; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        soon(self.frame_whenever()).await
    }

    /// The same, however long that takes.
    pub async fn frame_whenever(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (self.0.read_u8().await.ok()?, self.0.read_u8().await.ok()?);
        let length = match second {
            126 => self.0.read_u16().await.ok()?.into(),
            127 => self.0.read_u64().await.ok()?,
            length => u64::from(length),
        };
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((first, payload))
    }

    /// The payload of the next frame that begins with `first`; others are passed over.
    pub async fn next(&mut self, first: u8) -> Option<Vec<u8>> {
        loop {
            let (got, payload) = self.frame().await?;
            if got == first {
                return Some(payload);
            }
        }
    }

    /// The code of the close frame; `None` for a bare end.
    pub async fn close_code(&mut self) -> Option<u16> {
        let payload = self.next(CLOSE).await?;
        Some(u16::from_be_bytes([payload[0], payload[1]]))
    }

    /// Payload of data frames up to the end of a request's head.
    pub async fn request(&mut self) -> String {
        let mut head = Vec::new();
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            head.extend(self.next(BINARY).await.expect("the request was cut short"));
        }
        String::from_utf8(head).unwrap()
    }
}
