//! JSON Web Tokens as bearers of every endpoint, their limits, and the program that makes and reads them.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit::auth::Secret;
use adit::auth::jwt::Secrets;
use adit::auth::keys::hash_key;
use adit::proto::name::Name;
use adit::relay::config::RelayConfig;
use adit::store::Store;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::frames::{BINARY, Raw};
use crate::keys::with_tool_and;
use crate::level_two::Two;
use crate::program::{RELAY, Running, adit, run};
use crate::rig::{ALICE, BOB, Rig, echo_target, serve_one, soon};
use crate::wire::Viewer;

const SECRET: &str = "s3cret-of-tokens-0123456789abcdef";
const BEFORE: &str = "the-s3cret-before-0123456789abcdef";
const HOUR: i64 = 3600;

async fn rig() -> Rig {
    Rig::with(|config| config.jwt_secrets = [SECRET, BEFORE].map(Secret::new).into()).await
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A token for an hour that begins `age` seconds ago.
fn minted(secret: &str, sub: &str, tid: Option<&str>, age: i64) -> String {
    let tid = tid.map(|tid| Name::parse(tid).unwrap());
    let hour = Duration::from_secs(HOUR as u64);
    Secrets::new(vec![Secret::new(secret)]).mint(sub, tid.as_ref(), hour, (now() - age) * 1000).unwrap()
}

fn token(sub: &str) -> String {
    minted(SECRET, sub, None, 0)
}

fn limited(sub: &str, tid: &str) -> String {
    minted(SECRET, sub, Some(tid), 0)
}

fn signed(claims: Value) -> String {
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// What Taskcluster signs for its own proxy, with the secret of this relay.
fn taskcluster() -> String {
    signed(json!({"tid": "web", "nbf": now() - 10, "exp": now() + HOUR, "iat": now()}))
}

/// Status and code of a refused handshake.
async fn refused(rig: &Rig, path: &str, bearer: &str) -> (u16, String) {
    let (status, body) = rig.socket(path, Some(bearer)).await.expect_err("it was let in");
    let body: Value = serde_json::from_str(&body).unwrap();
    (status, body["code"].as_str().unwrap().to_owned())
}

// ---- REST ----

#[tokio::test]
async fn a_token_acts_for_the_owner_that_it_names() {
    let rig = rig().await;
    let alices = rig.create(ALICE, "alices").await;
    let carols = rig.create(&token("carol"), "carols").await;
    assert_eq!(carols["client_id"], "carol");
    assert_eq!(rig.api(&token("alice"), "GET", "/v1/tunnels", "").await, (200, json!([alices])));
    assert_eq!(rig.api(&token("carol"), "GET", "/v1/tunnels", "").await, (200, json!([carols])));
    let path = format!("/v1/tunnels/{}", alices["id"].as_str().unwrap());
    assert_eq!(rig.api(&token("carol"), "DELETE", &path, "").await.0, 404);
    assert_eq!(rig.api(&token("alice"), "DELETE", &path, "").await.0, 204);
    assert_eq!(rig.api(&minted(BEFORE, "bob", None, 0), "GET", "/v1/version", "").await.0, 200);
}

#[tokio::test]
async fn a_token_with_tid_sees_and_makes_one_tunnel() {
    let rig = rig().await;
    let other = rig.create(ALICE, "other").await;
    let web = limited("alice", "web");
    assert_eq!(rig.api(&web, "GET", "/v1/tunnels", "").await, (200, json!([])));
    for name in ["other", "new", "-", "we"] {
        let body = json!({"local_port": 1, "name": name}).to_string();
        let (status, error) = rig.api(&web, "POST", "/v1/tunnels", &body).await;
        assert_eq!((status, &error["code"]), (403, &json!("token_limited")), "{name}");
        assert!(error["error"].as_str().unwrap().contains("'web'"), "{error}");
    }
    let mut ids = Vec::new();
    for name in [json!(null), json!(""), json!(" WEB "), json!("web")] {
        let body = json!({"local_port": 1, "name": name}).to_string();
        let (status, tunnel) = rig.api(&web, "POST", "/v1/tunnels", &body).await;
        assert_eq!(
            (status, &tunnel["slug"]),
            (if ids.is_empty() { 201 } else { 200 }, &json!("web")),
            "{name}"
        );
        ids.push(tunnel["id"].as_str().unwrap().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let (_, list) = rig.api(&web, "GET", "/v1/tunnels", "").await;
    assert_eq!((list.as_array().unwrap().len(), &list[0]["slug"]), (1, &json!("web")));

    let others = other["id"].as_str().unwrap();
    for (method, action, body) in [
        ("GET", "", ""),
        ("GET", "/requests", ""),
        ("POST", "/suspend", r#"{"suspended":true}"#),
        ("POST", "/extend", r#"{"ttl":"1h"}"#),
        ("POST", "/inspection", r#"{"enabled":false}"#),
        ("DELETE", "", ""),
    ] {
        let of = async |id: &str| rig.api(&web, method, &format!("/v1/tunnels/{id}{action}"), body).await;
        let (status, error) = of(others).await;
        assert_eq!((status, &error["code"]), (404, &json!("tunnel_not_found")), "{method} {action}");
        assert!(of(&ids[0]).await.0 < 300, "{method} {action}");
    }
    assert_eq!(rig.api(ALICE, "GET", "/v1/tunnels", "").await.1, json!([other]), "nothing happened to it");
}

// ---- refusals ----

#[tokio::test]
async fn a_token_that_is_not_valid_is_401_on_every_endpoint() {
    let rig = rig().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let connection = soon(control.notified()).await.unwrap();
    let good = token("alice");
    let of = |exp: Value| signed(json!({"sub": "alice", "nbf": now(), "exp": exp}));
    let wrong = [
        ("a Taskcluster token", taskcluster(), "claim \"sub\""),
        ("expired", minted(SECRET, "alice", None, HOUR + 1), "has expired"),
        ("to come", minted(SECRET, "alice", None, -HOUR), "not yet valid"),
        ("of another secret", minted(&SECRET.to_uppercase(), "alice", None, 0), "fits no secret"),
        ("exp as text", of(json!((now() + HOUR).to_string())), "claim \"exp\""),
        ("32 days", of(json!(now() + 32 * 24 * HOUR)), "31 days"),
        ("without its signature", good[..good.rfind('.').unwrap() + 1].to_owned(), "fits no secret"),
        ("too long", format!("{good}{}", "A".repeat(8192)), "8 KiB"),
    ];
    for (what, wrong, named) in &wrong {
        for (method, path) in [("GET", "/v1/version"), ("GET", "/v1/tunnels"), ("POST", "/v1/tunnels")] {
            let (status, error) = rig.api(wrong, method, path, r#"{"local_port":1}"#).await;
            assert_eq!((status, &error["code"]), (401, &json!("unauthorized")), "{what}: {method} {path}");
            let text = error["error"].as_str().unwrap();
            assert!(text.contains(named) && !text.contains(wrong.as_str()), "{what}: {text}");
        }
        for path in [format!("/ws/control?tunnel_id={}", control.id), format!("/ws/data?id={connection}")] {
            assert_eq!(refused(&rig, &path, wrong).await, (401, "unauthorized".into()), "{what}: {path}");
        }
    }
    // None of it used up the connection, which a token of its owner may take up.
    let path = format!("/ws/data?id={connection}");
    assert_eq!(refused(&rig, &path, &token("bob")).await, (403, "foreign_connection".into()));
    let mut data = Raw::open(rig.address, &path, Some(&token("alice"))).await.ok().unwrap();
    data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    viewer.head().await;
}

#[tokio::test]
async fn a_relay_without_secrets_takes_no_token() {
    let rig = Rig::start().await;
    let (status, error) = rig.api(&token("alice"), "GET", "/v1/tunnels", "").await;
    assert_eq!((status, &error["code"]), (401, &json!("unauthorized")));
    assert_eq!(rig.api(ALICE, "GET", "/v1/tunnels", "").await.0, 200);
}

// ---- sockets ----

#[tokio::test]
async fn a_control_socket_with_a_token_serves_viewers() {
    let rig = rig().await;
    for (name, bearer) in [("all", token("carol")), ("one", limited("carol", "one"))] {
        let _client = rig.client(&bearer, name, echo_target().await).await;
        assert_eq!(rig.get(name, "/").await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn a_control_socket_of_another_tunnel_than_tid_is_refused() {
    let rig = rig().await;
    let web = rig.create(&token("carol"), "web").await;
    let path = format!("/ws/control?tunnel_id={}", web["id"].as_str().unwrap());
    for foreign in [limited("carol", "other"), limited("bob", "web"), token("bob"), BOB.into()] {
        assert_eq!(refused(&rig, &path, &foreign).await, (403, "foreign_tunnel".into()));
    }
    let mut control = rig.connect(&limited("carol", "web"), web["id"].as_str().unwrap()).await;
    let (address, target) = (rig.address, echo_target().await);
    let served = tokio::spawn(async move {
        let id = soon(control.notified()).await.unwrap();
        serve_one(address, id, target).await;
    });
    assert_eq!(rig.get("web", "/").await.status, 200);
    served.abort();
}

// ---- the program ----

/// Runs with `input` on stdin.
async fn with_input(mut command: Command, input: &str) -> (i32, String, String) {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = soon(child.wait_with_output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_minted_token_opens_a_relay_without_keys_and_nothing_of_it_is_logged() {
    let home = tempfile::tempdir().unwrap();
    let mut mint = adit(home.path(), &["token", "mint", "--sub", "ci", "--tid", "web", "--ttl", "31d"]);
    let (code, token, hint) = run(mint.env("ADIT_JWT_SECRET", format!("{SECRET},{BEFORE}"))).await;
    assert_eq!((code, token.lines().count(), token.split('.').count()), (0, 1, 3), "{token}");
    let (token, signature) = (token.trim(), token.trim().rsplit('.').next().unwrap());
    assert!(hint.contains("\"ci\"") && hint.contains("web") && !hint.contains(signature), "{hint}");

    // Others can reach it, and it has no key but the secret.
    let mut relay = RELAY;
    relay[2] = "0.0.0.0:0";
    let line = [&relay[..], &["--jwt-secret", BEFORE, "--jwt-secret", SECRET]].concat();
    let (code, shown, _) = run(&mut adit(home.path(), &[&line[..], &["--check"]].concat())).await;
    assert!(shown.contains("jwt-secret = [\"***\", \"***\"]  # flag --jwt-secret\n"), "{shown}");
    assert!(code == 0 && !shown.contains("s3cret"), "{shown}");
    let mut command = adit(home.path(), &line);
    command.env("ADIT_LOG_FILTER", "trace");
    let mut relay = Running::start(command).await;
    relay.addresses[0].set_ip([127, 0, 0, 1].into());
    assert_eq!(relay.create(token, "web").await.0, 201);
    assert_eq!(relay.create(token, "other").await.0, 403);
    let old = minted(SECRET, "ci", None, 2 * HOUR);
    assert!(relay.takes(token).await && !relay.takes(&old).await && !relay.takes(&taskcluster()).await);
    relay.signal("TERM");
    let (_, log) = relay.end().await;
    assert!(log.contains("tunnel created"), "{log}");
    let of_old = old.rsplit('.').next().unwrap();
    for secret in ["s3cret", signature, of_old, "eyJ"] {
        assert_eq!(log.lines().find(|line| line.contains(secret)), None, "{secret:?} is logged");
    }
}

#[tokio::test]
async fn what_cannot_be_minted_is_a_usage_error_that_shows_no_secret() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("adit.toml");
    std::fs::write(&file, format!("jwt-secret = [\"{SECRET}\"]\n")).unwrap();
    let in_file = ["--config", file.to_str().unwrap()];
    let cases: [(&[&str], &str, &str); 6] = [
        (&["--sub", "ci"], "", "ADIT_JWT_SECRET"),
        (&["--sub", "ci"], "s3cret-short", "environment ADIT_JWT_SECRET: secret 1 has 12 bytes"),
        (&["--sub", "ci"], &format!("{SECRET},{SECRET}"), "twice"),
        (&["--sub", "ci"], &format!("{SECRET},{BEFORE},{SECRET}{BEFORE}"), "at most 2"),
        (&["--sub", "ci", "--ttl", "32d", in_file[0], in_file[1]], "", "31d"),
        (&["--sub", "c i", in_file[0], in_file[1]], "", "--sub"),
    ];
    for (line, secret, named) in cases {
        let mut command = adit(home.path(), &[&["token", "mint"], line].concat());
        let (code, stdout, stderr) = run(command.env("ADIT_JWT_SECRET", secret)).await;
        assert_eq!((code, stdout.as_str()), (2, ""), "{line:?}: {stderr}");
        assert!(stderr.contains(named) && !stderr.contains("s3cret"), "{named:?} in {stderr}");
    }
    let mut command = adit(home.path(), &["token", "mint", "--sub", "ci", in_file[0], in_file[1]]);
    assert_eq!(run(&mut command).await.0, 0, "the file's secret signs");
}

#[tokio::test]
async fn inspecting_tells_by_its_exit_code_whether_a_token_is_valid() {
    let home = tempfile::tempdir().unwrap();
    let inspect = |line: &[&str], secret: &str| {
        let mut command = adit(home.path(), &[&["token", "inspect"], line].concat());
        command.env("ADIT_JWT_SECRET", secret);
        command
    };
    let (good, old) = (limited("ci", "web"), minted(BEFORE, "ci", None, 2 * HOUR));
    let (code, stdout, _) = run(&mut inspect(&[&good], SECRET)).await;
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("  tid: \"web\"\n") && stdout.contains("valid: for 59m"), "{stdout}");
    for line in [&["-", "--json"][..], &["--json"]] {
        let (code, stdout, _) = with_input(inspect(line, SECRET), &format!("{old}\n")).await;
        let json: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, &json["valid"], &json["signature"]), (1, &json!(false), &json!("fits_none")));
        assert_eq!(json["errors"].as_array().unwrap().len(), 2, "{json}");
    }
    let (code, stdout, _) = run(&mut inspect(&[&good], "")).await;
    assert!(code == 1 && stdout.contains("no secret is known here"), "{stdout}");
    let (code, stdout, _) = with_input(inspect(&[], SECRET), &"A".repeat(9000)).await;
    assert!(code == 1 && stdout.contains("8 KiB"), "{stdout}");
    let evil = signed(json!({"sub": "\u{1b}[31m\u{9b}\r", "exp": 1}));
    for line in [&[evil.as_str()][..], &[&evil, "--json"]] {
        let (code, stdout, _) = run(&mut inspect(line, SECRET)).await;
        assert!(code == 1 && stdout.chars().all(|c| c == '\n' || !c.is_control()), "{stdout:?}");
    }
    let (code, stdout, stderr) = with_input(inspect(&[], SECRET), " \n").await;
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
}

// ---- sessions ----

#[tokio::test]
async fn a_session_lives_as_long_as_its_token_unless_a_fresh_one_comes() {
    let rig = rig().await;
    let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
    let short = |left: i64| minted(SECRET, "alice", Some("web"), HOUR - left);
    let mut client = Two::of(&short(3), &rig, &id, "").await;
    let expiring = client.hear_of("expiring").await;
    assert_eq!(expiring["what"], "token");
    for (worse, says) in [
        (short(-1), "expired"),
        (minted(SECRET, "bob", None, 0), "another owner"),
        (minted(SECRET, "alice", Some("other"), 0), "other"),
        (taskcluster(), "sub"),
        ("nbk_nobody".to_owned(), "unknown"),
    ] {
        client.say(json!({"type": "auth", "token": worse})).await;
        let answer = client.hear_of("auth").await;
        assert_eq!(answer["accepted"], false);
        assert!(answer["error"].as_str().unwrap().contains(says), "{answer}");
        assert!(answer["expires_in_ms"].as_u64().unwrap() <= 3000, "the former one is in force: {answer}");
    }
    client.say(json!({"type": "auth", "token": short(4)})).await;
    let answer = client.hear_of("auth").await;
    assert_eq!(answer["accepted"], true);
    assert!(answer["expires_in_ms"].as_u64().unwrap() > 2000, "{answer}");
    client.hear_of("expiring").await;
    assert_eq!(client.hear_of("closed").await["reason"], "token_expired");
    assert_eq!(client.closed().await, Some(1008));
}

#[tokio::test]
async fn a_base_session_ends_with_its_token() {
    let rig = rig().await;
    let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
    let mut control = rig.connect(&minted(SECRET, "alice", None, HOUR - 2), &id).await;
    assert_eq!(control.closed().await, Some(1008));
}

#[tokio::test]
async fn a_change_of_the_keys_leaves_the_sessions_of_tokens_alone() {
    let secrets = |config: &mut RelayConfig| config.jwt_secrets = vec![Secret::new(SECRET)];
    let (rig, tool, _dir) = with_tool_and(secrets).await;
    let (_, tunnel) =
        rig.api(&token("carol"), "POST", "/v1/tunnels", r#"{"local_port":1,"name":"carols"}"#).await;
    let mut carol = Two::of(&token("carol"), &rig, tunnel["id"].as_str().unwrap(), "").await;
    tool.create_key("dave".into(), hash_key("nbk_dave")).await.unwrap();
    let daves = rig.create("nbk_dave", "daves").await["id"].as_str().unwrap().to_owned();
    let mut dave = Two::of("nbk_dave", &rig, &daves, "").await;
    tool.revoke_key("dave".into()).await.unwrap();
    assert_eq!(dave.hear_of("closed").await["reason"], "revoked");
    carol.say(json!({"type": "auth", "token": token("carol")})).await;
    assert_eq!(carol.hear_of("auth").await["accepted"], true);
}

#[tokio::test]
async fn a_token_for_another_tunnel_takes_up_nothing() {
    let rig = rig().await;
    let mut client = Two::connect(&rig, "web").await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let connection = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
    let path = format!("/ws/data?id={connection}");
    assert_eq!(refused(&rig, &path, &limited("alice", "other")).await, (403, "foreign_connection".into()));
    let spare = format!("/ws/data?tunnel_id={}&id={connection}", client.id);
    assert_eq!(refused(&rig, &spare, &limited("alice", "other")).await, (403, "foreign_tunnel".into()));
    rig.socket(&path, Some(&limited("alice", "web"))).await.unwrap();
}

#[tokio::test]
async fn what_runs_through_a_session_ends_with_its_token() {
    let rig = rig().await;
    let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
    let mut client = Two::of(&minted(SECRET, "alice", None, HOUR - 3), &rig, &id, "").await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let connection = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
    let mut data = rig.socket(&format!("/ws/data?id={connection}"), Some(ALICE)).await.unwrap();
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
    futures_util::SinkExt::send(&mut data, tokio_tungstenite::tungstenite::Message::binary(half))
        .await
        .unwrap();
    viewer.head().await;
    assert_eq!(client.hear_of("closed").await["reason"], "token_expired");
    assert_eq!(viewer.rest().await, b"half", "cut, and not completed");
}
