//! What an owner wants of viewers, kept on every request of every connection.

mod api;
mod headers;
mod pages;
mod signed;

use std::time::Duration;

use adit::relay::config::RelayConfig;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::http2;
use crate::rig::{ALICE, Answer, Client, Rig, soon};
use crate::wire::{Recorder, Viewer};

/// A relay with the tunnel `web` to a target that records, and with this policy.
pub async fn with_policy(policy: Value) -> (Rig, Client, Recorder) {
    with_policy_and(policy, |_| {}).await
}

pub async fn with_policy_and(
    policy: Value,
    change: impl FnOnce(&mut RelayConfig),
) -> (Rig, Client, Recorder) {
    let rig = Rig::with(change).await;
    let recorder = Recorder::start().await;
    let client = rig.client(ALICE, "web", recorder.address).await;
    set(&rig, &client.id, policy).await;
    (rig, client, recorder)
}

/// Gives the tunnel another policy.
pub async fn set(rig: &Rig, id: &str, policy: Value) -> Value {
    let (status, answer) =
        rig.api(ALICE, "PUT", &format!("/v1/tunnels/{id}/policy"), &policy.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// One request on a kept connection, with these headers.
pub async fn ask(viewer: &mut Viewer, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    viewer
        .say(format!("{method} {path} HTTP/1.1\r\nHost: web.relay.test\r\n{headers}{length}\r\n{body}"))
        .await;
    viewer.answer().await
}

/// The cause that problem JSON names.
pub fn cause(answer: &Answer) -> String {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    problem["cause"].as_str().unwrap_or_default().to_owned()
}

fn behind_a_proxy(config: &mut RelayConfig) {
    config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
}

#[tokio::test]
async fn each_request_of_a_kept_connection_is_looked_at_by_its_own_viewer() {
    let (rig, _client, recorder) =
        with_policy_and(json!({"allow": ["10.0.0.0/8", "::1"], "deny": ["10.1.0.0/16"]}), behind_a_proxy)
            .await;
    let mut viewer = Viewer::new(&rig).await;
    for (address, status) in [
        ("10.0.0.1", 200),
        ("10.1.0.1", 403),
        ("::ffff:10.0.0.1", 200),
        ("192.0.2.1", 403),
        ("10.0.0.1, 192.0.2.1", 403),
        ("192.0.2.1, 10.0.0.1", 200),
        ("[::1]:80", 200),
    ] {
        let answer = ask(&mut viewer, "GET", "/", &format!("X-Forwarded-For: {address}\r\n"), "").await;
        assert_eq!(answer.status, status, "{address}");
        assert_eq!(recorder.take().len(), usize::from(status == 200), "{address}");
        if status == 403 {
            assert_eq!(cause(&answer), "forbidden");
            assert!(!answer.text().contains("10."), "no rule is named: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn what_a_stranger_says_of_its_address_does_not_count() {
    let (rig, _client, recorder) = with_policy(json!({"allow": "10.0.0.0/8"})).await;
    let mut viewer = Viewer::new(&rig).await;
    assert_eq!(ask(&mut viewer, "GET", "/", "X-Forwarded-For: 10.0.0.1\r\n", "").await.status, 403);
    assert!(recorder.take().is_empty());
}

#[tokio::test]
async fn a_rule_that_is_given_meanwhile_counts_for_the_next_request_of_open_connections() {
    let (rig, client, recorder) = with_policy(json!({})).await;
    let mut viewer = Viewer::new(&rig).await;
    let mut streams = http2::connect(&rig).await;
    assert_eq!(viewer.get("web", "/").await.status, 200);
    let answer = soon(streams.send_request(http2::get("/").body(http2::empty()).unwrap())).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.collect().await.unwrap();
    set(&rig, &client.id, json!({"deny": "127.0.0.1"})).await;
    recorder.take();
    assert_eq!(viewer.get("web", "/").await.status, 403);
    let answer = soon(streams.send_request(http2::get("/").body(http2::empty()).unwrap())).await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(
        ask(&mut viewer, "GET", "/", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "").await.status,
        403
    );
    assert!(recorder.take().is_empty());
    set(&rig, &client.id, json!({})).await;
    assert_eq!(viewer.get("web", "/").await.status, 200);
}

#[tokio::test]
async fn the_rate_counts_every_request_of_an_address() {
    let (rig, client, recorder) = with_policy_and(json!({"rate_limit": "2/h"}), behind_a_proxy).await;
    let mut viewer = Viewer::new(&rig).await;
    let from = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    for (address, status) in
        [("192.0.2.1", 200), ("192.0.2.1", 200), ("192.0.2.1", 429), ("192.0.2.2", 200), ("192.0.2.1", 429)]
    {
        let answer = ask(&mut viewer, "GET", "/", &from(address), "").await;
        assert_eq!(answer.status, status, "{address}");
        if status == 429 {
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1700..=1800).contains(&wait), "{wait}");
            assert_eq!(cause(&answer), "rate_limited");
        }
    }
    // A change of something else gives nobody a fresh rate.
    set(&rig, &client.id, json!({"rate_limit": "2/h", "max_body": "1MB"})).await;
    assert_eq!(ask(&mut viewer, "GET", "/", &from("192.0.2.1"), "").await.status, 429);
    let upgrade = format!("{}Connection: Upgrade\r\nUpgrade: websocket\r\n", from("192.0.2.1"));
    assert_eq!(ask(&mut viewer, "GET", "/", &upgrade, "").await.status, 429);
    assert_eq!(recorder.take().len(), 3);
}

#[tokio::test]
async fn streams_of_http_2_count_for_the_rate_each_by_itself() {
    let (rig, _client, recorder) =
        with_policy(json!({"rate_limit": {"rate": "1/h", "burst": 3, "per": "tunnel"}})).await;
    let streams = http2::connect(&rig).await;
    let requests = (0..8).map(|_| {
        let mut streams = streams.clone();
        async move {
            soon(streams.send_request(http2::get("/").body(http2::empty()).unwrap())).await.unwrap().status()
        }
    });
    let answers = futures_util::future::join_all(requests).await;
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 3, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 5, "{answers:?}");
    assert_eq!(recorder.take().len(), 3);
}

#[tokio::test]
async fn viewers_are_one_of_the_users_at_each_request() {
    let (rig, _client, recorder) = with_policy(json!({"auth": ["ann:secret", "bob:s2"]})).await;
    let mut viewer = Viewer::new(&rig).await;
    // ann:secret, bob:s2, bob:secret, none
    for (login, status) in [
        ("Basic YW5uOnNlY3JldA==", 200),
        ("Basic Ym9iOnMy", 200),
        ("Basic Ym9iOnNlY3JldA==", 401),
        ("", 401),
        ("Basic YW5uOnNlY3JldA==", 200),
    ] {
        let header = if login.is_empty() { String::new() } else { format!("Authorization: {login}\r\n") };
        let answer = ask(&mut viewer, "GET", "/", &header, "").await;
        assert_eq!(answer.status, status, "{login}");
        let seen = recorder.take();
        assert_eq!(seen.len(), usize::from(status == 200));
        assert!(seen.iter().all(|seen| seen.all("authorization").is_empty()), "it was for the relay");
        if status == 401 {
            assert!(answer.header("www-authenticate").unwrap().starts_with("basic"));
        }
    }
}

#[tokio::test]
async fn a_body_over_the_tunnels_limit_is_413_that_names_it() {
    let (rig, _client, recorder) = with_policy(json!({"max_body": "10B"})).await;
    let mut viewer = Viewer::new(&rig).await;
    assert_eq!(ask(&mut viewer, "POST", "/", "", "0123456789").await.status, 200);
    assert_eq!(recorder.take().len(), 1);
    let large = ask(&mut viewer, "POST", "/", "", "0123456789x").await;
    assert_eq!((large.status, cause(&large)), (413, "body_too_large".to_owned()));
    assert!(large.text().contains("10 bytes"), "{}", large.text());
    assert!(recorder.take().is_empty(), "its length says so before anything is sent");
    for chunks in ["5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n", "5\r\n01234\r\n6\r\n567890\r\n0\r\n\r\n"] {
        let mut viewer = Viewer::new(&rig).await;
        viewer
            .say(format!(
                "POST / HTTP/1.1\r\nHost: web.relay.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            ))
            .await;
        let answer = viewer.answer().await;
        assert_eq!(answer.status, if chunks.contains("567890") { 413 } else { 200 });
    }
}

#[tokio::test]
async fn the_smaller_of_two_limits_of_bodies_counts() {
    let (rig, client, _recorder) =
        with_policy_and(json!({"max_body": 10}), |config| config.limits.body_bytes = Some(20)).await;
    let path = format!("/v1/tunnels/{}/policy", client.id);
    let (status, error) = rig.api(ALICE, "PUT", &path, r#"{"max_body": "21"}"#).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_policy")), "{error}");
    assert!(error["error"].as_str().unwrap().contains("more than the 20 that this relay takes"), "{error}");
    let mut viewer = Viewer::new(&rig).await;
    assert!(ask(&mut viewer, "POST", "/", "", "0123456789x").await.text().contains("10 bytes"));
    set(&rig, &client.id, json!({})).await;
    assert_eq!(ask(&mut viewer, "POST", "/", "", "0123456789x").await.status, 200);
    assert!(ask(&mut viewer, "POST", "/", "", &"x".repeat(21)).await.text().contains("20 bytes"));
}

#[tokio::test]
async fn what_is_refused_never_wakes_the_client() {
    // By hand: whatever reaches this client is announced to it.
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    set(&rig, &control.id.clone(), json!({"deny": ["127.0.0.0/8"]})).await;
    let mut viewer = rig.viewer().await;
    viewer.write_all(b"GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let answer = Answer::parse(&soon(crate::rig::read_all(&mut viewer)).await);
    assert_eq!(answer.status, 403);
    set(&rig, &control.id.clone(), json!({})).await;
    let mut viewer = rig.viewer().await;
    viewer.write_all(b"GET /second HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await.unwrap();
    let id = soon(control.notified()).await.unwrap();
    let mut data = crate::frames::Raw::data(rig.address, &id).await;
    assert!(data.request().await.starts_with("GET /second "), "the first one to come is the second");
}

#[tokio::test]
async fn a_viewer_behind_a_proxy_is_named_to_the_client() {
    let rig = Rig::with(|config| {
        behind_a_proxy(config);
        config.limits.claim_wait = Duration::from_secs(60);
    })
    .await;
    let mut client = crate::level_two::Two::connect(&rig, "web").await;
    let mut viewer = rig.viewer().await;
    viewer
        .write_all(b"GET / HTTP/1.1\r\nHost: web.relay.test\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n")
        .await
        .unwrap();
    let told = client.hear_of("connection").await;
    assert_eq!(told["remote_addr"], "198.51.100.7:0");
}
