//! Our ends of a WebSocket before a judge from outside: both codecs, the endpoints as they are, and a way through.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit::client::{Proxies, Tunnel};
use adit::proto::frame::Role;
use adit::stream::Duplex;
use adit::stream::handshake;
use adit::stream::messages::{Event, Messages, MessagesError};
use adit::stream::websocket::{Sizes, WebSocket};
use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt, stream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::data::waiting;
use crate::frames::{BINARY, Raw, frame};
use crate::kosoku::{LARGE, MANY_MESSAGES, SMALL, Server, Verdicts, assert_failed, judge_server};
use crate::rig::{ALICE, Rig, read_all, read_head, soon, target};

/// Our codecs carry bytes: an empty message is none, so nothing of it can come back.
const EMPTY: &str = "1.1.1 1.2.1 6.1.1 6.1.2";
/// A thousand messages one by one; those of 0 bytes are left out, as the judge would wait for a minute.
const NOT_EMPTY: &[&str] =
    &["9.7.2", "9.7.3", "9.7.4", "9.7.5", "9.7.6", "9.8.2", "9.8.3", "9.8.4", "9.8.5", "9.8.6"];
/// Of pings that come faster than their pongs go, only the newest is answered (RFC 6455, section 5.5.3).
const NEWEST_PING: &str = "2.10 2.11";
/// Text that is no UTF-8: what a data socket carries is never read as text, and passes like any other bytes.
const NO_UTF8: &str = "6.3.1 6.3.2 6.6.1 6.6.3 6.6.4 6.6.6 6.6.8 6.6.10 6.8.1 6.8.2 6.10.1 6.10.2 6.10.3 6.11.5 \
    6.12.1 6.12.2 6.12.3 6.12.4 6.12.5 6.12.6 6.12.7 6.12.8 6.13.1 6.13.2 6.13.3 6.13.4 6.13.5 6.14.1 6.14.2 6.14.3 \
    6.14.4 6.14.5 6.14.6 6.14.7 6.14.8 6.14.9 6.14.10 6.15.1 6.16.1 6.16.2 6.16.3 6.17.1 6.17.2 6.17.3 6.17.4 6.17.5 \
    6.18.1 6.18.2 6.18.3 6.18.4 6.18.5 6.19.1 6.19.2 6.19.3 6.19.4 6.19.5 6.20.1 6.20.2 6.20.3 6.20.4 6.20.5 6.20.6 \
    6.20.7 6.21.1 6.21.2 6.21.3 6.21.4 6.21.5 6.21.6 6.21.7 6.21.8";
/// How soon that is noticed: never here, and what the judge makes of it depends on its clock.
const FAIL_FAST: &str = "6.4.";

// ---- an end that sends back what came ----

/// Remembers of each message whether it was text, which the codec forgets, as it makes no difference to us.
struct Tap {
    io: TcpStream,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    header: Vec<u8>,
    /// Payload of the current frame that is still to come.
    payload: u64,
    text: bool,
    bytes: u64,
    messages: VecDeque<bool>,
}

impl Seen {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skip = self.payload.min(bytes.len() as u64);
            self.payload -= skip;
            bytes = &bytes[skip as usize..];
            let Some((byte, rest)) = bytes.split_first().filter(|_| self.payload == 0) else { return };
            self.header.push(*byte);
            bytes = rest;
            let [first, second, ref long @ ..] = self.header[..] else { continue };
            let (size, mask) = (second & 0x7f, if second & 0x80 == 0 { 0 } else { 4 });
            let wide = [0, 2, 8][usize::from(size >= 126) + usize::from(size == 127)];
            if long.len() < wide + mask {
                continue;
            }
            let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            self.payload = if wide == 0 { size.into() } else { number(&long[..wide]) };
            self.header.clear();
            if first & 0x08 == 0 {
                if first & 0x0f != 0 {
                    (self.text, self.bytes) = (first & 0x0f == 1, 0);
                }
                self.bytes = self.bytes.saturating_add(self.payload);
                if first & 0x80 != 0 && self.bytes > 0 {
                    self.messages.push_back(self.text);
                }
            }
        }
    }
}

impl Tap {
    fn new(io: TcpStream, already: &[u8]) -> Self {
        let mut seen = Seen::default();
        seen.feed(already);
        Self { io, seen: Mutex::new(seen) }
    }

    fn next_is_text(&self) -> bool {
        self.seen.lock().unwrap().messages.pop_front().unwrap()
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        self.seen.get_mut().unwrap().feed(&out.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Sends every message back by the codec of data sockets, until either side closes.
async fn echo(io: TcpStream, already: BytesMut, role: Role) {
    const LARGEST: usize = 1 << 26;
    let tap = Tap::new(io, &already);
    let mut socket = WebSocket::new(tap, role, already, Sizes { buffer: 1 << 20, message: LARGEST });
    let mut part = BytesMut::new();
    while let Ok(Some(message)) = poll_fn(|cx| socket.poll_message(cx, &mut part, LARGEST)).await {
        let text = socket.get_ref().next_is_text();
        // `say` goes before everything but a pong that is on its way.
        let _ = socket.flush().await;
        match std::str::from_utf8(&message) {
            Ok(message) if text => socket.say(message),
            _ => drop(socket.write_all(&message).await),
        }
        if socket.flush().await.is_err() {
            break;
        }
    }
    let _ = socket.shutdown().await;
    // A server closes first (RFC 6455, section 7.1.1); both read on so that the last frame is not lost in a reset.
    let _ = timeout(Duration::from_secs(2), poll_fn(|cx| socket.poll_gone(cx))).await;
}

/// A server whose sockets are handed over after the handshake.
async fn server<F>(serve: fn(TcpStream) -> F) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let address = target(move |_, mut stream| async move {
        let head = String::from_utf8(read_head(&mut stream).await.unwrap()).unwrap();
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        let (_, key) = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nServer: adit\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        serve(stream).await;
    })
    .await;
    format!("ws://{address}/")
}

/// The cases there are; a judge who leaves some out has judged nothing.
const SMALL_COUNT: usize = 247;
const MANY_MESSAGES_COUNT: usize = 12;
const LARGE_COUNT: usize = 42;
const NO_ECHO_COUNT: usize = 151;

/// All that a codec of bytes can pass is passed.
async fn assert_bytes_pass(judge: impl AsyncFn(&[&str], usize) -> Verdicts) {
    let expected = format!("{EMPTY} {NEWEST_PING} {NO_UTF8}");
    let judge = async |cases: &[&str], at_once| {
        let mut verdicts = judge(cases, at_once).await;
        verdicts.retain(|case, _| !case.starts_with(FAIL_FAST));
        verdicts
    };
    for (cases, expected, count) in
        [(SMALL, &expected[..], SMALL_COUNT - 4), (NOT_EMPTY, "", NOT_EMPTY.len()), (LARGE, "", LARGE_COUNT)]
    {
        assert_eq!(assert_failed(cases, expected, judge).await.len(), count, "{cases:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_codec_of_data_sockets_passes_as_a_server() {
    let url = server(|stream| echo(stream, BytesMut::new(), Role::Server)).await;
    assert_bytes_pass(async |cases, at_once| judge_server(&url, cases, at_once).await).await;
}

async fn judge_client(cases: &[&str], at_once: usize) -> Verdicts {
    let server = Server::start(cases).await;
    let address = server.address;
    let connect = async |path: String| {
        let io = TcpStream::connect(address).await.unwrap();
        let uri = format!("ws://{address}{path}").parse().unwrap();
        handshake::connect(io, &uri, http::HeaderMap::new()).await.unwrap()
    };
    let opened = connect("/getCaseCount".into()).await;
    let sizes = Sizes { buffer: 1 << 20, message: 1 << 20 };
    let mut socket = WebSocket::new(opened.io, Role::Client, opened.already, sizes);
    let count = soon(poll_fn(|cx| socket.poll_message(cx, &mut BytesMut::new(), 100))).await;
    let count: usize = std::str::from_utf8(&count.unwrap().unwrap()).unwrap().parse().unwrap();
    let connect = &connect;
    let cases = stream::iter(1..=count).map(|case| async move {
        let opened = connect(format!("/runCase?case={case}&agent=adit")).await;
        echo(opened.io, opened.already, Role::Client).await;
    });
    cases.buffer_unordered(at_once).collect::<()>().await;
    let _reports = connect("/updateReports?agent=adit".into()).await;
    server.verdicts().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_codec_of_data_sockets_passes_as_a_client() {
    assert_bytes_pass(judge_client).await;
}

/// Sends every message back, as text, by the codec of control sockets.
async fn echo_messages(stream: TcpStream) {
    let mut socket = Messages::new(stream, Role::Server, Vec::new(), 64 * 1024).await;
    loop {
        match socket.next().await {
            Ok(Event::Message(message)) => {
                let text = String::from_utf8_lossy(&message).into_owned();
                if socket.text(text).await.is_err() {
                    return;
                }
            }
            Ok(Event::Pong(_)) => {}
            Ok(Event::Closed(_)) => return socket.close(1000, "").await,
            Err(MessagesError::NotText) => return socket.close(1007, "").await,
            Err(_) => return socket.close(1002, "").await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_codec_of_control_sockets_passes_as_a_server() {
    let url = server(echo_messages).await;
    // Without binary messages, which are as good as text there, and without those over 64 KiB.
    let cases = ["1.1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];
    assert_failed(&cases, "", async |cases, at_once| judge_server(&url, cases, at_once).await).await;
}

// ---- through the relay ----

/// A target that sends messages back.
async fn echo_websocket() -> SocketAddr {
    target(|_, stream| async move {
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let Ok(mut socket) = accept_async_with_config(stream, Some(config)).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_through_the_relay_is_judged_as_without_it() {
    let rig = Rig::start().await;
    let echo = echo_websocket().await;
    let tunnel =
        Tunnel::to(format!("http://{}", rig.address)).key(ALICE).name("web").proxies(Proxies::none());
    let _tunnel = soon(tunnel.expose_port(echo.port())).await.unwrap();
    let through = format!("ws://{}/t/web/", rig.address);
    for (cases, count) in [(SMALL, SMALL_COUNT), (MANY_MESSAGES, MANY_MESSAGES_COUNT), (LARGE, LARGE_COUNT)] {
        // The target alone passes all, so each failure would be the relay's.
        for url in [&format!("ws://{echo}/"), &through] {
            let judge = async |cases: &[&str], at_once| judge_server(url, cases, at_once).await;
            assert_eq!(assert_failed(cases, "", judge).await.len(), count, "{url}");
        }
    }
}

// ---- the endpoints as they are ----

/// Sections that an end which sends nothing back can pass.
const WITHOUT_ECHO: &[&str] = &["2.*", "3.*", "4.*", "5.*", "6.*", "7.*"];

/// Opens `path` of the relay in the place of the handshake that came, and takes the relay's first frame off.
async fn pass_on(rig: &Rig, mut judge: TcpStream, path: &str, said: &[u8]) {
    let head = String::from_utf8(read_head(&mut judge).await.unwrap()).unwrap();
    let (_, headers) = head.split_once("\r\n").unwrap();
    let mut relay = Raw(rig.viewer().await);
    relay.write(format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {ALICE}\r\n{headers}")).await;
    judge.write_all(&read_head(&mut relay.0).await.unwrap()).await.unwrap();
    relay.frame().await.unwrap();
    relay.write(said).await;
    let _ = copy_bidirectional(&mut judge, &mut relay.0).await;
}

/// Of the cases that an end without echo can pass, none but `expected` is failed at the server behind `door`.
async fn assert_failed_without_echo(door: SocketAddr, left_out: &[&str], expected: &str) {
    let judged = assert_failed(WITHOUT_ECHO, expected, async |cases, at_once| {
        let mut verdicts = judge_server(&format!("ws://{door}/"), cases, at_once).await;
        verdicts
            .retain(|case, verdict| !verdict.wants_echo && !left_out.iter().any(|out| case.starts_with(out)));
        verdicts
    });
    assert_eq!(judged.await.len(), NO_ECHO_COUNT - 4 * left_out.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_endpoint_closes_as_the_judge_asks() {
    let rig = Arc::new(Rig::start().await);
    let door = target(move |number, judge| {
        let rig = Arc::clone(&rig);
        async move {
            let id = rig.create(ALICE, &format!("web{number}")).await["id"].as_str().unwrap().to_owned();
            pass_on(&rig, judge, &format!("/ws/control?tunnel_id={id}"), b"").await;
        }
    })
    .await;
    assert_failed_without_echo(door, &[], "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_endpoint_closes_as_the_judge_asks() {
    let rig = Arc::new(Rig::start().await);
    let control = Arc::new(tokio::sync::Mutex::new(rig.control(ALICE, "web").await));
    let door = target(move |_, judge| {
        let (rig, control) = (Arc::clone(&rig), Arc::clone(&control));
        async move {
            let (mut viewer, id) = waiting(&rig, &mut *control.lock().await).await;
            // What comes then is the body, whatever it is.
            let answer = frame(BINARY, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            let path = format!("/ws/data?id={id}");
            tokio::join!(pass_on(&rig, judge, &path, &answer), read_all(&mut viewer.0));
        }
    })
    .await;
    assert_failed_without_echo(door, &[FAIL_FAST], &format!("{NEWEST_PING} {NO_UTF8}")).await;
}
