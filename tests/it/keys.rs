//! Keys made and revoked while the relay runs, and secrets that must show up nowhere.

use std::sync::Arc;

use adit::auth::keys::hash_key;
use adit::relay::config::RelayConfig;
use adit::store::{Sqlite, Store};
use serde_json::{Value, json};

use crate::frames::{BINARY, Raw, TEXT};
use crate::program::{self, Running, http};
use crate::rig::{ALICE, BOB, Rig, echo_target, soon};
use crate::wire::Viewer;

const CAROL: &str = "nbk_carol_0123456789abcdef";
const DAVE: &str = "nbk_dave_0123456789abcdef";

/// A relay with its database in a file, and another handle on that file, as `adit key` opens it.
pub async fn with_tool() -> (Rig, Sqlite, tempfile::TempDir) {
    with_tool_and(|_| {}).await
}

/// The same with a configuration changed by `change`.
pub async fn with_tool_and(change: impl FnOnce(&mut RelayConfig)) -> (Rig, Sqlite, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Sqlite::open(dir.path()).unwrap());
    let rig = Rig::on(store, "127.0.0.1:0".parse().unwrap(), change).await;
    (rig, Sqlite::open(dir.path()).unwrap(), dir)
}

async fn list(rig: &Rig, key: &str) -> u16 {
    rig.api(key, "GET", "/v1/tunnels", "").await.0
}

#[tokio::test]
async fn a_key_made_or_revoked_beside_a_running_relay_counts_at_once() {
    let (rig, tool, _dir) = with_tool().await;
    assert_eq!(list(&rig, CAROL).await, 401);
    assert!(tool.create_key("carol".into(), hash_key(CAROL)).await.unwrap());
    assert_eq!(list(&rig, CAROL).await, 200);
    assert!(tool.revoke_key("carol".into()).await.unwrap());
    assert_eq!(list(&rig, CAROL).await, 401);
}

#[tokio::test]
async fn the_session_of_a_revoked_key_is_closed_and_what_runs_through_it_ends() {
    let (rig, tool, _dir) = with_tool().await;
    tool.create_key("carol".into(), hash_key(CAROL)).await.unwrap();
    tool.create_key("dave".into(), hash_key(DAVE)).await.unwrap();
    let mut carols = rig.control(CAROL, "carols").await;
    let _daves = rig.client(DAVE, "daves", echo_target().await).await;
    let _alices = rig.client(ALICE, "alices", echo_target().await).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: carols.relay.test\r\n\r\n").await;
    let mut data = Raw::data(rig.address, &soon(carols.notified()).await.unwrap()).await;
    data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    viewer.head().await;

    tool.revoke_key("carol".into()).await.unwrap();
    assert_eq!(carols.closed().await, Some(1008));
    assert_eq!(viewer.rest().await, b"half", "cut, and not completed");
    let again = rig.socket(&format!("/ws/control?tunnel_id={}", carols.id), Some(CAROL)).await;
    assert_eq!(again.err().unwrap().0, 401);
    for name in ["daves", "alices"] {
        assert_eq!(rig.get(name, "/").await.status, 200, "{name}: sessions of other keys go on");
    }
}

/// What an operator does after a leak: revoke the key and make one of the same name.
#[tokio::test]
async fn a_session_of_the_old_key_is_closed_when_a_new_one_has_the_same_name() {
    let (rig, tool, _dir) = with_tool().await;
    tool.create_key("carol".into(), hash_key(CAROL)).await.unwrap();
    let mut leaked = rig.control(CAROL, "web").await;
    tool.revoke_key("carol".into()).await.unwrap();
    tool.create_key("carol".into(), hash_key(DAVE)).await.unwrap();
    assert_eq!(leaked.closed().await, Some(1008));
    let _client = rig.client(DAVE, "web", echo_target().await).await;
    assert_eq!(rig.get("web", "/").await.status, 200, "the name is the owner's, whatever key it has");
    // The next change of the keys leaves the new session alone.
    tool.create_key("erin".into(), hash_key("nbk_erin")).await.unwrap();
    let mut other = rig.control("nbk_erin", "other").await;
    tool.revoke_key("erin".into()).await.unwrap();
    assert_eq!(other.closed().await, Some(1008));
    assert_eq!(rig.get("web", "/").await.status, 200);
}

/// The finest log of the program while viewers are refused, served, and answered with nonsense.
#[tokio::test]
async fn no_key_password_connection_id_query_or_header_is_ever_logged() {
    let home = tempfile::tempdir().unwrap();
    let mut command = program::relay(home.path(), &[]);
    command.env("ADIT_LOG_FILTER", "trace").env("ADIT_LOG_EXCHANGES", "on");
    let relay = Running::start(command).await;
    let address = relay.addresses[0];
    let create = json!({"local_port": 1, "name": "web", "auth_user": "ann", "auth_pass": "s3cr3t-password"});
    let (_, tunnel) = relay.post(ALICE, "/v1/tunnels?token=s3cr3t-query", create).await;
    assert_eq!(relay.post("nbk_guessed", "/v1/tunnels?token=s3cr3t-query", json!({})).await.0, 401);
    let path = format!("/ws/control?tunnel_id={}", tunnel["id"].as_str().unwrap());
    let mut control = Raw::open(address, &path, Some(ALICE)).await.unwrap();
    let mut secrets = [ALICE, BOB, "nbk_", "s3cr3t", "YW5u", "d3Jvbmc"].map(str::to_owned).to_vec();
    // wrong:wrong and ann:s3cr3t-password in base64.
    for (auth, response) in [
        ("d3Jvbmc6d3Jvbmc=", None),
        (
            "YW5uOnMzY3IzdC1wYXNzd29yZA==",
            Some("HTTP/1.1 200 OK\r\nSet-Cookie: s3cr3t-cookie\r\nContent-Length: 0\r\n\r\n"),
        ),
        ("YW5uOnMzY3IzdC1wYXNzd29yZA==", Some("s3cr3t-nonsense\r\n\r\n")),
    ] {
        let viewer = tokio::spawn(http(
            address,
            format!(
                "GET /t/web/path?token=s3cr3t-query HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Authorization: Basic {auth}\r\nCookie: s3cr3t-cookie\r\n\r\n"
            ),
        ));
        if let Some(response) = response {
            let message: Value = serde_json::from_slice(&control.next(TEXT).await.unwrap()).unwrap();
            let id = message["id"].as_str().unwrap();
            let mut data = Raw::data(address, id).await;
            data.send(BINARY, response).await;
            secrets.push(id.to_owned());
        }
        soon(viewer).await.unwrap();
    }
    relay.signal("TERM");
    let (_, log) = relay.end().await;
    for known in
        ["tunnel created", "client connected", "exchange", "\"/t/web/path\"", "auth_required", "bad_response"]
    {
        assert!(log.contains(known), "{known:?} is not in the log:\n{log}");
    }
    for secret in secrets {
        assert_eq!(log.lines().find(|line| line.contains(&secret)), None, "{secret:?} is logged");
    }
}
