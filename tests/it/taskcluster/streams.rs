//! Workers that break the rules: only their own sessions suffer.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Worker, get, register, rig, rig_with, token};
use crate::rig::{Rig, echo_target, soon};

/// A registered worker whose messages the test writes itself.
async fn raw(rig: &Rig, id: &str) -> WebSocketStream<TcpStream> {
    let (io, already, _) = register(rig.address, id, &token(id)).await.unwrap();
    WebSocketStream::from_partially_read(io, already.to_vec(), Role::Client, None).await
}

/// The code of the close frame; `None`: it broke.
async fn closed(socket: &mut WebSocketStream<TcpStream>) -> Option<(u16, String)> {
    soon(async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(Some(close)) = message {
                return Some((close.code.into(), close.reason.to_string()));
            }
        }
        None
    })
    .await
}

/// The next frame of a stream.
async fn frame(socket: &mut WebSocketStream<TcpStream>) -> Vec<u8> {
    loop {
        if let Message::Binary(bytes) = soon(socket.next()).await.unwrap().unwrap() {
            return bytes.to_vec();
        }
    }
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_closed_by_1008_and_told_why() {
    let rig = rig().await;
    let _good = Worker::start(rig.address, "good", echo_target().await).await;
    for (message, reason) in [
        (Message::text("{}"), "unexpected non-binary websocket message"),
        (Message::binary(vec![0, 0, 0]), "malformed header"),
        (Message::binary(vec![9, 0, 0, 0, 0]), "malformed header"),
        (Message::binary(vec![2, 0, 0, 0, 0, 1]), "malformed payload"),
        (Message::binary(vec![3, 0, 0, 0, 0, 1]), "malformed payload"),
    ] {
        let mut bad = raw(&rig, "bad").await;
        bad.send(message.clone()).await.unwrap();
        assert_eq!(closed(&mut bad).await, Some((1008, reason.to_owned())), "{message:?}");
    }
    // Nobody here waits for streams of workers.
    let mut bad = raw(&rig, "bad").await;
    bad.send(Message::binary(vec![1, 1, 0, 0, 0])).await.unwrap();
    assert_eq!(closed(&mut bad).await.map(|close| close.0), Some(1008));
    // Frames of unknown streams mean nothing.
    let mut odd = raw(&rig, "odd").await;
    for bytes in [vec![0, 9, 0, 0, 0, 1], vec![2, 9, 0, 0, 0, 1, 0, 0, 0], vec![3, 9, 0, 0, 0]] {
        odd.send(Message::binary(bytes)).await.unwrap();
    }
    odd.send(Message::Ping("still".into())).await.unwrap();
    let pong = async { while !matches!(odd.next().await.unwrap().unwrap(), Message::Pong(_)) {} };
    soon(pong).await;
    assert_eq!(get(&rig, "/good/", "").await.status, 200);
}

#[tokio::test]
async fn more_than_a_window_ends_that_session_alone() {
    let rig = rig().await;
    let _good = Worker::start(rig.address, "good", echo_target().await).await;
    let mut bad = raw(&rig, "bad").await;
    let mut viewer = rig.viewer().await;
    viewer.write_all(b"GET /bad/ HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let syn = frame(&mut bad).await;
    assert_eq!(syn[0], 1);
    let id = &syn[1..5];
    let window: u32 = 4 << 20;
    bad.send(Message::binary([&[2][..], id, &window.to_le_bytes()].concat())).await.unwrap();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n";
    bad.send(Message::binary([&[0][..], id, head].concat())).await.unwrap();
    // The viewer takes nothing, and so neither does the relay.
    let data = [&[0][..], id, &vec![0; 1 << 20]].concat();
    let mut sent = 0;
    while sent < 64 && bad.send(Message::binary(data.clone())).await.is_ok() {
        sent += 1;
    }
    assert!(closed(&mut bad).await.is_none_or(|close| close.0 == 1008));
    assert_eq!(get(&rig, "/good/", "").await.status, 200);
    drop(viewer);
}

#[tokio::test]
async fn a_worker_that_answers_no_ping_is_gone() {
    let rig = rig_with(|config| config.limits.ping_every = Duration::from_millis(100)).await;
    let (socket, _already, _) = register(rig.address, "silent", &token("silent")).await.unwrap();
    let nobody = async { while get(&rig, "/silent/", "").await.status != 404 {} };
    soon(nobody).await;
    drop(socket);
}

#[tokio::test]
async fn a_worker_that_stops_reading_holds_up_nobody_else() {
    let rig = rig_with(|config| config.limits.claim_wait = Duration::from_millis(500)).await;
    let _good = Worker::start(rig.address, "good", echo_target().await).await;
    let (socket, _already, _) = register(rig.address, "stopped", &token("stopped")).await.unwrap();
    for _ in 0..20 {
        assert_eq!(get(&rig, "/stopped/", "").await.status, 504);
        assert_eq!(get(&rig, "/good/", "").await.status, 200);
    }
    // It may register anew at any time.
    let _anew = Worker::start(rig.address, "stopped", echo_target().await).await;
    soon(async { while get(&rig, "/stopped/", "").await.status != 200 {} }).await;
    drop(socket);
}

#[tokio::test]
async fn a_thousand_viewers_of_a_worker_that_accepts_none_are_bounded() {
    let rig = rig_with(|config| {
        config.limits.claim_wait = Duration::from_millis(500);
        config.limits.waiting_per_tunnel = 10;
    })
    .await;
    let _deaf = Worker::of(rig.address, "deaf").await;
    let answers = (0..50).map(|_| get(&rig, "/deaf/", ""));
    let answers = futures_util::future::join_all(answers).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(count(503) + count(504), 50);
    assert!(count(503) > 0 && count(504) >= 10, "{} {}", count(503), count(504));
}
