//! Data sockets that a client holds in advance.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use super::{OK, Two, asking, data, read_until, send, serve};
use crate::frames::{PONG, Raw, TEXT, frame};
use crate::rig::{ALICE, BOB, Rig, soon};
use crate::wire::Viewer;

#[tokio::test]
async fn a_new_tunnel_gets_one_standby_socket_and_a_burst_more() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    assert_eq!(client.hear_of("standby").await["want"], 1);
    let (mut spare, id) = client.standby(&rig).await;
    let one_more = format!("/ws/data?tunnel_id={}&id={}", client.id, uuid::Uuid::new_v4());
    let (status, body) = rig.socket(&one_more, Some(ALICE)).await.err().unwrap();
    assert!(status == 409 && body.contains("too_many_standby"), "{status} {body}");

    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET /first HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let Some(Ok(Message::Text(told))) = soon(spare.next()).await else { panic!("no text first") };
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["type"], &told["id"]), (&json!("connection"), &json!(id)));
    let head = read_until(&mut spare, b"\r\n\r\n").await;
    assert!(head.starts_with(b"GET /first "));
    send(&mut spare, OK).await;
    assert_eq!(viewer.answer().await.status, 200);

    // Nobody waits for these: the relay asks for more, up to its limit.
    let mut viewers = Vec::new();
    for _ in 0..12 {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say("POST / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 0\r\n\r\n").await;
        viewers.push(viewer);
    }
    while client.hear_of("standby").await["want"] != 8 {}
}

#[tokio::test]
async fn a_standby_socket_can_be_rejected_when_it_is_assigned() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    client.hear_of("standby").await;
    let (mut spare, id) = client.standby(&rig).await;
    let mut viewer = asking(&rig).await;
    assert!(matches!(soon(spare.next()).await, Some(Ok(Message::Text(_)))));
    client.say(json!({"type": "reject", "id": id, "reason": "refused"})).await;
    let answer = viewer.answer().await;
    assert!(answer.status == 502 && answer.text().contains("rejected"), "{}", answer.text());
    while let Some(Ok(_)) = soon(spare.next()).await {}
}

#[tokio::test]
async fn a_standby_socket_that_died_costs_no_request() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    client.hear_of("standby").await;
    let (spare, _) = client.standby(&rig).await;
    drop(spare);
    let mut viewer = asking(&rig).await;
    let told = client.hear_of("connection").await;
    let _data = serve(&rig, told["id"].as_str().unwrap()).await;
    assert_eq!(viewer.answer().await.status, 200);
}

#[tokio::test]
async fn standby_sockets_of_others_of_base_sessions_and_with_bad_ids_are_refused() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    client.hear_of("standby").await;
    let base = rig.control(ALICE, "base").await;
    let id = uuid::Uuid::new_v4();
    let (tunnel, unknown) = (&client.id, uuid::Uuid::new_v4());
    for (path, key, status, code) in [
        (format!("tunnel_id={tunnel}&id={id}"), None, 401, "unauthorized"),
        (format!("tunnel_id={tunnel}&id={id}"), Some(BOB), 403, "foreign_tunnel"),
        (format!("tunnel_id={tunnel}&id=x"), Some(ALICE), 400, "invalid_id"),
        (format!("tunnel_id={unknown}&id={id}"), Some(ALICE), 404, "tunnel_not_found"),
        (format!("tunnel_id={}&id={id}", base.id), Some(ALICE), 409, "no_session"),
        (format!("tunnel_id={tunnel}"), Some(ALICE), 400, "missing_parameter"),
    ] {
        let (got, body) = rig.socket(&format!("/ws/data?{path}"), key).await.err().unwrap();
        assert!(got == status && body.contains(code), "{path}: {got} {body}");
    }
    let path = format!("/ws/data?tunnel_id={tunnel}&id={id}");
    let _spare = rig.socket(&path, Some(ALICE)).await.unwrap();
    let (status, body) = rig.socket(&path, Some(ALICE)).await.err().unwrap();
    assert!(status == 409 && body.contains("id_in_use"), "{status} {body}");
}

#[tokio::test]
async fn standby_sockets_end_with_their_session() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    client.hear_of("standby").await;
    let (mut spare, _) = client.standby(&rig).await;
    drop(client);
    while let Some(Ok(_)) = soon(spare.next()).await {}
}

/// One key's socket that speaks without end held up the task that looks after all tunnels.
#[tokio::test]
async fn a_standby_socket_that_floods_pongs_holds_up_nobody() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    client.hear_of("standby").await;
    let path = format!("/ws/data?tunnel_id={}&id={}", client.id, uuid::Uuid::new_v4());
    let mut raw = Raw::open(rig.address, &path, Some(ALICE)).await.unwrap();
    let flood = tokio::spawn(async move {
        let pongs = frame(PONG, b"").repeat(10_000);
        while raw.0.write_all(&pongs).await.is_ok() {}
    });
    // Expiry is seen to by that task.
    let mut other = Two::connect(&rig, "other").await;
    let path = format!("/v1/tunnels/{}/extend", other.id);
    rig.api(ALICE, "POST", &path, r#"{"ttl":"1s"}"#).await;
    assert_eq!(other.hear_of("closed").await["reason"], "expired");
    flood.abort();
}

/// A client that was stopped left the viewer of a POST waiting until the exchange was idle for too long.
#[tokio::test]
async fn a_post_on_a_standby_socket_of_a_silent_client_is_504_in_the_time_of_a_claim() {
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_millis(500)).await;
    let mut client = Two::connect(&rig, "web").await;
    client.hear_of("standby").await;
    let path = format!("/ws/data?tunnel_id={}&id={}", client.id, uuid::Uuid::new_v4());
    let mut spare = Raw::open(rig.address, &path, Some(ALICE)).await.unwrap();
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("POST / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 4\r\n\r\nbody").await;
    let answer = viewer.answer().await;
    assert!(answer.status == 504 && answer.text().contains("not_claimed"), "{}", answer.text());
    assert!(spare.next(TEXT).await.is_some(), "it was assigned");
}

#[tokio::test]
async fn a_post_on_a_standby_socket_waits_for_a_slow_target_as_long_as_the_client_is_there() {
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_millis(300)).await;
    let mut client = Two::connect(&rig, "web").await;
    client.hear_of("standby").await;
    let (mut spare, _) = client.standby(&rig).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("POST / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 4\r\n\r\nbody").await;
    assert!(matches!(soon(spare.next()).await, Some(Ok(Message::Text(_)))));
    read_until(&mut spare, b"body").await;
    // The library answers pings as it reads; nothing else comes in the time of a claim, and more.
    let silence = async { while let Some(Ok(Message::Ping(_) | Message::Pong(_))) = spare.next().await {} };
    assert!(tokio::time::timeout(Duration::from_millis(900), silence).await.is_err());
    send(&mut spare, OK).await;
    assert_eq!(viewer.answer().await.status, 200);
}

/// The budget was looked at before each socket, but counted only behind its handshake.
#[tokio::test]
async fn idle_tunnels_share_a_budget_of_standby_sockets() {
    let rig = Rig::with(|config| config.limits.standby = 1).await;
    let mut clients = Vec::new();
    for name in ["one", "two", "three"] {
        clients.push(Two::connect(&rig, name).await);
    }
    let (first, _) = clients[0].standby(&rig).await;
    for client in &clients[1..] {
        let path = format!("/ws/data?tunnel_id={}&id={}", client.id, uuid::Uuid::new_v4());
        let (status, body) = rig.socket(&path, Some(ALICE)).await.err().unwrap();
        assert!(status == 409 && body.contains("too_many_standby"), "{status} {body}");
    }
    drop(first);
    // There is room again as soon as the relay has seen that.
    soon(async {
        loop {
            let path = format!("/ws/data?tunnel_id={}&id={}", clients[1].id, uuid::Uuid::new_v4());
            match rig.socket(&path, Some(ALICE)).await {
                Ok(_socket) => break,
                Err((status, body)) => assert!(status == 409, "{body}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_standby_socket_cannot_have_the_id_of_a_connection() {
    let rig = Rig::start().await;
    let mut client = Two::connect(&rig, "web").await;
    let mut viewer = asking(&rig).await;
    let id = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
    let path = format!("/ws/data?tunnel_id={}&id={id}", client.id);
    let (status, body) = rig.socket(&path, Some(ALICE)).await.err().unwrap();
    assert!(status == 409 && body.contains("id_in_use"), "{status} {body}");
    let mut data = data(&rig, &id).await;
    read_until(&mut data, b"\r\n\r\n").await;
    let (status, _) = rig.socket(&path, Some(ALICE)).await.err().unwrap();
    assert_eq!(status, 409);
    send(&mut data, OK).await;
    assert_eq!(viewer.answer().await.status, 200);
}
