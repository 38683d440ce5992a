//! Targets that refuse, dawdle, cut and fall silent, behind our own client and behind a base client.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{by_path, tunnel};
use crate::ports::free_address;
use crate::program::http;
use crate::rig::{ALICE, Answer, Rig, read_head, read_request, soon, target};
use crate::wire::{Viewer, by_hand, ended};

/// A relay with a client of either kind for this target, to be held.
async fn both(target: SocketAddr) -> (Rig, [Box<dyn std::any::Any>; 2]) {
    both_on(Rig::start().await, target).await
}

async fn both_on(rig: Rig, target: SocketAddr) -> (Rig, [Box<dyn std::any::Any>; 2]) {
    let ours = tunnel(rig.address, "ours").expose(&target.to_string()).await.unwrap();
    let base = rig.client(ALICE, "base", target).await;
    (rig, [Box::new(ours), Box::new(base)])
}

const NAMES: [&str; 2] = ["ours", "base"];

async fn get(rig: &Rig, name: &str) -> Answer {
    http(rig.address, by_path(name, "/")).await
}

#[tokio::test]
async fn a_target_that_refuses_is_502_at_once() {
    let (rig, _clients) = both(free_address().await).await;
    for name in NAMES {
        let begun = Instant::now();
        let refused = get(&rig, name).await;
        assert_eq!(refused.status, 502, "{name}");
        // The promise is a second; a busy machine has a few.
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_slow_target_is_waited_for_and_a_silent_one_is_504() {
    let (address, mut connections) = by_hand().await;
    let rig = Rig::with(|config| config.limits.idle_exchange = Duration::from_secs(1)).await;
    let (rig, _clients) = both_on(rig, address).await;
    for name in NAMES {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(format!("GET /t/{name}/ HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let mut stream = soon(connections.recv()).await.unwrap();
        read_head(&mut stream).await.unwrap();
        // Less than the limit between any two of them, and more than that in all.
        for part in ["HTTP/1.1 200 OK\r\n", "Content-Length: 4\r\n\r\n", "sl", "ow"] {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.write_all(part.as_bytes()).await.unwrap();
        }
        assert_eq!(viewer.answer().await.text(), "slow", "{name}");

        // Accepted, and never answered.
        viewer.say(format!("POST /t/{name}/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")).await;
        let mut fresh = None;
        let stream = tokio::select! {
            Some(_) = read_head(&mut stream) => &mut stream,
            other = connections.recv() => fresh.insert(other.unwrap()),
        };
        let silent = viewer.answer().await;
        assert_eq!(silent.status, 504, "{name}");
        assert!(silent.text().contains("target_silent"), "{name}: {}", silent.text());
        ended(stream).await;
    }
}

#[tokio::test]
async fn a_target_that_shuts_its_side_has_its_answer_delivered() {
    let address = target(|_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it").await.unwrap();
        stream.shutdown().await.unwrap();
        // It reads on, as after shutdown(SHUT_WR).
        while let Ok(1..) = stream.read(&mut [0; 64]).await {}
    })
    .await;
    let (rig, _clients) = both(address).await;
    for name in NAMES {
        let answer = get(&rig, name).await;
        assert!(answer.complete && answer.text() == "all of it", "{name}: {answer:?}");
        // The request is not even complete yet.
        let mut viewer = Viewer::new(&rig).await;
        viewer
            .say(format!("POST /t/{name}/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf"))
            .await;
        let head = viewer.head().await;
        assert!(head.starts_with("http/1.1 200"), "{name}: {head}");
    }
}

#[tokio::test]
async fn a_target_that_cuts_is_502_before_its_head_and_an_error_behind_it() {
    for (said, status) in [
        ("", 502),
        ("HTTP/1.1 200 OK\r\nContent-", 502),
        ("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf", 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 200),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf", 200),
    ] {
        for reset in [false, true] {
            let address = target(move |_, mut stream: TcpStream| async move {
                read_head(&mut stream).await.unwrap();
                stream.write_all(said.as_bytes()).await.unwrap();
                if reset {
                    stream.set_zero_linger().unwrap();
                }
            })
            .await;
            let (rig, _clients) = both(address).await;
            for name in NAMES {
                let answer = get(&rig, name).await;
                // A reset may overtake what was said before it.
                let overtaken = reset && answer.status == 502;
                assert!(answer.status == status || overtaken, "{name} {said:?} {reset}: {answer:?}");
                assert!(
                    status == 502 || overtaken || !answer.complete,
                    "{name} {said:?} {reset}: {answer:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_target_that_closes_kept_connections_costs_no_request() {
    let address = target(|_, mut stream| async move {
        for _ in 0..2 {
            if read_request(&mut stream).await.is_none() {
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
        // Without a word, in spite of having said nothing of it.
        stream.set_zero_linger().unwrap();
    })
    .await;
    let (rig, _clients) = both(address).await;
    for name in NAMES {
        let mut viewer = Viewer::new(&rig).await;
        for number in 0..20 {
            viewer.say(format!("GET /t/{name}/ HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
            assert_eq!(viewer.answer().await.text(), "ok", "{name} {number}");
        }
    }
}

#[tokio::test]
async fn a_body_of_nothing_and_a_head_at_its_limit_go_through() {
    let address = crate::rig::echo_target().await;
    let (rig, _clients) = both(address).await;
    for name in NAMES {
        for framing in ["Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
            let request =
                format!("POST /t/{name}/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{framing}");
            let answer = http(rig.address, request).await;
            assert!(answer.status == 200 && answer.complete, "{name}: {answer:?}");
        }
        for (size, status) in [(62 * 1024, 200), (66 * 1024, 431)] {
            let header = "x".repeat(size);
            let request = format!(
                "GET /t/{name}/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: {header}\r\n\r\n"
            );
            let answer = http(rig.address, request).await;
            assert_eq!(answer.status, status, "{name}: {size}");
            assert!(status != 200 || answer.text().contains(&header), "{name}");
        }
    }
}
