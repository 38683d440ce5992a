//! The control socket and the handshakes of a client: liveness, and what nonsense costs (its own socket, nothing else).

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::data::waiting;
use crate::frames::{BINARY, CONTINUED, FIN, PING, PONG, Raw, TEXT, frame, handshake, header, nonsense};
use crate::rig::{ALICE, Answer, BOB, Control, Rig, echo_target, read_all, soon};
use crate::wire::Viewer;

#[tokio::test]
async fn the_first_ping_comes_right_after_the_handshake() {
    let rig = Rig::start().await;
    let mut control = Raw::control(&rig, ALICE, "web").await;
    assert_eq!(control.frame().await.unwrap().0, PING);
}

#[tokio::test]
async fn pings_of_the_client_are_answered_with_their_payload() {
    let rig = Rig::start().await;
    let mut control = Raw::control(&rig, ALICE, "web").await;
    for payload in ["", "abc"] {
        control.send(PING, payload).await;
        assert_eq!(control.next(PONG).await.unwrap(), payload.as_bytes());
    }
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_with_1001_and_one_that_does_stays() {
    let rig = Rig::with(|config| {
        config.limits.ping_every = Duration::from_millis(100);
        config.limits.pong_wait = Duration::from_millis(400);
    })
    .await;
    let mut silent = Raw::control(&rig, ALICE, "silent").await;
    // Bytes that come are no pong.
    silent.send(TEXT, "{}").await;
    silent.send(PING, "").await;
    assert_eq!(silent.close_code().await, Some(1001));
    let mut alive = Raw::control(&rig, ALICE, "alive").await;
    for _ in 0..10 {
        let payload = alive.next(PING).await.expect("closed although every ping was answered");
        alive.send(PONG, payload).await;
    }
}

#[tokio::test]
async fn what_a_base_client_says_on_its_control_socket_is_ignored() {
    let rig = Rig::start().await;
    let mut control = Raw::control(&rig, ALICE, "web").await;
    for (kind, payload) in
        [(TEXT, &b"hello"[..]), (TEXT, b"{\"type\":\"connection\"}"), (TEXT, b""), (BINARY, b"\xff\x00")]
    {
        control.send(kind, payload).await;
    }
    control.send(TEXT, [b'x'; 64 * 1024]).await;
    control.send(PING, "still here?").await;
    assert_eq!(control.next(PONG).await.unwrap(), b"still here?");
}

#[tokio::test]
async fn a_control_message_over_64_kib_closes_with_1009_before_it_is_read() {
    let rig = Rig::start().await;
    let half = [b'x'; 40 * 1024];
    for (what, bytes) in [
        ("declared", header(TEXT, 64 * 1024 + 1)),
        ("declared beyond every memory", header(TEXT, 1 << 62)),
        ("in fragments", [frame(TEXT & !FIN, &half), frame(CONTINUED & !FIN, &half)].concat()),
    ] {
        let mut control = Raw::control(&rig, ALICE, "web").await;
        control.write([bytes, vec![0; 4]].concat()).await;
        assert_eq!(control.close_code().await, Some(1009), "{what}");
    }
}

#[tokio::test]
async fn nonsense_on_a_control_socket_closes_it_with_1002_and_no_other() {
    let rig = Rig::start().await;
    let _other = rig.client(BOB, "other", echo_target().await).await;
    for (what, bytes) in nonsense() {
        let mut control = Raw::control(&rig, ALICE, "web").await;
        control.write(bytes).await;
        assert_eq!(control.close_code().await, Some(1002), "{what}");
        assert_eq!(rig.get("other", "/").await.status, 200, "{what}");
    }
}

#[tokio::test]
async fn text_that_is_no_utf_8_on_a_control_socket_closes_it_with_1007() {
    let rig = Rig::start().await;
    let mut control = Raw::control(&rig, ALICE, "web").await;
    control.send(TEXT, b"\xff").await;
    assert_eq!(control.close_code().await, Some(1007));
}

#[tokio::test]
async fn a_flood_of_empty_fragments_is_passed_over() {
    let rig = Rig::start().await;
    let mut control = Raw::control(&rig, ALICE, "web").await;
    let flood = [frame(TEXT & !FIN, b""), frame(CONTINUED & !FIN, b"").repeat(20_000), frame(PING, b"after")]
        .concat();
    control.write(flood).await;
    assert_eq!(control.next(PONG).await.unwrap(), b"after");
}

#[tokio::test]
async fn a_flood_of_pings_is_held_back_when_its_pongs_are_not_read() {
    let rig = Rig::start().await;
    let _other = rig.client(BOB, "other", echo_target().await).await;
    let mut control = Raw::control(&rig, ALICE, "web").await;
    let flood = frame(PING, &[b'x'; 125]).repeat(1000);
    let flooding = async {
        // More than all buffers on the way together hold.
        for _ in 0..1000 {
            control.0.write_all(&flood).await?;
        }
        std::io::Result::Ok(())
    };
    // Either the relay stops reading or it drops the client; in the meantime the others are served.
    tokio::select! {
        flooded = flooding => assert!(flooded.is_err(), "125 MB of pings were read and their pongs kept"),
        answer = async {
            for _ in 0..50 {
                assert_eq!(rig.get("other", "/").await.status, 200);
            }
        } => answer,
    }
}

#[tokio::test]
async fn a_wrong_handshake_is_refused_with_a_reason() {
    let rig = Rig::start().await;
    let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
    let control = format!("/ws/control?tunnel_id={id}");
    let good = handshake(&control, Some(ALICE));
    let cases = [
        ("no upgrade", good.replace("Upgrade: websocket\r\n", ""), 400, "not_websocket"),
        ("another upgrade", good.replace("Upgrade: websocket", "Upgrade: h2c"), 400, "not_websocket"),
        ("no connection header", good.replace("Connection: Upgrade\r\n", ""), 400, "not_websocket"),
        ("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0"), 400, "not_websocket"),
        ("version 8", good.replace("Version: 13", "Version: 8"), 426, "websocket_version"),
        ("no version", good.replace("Sec-WebSocket-Version: 13\r\n", ""), 426, "websocket_version"),
        (
            "no nonce",
            good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
            400,
            "not_websocket",
        ),
        ("a short nonce", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), 400, "not_websocket"),
        (
            "a nonce that is no base64",
            good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNh!XBsZSBub25jZQ=="),
            400,
            "not_websocket",
        ),
        ("POST", good.replace("GET", "POST"), 405, "method_not_allowed"),
        ("no tunnel", handshake("/ws/control", Some(ALICE)), 400, "missing_parameter"),
        ("an unknown tunnel", handshake("/ws/control?tunnel_id=x", Some(ALICE)), 404, "tunnel_not_found"),
        ("no key", handshake(&control, None), 401, "unauthorized"),
        ("a wrong key", handshake(&control, Some("nbk_wrong")), 401, "unauthorized"),
        ("a foreign key", handshake(&control, Some(BOB)), 403, "foreign_tunnel"),
        ("no id", handshake("/ws/data", None), 400, "missing_parameter"),
        (
            "an unknown id",
            handshake("/ws/data?id=550e8400-e29b-41d4-a716-446655440000", None),
            404,
            "connection_not_found",
        ),
        ("an id of another form", handshake("/ws/data?id=a%20b", None), 404, "connection_not_found"),
    ];
    for (what, request, status, code) in cases {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(request).await;
        let answer = viewer.answer().await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert!(answer.text().contains(&format!("\"code\":\"{code}\"")), "{what}: {}", answer.text());
        let version = answer.header("sec-websocket-version");
        assert_eq!(version, (status == 426).then_some("13"), "{what}");
    }
}

#[tokio::test]
async fn a_handshake_of_five_megabytes_is_refused_at_its_limit() {
    let rig = Rig::start().await;
    let mut stream = rig.viewer().await;
    let request = handshake("/ws/control", Some(ALICE))
        .replace("\r\n\r\n", &format!("\r\nX-Long: {}\r\n\r\n", "x".repeat(5 << 20)));
    // The relay stops reading before the end of it.
    let _ = soon(stream.write_all(request.as_bytes())).await;
    assert_eq!(Answer::parse(&soon(read_all(&mut stream)).await).status, 431);
}

#[tokio::test]
async fn no_extension_is_ever_agreed_to() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let (_viewer, id) = waiting(&rig, &mut control).await;
    for path in [format!("/ws/data?id={id}"), format!("/ws/control?tunnel_id={}", control.id)] {
        let mut socket = Viewer::new(&rig).await;
        socket
            .say(handshake(&path, Some(ALICE)).replace(
                "\r\n\r\n",
                "\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-webkit-deflate-frame\r\n\r\n",
            ))
            .await;
        let head = socket.head().await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
    }
}

#[tokio::test]
async fn doubled_slashes_are_served_without_a_redirect() {
    let rig = Rig::start().await;
    let (status, tunnel) = rig.api(ALICE, "POST", "//v1/tunnels", r#"{"local_port":1,"name":"web"}"#).await;
    assert_eq!(status, 201);
    let path = format!("//ws/control?tunnel_id={}", tunnel["id"].as_str().unwrap());
    let mut control = Control { id: String::new(), socket: rig.socket(&path, Some(ALICE)).await.unwrap() };
    let (_viewer, id) = waiting(&rig, &mut control).await;
    assert!(Raw::open(rig.address, &format!("//ws/data?id={id}"), None).await.is_ok());
}
