//! The admin listener: probes and counts, and nothing else of the relay's.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::counts::{counts, settle};
use crate::program::{get, http};
use crate::rig::{ALICE, Answer, Rig, echo_target};
use crate::wire::Viewer;

async fn get_as(address: std::net::SocketAddr, path: &str, host: &str) -> Answer {
    http(address, format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).await
}

#[tokio::test]
async fn probes_answer_on_the_admin_listener_only() {
    let rig = Rig::start().await;
    for (path, admin, public) in
        [("/healthz", 200, 404), ("/readyz", 200, 404), ("/v1/tunnels", 404, 401), ("/metrics", 200, 404)]
    {
        assert_eq!(get(rig.admin, path).await.status, admin, "{path}");
        assert_eq!(get(rig.address, path).await.status, public, "{path}");
    }
}

/// A page whose own name leads to the admin listener (DNS rebinding) has the same origin as what it asks there.
#[tokio::test]
async fn under_a_name_that_may_be_a_strangers_only_probes_answer() {
    let rig = Rig::start().await;
    for own in ["localhost", "LOCALHOST:9090", "127.0.0.1", "127.0.0.1:9090", "[::1]:9090", "10.1.2.3"] {
        let host = format!("Host: {own}\r\n");
        assert_eq!(get_as(rig.admin, "/other", &host).await.status, 404, "{own}");
    }
    assert_eq!(get_as(rig.admin, "/other", "").await.status, 404, "no browser leaves it out");
    for strange in
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:9090", "", "[::1"]
    {
        let host = format!("Host: {strange}\r\n");
        assert_eq!(get_as(rig.admin, "/other", &host).await.status, 421, "{strange:?}");
        assert_eq!(get_as(rig.admin, "/healthz", &host).await.status, 200, "{strange:?}");
    }
    let two = "Host: localhost\r\nHost: evil.example\r\n";
    assert_eq!(get_as(rig.admin, "/other", two).await.status, 421);
    assert_eq!(get_as(rig.admin, "http://evil.example/other", "Host: localhost\r\n").await.status, 421);
    let answer = get_as(rig.admin, "/readyz", "Host: localhost\r\nOrigin: https://evil.example\r\n").await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn counts_show_what_is_held_in_numbers_alone() {
    let rig = Rig::start().await;
    let answer = get(rig.admin, "/counts").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let before = counts(rig.admin).await;
    assert!(before.values().all(|value| value.is_u64()), "{before:?}");
    assert!(before["memory_bytes"].as_u64() > Some(1 << 20) && before["descriptors"].as_u64() > Some(3));
    assert_eq!((&before["connections"], &before["admin_connections"]), (&json!(0), &json!(1)));
    assert_eq!(get(rig.address, "/counts").await.status, 404);

    let client = rig.client(ALICE, "web", echo_target().await).await;
    let mut viewer = Viewer::new(&rig).await;
    assert_eq!(viewer.get("web", "/").await.status, 200);
    let mut waiting = rig.viewer().await;
    let held = rig.control(ALICE, "held").await;
    waiting.write_all(b"GET / HTTP/1.1\r\nHost: held.relay.test\r\n\r\n").await.unwrap();
    let expected = json!({
        "connections": 5, "exchanges": 1, "sessions": 2, "control_sockets": 2, "tunnels": 2, "tunnels_by_id": 2,
        "idle_data_sockets": 1, "data_sockets_in_use": 0, "pending": 1, "waiting": 1, "viewer_tasks": 2,
        "client_tasks": 2, "unsent_messages": 0, "upgraded": 0, "waiting_for_client": 0,
    });
    settle(rig.admin, &expected).await;
    drop((client, viewer, waiting, held));
    settle(
        rig.admin,
        &json!({"connections": 0, "exchanges": 0, "sessions": 0, "client_tasks": 0, "pending": 0}),
    )
    .await;
}
