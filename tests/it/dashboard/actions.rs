//! What an operator does from the dashboard, and what a client and a viewer notice of it.

use adit::auth::keys::hash_key;
use serde_json::{Value, json};

use super::Desk;
use crate::level_two::Two;
use crate::rig::{ALICE, Rig, echo_target};

/// The id of the session that serves the tunnel.
async fn session_of(desk: &Desk, tunnel: &str) -> String {
    let tunnel = desk.json(&format!("/api/tunnels/{tunnel}")).await;
    tunnel["sessions"][0]["id"].as_str().unwrap().to_owned()
}

/// The newest event of that kind.
async fn event(desk: &Desk, kind: &str) -> Value {
    desk.json(&format!("/api/events?kind={kind}")).await["events"][0].clone()
}

#[tokio::test]
async fn a_client_is_cut_off_and_may_come_back() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let mut control = rig.control(ALICE, "web").await;
    let session = session_of(&desk, &control.id).await;
    let (status, answer) = desk.post(&format!("/api/clients/{session}/disconnect"), "{}").await;
    assert!(status == 200 && answer["done"].as_str().unwrap().contains("web"), "{answer}");
    assert_eq!(control.closed().await, Some(1012));
    let ended = |list: &Value| list["events"][0]["reason"] == "disconnected";
    desk.until("/api/events?kind=disconnected", ended).await;
    let (status, answer) = desk.post(&format!("/api/clients/{session}/disconnect"), "").await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("conflict")), "{answer}");
    let _again = rig.connect(ALICE, &control.id).await;
    assert_ne!(session_of(&desk, &control.id).await, session);
    for id in ["x", &session, "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(desk.post(&format!("/api/clients/{id}/disconnect"), "").await.0, 404, "{id}");
    }
}

#[tokio::test]
async fn a_client_is_told_to_connect_anew_if_it_knows_the_word() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let mut two = Two::connect(&rig, "two").await;
    let (status, _) = desk.post(&format!("/api/clients/{}/drain", two.session), "{}").await;
    assert_eq!(status, 200);
    let told = two.hear_of("drain").await;
    assert!(told["reconnect_ms"].as_u64() <= Some(200), "{told}");
    let drained = event(&desk, "drained").await;
    assert_eq!((&drained["tunnel"], &drained["address"]), (&json!("two"), &json!("127.0.0.1")));
    let next = Two::again(&rig, &two.id, &format!("&successor_of={}", two.session)).await;
    assert_ne!(next.session, two.session);

    let base = rig.control(ALICE, "base").await;
    let session = session_of(&desk, &base.id).await;
    let (status, answer) = desk.post(&format!("/api/clients/{session}/drain"), "{}").await;
    assert!(status == 409 && answer["error"]["message"].as_str().unwrap().contains("disconnect"), "{answer}");
}

#[tokio::test]
async fn a_tunnel_is_suspended_resumed_extended_and_closed() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let client = rig.client(ALICE, "web", echo_target().await).await;
    let path = |action: &str| format!("/api/tunnels/{}/{action}", client.id);
    assert_eq!(rig.get("web", "/").await.status, 200);
    for (suspended, status, kind) in [(true, 503, "suspended"), (false, 200, "resumed")] {
        let body = json!({"suspended": suspended}).to_string();
        assert_eq!(desk.post(&path("suspend"), &body).await.0, 200);
        let answer = rig.get("web", "/").await;
        assert_eq!(answer.status, status);
        // Not by its owner, as it may have been an operator.
        assert_eq!(answer.text().contains("This tunnel is suspended."), suspended);
        assert_eq!(event(&desk, kind).await["tunnel"], "web");
    }
    let end = async || desk.json(&format!("/api/tunnels/{}", client.id)).await["expires_at"].clone();
    for (ttl, has_end) in [("2h", true), ("0", false)] {
        assert_eq!(desk.post(&path("extend"), &json!({"ttl": ttl}).to_string()).await.0, 200);
        assert_eq!(end().await.is_i64(), has_end, "{ttl}");
        let reason = event(&desk, "extended").await["reason"].as_str().unwrap().to_owned();
        assert_eq!(reason == "ends never", !has_end, "{reason}");
    }
    for (action, body) in [
        ("suspend", "{}"),
        ("suspend", "[true]"),
        ("suspend", "{\"suspended\":1}"),
        ("extend", "{\"ttl\":\"soon\"}"),
        ("extend", "{\"ttl\":-1}"),
        ("close", "{"),
    ] {
        let (status, answer) = desk.post(&path(action), body).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("body")), "{action} {body}");
    }
    assert_eq!(desk.post(&path("extend"), &format!("{{\"ttl\":\"{}\"}}", "1".repeat(20_000))).await.0, 413);
    assert_eq!(desk.post(&path("close"), "{}").await.0, 200);
    assert_eq!(rig.get("web", "/").await.status, 404);
    assert_eq!(event(&desk, "deleted").await["tunnel"], "web");
    for action in ["close", "suspend", "extend"] {
        let (status, answer) = desk.post(&path(action), "{\"suspended\":true,\"ttl\":\"1h\"}").await;
        assert_eq!((status, &answer["error"]["code"]), (404, &json!("not_found")), "{action}");
    }
    assert_eq!(desk.get(&path("close")).await.status, 405);
}

#[tokio::test]
async fn a_revoked_key_lets_nobody_in_and_its_clients_go() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let key = "nbk_carol_0123456789abcdef";
    rig.store.create_key("carol".into(), hash_key(key)).await.unwrap();
    let mut control = rig.control(key, "web").await;
    let (status, answer) = desk.post("/api/keys/carol/revoke", "{}").await;
    assert!(status == 200 && answer["done"].as_str().unwrap().contains("carol"), "{answer}");
    assert!(control.closed().await.is_some());
    assert_eq!(rig.api(key, "GET", "/v1/tunnels", "").await.0, 401);
    assert_eq!(event(&desk, "revoked").await["owner"], "carol");
    assert_eq!(desk.post("/api/keys/carol/revoke", "{}").await.0, 404);
    let (status, answer) = desk.post("/api/keys/alice/revoke", "{}").await;
    assert!(status == 409 && answer["error"]["message"].as_str().unwrap().contains("ADIT_KEYS"), "{answer}");
    assert_eq!(rig.api(ALICE, "GET", "/v1/tunnels", "").await.0, 200);
}
