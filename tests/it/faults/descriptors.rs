//! Descriptors that run out, at the relay and at a client: 503 or a pause, no busy loop, and it recovers.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{by_path, halves, served, tunnel, under, viewer};
use crate::frames::Raw;
use crate::program::{Running, http, real, relay};
use crate::rig::{ALICE, Answer, Rig, read_head, soon, target};

const FEW: [&str; 2] = ["prlimit", "--nofile=64:64"];

/// Processor time that a process has used, in hundredths of a second.
fn ticks(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    // The name in brackets may have spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// While nothing happens, a process does next to nothing.
async fn is_calm(id: u32) {
    const WATCHED: Duration = Duration::from_secs(1);
    let before = ticks(id);
    tokio::time::sleep(WATCHED).await;
    let used = ticks(id) - before;
    assert!(used < 30, "{used} hundredths of a second in {WATCHED:?}");
}

#[tokio::test]
async fn a_relay_asks_for_as_many_descriptors_as_it_may_have() {
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(under(&["prlimit", "--nofile=64:512"], &relay(home.path(), &[]))).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("512"), "{files}");
}

#[tokio::test]
async fn a_relay_with_64_descriptors_serves_or_says_503_and_recovers() {
    let home = tempfile::tempdir().unwrap();
    let command = under(&FEW, &relay(home.path(), &["--first-byte-wait", "1s", "--keep-alive", "2s"]));
    let running = Running::start(command).await;
    let address = running.addresses[0];
    let (target, _uploads) = halves().await;
    let _client = tunnel(address, "web").expose(&target.to_string()).await.unwrap();
    // One that has begun shall not suffer.
    let mut under_way = viewer(address).await;
    under_way.say("GET /t/web/length HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(under_way.head().await.starts_with("http/1.1 200"));

    // Far more viewers than there is room for, and all of them at once.
    let mut viewers = JoinSet::new();
    for _ in 0..200 {
        viewers.spawn(async move { http(address, by_path("web", "/")).await });
    }
    let (mut good, mut busy) = (0, 0);
    for answer in soon(viewers.join_all()).await {
        match answer.status {
            200 => good += 1,
            503 => {
                assert_eq!(answer.header("retry-after"), Some("2"), "{}", answer.head);
                busy += 1;
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert!(good > 0 && good + busy == 200, "{good} and {busy}");

    // Viewers that keep their connections, and connections that say nothing: whatever there is room for.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    is_calm(running.id()).await;
    // They are closed while others wait to be accepted.
    served(address, "web").await;
    drop(silent);
    served(address, "web").await;

    // More clients than there is room for.
    let mut clients = JoinSet::new();
    for number in 0..60 {
        clients.spawn(async move {
            let connecting = tunnel(address, &format!("more-{number}")).probe(false).expose("127.0.0.1:1");
            tokio::time::timeout(Duration::from_secs(1), connecting).await.is_ok_and(|opened| opened.is_ok())
        });
    }
    let connected = soon(clients.join_all()).await.into_iter().filter(|connected| *connected).count();
    assert!(connected > 0);
    served(address, "web").await;
    under_way.0.set_zero_linger().unwrap();
    drop(under_way);
    running.signal("TERM");
    assert_eq!(running.end().await.0, Some(0));
}

/// The room is taken by what lasts: downloads that nobody ends, and their data sockets.
#[tokio::test]
async fn viewers_are_turned_away_before_clients_are() {
    let rig = Rig::with(|config| config.limits.connections = Some(32)).await;
    let (target, _uploads) = halves().await;
    let _client = tunnel(rig.address, "web").expose(&target.to_string()).await.unwrap();
    let (mut running, mut refused) = (Vec::new(), 0);
    while refused < 5 {
        let mut viewer = viewer(rig.address).await;
        viewer.say("GET /t/web/length HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let head = viewer.head().await;
        if head.starts_with("http/1.1 200") {
            running.push(viewer);
            assert!(running.len() < 32);
            continue;
        }
        assert!(head.starts_with("http/1.1 503") && head.contains("connection: close"), "{head}");
        assert!(String::from_utf8(viewer.rest().await).unwrap().contains("relay_full"));
        refused += 1;
    }
    assert!(running.len() >= 8, "{}", running.len());
    // A client that comes finds room all the same.
    let id = rig.create(ALICE, "late").await["id"].as_str().unwrap().to_owned();
    let path = format!("/ws/control?tunnel_id={id}");
    Raw::open(rig.address, &path, Some(ALICE)).await.unwrap();
    running.truncate(2);
    served(rig.address, "web").await;
}

#[tokio::test]
async fn a_client_with_64_descriptors_turns_viewers_away_and_recovers() {
    let rig = Rig::start().await;
    let (release, released) = tokio::sync::watch::channel(false);
    let address = target(move |_, mut stream| {
        let mut released = released.clone();
        async move {
            if read_head(&mut stream).await.is_none() {
                return;
            }
            released.wait_for(|released| *released).await.unwrap();
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
                .await;
        }
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    let mut client = under(&FEW, &real(home.path(), rig.address, "web", address, &[])).spawn().unwrap();
    // Its first line is the URL.
    let mut stdout = client.stdout.take().unwrap();
    soon(stdout.read_u8()).await.unwrap();
    let mut viewers = JoinSet::new();
    for _ in 0..100 {
        let relay = rig.address;
        viewers.spawn(async move { http(relay, by_path("web", "/")).await });
    }
    // Those for whom there is no descriptor hear of it while the others still wait.
    let mut answers: Vec<Answer> = Vec::new();
    while answers.len() < 50 {
        answers.push(soon(viewers.join_next()).await.unwrap().unwrap());
    }
    assert!(answers.iter().all(|answer| matches!(answer.status, 502 | 503)), "{:?}", answers.last());
    is_calm(client.id().unwrap()).await;
    release.send(true).unwrap();
    answers.extend(soon(viewers.join_all()).await);
    assert!(answers.iter().any(|answer| answer.status == 200));
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 502 | 503)), "{:?}", answers.last());
    served(rig.address, "web").await;
}
