//! A network between client, relay and viewer that swallows, delays, cuts up and resets.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{
    Upload, all_broken, answer, begun, by_path, cut, half_way, halves, halves_with, is_offline, is_online,
    noise, served, tunnel, until, viewer,
};
use crate::program::http;
use crate::rig::{Answer, Rig, echo_target, read_all, soon};
use crate::toxiproxy::Toxiproxy;

/// Sends the bytes to an echo and gets them back, at once in both directions.
async fn echoed(relay: SocketAddr, name: &str, body: &[u8]) -> Answer {
    let mut stream = soon(TcpStream::connect(relay)).await.unwrap();
    let head = format!(
        "POST /t/{name}/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    soon(stream.write_all(body)).await.unwrap();
    Answer::parse(&soon(read_all(&mut stream)).await)
}

#[tokio::test]
async fn on_a_bad_line_no_byte_is_lost_or_doubled() {
    let rig = Rig::start().await;
    let (proxy, target) = (Toxiproxy::start().await, echo_target().await.to_string());
    let mut cases = JoinSet::new();
    for (kind, attributes, size) in [
        ("latency", json!({"latency": 250, "jitter": 250}), 200_000),
        ("slicer", json!({"average_size": 60, "size_variation": 50, "delay": 1}), 60_000),
        ("bandwidth", json!({"rate": 64}), 32_000),
        ("slow_close", json!({"delay": 300}), 200_000),
    ] {
        for of_client in [true, false] {
            let name = format!("{}-{}", kind.replace('_', "-"), if of_client { "client" } else { "viewer" });
            let line = proxy.line(&name, rig.address).await;
            line.poison_both(kind, attributes.clone()).await;
            let (relay, target) = (rig.address, target.clone());
            cases.spawn(async move {
                let (client_by, viewer_by) =
                    if of_client { (line.address, relay) } else { (relay, line.address) };
                let _tunnel = tunnel(client_by, &name).expose(&target).await.unwrap();
                let body = noise(size);
                for _ in 0..2 {
                    let answer = echoed(viewer_by, &name, &body).await;
                    assert!(answer.status == 200 && answer.complete, "{name}: {}", answer.head);
                    assert!(answer.body.ends_with(&body), "{name}: {} bytes", answer.body.len());
                }
            });
        }
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

/// Nothing arrives and nothing ends: only deadlines can tell.
#[tokio::test]
async fn a_client_in_a_black_hole_costs_its_viewers_a_status_and_comes_back() {
    let rig = Rig::with(|config| {
        config.limits.ping_every = Duration::from_secs(1);
        config.limits.pong_wait = Duration::from_secs(2);
        config.limits.claim_wait = Duration::from_millis(500);
        config.limits.idle_exchange = Duration::from_millis(1500);
        config.limits.idle_upgraded = Duration::from_millis(1500);
    })
    .await;
    let proxy = Toxiproxy::start().await;
    let line = proxy.line("client", rig.address).await;
    let (target, mut uploads) = halves().await;
    let mut client = tunnel(line.address, "web").expose(&target.to_string()).await.unwrap();
    served(rig.address, "web").await;
    let under_way = half_way(rig.address, "web").await;
    begun(&mut uploads).await;
    line.black_hole().await;
    for _ in 0..2 {
        let mut waiting = viewer(rig.address).await;
        waiting
            .say("POST /t/web/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            .await;
        let told = answer(&mut waiting).await;
        assert!(matches!(told.status, 503 | 504), "{}", told.head);
    }
    all_broken(under_way).await;
    until(&mut client, is_offline).await;
    line.cure().await;
    until(&mut client, is_online).await;
    served(rig.address, "web").await;
    cut(&mut uploads).await;
}

/// The relay cannot know yet that the old one is gone, and asks nobody.
#[tokio::test]
async fn a_new_client_takes_over_at_once_from_one_that_is_half_open() {
    let rig = Rig::start().await;
    let proxy = Toxiproxy::start().await;
    let line = proxy.line("client", rig.address).await;
    let old = tunnel(line.address, "web").expose(&echo_target().await.to_string()).await.unwrap();
    assert_eq!(rig.get("web", "/").await.status, 200);
    line.black_hole().await;
    let (target, _uploads) = halves().await;
    let new = tunnel(rig.address, "web").expose(&target.to_string()).await.unwrap();
    assert_eq!(new.url(), old.url());
    let begun = tokio::time::Instant::now();
    for method in ["GET", "POST"] {
        let request = format!(
            "{method} /t/web/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(http(rig.address, request).await.text(), "ok", "{method}");
    }
    // Far less than any deadline by which the old one could have been found out.
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_reset_anywhere_looks_like_one_and_is_recovered_from() {
    // A line is reset when the next byte comes along it.
    let rig = Rig::with(|config| config.limits.ping_every = Duration::from_secs(1)).await;
    let (nudge, nudged) = watch::channel(());
    let proxy = Toxiproxy::start().await;
    let line = proxy.line("client", rig.address).await;
    let (target, mut uploads) = halves_with(nudged).await;
    let mut client = tunnel(line.address, "web").expose(&target.to_string()).await.unwrap();
    for _ in 0..2 {
        served(rig.address, "web").await;
        let mut under_way = half_way(rig.address, "web").await;
        begun(&mut uploads).await;
        line.poison_both("reset_peer", json!({"timeout": 0})).await;
        // Data sockets in both directions, the control socket, and the handshakes of those that come next.
        nudge.send(()).unwrap();
        under_way.last_mut().unwrap().1.say("l").await;
        all_broken(under_way).await;
        cut(&mut uploads).await;
        until(&mut client, is_offline).await;
        line.cure().await;
        until(&mut client, is_online).await;
    }
    served(rig.address, "web").await;
}

#[tokio::test]
async fn a_line_that_is_cut_off_and_comes_back_brings_its_client_back() {
    let rig = Rig::start().await;
    let proxy = Toxiproxy::start().await;
    let line = proxy.line("client", rig.address).await;
    let (target, mut uploads) = halves().await;
    let mut client = tunnel(line.address, "web").expose(&target.to_string()).await.unwrap();
    let under_way = half_way(rig.address, "web").await;
    begun(&mut uploads).await;
    line.enable(false).await;
    all_broken(under_way).await;
    cut(&mut uploads).await;
    until(&mut client, is_offline).await;
    let away = rig.get("web", "/").await;
    assert_eq!((away.status, away.header("retry-after")), (503, Some("2")));
    line.enable(true).await;
    until(&mut client, is_online).await;
    served(rig.address, "web").await;
}

#[tokio::test]
async fn a_viewer_that_vanishes_from_the_network_is_let_go_and_disturbs_nobody() {
    let rig = Rig::with(|config| {
        config.limits.idle_exchange = Duration::from_secs(1);
        config.limits.idle_upgraded = Duration::from_secs(1);
    })
    .await;
    let proxy = Toxiproxy::start().await;
    let (target, mut uploads) = halves().await;
    let _client = tunnel(rig.address, "web").expose(&target.to_string()).await.unwrap();
    let line = proxy.line("viewer", rig.address).await;
    let _under_way = half_way(line.address, "web").await;
    begun(&mut uploads).await;
    line.black_hole().await;
    assert_eq!(http(rig.address, by_path("web", "/")).await.text(), "ok");
    cut(&mut uploads).await;

    // A line that ends in the middle of the body.
    let line = proxy.line("short", rig.address).await;
    let head = "POST /t/web/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\n";
    line.poison("limit_data", "upstream", json!({"bytes": head.len() + 4})).await;
    let mut short = viewer(line.address).await;
    short.say(format!("{head}complete")).await;
    assert!(!short.rest().await.starts_with(b"HTTP/1.1 200"));
    assert_eq!(http(rig.address, by_path("web", "/")).await.text(), "ok");
    while let Ok(told) = uploads.try_recv() {
        assert_ne!(told, Upload::Whole);
    }
}
