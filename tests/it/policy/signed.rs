//! Requests that must be signed: what is not never reaches the client, and what is arrives as it came.

use std::process::Stdio;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{ask, cause, set, with_policy};
use crate::http2;
use crate::rig::soon;
use crate::wire::{Recorder, Viewer};

/// The HMAC of `text` in hex, by openssl.
async fn signed(algorithm: &str, secret: &str, text: &[u8]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", algorithm, "-hmac", secret]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut openssl = openssl.spawn().expect("make setup installs openssl");
    openssl.stdin.take().unwrap().write_all(text).await.unwrap();
    let output = soon(openssl.wait_with_output()).await.unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    line.trim().rsplit(' ').next().unwrap().to_owned()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_signed_body_arrives_as_it_came_and_another_one_never() {
    let (rig, _client, recorder) = with_policy(json!({"verify": "github:s3cret"})).await;
    let mut viewer = Viewer::new(&rig).await;
    let body = r#"{"action":"opened"}"#;
    let good =
        format!("X-Hub-Signature-256: sha256={}\r\n", signed("-sha256", "s3cret", body.as_bytes()).await);
    let other =
        format!("X-Hub-Signature-256: sha256={}\r\n", signed("-sha256", "other", body.as_bytes()).await);
    for (headers, body, status) in [
        (&good, body, 200),
        (&good, r#"{"action":"closed"}"#, 401),
        (&other, body, 401),
        (&String::new(), body, 401),
        (&good, "", 401),
        (&good, body, 200),
    ] {
        let answer = ask(&mut viewer, "POST", "/hook", headers, body).await;
        assert_eq!(answer.status, status, "{headers}{body}");
        if status == 401 {
            assert_eq!(cause(&answer), "signature_refused");
            assert!(recorder.take().is_empty());
        } else {
            let seen = recorder.only();
            assert_eq!((seen.body.as_slice(), seen.all("content-length")), (body.as_bytes(), vec!["19"]));
            assert_eq!(seen.all("x-hub-signature-256").len(), 1);
        }
    }
}

#[tokio::test]
async fn chunks_trailers_and_http_2_are_signed_by_their_body() {
    let (rig, _client, recorder) = with_policy(json!({"verify": "hmac,algorithm=sha512:s3cret"})).await;
    let signature = signed("-sha512", "s3cret", b"one two").await;
    let head = |more: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: web.relay.test\r\nTransfer-Encoding: chunked\r\nX-Signature: {signature}\r\n{more}\r\n"
        )
    };
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(head("") + "3\r\none\r\n4\r\n two\r\n0\r\n\r\n").await;
    assert_eq!(viewer.answer().await.status, 200);
    let seen = recorder.only();
    assert_eq!((seen.body.as_slice(), seen.all("content-length")), (&b"one two"[..], vec!["7"]));
    viewer.say(head("Trailer: x-sum\r\n") + "7\r\none two\r\n0\r\nX-Sum: 9\r\nHost: evil\r\n\r\n").await;
    assert_eq!(viewer.answer().await.status, 200);
    let seen = recorder.only();
    assert_eq!(String::from_utf8_lossy(&seen.body), "7\r\none two\r\n0\r\nx-sum: 9\r\n\r\n");
    viewer.say(head("") + "3\r\none\r\n4\r\n too\r\n0\r\n\r\n").await;
    assert_eq!(viewer.answer().await.status, 401);
    let mut streams = http2::connect(&rig).await;
    for (body, status) in [("one two", 200), ("one too", 401)] {
        let body = http_body_util::BodyExt::boxed(http_body_util::Full::from(body));
        let request =
            http::Request::post("http://web.relay.test/").header("x-signature", &signature).body(body);
        assert_eq!(soon(streams.send_request(request.unwrap())).await.unwrap().status(), status);
    }
    assert_eq!(recorder.only().body, b"one two");
}

#[tokio::test]
async fn a_signature_outside_of_its_time_is_refused() {
    let (rig, _client, recorder) = with_policy(json!({"verify": ["slack:s3cret"]})).await;
    let mut viewer = Viewer::new(&rig).await;
    for (age, status) in [(0, 200), (200, 200), (400, 401), (-400, 401)] {
        let time = now().saturating_add_signed(-age);
        let signature = signed("-sha256", "s3cret", format!("v0:{time}:text=hi").as_bytes()).await;
        let headers = format!("X-Slack-Signature: v0={signature}\r\nX-Slack-Request-Timestamp: {time}\r\n");
        assert_eq!(ask(&mut viewer, "POST", "/", &headers, "text=hi").await.status, status, "{age} s old");
    }
    assert_eq!(recorder.take().len(), 2);
}

#[tokio::test]
async fn a_body_that_is_too_large_to_be_held_is_413_that_names_the_limit() {
    let (rig, client, recorder) = with_policy(json!({"verify": "github:k"})).await;
    let head = |framing: &str| {
        let zeros = "0".repeat(64);
        format!(
            "POST / HTTP/1.1\r\nHost: web.relay.test\r\nX-Hub-Signature-256: sha256={zeros}\r\n{framing}\r\n\r\n"
        )
    };
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(head("Content-Length: 1048577")).await;
    let answer = viewer.answer().await;
    assert_eq!((answer.status, answer.text().contains("1048576 bytes")), (413, true), "{}", answer.text());
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(head("Transfer-Encoding: chunked")).await;
    viewer.say(format!("100001\r\n{}\r\n", "x".repeat(0x100001))).await;
    assert_eq!(viewer.answer().await.status, 413);
    set(&rig, &client.id, json!({"verify": "github:k", "max_body": 5})).await;
    let body = "small";
    let signature =
        format!("X-Hub-Signature-256: sha256={}\r\n", signed("-sha256", "k", body.as_bytes()).await);
    let mut viewer = Viewer::new(&rig).await;
    assert_eq!(ask(&mut viewer, "POST", "/", &signature, body).await.status, 200);
    let answer = ask(&mut viewer, "POST", "/", &signature, "larger").await;
    assert!(answer.status == 413 && answer.text().contains("5 bytes"), "{}", answer.text());
    assert_eq!(recorder.take().len(), 1);
}

#[tokio::test]
async fn held_bodies_are_bounded_and_forgotten() {
    let (rig, _client, recorder) = with_policy(json!({"verify": "github:k", "max_body": "8MiB"})).await;
    let zeros = "0".repeat(64);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: web.relay.test\r\nX-Hub-Signature-256: sha256={zeros}\r\nContent-Length: {}\r\n\r\n",
        8 << 20
    );
    // All but a byte, so that each is held and none is checked.
    let part = vec![b'x'; (8 << 20) - 1];
    let viewers = join_all((0..4).map(|_| async {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(&head).await;
        viewer.say(&part).await;
        viewer
    }))
    .await;
    crate::counts::settle(rig.admin, &json!({"signed_bytes": 4 * part.len()})).await;
    let mut late = Viewer::new(&rig).await;
    late.say(&head).await;
    late.say(&part[..1 << 20]).await;
    let answer = late.answer().await;
    assert_eq!((answer.status, cause(&answer)), (503, "signature_busy".to_owned()));
    for mut viewer in viewers {
        viewer.say("x").await;
        assert_eq!(viewer.answer().await.status, 401);
    }
    crate::counts::settle(rig.admin, &json!({"signed_bytes": 0})).await;
    assert!(recorder.take().is_empty());
}

#[tokio::test]
async fn whoever_leaves_within_a_signed_body_leaves_nothing() {
    let (rig, _client, recorder) = with_policy(json!({"verify": "github:k"})).await;
    let zeros = "0".repeat(64);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: web.relay.test\r\nX-Hub-Signature-256: sha256={zeros}\r\nContent-Length: 9\r\n\r\n1234"
    );
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(&head).await;
    crate::counts::settle(rig.admin, &json!({"signed_bytes": 4})).await;
    viewer.vanish();
    let mut expected = Value::Null;
    expected["signed_bytes"] = json!(0);
    expected["exchanges"] = json!(0);
    crate::counts::settle(rig.admin, &expected).await;
    assert_eq!(Recorder::take(&recorder).len(), 0);
}
