//! A policy by REST, by the library and by the program; what is kept, what is shown, and what a client's return undoes.

use std::sync::Arc;

use adit::client::{Policy, Proxies, Tunnel, TunnelError};
use adit::store::{Sqlite, Store};
use serde_json::{Value, json};

use super::{ask, set};
use crate::program::{adit, run};
use crate::rig::{ALICE, BOB, Rig, echo_target, soon};
use crate::wire::{Recorder, Viewer};

async fn create(rig: &Rig, policy: Value) -> (u16, Value) {
    let body = json!({"local_port": 1, "name": "web", "policy": policy}).to_string();
    rig.api(ALICE, "POST", "/v1/tunnels", &body).await
}

fn path(id: &Value) -> String {
    format!("/v1/tunnels/{}/policy", id.as_str().unwrap())
}

#[tokio::test]
async fn a_policy_is_created_read_replaced_and_taken_away() {
    let rig = Rig::start().await;
    let (status, tunnel) = create(&rig, json!({"allow": "10.0.0.0/8", "auth": ["ann:s3cret"]})).await;
    assert_eq!((status, &tunnel["policy"]), (201, &json!(["auth", "allow"])));
    let path = path(&tunnel["id"]);
    let shown = json!({"auth": ["ann:***"], "allow": ["10.0.0.0/8"]});
    assert_eq!(rig.api(ALICE, "GET", &path, "").await, (200, shown.clone()));
    let mut changed = shown;
    changed["verify"] = json!("github:s3cret");
    let (status, answer) = rig.api(ALICE, "PUT", &path, &changed.to_string()).await;
    assert_eq!((status, &answer["verify"][0]["secret"]), (200, &json!("***")), "{answer}");
    assert_eq!(
        rig.api(ALICE, "PUT", &path, &answer.to_string()).await,
        (200, answer.clone()),
        "as it was shown"
    );
    assert!(!answer.to_string().contains("s3cret") && !answer.to_string().contains("pbkdf2"));
    assert_eq!(rig.api(ALICE, "DELETE", &path, "").await.0, 204);
    assert_eq!(rig.api(ALICE, "GET", &path, "").await, (200, json!({})));
    assert_eq!(rig.create(ALICE, "other").await["policy"], json!([]));
}

#[tokio::test]
async fn a_policy_is_its_owners_and_its_errors_come_all_at_once() {
    let rig = Rig::start().await;
    let (_, tunnel) = create(&rig, json!({})).await;
    let path = path(&tunnel["id"]);
    for (method, body) in [("GET", ""), ("PUT", "{}"), ("DELETE", "")] {
        assert_eq!(rig.api(BOB, method, &path, body).await.0, 404, "{method}");
        assert_eq!(rig.api("", method, &path, body).await.0, 401, "{method}");
    }
    let wrong =
        json!({"allow": ["x"], "alow": [], "max_body": "big", "interstitial": true, "verify": "github:k"});
    for (status, error) in
        [rig.api(ALICE, "PUT", &path, &wrong.to_string()).await, create(&rig, wrong.clone()).await]
    {
        assert_eq!((status, &error["code"]), (400, &json!("invalid_policy")));
        let text = error["error"].as_str().unwrap();
        for part in ["allow: \"x\"", "alow: no such rule", "max_body: \"big\"", "interstitial and verify"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    assert_eq!(rig.api(ALICE, "PUT", &path, "[]").await.1["code"], "invalid_body");
    let page = json!({"offline_page": "\"".repeat(64 * 1024)}).to_string();
    assert_eq!(rig.api(ALICE, "PUT", &path, &page).await.0, 200, "the largest page, every character escaped");
    assert_eq!(rig.api(ALICE, "PUT", &path, &"x".repeat(192 * 1024 + 1)).await.0, 413);
    let both = json!({"local_port": 1, "name": "web", "auth_user": "a", "auth_pass": "b", "policy": {"auth": "c:d"}});
    let (status, error) = rig.api(ALICE, "POST", "/v1/tunnels", &both.to_string()).await;
    assert!(status == 400 && error["error"].as_str().unwrap().contains("auth_user"), "{error}");
}

#[tokio::test]
async fn a_client_that_comes_back_undoes_nothing_and_one_that_asks_otherwise_is_heard() {
    let rig = Rig::start().await;
    let asked = json!({"allow": "10.0.0.0/8", "auth": "ann:secret"});
    let (_, tunnel) = create(&rig, asked.clone()).await;
    let path = path(&tunnel["id"]);
    set(&rig, tunnel["id"].as_str().unwrap(), json!({"deny": "10.0.0.0/8"})).await;
    create(&rig, asked.clone()).await;
    assert_eq!(rig.api(ALICE, "GET", &path, "").await.1, json!({"deny": ["10.0.0.0/8"]}));
    let (status, tunnel) = create(&rig, json!({"allow": "192.0.2.1"})).await;
    assert_eq!((status, &tunnel["policy"]), (200, &json!(["allow"])));
    assert_eq!(rig.create(ALICE, "web").await["policy"], json!([]), "none was asked for, where one was");
    set(&rig, tunnel["id"].as_str().unwrap(), json!({"deny": "10.0.0.0/8"})).await;
    assert_eq!(rig.create(ALICE, "web").await["policy"], json!(["deny"]), "none was asked for, as before");
    assert_eq!(rig.api(ALICE, "DELETE", &path, "").await.0, 204);
    assert_eq!(create(&rig, asked).await.1["policy"], json!(["auth", "allow"]));
}

#[tokio::test]
async fn a_restart_of_the_relay_and_a_lost_client_leave_every_rule_in_force() {
    let store: Arc<dyn Store> = Arc::new(Sqlite::memory().unwrap());
    let recorder = Recorder::start().await;
    let rig = Rig::on(Arc::clone(&store), "127.0.0.1:0".parse().unwrap(), |_| {}).await;
    let policy = json!({
        "auth": ["ann:secret"], "verify": "github:k", "deny": "192.0.2.1", "rate_limit": "100/s",
        "request_headers": ["X-Ours: 1"], "offline_page": "<p>away", "max_body": "5B"
    });
    let (_, tunnel) = create(&rig, policy.clone()).await;
    let shown = rig.api(ALICE, "GET", &path(&tunnel["id"]), "").await.1;
    let login = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
    let check = async |rig: &Rig| {
        let mut viewer = Viewer::new(rig).await;
        assert_eq!(ask(&mut viewer, "POST", "/", "", "body").await.status, 401);
        assert_eq!(ask(&mut viewer, "POST", "/", login, "longer").await.status, 413);
        assert_eq!(ask(&mut viewer, "POST", "/", login, "body").await.status, 401);
        // `printf body | openssl dgst -sha256 -hmac k`
        let signed = format!(
            "{login}X-Hub-Signature-256: sha256=c6d811ef3aeb02437cd423f1abe13209041864630bdc4e2c04def5c7b0031a23\r\nAccept: text/html\r\n"
        );
        ask(&mut viewer, "POST", "/", &signed, "body").await
    };
    assert_eq!(check(&rig).await.text(), "<p>away", "no client is there");
    rig.shutdown().await;

    let rig = Rig::on(store, "127.0.0.1:0".parse().unwrap(), |_| {}).await;
    assert_eq!(check(&rig).await.text(), "<p>away");
    assert_eq!(rig.api(ALICE, "GET", &path(&tunnel["id"]), "").await.1, shown);
    let (status, tunnel) = create(&rig, policy).await;
    assert_eq!(status, 200);
    let control = rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
    let client = rig.serve(control, recorder.address).await;
    assert_eq!(check(&rig).await.text(), "ok");
    assert_eq!(recorder.only().all("x-ours"), ["1"]);
    drop(client);
    while check(&rig).await.text() != "<p>away" {}
}

#[tokio::test]
async fn a_program_gives_its_tunnel_a_policy() {
    let rig = Rig::start().await;
    let tunnel = |policy| {
        Tunnel::to(format!("http://{}", rig.address))
            .key(ALICE)
            .name("web")
            .proxies(Proxies::none())
            .policy(policy)
    };
    let kept =
        tunnel(Policy::new().deny("127.0.0.1")).expose(&echo_target().await.to_string()).await.unwrap();
    assert_eq!(rig.get("web", "/").await.status, 403);
    kept.shutdown().await;
    let wrong = tunnel(Policy::new().rate_limit("1/s,x").verify("s3cret")).expose_port(1).await;
    let Err(TunnelError::Policy(text)) = wrong else { panic!("{:?}", wrong.err()) };
    assert!(text.contains("rate_limit: ") && text.contains("verify: ") && !text.contains("s3cret"), "{text}");
    let wrong = tunnel(Policy::new().allow("x")).expose_port(1).await;
    let Err(TunnelError::Refused(text)) = wrong else { panic!("{:?}", wrong.err()) };
    assert!(text.contains("allow: \"x\" is no network"), "{text}");
}

#[tokio::test]
async fn flags_that_contradict_each_other_are_told_before_anything_is_dialled() {
    let home = tempfile::tempdir().unwrap();
    let flags = [
        "http",
        "3000",
        "--relay",
        "http://127.0.0.1:9",
        "--key",
        "k",
        "--allow",
        "10.0.0.0/8",
        "--deny",
        "10.0.0.0/8",
        "--rate-limit",
        "lots",
        "--request-header",
        "-Host",
        "--max-body",
        "5 apples",
        "--verify",
        "github:k",
        "--interstitial",
        "--policy",
        "/nowhere.toml",
    ];
    let (code, _, said) = run(&mut adit(home.path(), &flags)).await;
    assert_eq!(code, 2, "{said}");
    for part in [
        "allow and deny",
        "\"lots\" is no rate",
        "host cannot",
        "\"5 apples\"",
        "interstitial and verify",
        "/nowhere.toml",
    ] {
        assert!(said.contains(&format!("adit http: {part}")) || said.contains(part), "{part} in {said}");
    }
}

#[tokio::test]
async fn flags_become_rules() {
    let rig = Rig::start().await;
    let target = echo_target().await;
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("away.html"), "<p>away").unwrap();
    std::fs::write(
        home.path().join("policy.toml"),
        "rate_limit = '1000/s'\noffline_page_file = 'away.html'\n",
    )
    .unwrap();
    let (relay, target) = (format!("http://{}", rig.address), target.to_string());
    let file = home.path().join("policy.toml");
    let flags = [
        "http",
        &target,
        "--relay",
        &relay,
        "--key",
        ALICE,
        "--name",
        "web",
        "--quiet",
        "--policy",
        file.to_str().unwrap(),
        "--allow",
        "127.0.0.0/8",
        "--request-header",
        "X-Ours: 1",
        "--request-header",
        "-X-Gone",
        "--max-body",
        "1MB",
    ];
    let _client = adit(home.path(), &flags).spawn().unwrap();
    let answer = soon(async {
        loop {
            let answer = rig
                .raw("GET / HTTP/1.1\r\nHost: web.relay.test\r\nX-Gone: 1\r\nConnection: close\r\n\r\n")
                .await;
            if answer.status == 200 {
                return answer;
            }
        }
    })
    .await;
    assert!(
        answer.text().contains("x-ours: 1\r\n") && !answer.text().contains("x-gone"),
        "{}",
        answer.text()
    );
    let (_, tunnels) = rig.api(ALICE, "GET", "/v1/tunnels", "").await;
    let rules = json!(["allow", "rate_limit", "request_headers", "max_body", "offline_page"]);
    assert_eq!(tunnels[0]["policy"], rules, "{tunnels}");
}
