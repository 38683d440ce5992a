//! What the tests stand on: a relay in this process, base clients written by hand, scripted targets, raw viewers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit::auth::{Keys, Secret, StaticKey};
use adit::relay::config::RelayConfig;
use adit::relay::{Listeners, Relay};
use adit::store::{Sqlite, Store};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub const ALICE: &str = "nbk_alice_0123456789abcdef";
pub const BOB: &str = "nbk_bob_0123456789abcdef";
/// No wait in a test is longer: a test that hangs says where.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How often something is looked at that nobody tells of.
pub const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits for `future`, but not for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("nothing happened in time")
}

/// Looks until it gives something: that.
pub async fn found<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    soon(async {
        loop {
            match look().await {
                Some(found) => return found,
                None => sleep(LOOK_EVERY).await,
            }
        }
    })
    .await
}

/// Looks until it is so.
pub async fn until(mut holds: impl AsyncFnMut() -> bool) {
    found(async || holds().await.then_some(())).await;
}

/// A header line for a connection of its own.
pub const CLOSE: &str = "Connection: close\r\n";

/// A request of the relay's own host, with these header lines, each with its line end; without a key if that is empty.
pub fn request(key: &str, method: &str, path: &str, lines: &str, body: &str) -> String {
    let auth = if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{auth}{lines}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// A relay with the keys of alice and bob, on loopback ports of its own, base domain `relay.test`.
pub struct Rig {
    relay: Option<Relay>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub store: Arc<dyn Store>,
}

impl Rig {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A relay whose configuration was changed by `change`.
    pub async fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        Self::on(Arc::new(Sqlite::memory().unwrap()), "127.0.0.1:0".parse().unwrap(), change).await
    }

    /// A relay with that store and address, to come back after a restart.
    pub async fn on(
        store: Arc<dyn Store>,
        address: SocketAddr,
        change: impl FnOnce(&mut RelayConfig),
    ) -> Self {
        let key = |name: &str, secret: &str| StaticKey { name: name.into(), secret: Secret::new(secret) };
        let mut config = RelayConfig {
            base_domain: Some("relay.test".into()),
            static_keys: vec![key("alice", ALICE), key("bob", BOB)],
            ..RelayConfig::default()
        };
        // Tests of the wait for a client that is away set it.
        config.limits.reconnect_wait = Duration::ZERO;
        change(&mut config);
        let listener = TcpListener::bind(address).await.unwrap();
        let admin_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, admin) = (listener.local_addr().unwrap(), admin_listener.local_addr().unwrap());
        let keys =
            Keys::new(Arc::clone(&store), config.static_keys.clone()).with_tokens(config.jwt_secrets.clone());
        let listeners =
            Listeners { tcp: vec![listener], admin: Some(admin_listener), ..Listeners::default() };
        let relay = Relay::start(config, listeners, keys, Arc::clone(&store)).await.unwrap();
        Self { relay: Some(relay), address, admin, store }
    }

    /// A relay that runs as another process, with a base domain and keys as here.
    pub fn of(address: SocketAddr, admin: SocketAddr) -> Self {
        Self { relay: None, address, admin, store: Arc::new(Sqlite::memory().unwrap()) }
    }

    /// Looks at the files with certificates.
    pub fn reload(&self) {
        self.relay.as_ref().unwrap().reload();
    }

    /// The token of a new link to the dashboard.
    pub fn link(&self) -> String {
        let link = self.relay.as_ref().unwrap().dashboard_link().unwrap();
        let (place, token) = link.split_once("/login?token=").unwrap();
        assert_eq!(place, format!("http://{}", self.admin));
        token.to_owned()
    }

    /// Stops in order.
    pub async fn shutdown(mut self) {
        soon(self.relay.take().unwrap().shutdown()).await;
    }

    /// A call of the REST API, with everything of its answer.
    pub async fn call(&self, key: &str, method: &str, path: &str, body: &str) -> Answer {
        self.raw(request(key, method, path, CLOSE, body)).await
    }

    /// A call of the REST API: status and JSON (null where there is none).
    pub async fn api(&self, key: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.call(key, method, path, body).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// Creates a tunnel: its JSON.
    pub async fn create(&self, key: &str, name: &str) -> Value {
        let (status, tunnel) =
            self.api(key, "POST", "/v1/tunnels", &json!({"local_port": 1, "name": name}).to_string()).await;
        assert!(status < 300, "{status} {tunnel}");
        tunnel
    }

    /// Sends `request` as it is on a connection of its own, half-closes nothing, and reads to the end of the stream.
    pub async fn raw(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut viewer = self.viewer().await;
        viewer.write_all(request.as_ref()).await.unwrap();
        Answer::parse(&soon(read_all(&mut viewer)).await)
    }

    /// A GET of `path` on the tunnel `name`, on a connection of its own.
    pub async fn get(&self, name: &str, path: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: {name}.relay.test\r\nConnection: close\r\n\r\n")).await
    }

    /// A connection to the relay.
    pub async fn viewer(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A WebSocket of a client: `Err` has the status of a refusal and its body.
    pub async fn socket(&self, path: &str, key: Option<&str>) -> Result<Socket, (u16, String)> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        if let Some(key) = key {
            request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        }
        match soon(connect_async(request)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
                let body = answer.body().as_deref().unwrap_or_default();
                Err((answer.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The handshake of a control socket, for those who add to it.
    pub fn control_request(&self, key: &str, id: &str) -> Request {
        let url = format!("ws://{}/ws/control?tunnel_id={id}", self.address);
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        request
    }

    /// The control socket of a tunnel just created, for tests that play the client by hand.
    pub async fn control(&self, key: &str, name: &str) -> Control {
        let tunnel = self.create(key, name).await;
        self.connect(key, tunnel["id"].as_str().unwrap()).await
    }

    /// The control socket of the tunnel with that id.
    pub async fn connect(&self, key: &str, id: &str) -> Control {
        let socket = self.socket(&format!("/ws/control?tunnel_id={id}"), Some(key)).await.unwrap();
        Control { id: id.to_owned(), socket }
    }

    /// A base client that copies bytes to `target`, until dropped. It is connected when this returns.
    pub async fn client(&self, key: &str, name: &str, target: SocketAddr) -> Client {
        let control = self.control(key, name).await;
        self.serve(control, target).await
    }

    /// A base client on `control`.
    pub async fn serve(&self, mut control: Control, target: SocketAddr) -> Client {
        let id = control.id.clone();
        let relay = self.address;
        // The relay's first ping says that the tunnel has this client now.
        assert!(matches!(soon(control.socket.next()).await, Some(Ok(Message::Ping(_)))));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Some(id) = control.notified().await {
                streams.spawn(serve_one(relay, id, target));
            }
            // What runs goes on without its control socket.
            streams.join_all().await;
        });
        Client { id, _tasks: tasks }
    }
}

/// A control socket in the hands of a test.
pub struct Control {
    pub id: String,
    pub socket: Socket,
}

impl Control {
    /// The id of the next notified connection; `None` at the end.
    pub async fn notified(&mut self) -> Option<String> {
        loop {
            match self.socket.next().await? {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(message["type"], "connection");
                    return Some(message["id"].as_str().unwrap().to_owned());
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// The code with which the relay closes; `None` for a bare end.
    pub async fn closed(&mut self) -> Option<u16> {
        soon(async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        })
        .await
    }
}

/// A running base client.
pub struct Client {
    pub id: String,
    _tasks: JoinSet<()>,
}

/// One data socket copied to one connection to the target, as the public clients do it.
pub async fn serve_one(relay: SocketAddr, id: String, target: SocketAddr) {
    let Ok((socket, _)) = connect_async(format!("ws://{relay}/ws/data?id={id}")).await else { return };
    let Ok(stream) = TcpStream::connect(target).await else { return };
    copy_both(socket, stream).await;
}

/// Copies until either side ends, then drops both.
pub async fn copy_both(socket: Socket, stream: TcpStream) {
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = stream.into_split();
    let up = async {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            if sink.send(Message::binary(buffer[..count].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        while let Some(Ok(message)) = source.next().await {
            if message.is_close() || write.write_all(&message.into_data()).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}

/// A target that answers each connection by `serve`; it gets the connection's number from 0.
pub async fn target<F, T>(serve: F) -> SocketAddr
where
    F: Fn(usize, TcpStream) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    address
}

/// A keep-alive target that answers every request with 200 and the request itself (head and body) as the body, and
/// says in `X-Connection` on which connection, and as the how-manieth request of it, the request came.
pub async fn echo_target() -> SocketAddr {
    target(|number, mut stream| async move {
        for count in 0.. {
            let Some(request) = read_request(&mut stream).await else { return };
            let head = format!(
                "HTTP/1.1 200 OK\r\nX-Connection: {number}.{count}\r\nContent-Length: {}\r\n\r\n",
                request.len()
            );
            if stream.write_all(&[head.as_bytes(), &request].concat()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// One whole message, by Content-Length or chunked; `None` at the end of the stream.
pub async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = read_head(stream).await?;
    let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
    if header(&head, "transfer-encoding") == Some("chunked") {
        loop {
            let line = read_until(stream, b"\r\n").await?;
            let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim_end(), 16).ok()?;
            request.extend_from_slice(&line);
            if size == 0 {
                break;
            }
            read_more(stream, &mut request, size + 2).await?;
        }
        // Trailers.
        while !request.ends_with(b"\r\n\r\n") {
            request.extend_from_slice(&read_until(stream, b"\r\n").await?);
        }
    } else if let Some(length) = header(&head, "content-length") {
        read_more(stream, &mut request, length.parse().ok()?).await?;
    }
    Some(request)
}

async fn read_more(stream: &mut TcpStream, into: &mut Vec<u8>, count: usize) -> Option<()> {
    let start = into.len();
    into.resize(start + count, 0);
    stream.read_exact(&mut into[start..]).await.ok().map(|_| ())
}

/// Bytes up to the empty line.
pub async fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    read_until(stream, b"\r\n\r\n").await
}

async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.push(stream.read_u8().await.ok()?);
    }
    Some(bytes)
}

/// Everything until the stream ends, however it ends.
pub async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        all.extend_from_slice(&buffer[..count]);
    }
    all
}

/// A response as it came; a chunked body is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    pub body: Vec<u8>,
    /// The body was as long as the framing said, and nothing came behind it.
    pub complete: bool,
}

impl Answer {
    /// Reads exactly one response; an empty input has status 0.
    pub fn parse(bytes: &[u8]) -> Self {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Self {
                status: 0,
                head: String::from_utf8_lossy(bytes).into(),
                body: Vec::new(),
                complete: false,
            };
        };
        let head = String::from_utf8_lossy(&bytes[..end + 2]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let rest = &bytes[end + 4..];
        let (body, complete) = if head.contains("transfer-encoding: chunked") {
            dechunk(rest)
        } else if let Some(length) = header(&head, "content-length") {
            (rest.to_vec(), length.parse() == Ok(rest.len()))
        } else {
            (rest.to_vec(), true)
        };
        Self { status, head, body, complete }
    }

    /// A header's value, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|window| window == b"\r\n") else { return (body, false) };
        let size =
            std::str::from_utf8(&rest[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size else { return (body, false) };
        rest = &rest[end + 2..];
        if size == 0 {
            return (body, rest.ends_with(b"\r\n"));
        }
        if rest.len() < size + 2 {
            return (body, false);
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}
