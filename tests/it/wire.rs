//! Both ends of a tunnel as raw HTTP: a viewer on one kept connection, a target that records, a target that follows a
//! script.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::rig::{Answer, Control, Rig, Socket, read_all, read_head, read_request, soon, target};

/// A viewer's connection that reads one response at a time.
pub struct Viewer(pub TcpStream);

impl Viewer {
    pub async fn new(rig: &Rig) -> Self {
        Self(rig.viewer().await)
    }

    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.0.write_all(bytes.as_ref())).await.unwrap();
    }

    /// A GET of `path` on the tunnel `name`, and its response.
    pub async fn get(&mut self, name: &str, path: &str) -> Answer {
        self.say(format!("GET {path} HTTP/1.1\r\nHost: {name}.relay.test\r\n\r\n")).await;
        self.answer().await
    }

    /// The next response, by its own framing; one without framing has no body here.
    pub async fn answer(&mut self) -> Answer {
        Answer::parse(&soon(self.next(true)).await)
    }

    /// The next head, in lower case; empty at the end of the stream.
    pub async fn head(&mut self) -> String {
        String::from_utf8_lossy(&soon(self.next(false)).await).to_ascii_lowercase()
    }

    /// The next `count` bytes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        soon(self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// Leaves with a reset, as a viewer that crashed.
    pub fn vanish(self) {
        self.0.set_zero_linger().unwrap();
    }

    /// Everything until the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        soon(read_all(&mut self.0)).await
    }

    async fn next(&mut self, body: bool) -> Vec<u8> {
        match body {
            true => read_request(&mut self.0).await.unwrap_or_default(),
            false => read_head(&mut self.0).await.unwrap_or_default(),
        }
    }
}

/// One request as it arrived at a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The connection it came on, from 0.
    pub connection: usize,
    /// Request line and headers, with the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// The request line.
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// Whether no two parsers can disagree about this request.
    pub fn is_plain(&self) -> bool {
        let mut lines = self.head.strip_suffix("\r\n\r\n").unwrap_or("").split("\r\n");
        let line: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let token = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.!~".contains(&b))
        };
        matches!(line[..], [_, target, "HTTP/1.1"] if target.starts_with('/') || target == "*")
            && lines.all(|line| line.split_once(": ").is_some_and(|(name, _)| token(name)))
            && !self.head.replace("\r\n", "").contains(['\r', '\n', '\0'])
            && self.all("host").len() == 1
            && self.all("content-length").len() + self.all("transfer-encoding").len() <= 1
            && self.all("transfer-encoding").iter().all(|coding| *coding == "chunked")
    }
}

/// A keep-alive target that answers every request with 200 and `ok`, and remembers what came. What is no request, or
/// only the beginning of one, is remembered too, so that nothing goes unseen.
#[derive(Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let address = target(move |connection, mut stream| {
            let seen = Arc::clone(&into);
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    let end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
                    let head = String::from_utf8_lossy(&request[..end]).into_owned();
                    seen.lock().unwrap().push(Seen { connection, head, body: request[end..].to_vec() });
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { address, seen }
    }

    /// What came since the last call.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// The only request that came since the last call.
    pub fn only(&self) -> Seen {
        let mut seen = self.take();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen.remove(0)
    }
}

/// A target that answers every whole request with `answer`, as raw as it stands, and keeps the connection.
pub async fn scripted(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    answering(move |_| answer.clone()).await
}

/// A target that answers every whole request with what `answer` makes of its head, and keeps the connection.
pub async fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let answer = Arc::new(answer);
    target(move |_, mut stream| {
        let answer = Arc::clone(&answer);
        async move {
            while let Some(request) = read_request(&mut stream).await {
                if stream.write_all(&answer(&String::from_utf8_lossy(&request))).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// A target whose connections are handed to the test, one by one.
pub async fn by_hand() -> (SocketAddr, mpsc::Receiver<TcpStream>) {
    let (send, receive) = mpsc::channel(64);
    let address = target(move |_, stream| {
        let send = send.clone();
        async move { drop(send.send(stream).await) }
    })
    .await;
    (address, receive)
}

/// The data socket for the next notified connection, claimed by hand.
pub async fn claim(rig: &Rig, control: &mut Control) -> Socket {
    let id = soon(control.notified()).await.unwrap();
    rig.socket(&format!("/ws/data?id={id}"), None).await.unwrap()
}

/// The bytes of the next message on a data socket; `None` at its end.
pub async fn receive(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match soon(socket.next()).await? {
            Ok(message) if message.is_binary() => return Some(message.into_data().to_vec()),
            Ok(message) if message.is_close() => return None,
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Waits for the end of a connection, however it comes.
pub async fn ended(stream: &mut TcpStream) {
    soon(read_all(stream)).await;
}
