//! Processes that are killed or stand still: the relay with a thousand clients, the relay alone, a client.

use std::time::Duration;

use adit::client::Event;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{all_broken, answer, half_way, halves, is_offline, is_online, served, tunnel, until, viewer};
use crate::ports::free_address;
use crate::program::{Running, list, real, relay, relay_at, signal};
use crate::rig::{Rig, soon};

const CLIENTS: usize = 1000;
/// What clients are promised: back within this.
const BACK: Duration = Duration::from_secs(30);

#[tokio::test]
async fn after_kill_9_a_thousand_clients_are_back_and_no_body_looks_whole() {
    let home = tempfile::tempdir().unwrap();
    let address = free_address().await;
    // Standby sockets would only be more of the same.
    let command = || relay_at(home.path(), address, &["--standby-per-tunnel", "0"]);
    let running = Running::start(command()).await;
    let (target, _uploads) = halves().await;
    let target = target.to_string();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (relay, target) = (address, target.clone());
        clients.spawn(async move {
            let opened = tunnel(relay, &format!("web-{number}"))
                .wait_for_relay(true)
                .probe(false)
                .expose(&target)
                .await;
            opened.unwrap()
        });
    }
    let mut clients = soon(clients.join_all()).await;
    let under_way = half_way(address, "web-0").await;
    // A client that is a process of its own.
    let mut program = real(home.path(), address, "program", &target, &[]);
    let mut program = program.env("NO_PROXY", "*").spawn().unwrap();
    served(address, "program").await;

    running.signal("KILL");
    running.end().await;
    all_broken(under_way).await;
    let running = Running::start(command()).await;
    let begun = Instant::now();
    let mut returning = JoinSet::new();
    for mut client in clients.drain(..) {
        returning.spawn(async move {
            let url = client.url().to_owned();
            let back = tokio::time::timeout(BACK, async {
                loop {
                    match client.next_event().await {
                        Some(Event::Online { url, again, .. }) if again => return url,
                        Some(Event::Ended(end)) => panic!("{end:?}"),
                        Some(_) => {}
                        None => panic!("the tunnel has ended"),
                    }
                }
            });
            assert_eq!(back.await.expect("not back in time"), url);
            client
        });
    }
    let clients = returning.join_all().await;
    assert!(begun.elapsed() < BACK);
    served(address, "web-0").await;
    served(address, &format!("web-{}", CLIENTS - 1)).await;
    served(address, "program").await;
    let tunnels = list(address, "/v1/tunnels").await;
    let connected = tunnels.as_array().unwrap().iter().filter(|tunnel| tunnel["connected"] == true).count();
    assert_eq!(connected, CLIENTS + 1);
    program.kill().await.unwrap();
    drop((clients, running));
}

#[tokio::test]
async fn a_client_that_stands_still_is_dropped_and_back_when_it_goes_on() {
    let rig = Rig::with(|config| {
        config.limits.ping_every = Duration::from_secs(1);
        config.limits.pong_wait = Duration::from_secs(2);
        config.limits.claim_wait = Duration::from_secs(1);
    })
    .await;
    let (target, _uploads) = halves().await;
    let home = tempfile::tempdir().unwrap();
    let client = real(home.path(), rig.address, "web", target, &[]).spawn().unwrap();
    served(rig.address, "web").await;
    let id = client.id().unwrap();
    signal(id, "STOP");
    let mut waiting = JoinSet::new();
    for method in ["GET", "POST"] {
        let relay = rig.address;
        waiting.spawn(async move {
            let mut viewer = viewer(relay).await;
            viewer
                .say(format!(
                    "{method} /t/web/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                ))
                .await;
            answer(&mut viewer).await
        });
    }
    for told in soon(waiting.join_all()).await {
        assert!(matches!(told.status, 503 | 504), "{}", told.head);
    }
    // It is known to be away, so nobody waits any more.
    let away = rig.get("web", "/").await;
    assert!(away.status == 503 && away.text().contains("client_offline"), "{}", away.text());
    signal(id, "CONT");
    let woken = Instant::now();
    served(rig.address, "web").await;
    assert!(woken.elapsed() < Duration::from_secs(10), "{:?}", woken.elapsed());
}

#[tokio::test]
async fn a_relay_that_stands_still_is_noticed_and_serves_again_when_it_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(relay(home.path(), &["--ping-every", "1s", "--pong-wait", "2s"])).await;
    let (target, _uploads) = halves().await;
    let mut client = tunnel(running.addresses[0], "web").expose(&target.to_string()).await.unwrap();
    served(running.addresses[0], "web").await;
    running.signal("STOP");
    until(&mut client, is_offline).await;
    running.signal("CONT");
    until(&mut client, is_online).await;
    served(running.addresses[0], "web").await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_request() {
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(relay(home.path(), &["--log-exchanges", "on"])).await;
    let mut viewer = viewer(running.addresses[0]).await;
    // Records of far more bytes than a pipe takes.
    let request = format!("GET /t/nobody/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(1000));
    for _ in 0..1000 {
        viewer.say(&request).await;
        assert_eq!(viewer.answer().await.status, 404);
    }
    running.signal("TERM");
    assert_eq!(running.end().await.0, Some(0));
}
