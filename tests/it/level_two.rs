//! `adit.1` on the relay's side, against a client written by hand from protocol.md, section 8.

mod standby;

use std::time::Duration;

use adit::auth::keys::hash_key;
use adit::store::Store;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::keys::with_tool;
use crate::rig::{ALICE, BOB, Rig, Socket, soon};
use crate::wire::Viewer;

/// A control socket of level two in the hands of a test.
pub struct Two {
    pub id: String,
    pub session: String,
    pub welcome: Value,
    pub socket: Socket,
}

impl Two {
    /// Creates the tunnel and connects; the welcome is read.
    pub async fn connect(rig: &Rig, name: &str) -> Self {
        let id = rig.create(ALICE, name).await["id"].as_str().unwrap().to_owned();
        Self::again(rig, &id, "").await
    }

    /// Connects to the tunnel `id`; `more` is put behind the query.
    pub async fn again(rig: &Rig, id: &str, more: &str) -> Self {
        Self::of(ALICE, rig, id, more).await
    }

    pub async fn of(key: &str, rig: &Rig, id: &str, more: &str) -> Self {
        let mut request = rig.control_request(key, &format!("{id}{more}"));
        request.headers_mut().insert("sec-websocket-protocol", "other, adit.1".parse().unwrap());
        let (mut socket, answer) = soon(connect_async(request)).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "adit.1");
        let Some(Ok(Message::Text(first))) = soon(socket.next()).await else {
            panic!("the first message is no text")
        };
        let welcome: Value = serde_json::from_str(&first).unwrap();
        assert_eq!(welcome["type"], "welcome");
        let session = welcome["session"].as_str().unwrap().to_owned();
        Self { id: id.to_owned(), session, welcome, socket }
    }

    /// The next message; a closed socket is `null`.
    pub async fn hear(&mut self) -> Value {
        soon(async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Value::Null,
                    Some(Ok(_)) => {}
                }
            }
        })
        .await
    }

    /// The next message of that type; others are passed over.
    pub async fn hear_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.hear().await;
            assert!(!message.is_null(), "closed before {kind}");
            if message["type"] == kind {
                return message;
            }
        }
    }

    pub async fn say(&mut self, message: Value) {
        soon(self.socket.send(Message::text(message.to_string()))).await.unwrap();
    }

    /// The code with which the relay closes.
    pub async fn closed(&mut self) -> Option<u16> {
        soon(async {
            loop {
                match self.socket.next().await? {
                    Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        })
        .await
    }

    /// A standby socket with a new id, and the id.
    pub async fn standby(&self, rig: &Rig) -> (Socket, String) {
        let id = uuid::Uuid::new_v4().to_string();
        let path = format!("/ws/data?tunnel_id={}&id={id}", self.id);
        (rig.socket(&path, Some(ALICE)).await.unwrap(), id)
    }
}

async fn data(rig: &Rig, id: &str) -> Socket {
    data_at(rig.address, id).await
}

/// The data socket of the connection `id` of alice.
pub async fn data_at(relay: std::net::SocketAddr, id: &str) -> Socket {
    let mut request = format!("ws://{relay}/ws/data?id={id}").into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {ALICE}").parse().unwrap());
    soon(connect_async(request)).await.unwrap().0
}

/// Bytes of the messages that come, until they end with `end`.
pub async fn read_until(socket: &mut Socket, end: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while !all.ends_with(end) {
        match soon(socket.next()).await {
            Some(Ok(Message::Binary(bytes))) => all.extend_from_slice(&bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&all)),
        }
    }
    all
}

pub async fn send(socket: &mut Socket, bytes: impl Into<Vec<u8>>) {
    soon(socket.send(Message::binary(bytes.into()))).await.unwrap();
}

/// Takes up the connection `id` and answers its request with [`OK`].
async fn serve(rig: &Rig, id: &str) -> Socket {
    let mut data = data(rig, id).await;
    read_until(&mut data, b"\r\n\r\n").await;
    send(&mut data, OK).await;
    data
}

/// A viewer that has asked for the front page of `web`.
async fn asking(rig: &Rig) -> Viewer {
    let mut viewer = Viewer::new(rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    viewer
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn the_welcome_has_every_number_and_the_connection_its_viewer() {
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_secs(7)).await;
    let mut client = Two::connect(&rig, "web").await;
    let limits = &client.welcome["limits"];
    assert_eq!(
        (&client.welcome["claim_ms"], &client.welcome["ping_interval_ms"]),
        (&json!(7000), &json!(30000))
    );
    assert_eq!((&limits["control_message_bytes"], &limits["standby"]), (&json!(65536), &json!(8)));
    let mut viewer = Viewer::new(&rig).await;
    let remote = viewer.0.local_addr().unwrap().to_string();
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let told = client.hear_of("connection").await;
    assert_eq!((&told["remote_addr"], &told["proto"]), (&json!(remote), &json!("http")));
    let _data = serve(&rig, told["id"].as_str().unwrap()).await;
    assert_eq!(viewer.answer().await.text(), "ok");
}

#[tokio::test]
async fn a_client_that_offers_nothing_or_something_else_sees_no_difference() {
    let rig = Rig::start().await;
    let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
    for offer in [None, Some("chat, adit.2")] {
        let mut request = rig.control_request(ALICE, &id);
        if let Some(offer) = offer {
            request.headers_mut().insert("sec-websocket-protocol", offer.parse().unwrap());
            // The library insists on a subprotocol when it has offered one: base relays answer without.
            let refused = soon(connect_async(request)).await.err().unwrap().to_string();
            assert!(refused.contains("sub-protocol") || refused.contains("SubProtocol"), "{refused}");
            continue;
        }
        let (mut socket, answer) = soon(connect_async(request)).await.unwrap();
        assert!(!answer.headers().contains_key("sec-websocket-protocol"));
        let mut viewer = Viewer::new(&rig).await;
        // What it says is ignored, even if it would mean something at level two.
        soon(socket.send(Message::text(r#"{"type":"auth","token":"x"}"#))).await.unwrap();
        viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
        let text = loop {
            if let Message::Text(text) = soon(socket.next()).await.unwrap().unwrap() {
                break text;
            }
        };
        let told: Value = serde_json::from_str(&text).unwrap();
        let id = told["id"].as_str().unwrap();
        assert_eq!(*text, *format!(r#"{{"type":"connection","id":"{id}"}}"#));
    }
}

#[tokio::test]
async fn a_rejected_viewer_has_its_502_at_once_before_and_after_the_claim() {
    // Far longer than a test may take: only the rejection can answer.
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_secs(300)).await;
    let mut client = Two::connect(&rig, "web").await;
    for claimed in [false, true] {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\nAccept: text/html\r\n\r\n").await;
        let id = client.hear_of("connection").await["id"].clone();
        let mut socket = None;
        if claimed {
            socket = Some(data(&rig, id.as_str().unwrap()).await);
        }
        // The id of nobody, and one that is no id, are passed over.
        client
            .say(json!({"type": "reject", "id": uuid::Uuid::new_v4().to_string(), "reason": "refused"}))
            .await;
        client.say(json!({"type": "reject", "id": "x"})).await;
        let message = "cannot reach <http://localhost:3000>: Connection refused";
        client.say(json!({"type": "reject", "id": id, "reason": "refused", "message": message})).await;
        let answer = viewer.answer().await;
        assert_eq!(answer.status, 502);
        assert!(answer.text().contains("cannot reach &lt;http://localhost:3000&gt;"), "{}", answer.text());
        if let Some(mut socket) = socket {
            while let Some(Ok(_)) = soon(socket.next()).await {}
        } else {
            let late = rig.socket(&format!("/ws/data?id={}", id.as_str().unwrap()), Some(ALICE)).await;
            assert_eq!(late.err().unwrap().0, 404);
        }
    }
}

#[tokio::test]
async fn another_session_cannot_reject_a_connection() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    let mut other = Two::connect(&rig, "other").await;
    let mut viewer = asking(&rig).await;
    let id = client.hear_of("connection").await["id"].clone();
    other.say(json!({"type": "reject", "id": id, "reason": "refused"})).await;
    // Answered only after the rejection was read.
    other.say(json!({"type": "auth", "token": ALICE})).await;
    assert_eq!(other.hear_of("auth").await["accepted"], true);
    let _data = serve(&rig, id.as_str().unwrap()).await;
    assert_eq!(viewer.answer().await.status, 200);
}

#[tokio::test]
async fn a_viewer_that_leaves_before_the_claim_is_cancelled() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    let viewer = asking(&rig).await;
    let id = client.hear_of("connection").await["id"].clone();
    viewer.vanish();
    assert_eq!(client.hear_of("cancel").await["id"], id);
    let late = rig.socket(&format!("/ws/data?id={}", id.as_str().unwrap()), Some(ALICE)).await;
    assert_eq!(late.err().unwrap().0, 404);
}

#[tokio::test]
async fn a_late_claim_is_cancelled_and_the_viewer_has_504() {
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_millis(300)).await;
    let mut client = Two::connect(&rig, "web").await;
    let viewer = rig.get("web", "/");
    let (answer, told) = tokio::join!(viewer, client.hear_of("connection"));
    assert_eq!(answer.status, 504);
    assert_eq!(client.hear_of("cancel").await["id"], told["id"]);
}

#[tokio::test]
async fn the_data_socket_needs_the_right_key_and_a_wrong_one_burns_nothing() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    let mut viewer = asking(&rig).await;
    let id = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
    let path = format!("/ws/data?id={id}");
    assert_eq!(rig.socket(&path, None).await.err().unwrap().0, 401);
    assert_eq!(rig.socket(&path, Some("nbk_unknown")).await.err().unwrap().0, 401);
    let (status, body) = rig.socket(&path, Some(BOB)).await.err().unwrap();
    assert!(status == 403 && body.contains("foreign_connection"), "{status} {body}");
    let _data = serve(&rig, &id).await;
    assert_eq!(viewer.answer().await.status, 200);
    assert_eq!(rig.socket(&path, Some(ALICE)).await.err().unwrap().0, 404, "twice");
}

/// A viewer whose connection the target has switched over, and its data socket. The target says `first` right behind its
/// head.
async fn upgraded(rig: &Rig, client: &mut Two, first: &str) -> (Viewer, Socket) {
    let mut viewer = Viewer::new(rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n").await;
    let id = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
    let mut data = data(rig, &id).await;
    read_until(&mut data, b"\r\n\r\n").await;
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";
    send(&mut data, format!("{head}{first}")).await;
    assert!(viewer.head().await.starts_with("http/1.1 101"));
    (viewer, data)
}

#[tokio::test]
async fn half_close_passes_in_both_directions() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    let (mut viewer, mut data) = upgraded(&rig, &mut client, "").await;
    viewer.say("question").await;
    viewer.0.shutdown().await.unwrap();
    read_until(&mut data, b"question").await;
    assert_eq!(soon(data.next()).await.unwrap().unwrap(), Message::binary(Vec::new()), "the viewer's end");
    // An empty fragment of a longer message is no end.
    send(&mut data, "an").await;
    send(&mut data, "swer").await;
    assert_eq!(viewer.bytes(6).await, b"answer");
    send(&mut data, "").await;
    assert_eq!(viewer.rest().await, b"");
    let Some(Ok(Message::Close(Some(frame)))) = soon(data.next()).await else { panic!("no close frame") };
    assert_eq!(u16::from(frame.code), 1000);
}

#[tokio::test]
async fn a_body_that_broke_off_does_not_look_complete() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    for (end, complete) in [("empty message", true), ("1000", true), ("1011", false), ("nothing", false)] {
        let mut viewer = asking(&rig).await;
        let id = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
        let mut data = data(&rig, &id).await;
        read_until(&mut data, b"\r\n\r\n").await;
        send(&mut data, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome").await;
        match end {
            "empty message" => send(&mut data, "").await,
            "nothing" => drop(data),
            code => {
                let code = code.parse::<u16>().unwrap().into();
                let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code, reason: "".into() };
                soon(data.close(Some(frame))).await.unwrap();
            }
        }
        let head = viewer.head().await;
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let mut body = Vec::new();
        let ended = soon(async {
            let mut byte = [0];
            loop {
                match viewer.0.read(&mut byte).await {
                    Ok(1) => body.push(byte[0]),
                    _ => break false,
                }
                if body.ends_with(b"0\r\n\r\n") {
                    break true;
                }
            }
        })
        .await;
        assert_eq!(ended, complete, "{end}: {}", String::from_utf8_lossy(&body));
    }
}

#[tokio::test]
async fn messages_that_cannot_be_read_are_told_and_change_nothing() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    for bad in
        ["", "nonsense", "[]", "{}", r#"{"type":7}"#, r#"{"type":"auth"}"#, r#"{"type":"reject","id":{}}"#]
    {
        soon(client.socket.send(Message::text(bad))).await.unwrap();
        let told = client.hear_of("error").await;
        assert!(told["message"].as_str().unwrap().contains("cannot be read"), "{told}");
    }
    // Types and fields of the future are passed over in silence.
    client.say(json!({"type": "dance", "partner": [1, 2]})).await;
    client.say(json!({"type": "auth", "token": "nbk_wrong", "since": 1})).await;
    let answer = client.hear_of("auth").await;
    assert_eq!(answer["accepted"], false);
    assert!(answer["error"].as_str().unwrap().contains("unknown"), "{answer}");
    client.say(json!({"type": "auth", "token": BOB})).await;
    assert!(client.hear_of("auth").await["error"].as_str().unwrap().contains("another owner"));
    client.say(json!({"type": "auth", "token": "a\nb"})).await;
    assert_eq!(client.hear_of("auth").await["accepted"], false);
    client.say(json!({"type": "auth", "token": ALICE})).await;
    assert_eq!(client.hear_of("auth").await["accepted"], true);
}

#[tokio::test]
async fn only_the_session_that_breaks_a_limit_ends() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    let mut other = Two::connect(&rig, "other").await;
    client.say(json!({"type": "auth", "token": "x".repeat(70_000)})).await;
    assert_eq!(client.hear_of("closed").await["reason"], "message_too_big");
    assert_eq!(client.closed().await, Some(1009));
    other.say(json!({"type": "auth", "token": ALICE})).await;
    assert_eq!(other.hear_of("auth").await["accepted"], true);
}

#[tokio::test]
async fn every_end_has_its_reason() {
    let (rig, tool, _dir) = with_tool().await;
    let mut client = Two::connect(&rig, "web").await;
    let (status, _) = rig.api(ALICE, "DELETE", &format!("/v1/tunnels/{}", client.id), "").await;
    assert_eq!(status, 204);
    assert_eq!(client.hear_of("closed").await["reason"], "deleted");
    assert_eq!(client.closed().await, Some(1000));

    let mut client = Two::connect(&rig, "short").await;
    let (status, _) =
        rig.api(ALICE, "POST", &format!("/v1/tunnels/{}/extend", client.id), r#"{"ttl":"2s"}"#).await;
    assert_eq!(status, 200);
    let expiring = client.hear_of("expiring").await;
    assert_eq!(expiring["what"], "tunnel");
    assert!(expiring["in_ms"].as_u64().unwrap() <= 2000, "{expiring}");
    assert_eq!(client.hear_of("closed").await["reason"], "expired");
    assert_eq!(client.closed().await, Some(1000));

    tool.create_key("carol".into(), hash_key("nbk_carol")).await.unwrap();
    let id = rig.create("nbk_carol", "carols").await["id"].as_str().unwrap().to_owned();
    let mut client = Two::of("nbk_carol", &rig, &id, "").await;
    tool.revoke_key("carol".into()).await.unwrap();
    assert_eq!(client.hear_of("closed").await["reason"], "revoked");
    assert_eq!(client.closed().await, Some(1008));

    let mut client = Two::connect(&rig, "last").await;
    let mut socket = Two::again(&rig, &client.id.clone(), "").await;
    // The first one is another live process: it answers the ping, as the library does by itself.
    assert_eq!(client.hear_of("closed").await["reason"], "replaced");
    assert_eq!(client.closed().await, Some(1000));
    let (_, ()) = tokio::join!(
        async {
            assert_eq!(socket.hear_of("closed").await["reason"], "restart");
            assert_eq!(socket.closed().await, Some(1012));
        },
        rig.shutdown()
    );
}

#[tokio::test]
async fn a_successor_takes_over_without_a_ping_and_viewers_that_wait_follow() {
    // Long, so that only the successor can serve the viewer.
    let rig = Rig::with(|config| {
        config.limits.claim_wait = Duration::from_secs(300);
        config.limits.reconnect_wait = Duration::from_secs(300);
    })
    .await;
    let mut first = Two::connect(&rig, "web").await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("POST / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 4\r\n\r\nbody").await;
    first.hear_of("connection").await;
    let began = Instant::now();
    let mut second = Two::again(&rig, &first.id.clone(), &format!("&successor_of={}", first.session)).await;
    assert_eq!(first.hear_of("closed").await["reason"], "succeeded");
    let id = second.hear_of("connection").await["id"].as_str().unwrap().to_owned();
    let mut data = data(&rig, &id).await;
    read_until(&mut data, b"body").await;
    send(&mut data, OK).await;
    assert_eq!(viewer.answer().await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(5), "the first one was pinged");
    // A session that is not the current one is nobody's predecessor.
    let mut third = Two::again(&rig, &first.id.clone(), &format!("&successor_of={}", first.session)).await;
    assert_eq!(second.hear_of("closed").await["reason"], "replaced");
    third.say(json!({"type": "auth", "token": ALICE})).await;
    assert_eq!(third.hear_of("auth").await["accepted"], true);
}

#[tokio::test]
async fn viewers_wait_for_a_client_that_is_away_and_only_so_many() {
    let rig = Rig::with(|config| {
        config.limits.reconnect_wait = Duration::from_secs(300);
        config.limits.waiting_per_tunnel = 1;
    })
    .await;
    let client = Two::connect(&rig, "web").await;
    let id = client.id.clone();
    drop(client);
    let mut viewer = asking(&rig).await;
    // Until the first one waits, the second one is the first.
    let refused = loop {
        let get = rig.get("web", "/");
        if let Ok(answer) = tokio::time::timeout(Duration::from_secs(2), get).await {
            break answer;
        }
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("2")));
    assert!(refused.text().contains("too_many_waiting"), "{}", refused.text());
    let mut back = Two::again(&rig, &id, "").await;
    let told = back.hear_of("connection").await;
    let _data = serve(&rig, told["id"].as_str().unwrap()).await;
    assert_eq!(viewer.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_that_stays_away_is_503_after_the_wait() {
    let rig = Rig::with(|config| config.limits.reconnect_wait = Duration::from_millis(300)).await;
    rig.create(ALICE, "web").await;
    let began = Instant::now();
    let answer = rig.get("web", "/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")));
    assert!(answer.text().contains("client_offline"), "{}", answer.text());
    assert!(began.elapsed() >= Duration::from_millis(300), "it was not waited for");
}

#[tokio::test]
async fn an_upgraded_connection_that_breaks_off_is_reset_and_does_not_end() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    let (mut viewer, mut data) = upgraded(&rig, &mut client, "hello").await;
    assert_eq!(viewer.bytes(5).await, b"hello");
    let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 1011.into(), reason: "".into() };
    soon(data.close(Some(frame))).await.unwrap();
    let error = soon(viewer.0.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Only a request on a socket that had been used before was announced again; on a fresh one its viewer got 504.
#[tokio::test]
async fn a_get_on_a_fresh_socket_of_a_client_that_fell_silent_is_announced_again() {
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_millis(300)).await;
    let mut client = Two::connect(&rig, "web").await;
    let mut viewer = asking(&rig).await;
    let first = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
    // Nobody reads it, so its pings stay unanswered.
    let _silent = data(&rig, &first).await;
    let second = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    let _data = serve(&rig, &second).await;
    assert_eq!(viewer.answer().await.status, 200);
}
