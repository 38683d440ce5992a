//! Storms of clients and of tunnels, after which the relay holds what it held before.

use adit::client::{Proxies, Tunnel};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::counts::{House, SHORT, settle};
use crate::frames::handshake;
use crate::leaks::storm;
use crate::rig::{ALICE, BOB, Rig, echo_target, read_all, soon};

#[tokio::test]
async fn clients_that_vanish_while_viewers_wait_leave_nothing() {
    let house = House::open(&[]).await;
    house
        .stands(async |rig| {
            for _ in 0..10 {
                let control = rig.control(ALICE, "web").await;
                let mut viewers = JoinSet::new();
                for _ in 0..10 {
                    let mut viewer = rig.viewer().await;
                    viewer.write_all(b"GET / HTTP/1.0\r\nHost: web.relay.test\r\n\r\n").await.unwrap();
                    viewers.spawn(async move { read_all(&mut viewer).await });
                }
                settle(rig.admin, &json!({"waiting": 10})).await;
                let stream = match control.socket.get_ref() {
                    tokio_tungstenite::MaybeTlsStream::Plain(stream) => stream,
                    _ => unreachable!(),
                };
                stream.set_zero_linger().unwrap();
                drop(control);
                while let Some(answer) = soon(viewers.join_next()).await {
                    assert!(answer.unwrap().starts_with(b"HTTP/1.0 503 "));
                }
            }
        })
        .await;
}

#[tokio::test]
async fn clients_that_vanish_with_idle_and_standby_sockets_open_leave_nothing() {
    let house = House::open(&[]).await;
    let echo = echo_target().await.to_string();
    house
        .stands(async |rig| {
            for _ in 0..10 {
                let builder = Tunnel::to(format!("http://{}", rig.address)).key(ALICE).name("web");
                let tunnel = builder.proxies(Proxies::none()).expose(&echo).await.unwrap();
                let relay = rig.address;
                storm(10, move |_| async move {
                    let answer = Rig::of(relay, relay).get("web", "/").await;
                    assert_eq!(answer.status, 200);
                })
                .await;
                let held = crate::counts::counts(rig.admin).await;
                let waiting =
                    ["idle_data_sockets", "standby_data_sockets"].map(|name| held[name].as_u64().unwrap());
                assert!(waiting.iter().sum::<u64>() > 0, "{held:?}");
                drop(tunnel);
            }
        })
        .await;
}

#[tokio::test]
async fn half_open_and_refused_claims_leave_nothing() {
    let house = House::open(&SHORT).await;
    house
        .stands(async |rig| {
            let mut control = rig.control(ALICE, "web").await;
            let relay = rig.address;
            // Some stop before, in and after the head; the last ask for what nobody has.
            let unknown = handshake(&format!("/ws/data?id={}", uuid::Uuid::new_v4()), None);
            let mut open = JoinSet::new();
            for number in 0..100 {
                let mut stream = TcpStream::connect(relay).await.unwrap();
                let cut = [0, 1, 40, unknown.len()][number % 4];
                stream.write_all(&unknown.as_bytes()[..cut]).await.unwrap();
                open.spawn(async move { read_all(&mut stream).await });
            }
            // A viewer who is never served, and one whose claim comes twice, from another owner, and late.
            for served in [false, true] {
                let mut viewer = rig.viewer().await;
                let request = b"GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n\r\n";
                viewer.write_all(request).await.unwrap();
                let path = format!("/ws/data?id={}", soon(control.notified()).await.unwrap());
                assert_eq!(rig.socket(&path, Some(BOB)).await.err().map(|refused| refused.0), Some(403));
                if served {
                    let socket = rig.socket(&path, None).await.unwrap();
                    assert_eq!(rig.socket(&path, None).await.err().map(|refused| refused.0), Some(404));
                    drop((socket, viewer));
                } else {
                    assert!(soon(read_all(&mut viewer)).await.starts_with(b"HTTP/1.1 504 "));
                    assert_eq!(rig.socket(&path, None).await.err().map(|refused| refused.0), Some(404));
                }
            }
            while let Some(ended) = soon(open.join_next()).await {
                ended.unwrap();
            }
        })
        .await;
}

#[tokio::test]
async fn control_sockets_that_replace_each_other_leave_nothing() {
    let house = House::open(&[]).await;
    house
        .stands(async |rig| {
            let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
            let mut before = Vec::new();
            for number in 0..100 {
                before.push(rig.connect(ALICE, &id).await);
                // Some are replaced while they live, some have just gone.
                if number % 3 == 1 {
                    before.clear();
                }
            }
            for mut replaced in before.drain(..before.len() - 1) {
                let _ = replaced.closed().await;
            }
        })
        .await;
}

#[tokio::test]
async fn tunnels_that_are_created_and_deleted_leave_nothing() {
    let house = House::open(&[]).await;
    house
        .stands(async |rig| {
            let relay = rig.address;
            storm(250, move |number| async move {
                let rig = Rig::of(relay, relay);
                let tunnel = rig.create(ALICE, &format!("tunnel-{number}")).await;
                let id = tunnel["id"].as_str().unwrap();
                // Some with a client, which is told.
                let control = if number % 5 == 0 { Some(rig.connect(ALICE, id).await) } else { None };
                let (status, _) = rig.api(ALICE, "DELETE", &format!("/v1/tunnels/{id}"), "").await;
                assert!(status < 300, "{status}");
                if let Some(mut control) = control {
                    control.closed().await;
                }
            })
            .await;
        })
        .await;
}
