//! Upgrades: raw bytes flow only after the target's own 101, and only for a protocol that was asked for.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};

use crate::rig::{ALICE, Client, Rig, read_all, read_head, soon, target};
use crate::wire::{Recorder, Viewer, answering, by_hand, claim, ended, receive, scripted};

const ASK: &str =
    "GET /chat HTTP/1.1\r\nHost: web.relay.test\r\nConnection: Upgrade\r\nUpgrade: chat/2\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat/2\r\n\r\n";

/// A relay with the tunnel `web`, whose connections come to the test.
async fn by_hand_rig() -> (Rig, Client, Receiver<TcpStream>) {
    let rig = Rig::start().await;
    let (address, targets) = by_hand().await;
    let client = rig.client(ALICE, "web", address).await;
    (rig, client, targets)
}

/// A viewer and its target after the switch to `chat/2`.
pub async fn upgraded(rig: &Rig, targets: &mut Receiver<TcpStream>) -> (Viewer, TcpStream) {
    let mut viewer = Viewer::new(rig).await;
    viewer.say(ASK).await;
    let mut stream = soon(targets.recv()).await.unwrap();
    soon(read_head(&mut stream)).await.unwrap();
    stream.write_all(SWITCH.as_bytes()).await.unwrap();
    let head = viewer.head().await;
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: chat/2\r\n"), "{head}");
    assert!(head.contains("connection: upgrade\r\n"), "{head}");
    (viewer, stream)
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    soon(stream.read_exact(&mut read)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes));
}

#[tokio::test]
async fn a_websocket_goes_through() {
    let rig = Rig::start().await;
    let echo = target(|_, stream| async move {
        let mut socket = accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    })
    .await;
    let _client = rig.client(ALICE, "web", echo).await;
    for url in ["ws://web.relay.test/socket", "ws://localhost/t/web/socket"] {
        let (mut socket, _) = soon(client_async(url, rig.viewer().await)).await.unwrap();
        for message in [Message::text("hello"), Message::binary(vec![7; 300_000]), Message::text("")] {
            socket.send(message.clone()).await.unwrap();
            assert_eq!(soon(socket.next()).await.unwrap().unwrap(), message);
        }
        socket.send(Message::Ping("are you there".into())).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::Pong("are you there".into()));
        socket.close(None).await.unwrap();
        assert!(soon(socket.next()).await.unwrap().unwrap().is_close());
    }
}

#[tokio::test]
async fn any_protocol_is_spliced_raw_and_what_comes_right_behind_a_head_is_not_lost() {
    let (rig, _client, mut targets) = by_hand_rig().await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(format!("{ASK}first words")).await;
    let mut stream = soon(targets.recv()).await.unwrap();
    let head = String::from_utf8(soon(read_head(&mut stream)).await.unwrap()).unwrap();
    assert!(head.contains("\r\nConnection: Upgrade\r\nUpgrade: chat/2\r\n"), "{head}");
    stream.write_all(format!("{SWITCH}welcome").as_bytes()).await.unwrap();
    assert!(viewer.head().await.starts_with("http/1.1 101 "));
    assert_eq!(viewer.bytes(7).await, b"welcome");
    expect(&mut stream, b"first words").await;
    // Nothing of it is HTTP any more.
    viewer.say("GET / HTTP/1.1\r\n\r\n\0\r\n").await;
    expect(&mut stream, b"GET / HTTP/1.1\r\n\r\n\0\r\n").await;
    stream.write_all(b"HTTP/1.1 400 \0").await.unwrap();
    assert_eq!(viewer.bytes(14).await, b"HTTP/1.1 400 \0");
}

#[tokio::test]
async fn the_end_of_either_side_ends_the_other_after_everything_was_delivered() {
    let (rig, _client, mut targets) = by_hand_rig().await;
    let (mut viewer, mut stream) = upgraded(&rig, &mut targets).await;
    viewer.say("the last words").await;
    drop(viewer);
    assert_eq!(soon(read_all(&mut stream)).await, b"the last words");
}

#[tokio::test]
async fn the_last_words_of_a_target_reach_a_viewer_that_has_not_stopped_sending() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(ASK).await;
    let mut socket = claim(&rig, &mut control).await;
    receive(&mut socket).await.unwrap();
    socket.send(Message::binary(SWITCH)).await.unwrap();
    assert!(viewer.head().await.starts_with("http/1.1 101 "));
    let last = vec![b'l'; 2_000_000];
    viewer.say(vec![b'v'; 1_000_000]).await;
    for part in last.chunks(50_000) {
        socket.send(Message::binary(part.to_vec())).await.unwrap();
    }
    socket.close(None).await.unwrap();
    let reading = tokio::spawn(async move { while receive(&mut socket).await.is_some() {} });
    viewer.say("still there?").await;
    assert!(viewer.rest().await == last);
    drop(viewer);
    soon(reading).await.unwrap();
}

#[tokio::test]
async fn an_upgrade_on_a_connection_that_had_an_early_answer_before_stays_open() {
    let rig = Rig::start().await;
    let early = target(|_, mut stream| async move {
        let head = String::from_utf8(read_head(&mut stream).await.unwrap()).unwrap();
        if head.starts_with("POST") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            expect(&mut stream, b"abc").await;
            read_head(&mut stream).await.unwrap();
        }
        stream.write_all(SWITCH.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let _client = rig.client(ALICE, "web", early).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("POST / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 3\r\n\r\n").await;
    assert_eq!(viewer.answer().await.text(), "ok");
    viewer.say(format!("abc{ASK}")).await;
    assert!(viewer.head().await.starts_with("http/1.1 101 "));
    for word in ["one", "two"] {
        viewer.say(word).await;
        assert_eq!(viewer.bytes(3).await, word.as_bytes());
    }
}

/// At base level it ended as if all were well, whatever the client had said.
#[tokio::test]
async fn an_upgraded_connection_of_a_base_client_that_breaks_off_is_reset() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(ASK).await;
    let mut socket = claim(&rig, &mut control).await;
    receive(&mut socket).await.unwrap();
    socket.send(Message::binary(format!("{SWITCH}words"))).await.unwrap();
    assert!(viewer.head().await.starts_with("http/1.1 101 "));
    assert_eq!(viewer.bytes(5).await, b"words");
    let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 1011.into(), reason: "".into() };
    socket.close(Some(frame)).await.unwrap();
    let error = soon(viewer.0.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_refused_upgrade_goes_back_to_http_with_the_connection_intact() {
    let rig = Rig::start().await;
    let refusing = answering(|head| {
        let refusal: &str = match head.split(' ').nth(1).unwrap() {
            "/426" => "HTTP/1.1 426 Upgrade Required\r\nUpgrade: chat/3\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno",
            "/chunked" => "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
        };
        refusal.into()
    })
    .await;
    let _client = rig.client(ALICE, "web", refusing).await;
    let recorder = Recorder::start().await;
    let _other = rig.client(ALICE, "other", recorder.address).await;
    let mut viewer = Viewer::new(&rig).await;
    for (path, status) in [("/426", 426), ("/chunked", 403), ("/200", 200)] {
        // What is behind it is a request like any other: routed by itself, here to another tunnel.
        viewer.say(ASK.replace("/chat ", &format!("{path} "))).await;
        viewer.say("GET /next HTTP/1.1\r\nHost: other.relay.test\r\n\r\n").await;
        let refused = viewer.answer().await;
        assert_eq!((refused.status, refused.text().as_str()), (status, "no"));
        assert_eq!(viewer.answer().await.text(), "ok");
        assert_eq!(recorder.only().line(), "GET /next HTTP/1.1");
    }
}

#[tokio::test]
async fn a_switch_that_was_not_asked_for_is_502() {
    let rig = Rig::start().await;
    let other = SWITCH.replace("chat/2", "chat/3");
    let two = SWITCH.replace("chat/2", "chat/2, chat/3");
    let none = SWITCH.replace("Upgrade: chat/2\r\n", "");
    let plain = "GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n";
    let header_only = "GET / HTTP/1.1\r\nHost: web.relay.test\r\nUpgrade: chat/2\r\n\r\n";
    let old = "GET / HTTP/1.0\r\nHost: web.relay.test\r\nConnection: Upgrade\r\nUpgrade: chat/2\r\n\r\n";
    let h2c = "GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
               HTTP2-Settings: AAMAAABk\r\n\r\n";
    for (number, (request, answer)) in [
        (plain, SWITCH),
        (header_only, SWITCH),
        (old, SWITCH),
        (h2c, &SWITCH.replace("chat/2", "h2c")),
        (ASK, &other),
        (ASK, &two),
        (ASK, &none),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("bad{number}");
        let _client = rig.client(ALICE, &name, scripted(format!("{answer}raw bytes")).await).await;
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(request.replace("web.", &format!("{name}."))).await;
        let refused = viewer.answer().await;
        assert_eq!(refused.status, 502, "{request} {answer}: {}", refused.head);
        assert!(refused.complete, "{refused:?}");
    }
}

#[tokio::test]
async fn a_switch_before_the_request_is_complete_is_502() {
    let rig = Rig::start().await;
    let hasty = target(|_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        stream.write_all(SWITCH.as_bytes()).await.unwrap();
        ended(&mut stream).await;
    })
    .await;
    let _client = rig.client(ALICE, "web", hasty).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(ASK.replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 100\r\n\r\nabc")).await;
    assert_eq!(viewer.answer().await.status, 502);
}

#[tokio::test]
async fn deleting_or_suspending_a_tunnel_ends_what_was_upgraded() {
    for (method, path, body) in [("POST", "/suspend", r#"{"suspended":true}"#), ("DELETE", "", "")] {
        let (rig, client, mut targets) = by_hand_rig().await;
        let (mut viewer, mut stream) = upgraded(&rig, &mut targets).await;
        viewer.say("hello").await;
        expect(&mut stream, b"hello").await;
        let (status, _) = rig.api(ALICE, method, &format!("/v1/tunnels/{}{path}", client.id), body).await;
        assert!(status < 300, "{status}");
        assert_eq!(viewer.rest().await, b"");
        ended(&mut stream).await;
    }
}
