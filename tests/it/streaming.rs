//! Streams: every byte goes on as it comes, slow ends slow the other end, and whoever leaves is noticed.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frames::{BINARY, Raw};
use crate::rig::{ALICE, Answer, Client, Rig, read_all, read_head, soon, target};
use crate::wire::{Viewer, by_hand, ended};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const LARGE: usize = 64 * 1024 * 1024;

/// Bytes that show where in the stream they stand.
fn pattern(at: usize, length: usize) -> Vec<u8> {
    (at..at + length).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8).collect()
}

/// Writes `total` bytes of the pattern.
async fn write_pattern(stream: &mut TcpStream, total: usize) {
    for at in (0..total).step_by(1 << 20) {
        soon(stream.write_all(&pattern(at, (total - at).min(1 << 20)))).await.unwrap();
    }
}

/// Reads `total` bytes and checks each of them.
async fn read_pattern(stream: &mut TcpStream, total: usize) {
    let mut buffer = vec![0; 1 << 20];
    for at in (0..total).step_by(1 << 20) {
        let part = &mut buffer[..(total - at).min(1 << 20)];
        soon(stream.read_exact(part)).await.unwrap();
        assert!(*part == pattern(at, part.len()), "differs after {at}");
    }
}

/// A relay with the tunnel `web`, and a viewer's request with its target's end of it.
async fn begun(request: &str) -> (Rig, Client, Viewer, TcpStream) {
    let rig = Rig::start().await;
    let (address, mut targets) = by_hand().await;
    let client = rig.client(ALICE, "web", address).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(request).await;
    let mut stream = soon(targets.recv()).await.unwrap();
    soon(read_head(&mut stream)).await.unwrap();
    (rig, client, viewer, stream)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n";

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (_rig, _client, mut viewer, mut stream) = begun(GET).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await.unwrap();
    assert!(
        viewer.head().await.contains("content-type: text/event-stream\r\n"),
        "the head waits for no event"
    );
    for number in 0..10 {
        // The next event is written only when this one is there.
        let event = format!("data: {number}\n\n");
        stream.write_all(event.as_bytes()).await.unwrap();
        assert_eq!(viewer.bytes(3 + event.len() + 2).await, format!("9\r\n{event}\r\n").as_bytes());
    }
    drop(stream);
    assert_eq!(viewer.bytes(5).await, b"0\r\n\r\n");
}

#[tokio::test]
async fn an_upload_and_its_response_stream_at_the_same_time() {
    let request = GET.replace("GET", "POST").replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n");
    let (_rig, _client, mut viewer, mut stream) = begun(&request).await;
    stream.write_all(CHUNKED.as_bytes()).await.unwrap();
    assert!(viewer.head().await.starts_with("http/1.1 200 "));
    let mut chunk = [0; 8];
    for word in ["one", "two", "six"] {
        let sent = format!("3\r\n{word}\r\n");
        viewer.say(&sent).await;
        soon(stream.read_exact(&mut chunk)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&chunk), sent);
        stream.write_all(&chunk).await.unwrap();
        assert_eq!(viewer.bytes(8).await, sent.as_bytes());
    }
    viewer.say("0\r\n\r\n").await;
    soon(stream.read_exact(&mut chunk[..5])).await.unwrap();
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(viewer.bytes(5).await, b"0\r\n\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_arrive_whole_in_both_directions() {
    let rig = Rig::start().await;
    let both = target(|_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        read_pattern(&mut stream, LARGE).await;
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        write_pattern(&mut stream, LARGE).await;
    })
    .await;
    let _client = rig.client(ALICE, "web", both).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(format!("PUT / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: {LARGE}\r\n\r\n")).await;
    write_pattern(&mut viewer.0, LARGE).await;
    assert!(viewer.head().await.contains(&format!("content-length: {LARGE}\r\n")));
    read_pattern(&mut viewer.0, LARGE).await;
}

/// Writes until the other end takes no more for a while: how much it took, and the connection.
async fn fill(mut stream: TcpStream) -> (usize, TcpStream) {
    let (part, mut taken) = (vec![b'x'; 64 * 1024], 0);
    while let Ok(written) = timeout(Duration::from_millis(700), stream.write(&part)).await {
        taken += written.unwrap();
        assert!(taken < 1 << 30, "nothing ever slows it down");
    }
    (taken, stream)
}

/// More than all buffers on the way hold together: four sockets, the relay, the client.
const ON_THE_WAY: usize = 48 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_does_not_read_stops_the_target() {
    let (rig, _client, mut viewer, mut stream) = begun(GET).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let (taken, stream) = fill(stream).await;
    assert!(taken < ON_THE_WAY, "{taken} bytes are on the way");
    // Others are served meanwhile.
    assert_eq!(
        rig.raw("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.status,
        200
    );
    drop(stream);
    let answer = viewer.answer().await;
    assert_eq!((answer.body.len(), answer.complete), (taken, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_does_not_read_stops_the_viewer() {
    let request = GET.replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 9999999999\r\n\r\n");
    let (_rig, _client, viewer, mut stream) = begun(&request).await;
    let (taken, viewer) = fill(viewer.0).await;
    assert!(taken < ON_THE_WAY, "{taken} bytes are on the way");
    // And goes on when the target does.
    let mut part = vec![0; taken];
    soon(stream.read_exact(&mut part)).await.unwrap();
    drop(viewer);
    timeout(Duration::from_secs(5), ended(&mut stream))
        .await
        .expect("the target's connection ends with the viewer");
}

#[tokio::test]
async fn a_viewer_that_has_shut_its_side_still_gets_its_response() {
    let (_rig, _client, mut viewer, mut stream) = begun(GET).await;
    viewer.0.shutdown().await.unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nla").await.unwrap();
    assert!(viewer.head().await.starts_with("http/1.1 200 "));
    assert_eq!(viewer.bytes(2).await, b"la");
    stream.write_all(b"te").await.unwrap();
    assert_eq!(viewer.rest().await, b"te");
}

#[tokio::test]
async fn an_upload_cut_short_by_its_viewer_never_looks_complete_to_the_target() {
    for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let request = format!("POST / HTTP/1.1\r\nHost: web.relay.test\r\n{framing}");
        let (_rig, _client, mut viewer, mut stream) = begun(&request).await;
        viewer.0.shutdown().await.unwrap();
        let answer = Answer::parse(&viewer.rest().await);
        assert_eq!(answer.status, 400, "{}", answer.head);
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
        assert!(String::from_utf8_lossy(&rest).contains("abc") && !rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    }
}

#[tokio::test]
async fn a_viewer_that_vanishes_lets_the_target_go() {
    let post = |framing: &str| format!("POST / HTTP/1.1\r\nHost: web.relay.test\r\n{framing}");
    for (what, request, answer) in [
        ("before the response", GET.to_owned(), ""),
        ("in a silent response", GET.to_owned(), CHUNKED),
        ("in an upload", post("Content-Length: 10\r\n\r\nabc"), ""),
        ("in an upload with its response under way", post("Content-Length: 10\r\n\r\nabc"), CHUNKED),
        ("with another request in the pipe", [GET, GET].concat(), ""),
        ("with another request in the pipe and a silent response", [GET, GET].concat(), CHUNKED),
        ("before its consent to the body", post("Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"), ""),
    ] {
        let (_rig, _client, mut viewer, mut stream) = begun(&request).await;
        if !answer.is_empty() {
            stream.write_all(answer.as_bytes()).await.unwrap();
            viewer.head().await;
        }
        viewer.vanish();
        timeout(Duration::from_secs(5), ended(&mut stream)).await.expect(what);
    }
}

#[tokio::test]
async fn a_viewer_that_has_shut_its_side_and_hears_nothing_is_taken_as_gone() {
    let (_rig, _client, mut viewer, mut stream) = begun(GET).await;
    stream.write_all(CHUNKED.as_bytes()).await.unwrap();
    viewer.head().await;
    viewer.0.shutdown().await.unwrap();
    ended(&mut stream).await;
}

#[tokio::test]
async fn an_exchange_on_which_nothing_moves_ends() {
    let rig = Rig::with(|config| {
        config.limits.idle_exchange = Duration::from_millis(400);
        config.limits.idle_upgraded = Duration::from_millis(400);
    })
    .await;
    let (address, mut targets) = by_hand().await;
    let _client = rig.client(ALICE, "web", address).await;
    let upgrade = GET.replace("\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
    for (request, answer, status) in [
        (GET, "", 504),
        (GET, CHUNKED, 200),
        (&upgrade, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n", 101),
    ] {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(request).await;
        let mut stream = soon(targets.recv()).await.unwrap();
        soon(read_head(&mut stream)).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        let head = viewer.head().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        ended(&mut stream).await;
        if status != 504 {
            assert_eq!(viewer.rest().await, b"", "nothing that looks like an end");
        }
    }
}

/// Within the first millisecond of a connection, the time of a response that had not begun passed for its last byte's.
#[tokio::test]
async fn a_viewer_that_shuts_its_side_at_once_waits_for_a_slow_answer() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewers = Vec::new();
    for _ in 0..5 {
        let mut viewer = rig.viewer().await;
        viewer.write_all(b"GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await.unwrap();
        viewer.shutdown().await.unwrap();
        let mut data = Raw::data(rig.address, &soon(control.notified()).await.unwrap()).await;
        data.request().await;
        viewers.push((viewer, data));
    }
    // Longer than a response that has begun may be silent.
    tokio::time::sleep(Duration::from_millis(5500)).await;
    for (mut viewer, mut data) in viewers {
        data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(Answer::parse(&soon(read_all(&mut viewer)).await).text(), "ok");
    }
}
