//! A tiny relay for tests that does only what the test says, connection by connection.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Connector, Dialer, Proxies, RelayUrl};
use crate::auth::Secret;

pub(super) type Socket = WebSocketStream<TcpStream>;

/// No wait in a test is longer.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("nothing happened in time")
}

pub(super) struct Scripted {
    listener: TcpListener,
}

/// One request, to be answered.
pub(super) struct Call {
    pub(super) line: String,
    pub(super) head: String,
    pub(super) body: Value,
    stream: TcpStream,
}

impl Scripted {
    pub(super) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    pub(super) fn connector(&self) -> Arc<Connector> {
        let dialer = Dialer::new(RelayUrl::parse(&self.url()).unwrap(), Proxies::none());
        Connector::new(dialer, Some(&Secret::new("nbk_test"))).unwrap()
    }

    /// The next request of the client.
    pub(super) async fn call(&self) -> Call {
        soon(async {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut body).await.unwrap();
            let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
            Call { line, head, body: serde_json::from_slice(&body).unwrap_or_default(), stream }
        })
        .await
    }

    /// Expects the creation of a tunnel and grants it.
    pub(super) async fn grant(&self, id: &str, slug: &str) -> Call {
        let call = self.call().await;
        assert_eq!(call.line, "POST /v1/tunnels");
        let tunnel = json!({ "id": id, "slug": slug, "public_url": format!("http://{slug}.relay.test") });
        call.answer(201, &tunnel).await
    }

    /// Expects the control socket of the tunnel `id`.
    pub(super) async fn control(&self, id: &str) -> Socket {
        let call = self.call().await;
        assert_eq!(call.line, format!("GET /ws/control?tunnel_id={id}"));
        assert!(call.head.contains("authorization: Bearer nbk_test\r\n"), "{}", call.head);
        call.switch().await
    }

    /// Grants a tunnel and its control socket.
    pub(super) async fn session(&self, id: &str, slug: &str) -> Socket {
        self.grant(id, slug).await;
        self.control(id).await
    }

    /// Expects the data socket of the connection `id`, as it stands in the query.
    pub(super) async fn data(&self, id: &str) -> Socket {
        let call = self.call().await;
        assert_eq!(call.line, format!("GET /ws/data?id={id}"));
        assert!(!call.head.contains("authorization"), "the id alone is the right: {}", call.head);
        call.switch().await
    }
}

impl Call {
    pub(super) async fn answer(mut self, status: u16, body: &Value) -> Self {
        let body = body.to_string();
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        self.stream.write_all(answer.as_bytes()).await.unwrap();
        self
    }

    async fn switch(mut self) -> Socket {
        let key = self.head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.stream.write_all(answer.as_bytes()).await.unwrap();
        WebSocketStream::from_raw_socket(self.stream, Role::Server, None).await
    }
}
