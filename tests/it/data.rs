//! Data sockets: who may claim a connection and until when, and what of their frames the viewer gets.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::frames::{BINARY, CLOSE, CONTINUED, FIN, PING, PONG, Raw, TEXT, frame, header, nonsense};
use crate::rig::{ALICE, Answer, BOB, Control, Rig, soon};
use crate::wire::Viewer;

/// A viewer of `web` that has asked for `/`, and the id with which its connection was notified.
pub async fn waiting(rig: &Rig, control: &mut Control) -> (Viewer, String) {
    let mut viewer = Viewer::new(rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n\r\n").await;
    let id = soon(control.notified()).await.unwrap();
    (viewer, id)
}

async fn answer(viewer: &mut Viewer) -> Answer {
    Answer::parse(&viewer.rest().await)
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
    assert_eq!(
        (late.status, late.text().contains("\"cause\":\"not_claimed\"")),
        (504, true),
        "{}",
        late.text()
    );
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
            [
                frame(BINARY, b""),
                frame(BINARY, head),
                frame(TEXT, b""),
                frame(BINARY, b"a"),
                frame(BINARY, b""),
            ]
            .concat(),
            b"a",
        ),
        (
            "pings between",
            [frame(PING, b"1"), frame(BINARY, head), frame(PING, b"2").repeat(9), frame(BINARY, b"a")]
                .concat(),
            b"a",
        ),
        (
            "a close frame at the end",
            [frame(BINARY, head), frame(BINARY, b"a"), frame(CLOSE, b"\x03\xe8")].concat(),
            b"a",
        ),
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
