//! Registration: the checks in their order, with their statuses.

use adit::auth::Secret;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{OTHER_SECRET, SECRET, Worker, get, now, register, rig, rig_with, token, tokens};
use crate::dashboard::Desk;
use crate::frames::{Raw, TEXT};
use crate::rig::{ALICE, echo_target, soon};
use crate::wire::Viewer;

/// A token with these claims over those of a good one; null takes one away.
fn signed(claims: Value, secret: &str, algorithm: Algorithm) -> String {
    let mut all = json!({"tid": "worker", "nbf": now() - 60, "exp": now() + 3600});
    for (name, value) in claims.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
    encode(&Header::new(algorithm), &all, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn good(claims: Value) -> String {
    signed(claims, SECRET, Algorithm::HS256)
}

#[tokio::test]
async fn tokens_are_judged_by_every_rule_of_websocktunnel() {
    let rig = rig().await;
    let day = 24 * 3600;
    for token in [
        good(json!({})),
        signed(json!({}), OTHER_SECRET, Algorithm::HS256),
        good(json!({"iat": now() + 9999, "iss": "taskcluster-auth", "sub": "anybody"})),
        good(json!({"exp": now() + 31 * day - 120})),
    ] {
        assert!(register(rig.address, "worker", &token).await.is_ok(), "{token}");
    }
    for (why, token) in [
        ("another secret", signed(json!({}), "secret", Algorithm::HS256)),
        ("another algorithm", signed(json!({}), SECRET, Algorithm::HS512)),
        ("no end", good(json!({"exp": null}))),
        ("an end that is no number", good(json!({"exp": "tomorrow"}))),
        ("over", good(json!({"exp": now() - 1}))),
        ("no beginning", good(json!({"nbf": null}))),
        ("zero is none", good(json!({"nbf": 0}))),
        ("not yet", good(json!({"nbf": now() + 5}))),
        ("another's", good(json!({"tid": "worker2"}))),
        ("nobody's", good(json!({"tid": null}))),
        ("other letters", good(json!({"tid": "Worker"}))),
        ("too long", good(json!({"exp": now() + 31 * day + 60}))),
        ("for somebody", good(json!({"aud": "ws-server"}))),
    ] {
        let refused = register(rig.address, "worker", &token).await.err();
        let (status, text) = refused.unwrap_or_else(|| panic!("{why} was let in"));
        assert_eq!(status, 401, "{why}: {text}");
        assert!(text.len() > 20, "{why}: {text}");
    }
}

#[tokio::test]
async fn with_an_audience_tokens_must_have_it() {
    let rig = rig_with(|config| config.worker_tokens = Some(tokens(Some("ws-server")))).await;
    for aud in [json!("ws-server"), json!(["other", "ws-server"])] {
        assert!(register(rig.address, "worker", &good(json!({"aud": aud}))).await.is_ok(), "{aud}");
    }
    for aud in [json!("other"), json!([]), json!(7), Value::Null] {
        let refused = register(rig.address, "worker", &good(json!({"aud": aud}))).await.err().unwrap();
        assert_eq!(refused.0, 401, "{aud}");
    }
}

#[tokio::test]
async fn the_first_check_that_fails_decides() {
    let rig = rig().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let bearer = format!("Authorization: Bearer {}\r\n", token("worker"));
    let id = "x-websocktunnel-id: worker\r\n";
    let ask = async |method: &str, lines: &[&str]| {
        let lines = lines.concat();
        rig.raw(format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await.status
    };
    // What ends the connection, as nothing follows.
    let close = "Connection: close\r\n";
    let (bad_id, short) = ("x-websocktunnel-id: worker/id\r\n", "Authorization: Bearer a.b.c\r\n");
    assert_eq!(ask("GET", &[bad_id, close]).await, 400);
    assert_eq!(ask("GET", &[id, id, &bearer, close]).await, 400);
    for bearer in [
        "",
        "Authorization: bearer a.b.c\r\n",
        "Authorization: Bearer  a.b\r\n",
        "Authorization: Basic a\r\n",
    ] {
        assert_eq!(ask("GET", &[id, bearer, close]).await, 400, "{bearer}");
    }
    assert_eq!(ask("GET", &[id, &bearer, close]).await, 404);
    assert_eq!(ask("GET", &[id, short, upgrade, close]).await, 401);
    assert_eq!(ask("POST", &[id, &bearer, upgrade, version, key, close, "Content-Length: 0\r\n"]).await, 405);
    assert_eq!(ask("GET", &[id, &bearer, upgrade, key, close]).await, 400);
    assert_eq!(ask("GET", &[id, &bearer, upgrade, version, close]).await, 400);
    // Nothing of that has taken the place of a worker that is there.
    let worker = Worker::start(rig.address, "worker", echo_target().await).await;
    for lines in [[id, short, upgrade], [id, &bearer, upgrade]] {
        ask("GET", &[&lines[..], &[close]].concat()).await;
    }
    assert_eq!(get(&rig, "/worker/", "").await.status, 200);
    assert_eq!(worker.url, format!("http://{}/worker", rig.address));
}

#[tokio::test]
async fn the_relays_own_paths_are_no_ids() {
    let rig = rig().await;
    for id in ["t", "v1", "ws", "health", ".well-known", "__heartbeat__", "__lbheartbeat__", "__version__"] {
        let (status, text) = register(rig.address, id, &token(id)).await.err().unwrap();
        assert!(status == 400 && text.contains("choose another"), "{id}: {status} {text}");
    }
    for id in ["T", "health2", "a%2Fb", "~.-_%", "favicon.ico"] {
        assert!(register(rig.address, id, &token(id)).await.is_ok(), "{id}");
    }
    assert_eq!(get(&rig, "/health", "").await.status, 200);
    for path in ["/__heartbeat__", "/__lbheartbeat__", "/__lbheartbeat__?x"] {
        let answer = get(&rig, path, "").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{path}");
    }
    let version: Value = serde_json::from_slice(&get(&rig, "/__version__", "").await.body).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    // Keys go on as ever.
    assert_eq!(rig.api("", "GET", "/v1/tunnels", "").await.0, 401);
    assert_eq!(rig.api(ALICE, "GET", "/v1/tunnels", "").await, (200, json!([])));
}

#[tokio::test]
async fn without_secrets_there_are_no_workers() {
    let rig = rig_with(|config| config.worker_tokens = None).await;
    assert!(register(rig.address, "worker", &token("worker")).await.is_err());
    assert_eq!(get(&rig, "/__heartbeat__", "").await.status, 404);
    assert_eq!(get(&rig, "/worker/", "").await.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn the_newest_of_an_id_wins_and_what_runs_through_the_old_one_ends_first() {
    let rig = rig().await;
    let old = Worker::of(rig.address, "worker").await;
    let mut viewer = rig.viewer().await;
    viewer.write_all(b"GET /worker/slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut stream = old.stream().await;
    let new = Worker::start(rig.address, "worker", echo_target().await).await;
    while !get(&rig, "/worker/", "").await.text().contains("GET / HTTP/1.1") {}
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    let answer = crate::rig::Answer::parse(&soon(crate::rig::read_all(&mut viewer)).await);
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    drop(stream);
    soon(old.session.over()).await;
    assert_eq!(get(&rig, "/worker/", "").await.status, 200);
    drop(new);
}

#[tokio::test]
async fn a_relay_that_stops_ends_what_its_workers_serve_and_tells_them_to_come_back() {
    let rig = rig_with(|config| config.limits.drain = std::time::Duration::from_secs(20)).await;
    let worker = Worker::of(rig.address, "worker").await;
    let (address, mut viewer) = (rig.address, rig.viewer().await);
    viewer.write_all(b"GET /worker/ HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut stream = worker.stream().await;
    let stopping = tokio::spawn(rig.shutdown());
    let ended = async { while tokio::net::TcpStream::connect(address).await.is_ok() {} };
    soon(ended).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    let head = crate::rig::read_head(&mut viewer).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    drop(stream);
    // Told by a close frame that it may come back.
    let ended = soon(worker.session.over()).await;
    assert_eq!(ended, adit::wsmux::Ended::ByPeer(Some(1012)));
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_relay_that_stops_refuses_workers_for_a_while_only() {
    let rig = rig().await;
    let tunnel = rig.create(ALICE, "web").await;
    let path = format!("/ws/control?tunnel_id={}", tunnel["id"].as_str().unwrap());
    let mut control = Raw::open(rig.address, &path, Some(ALICE)).await.unwrap();
    // As long as a viewer waits for its claim, clients are let in.
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET /t/web/ HTTP/1.1\r\nHost: relay.test\r\n\r\n").await;
    control.next(TEXT).await.unwrap();
    let address = rig.address;
    let stopping = tokio::spawn(rig.shutdown());
    let refused = async {
        loop {
            if let Err(refused) = register(address, "late", &token("late")).await {
                return refused;
            }
        }
    };
    let (status, text) = soon(refused).await;
    assert!(status == 503 && text.contains("try again shortly"), "{status} {text}");
    viewer.vanish();
    stopping.await.unwrap();
}

#[tokio::test]
async fn operators_see_workers_among_the_clients() {
    let rig = rig().await;
    let _worker = Worker::start(rig.address, "Worker.1", echo_target().await).await;
    assert_eq!(get(&rig, "/Worker.1/", "").await.status, 200);
    let (status, _) = register(rig.address, "x", "bad").await.err().unwrap();
    assert_eq!(status, 401);
    let desk = Desk::of(&rig).await;
    let clients = desk.json("/api/clients").await;
    let client = &clients["clients"][0];
    assert_eq!((&client["tunnel"], &client["level"]), (&json!("/Worker.1"), &json!("wsmux")));
    // Each session begins with a ping.
    soon(async { while desk.json("/api/clients").await["clients"][0]["pongs"] == json!(0) {} }).await;
    let tunnels = desk.json("/api/tunnels").await;
    let tunnel = &tunnels["tunnels"][0];
    assert_eq!(
        (&tunnel["url"], &tunnel["requests"]),
        (&json!(format!("http://{}/Worker.1", rig.address)), &json!(1))
    );
    let refused = desk.json("/api/events?kind=refused").await;
    assert_eq!((&refused["total"], &refused["events"][0]["tunnel"]), (&json!(1), &json!("/x")));
    let metrics = get(&rig, "/metrics", "").await;
    assert_eq!(metrics.status, 404);
    let metrics = desk.get("/metrics").await.text();
    assert!(metrics.contains("adit_control_sessions_begun_total{level=\"wsmux\"} 1"), "{metrics}");
    // Secrets are nobody's to see.
    let config = format!("{:?}", tokens(None));
    assert!(!config.contains(SECRET), "{config} {:?}", Secret::new("x"));
}
