//! Frames as they should be, at every length, and as they must not be, each with the code that ends it.

use adit::bridge::{FrameType, TextMessages};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frame_bytes::*;
use crate::rig::{Rig, accepted, echo, handshake, soon, target};

/// Both sides of each place at which a length is written differently, or was read wrongly by others.
const LENGTHS: [usize; 15] =
    [1, 124, 125, 126, 127, 128, 2047, 2048, 4095, 4096, 8191, 65534, 65535, 65536, 65537];

#[tokio::test]
async fn frames_of_every_length_go_through_both_ways() {
    let rig = Rig::to(echo().await).await;
    let mut viewer = rig.open().await;
    for length in LENGTHS {
        let payload: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
        viewer.send(BINARY, &payload).await;
        assert_eq!(viewer.bytes(length).await, payload, "{length}");
    }
    viewer.send(CLOSE, 1000u16.to_be_bytes()).await;
    assert_eq!(viewer.close().await, (1000, String::new()));
    viewer.end().await;
}

#[tokio::test]
async fn what_rfc_6455_forbids_ends_the_session_with_1002() {
    let rig = Rig::to(echo().await).await;
    let mut more = nonsense();
    more.extend([
        ("a length of 2^63", header(BINARY, 1 << 63)),
        ("a length of 5 in 16 bits", vec![BINARY, 0x80 | 126, 0, 5]),
        ("a length of 65535 in 64 bits", vec![BINARY, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        ("a close code of 999", frame(CLOSE, &999u16.to_be_bytes())),
        ("a close reason that is no UTF-8", frame(CLOSE, b"\x03\xe8\xff")),
        ("a close frame in fragments", frame(CLOSE & !FIN, b"")),
        ("another reserved bit", frame(BINARY | 0x10, b"x")),
    ]);
    for (what, bytes) in more {
        let mut viewer = rig.open().await;
        // What came before it is not lost.
        viewer.send(BINARY, "before").await;
        assert_eq!(viewer.bytes(6).await, b"before");
        viewer.write(bytes).await;
        let (code, reason) = viewer.close().await;
        assert_eq!(code, 1002, "{what}: {reason}");
        assert!(!reason.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_session_with_1009_before_it_comes() {
    let rig = Rig::with(echo().await, |config| config.service.max_frame = 1000).await;
    for length in [1001, 65536, 1 << 62] {
        let mut viewer = rig.open().await;
        viewer.send(BINARY, [7; 1000]).await;
        assert_eq!(viewer.bytes(1000).await, [7; 1000]);
        viewer.write([header(BINARY, length), vec![0; 4]].concat()).await;
        assert_eq!(viewer.close().await.0, 1009, "{length}");
    }
    let usual = Rig::to(echo().await).await;
    let mut viewer = usual.open().await;
    viewer.write([header(BINARY, 1 << 62), vec![0; 4]].concat()).await;
    assert_eq!(viewer.close().await.0, 1009);
}

#[tokio::test]
async fn fragments_reach_the_target_as_they_come() {
    let (listener, target) = target().await;
    let rig = Rig::to(target).await;
    let mut viewer = rig.open().await;
    let mut behind = accepted(&listener).await;
    let mut read = [0; 3];
    viewer.send(BINARY & !FIN, "one").await;
    soon(behind.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"one");
    viewer.send(PING, "between").await;
    assert_eq!(viewer.frame().await, Some((PONG, b"between".to_vec())));
    viewer.send(CONTINUED & !FIN, "").await;
    // The first half of a frame, too.
    let whole = frame(CONTINUED, b"twofor");
    viewer.write(&whole[..9]).await;
    soon(behind.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"two");
    viewer.write(&whole[9..]).await;
    soon(behind.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"for");
}

#[tokio::test]
async fn pings_are_answered_with_what_they_bring_and_nothing_else_is_made_of_them() {
    let rig = Rig::to(echo().await).await;
    let mut viewer = rig.open().await;
    for payload in [&b""[..], b"x", &[9; 125]] {
        viewer.send(PING, payload).await;
        assert_eq!(viewer.frame().await, Some((PONG, payload.to_vec())));
    }
    viewer.send(PONG, "unasked").await;
    viewer.send(BINARY, "").await;
    viewer.send(BINARY, "data").await;
    assert_eq!(viewer.frame().await, Some((BINARY, b"data".to_vec())));
}

#[tokio::test]
async fn a_flood_of_pings_that_nobody_reads_the_answers_of_ends_without_memory() {
    let rig = Rig::to(echo().await).await;
    let mut viewer = rig.open().await;
    let flood = frame(PING, &[1; 125]).repeat(50_000);
    viewer.write(&flood).await;
    viewer.send(BINARY, "data").await;
    while let Some((first, payload)) = viewer.frame().await {
        if first == BINARY {
            assert_eq!(payload, b"data");
            return;
        }
        assert_eq!((first, payload.len()), (PONG, 125));
    }
    panic!("the session ended");
}

#[tokio::test]
async fn a_frame_in_the_packet_of_the_request_is_not_lost() {
    let rig = Rig::to(echo().await).await;
    let stream = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    let request = [handshake("/", "").into_bytes(), frame(BINARY, b"early")].concat();
    let (head, mut viewer) = crate::rig::ask(stream, &request).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(viewer.bytes(5).await, b"early");
}

#[tokio::test]
async fn text_is_refused_with_1003_or_passed_and_must_then_be_utf8() {
    let refusing = Rig::to(echo().await).await;
    for text in ["hello", ""] {
        let mut viewer = refusing.open().await;
        viewer.send(TEXT, text).await;
        assert_eq!(viewer.close().await.0, 1003);
    }
    let passing = Rig::with(echo().await, |config| config.service.text = TextMessages::Pass).await;
    let mut viewer = passing.open().await;
    viewer.send(TEXT, "grüße").await;
    assert_eq!(viewer.bytes(7).await, "grüße".as_bytes());
    viewer.send(TEXT & !FIN, b"\xf0\x9f").await;
    viewer.send(CONTINUED, b"\x98\x80").await;
    assert_eq!(viewer.bytes(4).await, "😀".as_bytes());
    viewer.send(BINARY, b"\xff").await;
    assert_eq!(viewer.bytes(1).await, b"\xff");
    viewer.send(TEXT, b"\xf0\x9f").await;
    assert_eq!(viewer.close().await.0, 1007);
}

#[tokio::test]
async fn base64_is_spoken_in_text_messages_by_those_who_ask_for_it() {
    let (listener, target) = target().await;
    let rig = Rig::to(target).await;
    let mut viewer = rig.open_with("/", "Sec-WebSocket-Protocol: foo, base64\r\n").await;
    let mut behind = accepted(&listener).await;
    viewer.send(TEXT & !FIN, "aGVs").await;
    viewer.send(CONTINUED, "bG8=").await;
    let mut read = [0; 5];
    soon(behind.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"hello");
    behind.write_all(b"\xff\x00world").await.unwrap();
    assert_eq!(viewer.frame().await, Some((TEXT, b"/wB3b3JsZA==".to_vec())));
    viewer.send(TEXT, "no base64!").await;
    assert_eq!(viewer.close().await.0, 1007);
}

/// A bridge that sends text, a viewer of it, and the target that writes what is sent.
async fn texting() -> (Rig, crate::rig::Viewer<tokio::net::TcpStream>, tokio::net::TcpStream) {
    let (listener, target) = target().await;
    let rig = Rig::with(target, |config| config.service.frame_type = FrameType::Text).await;
    let viewer = rig.open().await;
    let behind = accepted(&listener).await;
    (rig, viewer, behind)
}

#[tokio::test]
async fn text_of_a_target_is_cut_between_characters_alone() {
    let (_rig, mut viewer, mut behind) = texting().await;
    // Each part of a character by itself.
    for byte in "a€😀".bytes() {
        behind.write_all(&[byte]).await.unwrap();
        behind.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let text = format!("a{}", "ü".repeat(500_000));
    let written = text.clone();
    let writing = tokio::spawn(async move {
        behind.write_all(written.as_bytes()).await.unwrap();
        behind
    });
    let expected = format!("a€😀{text}");
    let mut all = String::new();
    while all.len() < expected.len() {
        let (first, payload) = viewer.frame().await.expect("the end came first");
        assert_eq!(first, TEXT);
        all.push_str(&String::from_utf8(payload).expect("a message that browsers close with 1007"));
    }
    assert!(all == expected);
    drop(soon(writing).await.unwrap());
    assert_eq!(viewer.close().await.0, 1000);
}

#[tokio::test]
async fn what_a_target_writes_that_is_no_text_ends_its_session_with_1011_and_what_to_do() {
    for bad in [&b"good\xff\xfe"[..], b"good\xe2\x82"] {
        let (_rig, mut viewer, mut behind) = texting().await;
        behind.write_all(bad).await.unwrap();
        behind.shutdown().await.unwrap();
        assert_eq!(viewer.frame().await, Some((TEXT, b"good".to_vec())));
        let (code, reason) = viewer.close().await;
        assert!(code == 1011 && reason.contains("--frame-type binary"), "{code} {reason}");
    }
}
