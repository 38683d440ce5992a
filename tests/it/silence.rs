//! Clients that stand still while a viewer waits for its answer: how long it has to.

use std::time::Duration;

use tokio::time::timeout;

use crate::frames::{BINARY, PING, PONG, Raw, TEXT};
use crate::level_two::{Two, data_at};
use crate::rig::{ALICE, Rig};
use crate::wire::{Viewer, receive};

const CLAIM: Duration = Duration::from_millis(200);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn rig() -> Rig {
    Rig::with(|config| {
        config.limits.claim_wait = CLAIM;
        config.limits.ping_every = Duration::from_millis(100);
        config.limits.pong_wait = Duration::from_millis(800);
    })
    .await
}

async fn posting(rig: &Rig, length: usize) -> Viewer {
    let mut viewer = Viewer::new(rig).await;
    let head = format!("POST / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: {length}\r\n\r\n");
    viewer.say([head.as_bytes(), &vec![b'x'; length]].concat()).await;
    viewer
}

/// The base client of a viewer, which says no pong of its own.
async fn base(rig: &Rig) -> (Viewer, Raw, Raw) {
    let mut control = Raw::control(rig, ALICE, "web").await;
    let viewer = posting(rig, 9).await;
    let told: serde_json::Value = serde_json::from_slice(&control.next(TEXT).await.unwrap()).unwrap();
    let mut data = Raw::data(rig.address, told["id"].as_str().unwrap()).await;
    data.request().await;
    (viewer, control, data)
}

/// It had no answer for as long as an exchange may be silent.
#[tokio::test]
async fn a_small_post_to_a_client_of_level_two_that_stands_still_is_504() {
    let rig = rig().await;
    let mut client = Two::connect(&rig, "web").await;
    let mut viewer = posting(&rig, 16 * 1024).await;
    let told = client.hear_of("connection").await;
    let _unread = data_at(rig.address, told["id"].as_str().unwrap()).await;
    let answer = viewer.answer().await;
    assert!(answer.status == 504 && answer.text().contains("not_claimed"), "{}", answer.text());
}

#[tokio::test]
async fn a_large_post_waits_for_a_target_that_does_not_read_it_yet() {
    let rig = rig().await;
    let mut client = Two::connect(&rig, "web").await;
    let mut viewer = posting(&rig, 100_000).await;
    let told = client.hear_of("connection").await;
    let mut data = data_at(rig.address, told["id"].as_str().unwrap()).await;
    // Its client hears nothing on it, and lives.
    let living = async { while client.hear().await.is_object() {} };
    let held = timeout(5 * CLAIM, async { tokio::join!(viewer.answer(), living) }).await;
    assert!(held.is_err(), "{held:?}");
    let mut came = 0;
    while came < 100_000 {
        came += receive(&mut data).await.unwrap().len();
    }
    futures_util::SinkExt::send(&mut data, OK.into()).await.unwrap();
    assert_eq!(viewer.answer().await.status, 200);
}

/// It hung on while the dashboard said that its client is dead.
#[tokio::test]
async fn a_request_to_a_base_client_that_was_lost_is_504() {
    let rig = rig().await;
    let (mut viewer, mut control, _data) = base(&rig).await;
    assert_eq!(control.close_code().await, Some(1001));
    let answer = viewer.answer().await;
    assert!(answer.status == 504 && answer.text().contains("not_claimed"), "{}", answer.text());
}

#[tokio::test]
async fn a_request_whose_data_socket_lives_outlasts_its_lost_control_socket() {
    let rig = rig().await;
    let (mut viewer, mut control, mut data) = base(&rig).await;
    assert_eq!(control.close_code().await, Some(1001));
    for _ in 0..4 {
        let payload = data.next(PING).await.expect("it was given up");
        data.send(PONG, payload).await;
    }
    data.send(BINARY, OK).await;
    assert_eq!(viewer.answer().await.status, 200);
}
