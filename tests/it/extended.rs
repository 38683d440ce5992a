//! WebSocket over HTTP/2 (RFC 8441): a viewer's stream becomes one, and its target sees an ordinary upgrade.

use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::counts::settle;
use crate::http2::{Body, connect, empty, get};
use crate::rig::{ALICE, Rig, read_head, soon, target};
use crate::tools::installed;
use crate::wire::{by_hand, ended};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

fn ask(protocol: &'static str) -> http::request::Builder {
    let request = Request::connect("http://web.relay.test/socket?a=b").header("sec-websocket-version", "13");
    request.extension(Protocol::from_static(protocol))
}

async fn send(viewer: &mut SendRequest<Body>, request: http::request::Builder) -> Response<Incoming> {
    soon(viewer.send_request(request.body(empty()).unwrap())).await.unwrap()
}

async fn opened(answer: Response<Incoming>) -> Socket {
    assert_eq!(answer.status(), StatusCode::OK);
    let upgraded = soon(hyper::upgrade::on(answer)).await.unwrap();
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

async fn accept(stream: &mut TcpStream, more: &str) -> String {
    let head = String::from_utf8(soon(read_head(stream)).await.unwrap()).unwrap();
    let key = head
        .split("\r\n")
        .find_map(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key: ").then(|| &line[19..]));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n{more}\r\n",
        derive_accept_key(key.unwrap().as_bytes())
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    head
}

async fn echo(mut stream: TcpStream) {
    accept(&mut stream, "").await;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await.unwrap();
        }
    }
}

#[tokio::test]
async fn websockets_go_through_streams_of_one_connection() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", target(|_, stream| echo(stream)).await).await;
    let mut viewer = connect(&rig).await;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        let answer = send(&mut viewer, ask("websocket")).await;
        sockets.push(opened(answer).await);
    }
    for socket in &mut sockets {
        for message in [Message::text("hello"), Message::binary(vec![7; 300_000]), Message::text("")] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(soon(socket.next()).await.unwrap().unwrap(), message);
        }
        socket.send(Message::Ping("there?".into())).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::Pong("there?".into()));
    }
    settle(rig.admin, &json!({"upgraded": 5})).await;
    for mut socket in sockets {
        socket.close(None).await.unwrap();
        assert!(soon(socket.next()).await.unwrap().unwrap().is_close());
    }
    settle(rig.admin, &json!({"upgraded": 0, "data_sockets_in_use": 0})).await;
}

#[tokio::test]
async fn the_target_sees_an_ordinary_upgrade_and_the_viewer_no_word_of_it() {
    let rig = Rig::start().await;
    let (address, mut targets) = by_hand().await;
    let _client = rig.client(ALICE, "web", address).await;
    let mut viewer = connect(&rig).await;
    let request = ask("websocket")
        .header("sec-websocket-protocol", "chat, super")
        .header("sec-websocket-extensions", "permessage-deflate")
        .header("sec-websocket-key", "of the viewer's")
        .header("origin", "http://web.relay.test")
        .header("cookie", "a=1");
    let answering = tokio::spawn(async move { send(&mut viewer, request).await });
    let mut stream = soon(targets.recv()).await.unwrap();
    let more = "Sec-WebSocket-Protocol: super\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSet-Cookie: b=2\r\n";
    let head = accept(&mut stream, more).await;
    assert!(head.starts_with("GET /socket?a=b HTTP/1.1\r\nHost: web.relay.test\r\n"), "{head}");
    for line in [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: chat, super",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Origin: http://web.relay.test",
        "Cookie: a=1",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    assert!(
        !head.contains("of the viewer's") && !head.to_ascii_lowercase().contains("content-length"),
        "{head}"
    );
    let answer = soon(answering).await.unwrap();
    let names: Vec<_> = answer.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["sec-websocket-protocol", "sec-websocket-extensions", "set-cookie"]);
    // Nothing waits for a whole frame, and each end is passed on by itself.
    let mut bytes = TokioIo::new(soon(hyper::upgrade::on(answer)).await.unwrap());
    bytes.write_all(b"up").await.unwrap();
    let mut two = [0; 2];
    soon(stream.read_exact(&mut two)).await.unwrap();
    assert_eq!(&two, b"up");
    stream.write_all(b"on").await.unwrap();
    soon(bytes.read_exact(&mut two)).await.unwrap();
    assert_eq!(&two, b"on");
    drop(bytes);
    soon(ended(&mut stream)).await;
}

#[tokio::test]
async fn what_is_no_websocket_has_a_status_and_leaves_the_connection_usable() {
    let rig = Rig::start().await;
    let (address, mut targets) = by_hand().await;
    let _client = rig.client(ALICE, "web", address).await;
    let mut viewer = connect(&rig).await;
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    for (what, said, status) in [
        ("refused", "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno".to_owned(), 403),
        ("moved", "HTTP/1.1 302 Found\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n".to_owned(), 302),
        // The viewer would take it for an open WebSocket.
        ("a page", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(), 502),
        ("no accept", format!("{switch}\r\n"), 502),
        ("a wrong accept", format!("{switch}Sec-WebSocket-Accept: AAAA\r\n\r\n"), 502),
        ("another protocol", switch.replace("websocket", "chat") + "\r\n", 502),
    ] {
        let asking = send(&mut viewer, ask("websocket"));
        let (answer, ()) = tokio::join!(asking, async {
            let mut stream = soon(targets.recv()).await.unwrap();
            soon(read_head(&mut stream)).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
        });
        assert_eq!(answer.status(), status, "{what}");
        let body = soon(answer.into_body().collect()).await.unwrap().to_bytes();
        assert_eq!(&body[..] == b"no", what == "refused", "{what}: {body:?}");
    }
    for protocol in ["connect-udp", "chat"] {
        assert_eq!(send(&mut viewer, ask(protocol)).await.status(), 405);
    }
    let nobody = Request::connect("http://nobody.relay.test/").extension(Protocol::from_static("websocket"));
    assert_eq!(send(&mut viewer, nobody).await.status(), 404);
    let health = Request::get("http://localhost/health");
    assert_eq!(send(&mut viewer, health).await.status(), 200);
}

#[tokio::test]
async fn the_rules_of_its_tunnel_hold_for_it() {
    let rig = Rig::with(|config| config.limits.viewers_per_key = Some(1)).await;
    let client = rig.client(ALICE, "web", target(|_, stream| echo(stream)).await).await;
    let mut viewer = connect(&rig).await;
    let answer = send(&mut viewer, ask("websocket")).await;
    let mut socket = opened(answer).await;
    // It is a viewer like any other.
    assert_eq!(send(&mut viewer, ask("websocket")).await.status(), 503);
    let path = format!("/v1/tunnels/{}/suspend", client.id);
    assert_eq!(rig.api(ALICE, "POST", &path, r#"{"suspended":true}"#).await.0, 200);
    assert!(!matches!(soon(socket.next()).await, Some(Ok(_))), "a suspension ends it");
    drop(socket);
    settle(rig.admin, &json!({"upgraded": 0})).await;
    assert_eq!(send(&mut viewer, ask("websocket")).await.status(), 503);
    assert_eq!(rig.api(ALICE, "POST", &path, r#"{"suspended":false}"#).await.0, 200);
    let answer = send(&mut viewer, ask("websocket")).await;
    let _socket = opened(answer).await;
}

#[tokio::test]
async fn an_open_one_keeps_its_connection_and_is_counted_as_traffic() {
    let rig = Rig::with(|config| config.limits.keep_alive = Duration::from_millis(100)).await;
    let client = rig.client(ALICE, "web", target(|_, stream| echo(stream)).await).await;
    let mut viewer = connect(&rig).await;
    let answer = send(&mut viewer, ask("websocket")).await;
    let mut socket = opened(answer).await;
    let idle = tokio::time::timeout(Duration::from_millis(300), socket.next()).await;
    assert!(idle.is_err(), "{idle:?}");
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::text("still here"));
    socket.close(None).await.unwrap();
    drop(socket);
    settle(rig.admin, &json!({"upgraded": 0})).await;
    let (_, tunnel) = rig.api(ALICE, "GET", &format!("/v1/tunnels/{}", client.id), "").await;
    assert!(tunnel["bytes_in"].as_u64() > Some(10) && tunnel["bytes_out"].as_u64() > Some(10), "{tunnel}");
}

#[tokio::test]
async fn node_opens_one() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", target(|_, stream| echo(stream)).await).await;
    // One masked text frame, and its echo.
    let script = format!(
        "const http2 = require('http2'), session = http2.connect('http://{}');
        session.on('remoteSettings', settings => {{
          if (!settings.enableConnectProtocol) throw new Error('not offered');
          const stream = session.request({{':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'http',
            ':authority': 'web.relay.test', ':path': '/', 'sec-websocket-version': '13'}});
          stream.on('response', head => {{
            console.log(head[':status']);
            stream.write(Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x68, 0x69]));
          }});
          stream.on('data', data => {{ console.log(data.toString('hex')); stream.close(); session.close(); }});
        }});",
        rig.address
    );
    let output = soon(installed("node").args(["-e", &script]).stdin(Stdio::null()).output()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200\n81026869\n", "{output:?}");
}

#[tokio::test]
async fn plain_requests_and_a_websocket_share_a_connection() {
    let rig = Rig::start().await;
    let both = target(|_, mut stream| async move {
        let mut first = [0; 5];
        stream.peek(&mut first).await.unwrap();
        if &first != b"GET /" {
            return;
        }
        let mut head = vec![0; 2000];
        let count = stream.peek(&mut head).await.unwrap();
        if String::from_utf8_lossy(&head[..count]).contains("Upgrade: websocket") {
            return echo(stream).await;
        }
        while read_head(&mut stream).await.is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let _client = rig.client(ALICE, "web", both).await;
    let mut viewer = connect(&rig).await;
    let answer = send(&mut viewer, ask("websocket")).await;
    let mut socket = opened(answer).await;
    for round in 0..20 {
        let answer = send(&mut viewer, get("/")).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "ok");
        let message = Message::text(format!("round {round}"));
        socket.send(message.clone()).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), message);
    }
}
