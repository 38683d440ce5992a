//! How sessions end: who is told what, and what is delivered before; slow, silent and dead peers; the end of the bridge.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frame_bytes::*;
use crate::rig::{Rig, accepted, echo, nobody, soon, target};

/// More than the buffers of two sockets hold.
const MUCH: usize = 32 * 1024 * 1024;

fn reset(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    all
}

#[tokio::test]
async fn a_viewers_close_is_echoed_after_its_data_has_reached_the_target() {
    let (listener, target) = target().await;
    let rig = Rig::to(target).await;
    for (sent, code) in [(&b"\x03\xe9going"[..], 1001), (b"", 0), (b"\x0f\xa0", 4000)] {
        let mut viewer = rig.open().await;
        let mut behind = accepted(&listener).await;
        viewer.write([frame(BINARY, &[5; 300_000]), frame(CLOSE, sent)].concat()).await;
        assert_eq!(read_all(&mut behind).await, [5; 300_000]);
        assert_eq!(viewer.close().await, (code, String::new()));
        viewer.end().await;
    }
}

#[tokio::test]
async fn the_targets_end_is_1000_once_a_slow_viewer_has_everything() {
    let (listener, target) = target().await;
    let rig = Rig::with(target, |config| config.service.half_close = None).await;
    let mut viewer = rig.open().await;
    let mut behind = accepted(&listener).await;
    let (written, mut stuck) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        behind.write_all(&vec![7; MUCH]).await.unwrap();
        drop(behind);
        written.send(()).unwrap();
    });
    // Nobody reads: what does not fit waits at the target.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut stuck).await.is_err());
    assert_eq!(viewer.bytes(MUCH).await.len(), MUCH);
    assert_eq!(viewer.close().await, (1000, "Target closed".into()));
    viewer.send(CLOSE, b"\x03\xe8").await;
    viewer.end().await;
}

#[tokio::test]
async fn after_the_targets_half_the_viewers_still_flows_for_its_time() {
    let (listener, target) = target().await;
    let rig = Rig::with(target, |config| config.service.half_close = Some(Duration::from_secs(2))).await;
    let mut viewer = rig.open().await;
    let mut behind = accepted(&listener).await;
    behind.write_all(b"last words").await.unwrap();
    behind.shutdown().await.unwrap();
    assert_eq!(viewer.bytes(10).await, b"last words");
    viewer.send(BINARY, "still here").await;
    let mut read = [0; 10];
    soon(behind.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"still here");
    assert_eq!(viewer.close().await, (1000, "Target closed".into()));
    assert_eq!(read_all(&mut behind).await, b"");
}

#[tokio::test]
async fn a_target_that_breaks_off_is_1011_with_a_reason() {
    let (listener, target) = target().await;
    let rig = Rig::to(target).await;
    let mut viewer = rig.open().await;
    let behind = accepted(&listener).await;
    reset(&behind);
    drop(behind);
    let (code, reason) = viewer.close().await;
    assert_eq!(code, 1011);
    assert!(reason.starts_with("Target failed"), "{reason}");
}

#[tokio::test]
async fn a_viewer_that_leaves_without_a_word_still_gets_what_the_target_has() {
    let (listener, target) = target().await;
    let rig = Rig::to(target).await;
    let mut viewer = rig.open().await;
    let mut behind = accepted(&listener).await;
    viewer.send(BINARY, "question").await;
    viewer.0.shutdown().await.unwrap();
    assert_eq!(read_all(&mut behind).await, b"question");
    behind.write_all(b"answer").await.unwrap();
    drop(behind);
    assert_eq!(viewer.bytes(6).await, b"answer");
}

#[tokio::test]
async fn a_viewer_that_is_gone_ends_the_target() {
    let (listener, target) = target().await;
    let rig = Rig::to(target).await;
    let viewer = rig.open().await;
    let mut behind = accepted(&listener).await;
    reset(&viewer.0);
    drop(viewer);
    assert_eq!(read_all(&mut behind).await, b"");
}

#[tokio::test]
async fn a_target_that_takes_nothing_holds_up_the_viewer_and_no_memory() {
    let (listener, target) = target().await;
    let rig = Rig::to(target).await;
    let mut viewer = rig.open().await;
    let mut behind = accepted(&listener).await;
    let message = frame(BINARY, &[1; 65536]);
    let mut sent = 0;
    // Until a second passes in which nothing is taken any more.
    while tokio::time::timeout(Duration::from_secs(1), viewer.0.write_all(&message)).await.is_ok() {
        sent += 1;
        assert!(sent < 4096, "256 MiB were taken");
    }
    // It goes on where it was; the last frame was cut, so what follows is no frame.
    let mut read = vec![0; sent * 65536];
    soon(behind.read_exact(&mut read)).await.unwrap();
    assert!(read.iter().all(|byte| *byte == 1));
}

#[tokio::test]
async fn a_target_that_is_not_there_is_1011_or_before_the_handshake_502() {
    let late = Rig::to(nobody().await).await;
    let mut viewer = late.open().await;
    assert_eq!(viewer.close().await, (1011, "Failed to connect to downstream server".into()));
    let first = Rig::with(nobody().await, |config| config.service.connect_first = true).await;
    let (head, _) = first.ask(&crate::rig::handshake("/", "")).await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    let found = Rig::with(echo().await, |config| config.service.connect_first = true).await;
    let mut viewer = found.open().await;
    viewer.send(BINARY, "x").await;
    assert_eq!(viewer.bytes(1).await, b"x");
}

#[tokio::test]
async fn a_viewer_that_answers_no_pings_is_dropped_and_one_that_does_is_not() {
    let (listener, target) = target().await;
    let heartbeat = Some(Duration::from_millis(200));
    let rig = Rig::with(target, |config| config.service.heartbeat = heartbeat).await;
    let (mut lively, mut dead) = (rig.open().await, rig.open().await);
    let (_one, _two) = (accepted(&listener).await, accepted(&listener).await);
    let (enough, mut is_enough) = tokio::sync::oneshot::channel::<()>();
    let answering = tokio::spawn(async move {
        while is_enough.try_recv().is_err() {
            let (first, payload) = lively.frame().await.expect("it was dropped");
            assert_eq!(first, PING);
            lively.send(PONG, payload).await;
        }
    });
    let mut pings = 0;
    while let Some((first, _)) = dead.frame().await {
        assert_eq!(first, PING);
        pings += 1;
    }
    assert_eq!(pings, 2);
    enough.send(()).unwrap();
    soon(answering).await.unwrap();
}

#[tokio::test]
async fn a_session_in_which_nothing_moves_is_ended_with_1001() {
    let rig = Rig::with(echo().await, |config| config.service.idle = Some(Duration::from_millis(300))).await;
    let mut viewer = rig.open().await;
    viewer.send(BINARY, "x").await;
    assert_eq!(viewer.bytes(1).await, b"x");
    assert_eq!(viewer.close().await, (1001, "nothing moved for too long".into()));
}

#[tokio::test]
async fn the_end_of_the_bridge_is_1001_and_what_was_sent_before_arrives() {
    let (listener, target) = target().await;
    let mut rig = Rig::to(target).await;
    let mut viewer = rig.open().await;
    let mut behind = accepted(&listener).await;
    rig.stop();
    assert_eq!(viewer.close().await, (1001, "the bridge is going away".into()));
    viewer.write([frame(BINARY, b"under way"), frame(CLOSE, b"\x03\xe9")].concat()).await;
    viewer.end().await;
    assert_eq!(read_all(&mut behind).await, b"under way");
    assert!(TcpStream::connect(rig.address).await.is_err());
    rig.ended().await;
}

#[tokio::test]
async fn sessions_have_the_drain_time_to_end_by_themselves() {
    let mut rig = Rig::with(echo().await, |config| config.drain = Duration::from_secs(60)).await;
    let mut viewer = rig.open().await;
    rig.stop();
    // Once the listener is gone the end has begun.
    while TcpStream::connect(rig.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    viewer.send(BINARY, "still").await;
    assert_eq!(viewer.bytes(5).await, b"still");
    viewer.send(CLOSE, "").await;
    assert_eq!(viewer.close().await.0, 0);
    rig.ended().await;
}

#[tokio::test]
async fn after_the_one_session_of_run_once_the_bridge_ends_and_requests_do_not_count() {
    let rig = Rig::with(echo().await, |config| config.run_once = true).await;
    let (head, _) = rig.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 426 "), "{head}");
    let mut viewer = rig.open().await;
    let (head, _) = rig.ask(&crate::rig::handshake("/", "")).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    viewer.send(CLOSE, "").await;
    viewer.close().await;
    rig.ended().await;
}

#[tokio::test]
async fn the_time_of_timeout_runs_only_while_nobody_is_there_and_that_of_idle_timeout_begins_anew() {
    for idle in [false, true] {
        let limit = Some(Duration::from_millis(500));
        let rig = Rig::with(echo().await, |config| match idle {
            true => config.idle_timeout = limit,
            false => config.timeout = limit,
        })
        .await;
        let mut viewer = rig.open().await;
        // Longer than the limit.
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            viewer.send(BINARY, "x").await;
            assert_eq!(viewer.bytes(1).await, b"x");
        }
        viewer.send(CLOSE, "").await;
        viewer.close().await;
        rig.ended().await;
    }
}

#[tokio::test]
async fn a_target_that_keeps_still_after_its_viewer_has_left_is_not_waited_for_for_ever() {
    let (listener, target) = target().await;
    let rig = Rig::to(target).await;
    let mut viewer = rig.open().await;
    let mut behind = accepted(&listener).await;
    behind.write_all(b"x").await.unwrap();
    assert_eq!(viewer.bytes(1).await, b"x");
    viewer.0.shutdown().await.unwrap();
    assert_eq!(read_all(&mut behind).await, b"");
    viewer.end().await;
}
