//! A tiny relay for tests that does only what the test says, connection by connection.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
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

    /// Expects the control socket of the tunnel `id`, and knows the base level only.
    pub(super) async fn control(&self, id: &str) -> Socket {
        self.control_call(id).await.switch().await
    }

    /// The same, to be answered.
    pub(super) async fn control_call(&self, id: &str) -> Call {
        let call = self.call().await;
        assert_eq!(call.line, format!("GET /ws/control?tunnel_id={id}"));
        assert!(call.head.contains("authorization: Bearer nbk_test\r\n"), "{}", call.head);
        assert!(call.head.contains("sec-websocket-protocol: adit.1\r\n"), "{}", call.head);
        call
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

    /// Grants a tunnel and its control socket at level two, and welcomes the session as `session`.
    pub(super) async fn session_two(&self, id: &str, slug: &str, session: &str) -> Socket {
        self.grant(id, slug).await;
        let mut control = self.control_call(id).await.switch_to("adit.1").await;
        say(&mut control, &welcome(session)).await;
        control
    }

    /// Expects the data socket of the connection `id` at level two.
    pub(super) async fn data_two(&self, id: &str) -> Socket {
        let call = self.call().await;
        assert_eq!(call.line, format!("GET /ws/data?id={id}"));
        call.has_key().switch().await
    }

    /// Expects a standby socket of the tunnel `id`: the id it goes by, and the call to be answered.
    pub(super) async fn standby(&self, id: &str) -> (String, Call) {
        let call = self.call().await;
        let own = call.line.strip_prefix(&format!("GET /ws/data?tunnel_id={id}&id="));
        let own = own.and_then(|own| own.split_once("&session="));
        let (own, _) = own.unwrap_or_else(|| panic!("no standby socket of a session: {}", call.line));
        let own = own.to_owned();
        assert_eq!(uuid::Uuid::parse_str(&own).unwrap().get_version_num(), 4);
        (own, call.has_key())
    }
}

/// The welcome to the session of this name.
pub(super) fn welcome(session: &str) -> Value {
    json!({
        "type": "welcome", "session": session, "relay": "scripted", "ping_interval_ms": 30_000,
        "pong_timeout_ms": 60_000, "claim_ms": 10_000,
        "limits": { "control_message_bytes": 65536, "data_message_bytes": 65536, "waiting": 256, "standby": 3 },
    })
}

/// Says it on a control socket, or to assign a standby socket.
pub(super) async fn say(socket: &mut Socket, message: &Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

/// What the client says next on its control socket.
pub(super) async fn heard(control: &mut Socket) -> Value {
    loop {
        match soon(control.next()).await {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("{other:?}"),
        }
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

    /// At level two data sockets carry the key, and offer no subprotocol.
    fn has_key(self) -> Self {
        assert!(self.head.contains("authorization: Bearer nbk_test\r\n"), "{}", self.head);
        assert!(!self.head.contains("sec-websocket-protocol"), "{}", self.head);
        self
    }

    /// Waits until the client has hung up.
    pub(super) async fn hung_up(mut self) {
        let _ = soon(self.stream.read_to_end(&mut Vec::new())).await;
    }

    pub(super) async fn switch(self) -> Socket {
        self.switch_with("").await
    }

    /// Chooses a subprotocol.
    pub(super) async fn switch_to(self, protocol: &str) -> Socket {
        self.switch_with(&format!("Sec-WebSocket-Protocol: {protocol}\r\n")).await
    }

    async fn switch_with(mut self, header: &str) -> Socket {
        let key = self.head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n{header}Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.stream.write_all(answer.as_bytes()).await.unwrap();
        WebSocketStream::from_raw_socket(self.stream, Role::Server, None).await
    }
}
