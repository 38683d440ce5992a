//! Clients that come back all at once, and viewers that are gone before they are served.

use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::{noise, tunnel, viewer};
use crate::frames::Raw;
use crate::rig::{ALICE, BOB, Rig, read_head, soon, target};
use crate::toxiproxy::Toxiproxy;
use crate::wire::{Viewer, by_hand, ended};

#[tokio::test]
async fn a_storm_of_reconnects_leaves_running_streams_whole() {
    const RECONNECTS: usize = 1000;
    let rig = std::sync::Arc::new(Rig::start().await);
    let body = noise(2 << 20);
    let served = body.clone();
    let address = target(move |_, mut stream| {
        let body = served.clone();
        async move {
            read_head(&mut stream).await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            let _ = stream.write_all(&body).await;
        }
    })
    .await;
    let _client = tunnel(rig.address, "web").expose(&address.to_string()).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = viewer(rig.address).await;
        stream.say("GET /t/web/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(stream.head().await.starts_with("http/1.1 200"));
        streams.push(stream);
    }
    // 50 tunnels, each of which has its control socket replaced again and again while the one before is still there.
    let mut storm = JoinSet::new();
    for number in 0..50 {
        let rig = std::sync::Arc::clone(&rig);
        storm.spawn(async move {
            let id = rig.create(BOB, &format!("storm-{number}")).await["id"].as_str().unwrap().to_owned();
            let (path, mut before, mut busy) = (format!("/ws/control?tunnel_id={id}"), None, 0);
            for _ in 0..RECONNECTS / 50 {
                match Raw::open(rig.address, &path, Some(BOB)).await {
                    Ok(socket) => before = Some(socket),
                    Err(answer) => {
                        assert_eq!(answer.status, 503, "{}", answer.head);
                        assert!(answer.header("retry-after").is_some(), "{}", answer.head);
                        busy += 1;
                    }
                }
            }
            (before, busy)
        });
    }
    // Read in small parts all the while, so that they last.
    let mut read = vec![Vec::new(); streams.len()];
    while !storm.is_empty() || read.iter().any(|got| got.len() < body.len()) {
        for (stream, got) in streams.iter_mut().zip(&mut read) {
            let part = (body.len() - got.len()).min(16 * 1024);
            got.extend(stream.bytes(part).await);
        }
        if let Some(joined) = storm.try_join_next() {
            let (before, busy) = joined.unwrap();
            assert!(before.is_some() && busy < RECONNECTS / 50);
        }
        tokio::task::yield_now().await;
    }
    assert!(read.iter().all(|got| *got == body));
    let mut next = Viewer::new(&rig).await;
    assert_eq!(next.get("web", "/").await.status, 200);
    let control = rig.control(ALICE, "later").await;
    drop(control);
}

/// The client hears of the viewer only when that has left.
#[tokio::test]
async fn a_viewer_that_left_before_the_claim_costs_the_target_no_open_connection() {
    let rig = Rig::with(|config| config.limits.standby_per_tunnel = 0).await;
    let proxy = Toxiproxy::start().await;
    let line = proxy.line("client", rig.address).await;
    let (address, mut connections) = by_hand().await;
    let _client = tunnel(line.address, "web").probe(false).expose(&address.to_string()).await.unwrap();
    // What goes to the relay is late: its viewer is announced at once, and claimed when nobody waits.
    line.poison("latency", "upstream", json!({"latency": 500})).await;
    let mut leaving = Vec::new();
    for _ in 0..5 {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say("GET /t/web/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        leaving.push(viewer);
    }
    // Each is being taken up: the target is dialled already.
    let mut dialled = Vec::new();
    for _ in 0..leaving.len() {
        dialled.push(soon(connections.recv()).await.unwrap());
    }
    leaving.into_iter().for_each(Viewer::vanish);
    for mut connection in dialled {
        let closed = tokio::time::timeout(Duration::from_secs(5), ended(&mut connection));
        closed.await.expect("the local connection is still there");
    }
    line.cure().await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET /t/web/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut connection = soon(connections.recv()).await.unwrap();
    assert!(read_head(&mut connection).await.is_some());
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(viewer.answer().await.text(), "ok");
}
