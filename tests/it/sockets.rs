//! The two WebSockets of a client: what the relay does on them, and what nonsense costs (its own socket, nothing else).

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::frames::{BINARY, CLOSE, CONTINUED, FIN, PING, PONG, Raw, TEXT, frame, handshake, header};
use crate::rig::{ALICE, Answer, BOB, Control, Rig, echo_target, read_all, soon};
use crate::wire::Viewer;

/// A viewer of `web` that has asked for `/`, and the id with which its connection was notified.
async fn waiting(rig: &Rig, control: &mut Control) -> (Viewer, String) {
    let mut viewer = Viewer::new(rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n\r\n").await;
    let id = soon(control.notified()).await.unwrap();
    (viewer, id)
}

async fn answer(viewer: &mut Viewer) -> Answer {
    Answer::parse(&viewer.rest().await)
}

/// Frames that RFC 6455 forbids: each ends the socket with 1002.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a reserved bit", frame(BINARY | 0x40, b"x")),
        ("an unknown opcode", frame(0x83, b"x")),
        ("an unknown control opcode", frame(0x8b, b"")),
        ("no mask", vec![BINARY, 1, b'x']),
        ("a ping in fragments", frame(PING & !FIN, b"x")),
        ("a ping of 126 bytes", frame(PING, &[0; 126])),
        ("a continuation of nothing", frame(CONTINUED, b"x")),
        ("a message inside a message", [frame(BINARY & !FIN, b"x"), frame(BINARY, b"x")].concat()),
        ("a close frame of one byte", frame(CLOSE, b"x")),
        ("a close code that is never sent", frame(CLOSE, &1005u16.to_be_bytes())),
    ]
}

// ---- control ----

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
    for (kind, payload) in [(TEXT, &b"hello"[..]), (TEXT, b"{\"type\":\"connection\"}"), (TEXT, b""), (BINARY, b"\xff\x00")] {
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
async fn a_flood_of_empty_fragments_is_passed_over() {
    let rig = Rig::start().await;
    let mut control = Raw::control(&rig, ALICE, "web").await;
    let flood = [frame(TEXT & !FIN, b""), frame(CONTINUED & !FIN, b"").repeat(20_000), frame(PING, b"after")].concat();
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
        ("no nonce", good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400, "not_websocket"),
        ("a short nonce", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), 400, "not_websocket"),
        ("a nonce that is no base64", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNh!XBsZSBub25jZQ=="), 400, "not_websocket"),
        ("POST", good.replace("GET", "POST"), 405, "method_not_allowed"),
        ("no tunnel", handshake("/ws/control", Some(ALICE)), 400, "missing_parameter"),
        ("an unknown tunnel", handshake("/ws/control?tunnel_id=x", Some(ALICE)), 404, "tunnel_not_found"),
        ("no key", handshake(&control, None), 401, "unauthorized"),
        ("a wrong key", handshake(&control, Some("nbk_wrong")), 401, "unauthorized"),
        ("a foreign key", handshake(&control, Some(BOB)), 403, "foreign_tunnel"),
        ("no id", handshake("/ws/data", None), 400, "missing_parameter"),
        ("an unknown id", handshake("/ws/data?id=550e8400-e29b-41d4-a716-446655440000", None), 404, "connection_not_found"),
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
    let request = handshake("/ws/control", Some(ALICE)).replace("\r\n\r\n", &format!("\r\nX-Long: {}\r\n\r\n", "x".repeat(5 << 20)));
    // The relay stops reading before the end of it.
    let _ = soon(stream.write_all(request.as_bytes())).await;
    assert_eq!(Answer::parse(&soon(read_all(&mut stream)).await).status, 431);
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

// ---- claims ----

#[tokio::test]
async fn a_refused_claim_burns_nothing_and_the_right_one_is_served() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let (mut viewer, id) = waiting(&rig, &mut control).await;
    let path = format!("/ws/data?id={id}");
    assert_eq!(rig.api("", "GET", &path, "").await.0, 400);
    for (key, status) in [("nbk_wrong", 401), (BOB, 403)] {
        assert_eq!(Raw::open(rig.address, &path, Some(key)).await.err().unwrap().status, status, "{key}");
    }
    let mut data = Raw::open(rig.address, &path, Some(ALICE)).await.unwrap();
    assert!(data.request().await.starts_with("GET / HTTP/1.1\r\n"));
    data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright").await;
    assert_eq!(answer(&mut viewer).await.text(), "right");
}

#[tokio::test]
async fn a_second_claim_is_404_and_the_first_goes_on() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let (mut viewer, id) = waiting(&rig, &mut control).await;
    let mut first = Raw::data(rig.address, &id).await;
    assert_eq!(Raw::open(rig.address, &format!("/ws/data?id={id}"), None).await.err().unwrap().status, 404);
    first.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(answer(&mut viewer).await.status, 200);
}

#[tokio::test]
async fn a_late_claim_is_404_and_its_viewer_has_504() {
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_millis(100)).await;
    let mut control = rig.control(ALICE, "web").await;
    let (mut viewer, id) = waiting(&rig, &mut control).await;
    let late = answer(&mut viewer).await;
    assert_eq!((late.status, late.text().contains("\"cause\":\"not_claimed\"")), (504, true), "{}", late.text());
    assert_eq!(Raw::open(rig.address, &format!("/ws/data?id={id}"), None).await.err().unwrap().status, 404);
}

#[tokio::test]
async fn the_claim_of_a_viewer_that_left_is_404() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let (viewer, id) = waiting(&rig, &mut control).await;
    // A reset, as a browser's stop button makes it; the plain end of its sending side might still read.
    viewer.0.set_zero_linger().unwrap();
    drop(viewer);
    assert_eq!(Raw::open(rig.address, &format!("/ws/data?id={id}"), None).await.err().unwrap().status, 404);
}

#[tokio::test]
async fn one_viewer_too_many_is_told_to_come_back_and_the_others_wait_on() {
    let rig = Rig::with(|config| config.limits.waiting_per_tunnel = 2).await;
    let mut control = rig.control(ALICE, "web").await;
    let (mut first, id) = waiting(&rig, &mut control).await;
    let (_second, _) = waiting(&rig, &mut control).await;
    let refused = rig.get("web", "/").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("2")));
    assert!(refused.text().contains("too_many_waiting"), "{}", refused.text());
    let mut data = Raw::data(rig.address, &id).await;
    data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(answer(&mut first).await.status, 200);
    // There is room again.
    waiting(&rig, &mut control).await;
}

#[tokio::test]
async fn viewers_that_wait_have_503_at_once_when_the_client_leaves() {
    // Far longer than a test may take: only the client's leaving can answer.
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_secs(300)).await;
    for leave_by_close in [false, true] {
        let mut control = rig.control(ALICE, "web").await;
        let (mut viewer, _) = waiting(&rig, &mut control).await;
        let mut control = Some(control);
        if leave_by_close {
            let socket = &mut control.as_mut().unwrap().socket;
            soon(socket.close(None)).await.unwrap();
        } else {
            control = None;
        }
        let gone = answer(&mut viewer).await;
        assert_eq!((gone.status, gone.header("retry-after")), (503, Some("2")));
        assert!(gone.text().contains("client_gone"), "{}", gone.text());
        drop(control);
    }
}

// ---- data ----

/// What a client writes on its data socket, and what the viewer then reads as the body of an until-close response.
#[tokio::test]
async fn messages_of_every_form_are_the_same_bytes() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let head = &b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"[..];
    let long: Vec<u8> = (0..=255).cycle().take(32 * 1024).collect();
    let fragments = |message: &[u8]| -> Vec<u8> {
        let count = message.chunks(4096).count();
        let kind = |at| if at == 0 { BINARY } else { CONTINUED } & if at + 1 == count { 0xff } else { !FIN };
        message.chunks(4096).enumerate().flat_map(|(at, part)| frame(kind(at), part)).collect()
    };
    let cases: Vec<(&str, Vec<u8>, &[u8])> = vec![
        ("binary", [frame(BINARY, head), frame(BINARY, &long)].concat(), &long),
        ("text", [frame(TEXT, head), frame(TEXT, b"text")].concat(), b"text"),
        ("fragments of 4096", [frame(BINARY, head), fragments(&long)].concat(), &long),
        ("one message with the head", frame(BINARY, &[head, b"body"].concat()), b"body"),
        (
            "with empty messages",
            [frame(BINARY, b""), frame(BINARY, head), frame(TEXT, b""), frame(BINARY, b"a"), frame(BINARY, b"")].concat(),
            b"a",
        ),
        ("pings between", [frame(PING, b"1"), frame(BINARY, head), frame(PING, b"2").repeat(9), frame(BINARY, b"a")].concat(), b"a"),
        ("a close frame at the end", [frame(BINARY, head), frame(BINARY, b"a"), frame(CLOSE, b"\x03\xe8")].concat(), b"a"),
    ];
    for (what, bytes, body) in cases {
        let (mut viewer, id) = waiting(&rig, &mut control).await;
        let mut data = Raw::data(rig.address, &id).await;
        data.request().await;
        data.write(bytes).await;
        // The public clients send no close frame: the end of TCP between two messages is a normal end.
        data.0.shutdown().await.unwrap();
        let answer = answer(&mut viewer).await;
        assert_eq!((answer.status, answer.complete), (200, true), "{what}");
        assert!(answer.body == body, "{what}: {} bytes", answer.body.len());
    }
}

#[tokio::test]
async fn an_end_inside_a_message_is_an_error_to_the_viewer() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let head = frame(BINARY, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    let half = &frame(BINARY, b"four")[..8];
    for (what, rest) in [
        ("inside a frame", half.to_vec()),
        ("inside a header", vec![BINARY]),
        ("between two fragments", frame(BINARY & !FIN, b"ab")),
    ] {
        let (mut viewer, id) = waiting(&rig, &mut control).await;
        let mut data = Raw::data(rig.address, &id).await;
        data.request().await;
        data.write([head.clone(), rest].concat()).await;
        data.0.shutdown().await.unwrap();
        let answer = answer(&mut viewer).await;
        assert_eq!((answer.status, answer.complete), (200, false), "{what}");
    }
}

#[tokio::test]
async fn nonsense_on_a_data_socket_closes_it_with_1002_and_its_viewer_sees_an_error() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut cases = nonsense();
    cases.push(("a length in too many bytes", vec![BINARY, 0x80 | 126, 0, 1]));
    cases.push(("a length of 2^63", header(BINARY, 1 << 63)));
    for (what, bytes) in cases {
        let (mut viewer, id) = waiting(&rig, &mut control).await;
        let mut data = Raw::data(rig.address, &id).await;
        data.request().await;
        data.send(BINARY, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await;
        data.write(bytes).await;
        assert_eq!(data.close_code().await, Some(1002), "{what}");
        assert!(!answer(&mut viewer).await.complete, "{what}");
    }
    let (mut viewer, id) = waiting(&rig, &mut control).await;
    Raw::data(rig.address, &id).await.write(frame(BINARY | 0x40, b"x")).await;
    assert_eq!(answer(&mut viewer).await.status, 502, "before a response");
}

#[tokio::test]
async fn a_close_frame_is_answered() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let (_viewer, id) = waiting(&rig, &mut control).await;
    let mut data = Raw::data(rig.address, &id).await;
    data.request().await;
    for mut socket in [data, Raw::control(&rig, BOB, "other").await] {
        socket.send(CLOSE, 1000u16.to_be_bytes()).await;
        assert_eq!(socket.close_code().await, Some(1000));
    }
}

#[tokio::test]
async fn one_message_of_64_mib_streams_to_the_viewer_as_it_comes() {
    const SIZE: usize = 64 << 20;
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let (mut viewer, id) = waiting(&rig, &mut control).await;
    let mut data = Raw::data(rig.address, &id).await;
    data.send(BINARY, format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    // One frame, its mask zero, so that the payload is what it looks like.
    data.write([header(BINARY, SIZE as u64), vec![0; 4], b"first".to_vec()].concat()).await;
    viewer.head().await;
    assert_eq!(viewer.bytes(5).await, b"first", "the beginning waits for nothing");
    let part = vec![b'x'; 64 * 1024];
    let (mut left_to_send, mut left_to_read) = (SIZE - 5, SIZE - 5);
    let sending = async {
        while left_to_send > 0 {
            let size = left_to_send.min(part.len());
            data.write(&part[..size]).await;
            left_to_send -= size;
        }
    };
    let reading = async {
        while left_to_read > 0 {
            let bytes = viewer.bytes(left_to_read.min(64 * 1024)).await;
            assert!(bytes.iter().all(|byte| *byte == b'x'));
            left_to_read -= bytes.len();
        }
    };
    tokio::join!(sending, reading);
}

#[tokio::test]
async fn a_flood_of_pings_on_a_data_socket_is_answered_at_its_end_and_delays_nobody() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let (mut viewer, id) = waiting(&rig, &mut control).await;
    let mut data = Raw::data(rig.address, &id).await;
    data.request().await;
    data.write(frame(PING, &[b'x'; 125]).repeat(5000)).await;
    data.send(PING, "last").await;
    while data.next(PONG).await.unwrap() != b"last" {}
    data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(answer(&mut viewer).await.status, 200);
}
