//! The REST API: every call with the exact JSON types that the public clients decode, every refusal, and its
//! description in `docs/openapi.json`.

use serde_json::{Value, json};

use crate::rig::{ALICE, Answer, BOB, Rig};

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

/// `2026-11-21T05:49:42.67Z`, as Go's `time.Time` reads it.
fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
}

#[tokio::test]
async fn health_and_version_are_flat_strings() {
    let rig = Rig::start().await;
    let version = env!("CARGO_PKG_VERSION");
    let health = rig.call("", "GET", "/health", "").await;
    assert_eq!(json_of(&health), json!({"status": "ok", "version": version, "api_version": "1"}));
    assert_eq!(health.header("content-type"), Some("application/json"));
    let answer = rig.call(ALICE, "GET", "/v1/version", "").await;
    assert_eq!(json_of(&answer), json!({"version": version, "api_version": "1"}));
    for answer in [health, answer] {
        assert_eq!(answer.header("x-nullbore-api"), Some("1"));
        assert_eq!(answer.header("x-nullbore-version"), Some(version));
    }
}

#[tokio::test]
async fn a_tunnel_has_the_fields_and_types_of_the_public_api() {
    let rig = Rig::start().await;
    let full = json!({
        "local_port": 3000, "name": "Web", "ttl": "1h30m", "device_name": "laptop", "source": "cli",
        "host_header": "localhost:3000", "reuse": false, "unknown": [1]
    });
    let answer = rig.call(ALICE, "POST", "/v1/tunnels", &full.to_string()).await;
    assert_eq!((answer.status, answer.header("content-type")), (201, Some("application/json")));
    let mut tunnel = json_of(&answer);
    let id = tunnel["id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 36);
    assert!(is_time(&tunnel["created_at"]) && is_time(&tunnel["expires_at"]), "{tunnel}");
    assert!(tunnel["expires_at"].as_str() > tunnel["created_at"].as_str(), "{tunnel}");
    let own = json_of(&rig.call(ALICE, "GET", &format!("/v1/tunnels/{id}"), "").await);
    let list = json_of(&rig.call(ALICE, "GET", "/v1/tunnels", "").await);
    assert_eq!((&own, &list), (&tunnel, &json!([tunnel])), "a bare array of the same objects");

    for varies in ["id", "created_at", "expires_at"] {
        tunnel.as_object_mut().unwrap().remove(varies);
    }
    assert_eq!(
        tunnel,
        json!({
            "slug": "web", "client_id": "alice", "local_port": 3000, "name": "web", "ttl": "1h30m0s", "mode": "relay",
            "proto": "http",
            "bytes_in": 0, "bytes_out": 0, "requests": 0, "last_active": "0001-01-01T00:00:00Z", "connected": false, "clients": 0,
            "device_name": "laptop", "source": "cli", "public_url": format!("http://web.relay.test:{}", rig.address.port()),
            "policy": [], "proto": "http",
        })
    );
}

#[tokio::test]
async fn a_tunnel_of_few_words_has_a_name_made_up_and_no_end() {
    let rig = Rig::start().await;
    for body in [
        "{}",
        r#"{"local_port":1}"#,
        r#"{"local_port":65535,"name":"","ttl":"0","auth_user":"","auth_pass":"","source":null}"#,
    ] {
        let tunnel = json_of(&rig.call(ALICE, "POST", "/v1/tunnels", body).await);
        let slug = tunnel["slug"].as_str().unwrap();
        assert!(slug.len() == 12 && slug.bytes().all(|byte| byte.is_ascii_hexdigit()), "{slug}");
        assert_eq!((&tunnel["ttl"], &tunnel["expires_at"]), (&json!("0s"), &json!("0001-01-01T00:00:00Z")));
        for absent in ["name", "suspended", "device_name", "source"] {
            assert_eq!(tunnel.get(absent), None, "{absent}");
        }
    }
}

#[tokio::test]
async fn the_calls_on_one_tunnel_answer_as_written() {
    let rig = Rig::start().await;
    let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
    let cases = [
        (
            "POST",
            "/suspend",
            r#"{"suspended":true}"#,
            200,
            json!({"status": "suspended", "suspended": "true"}),
        ),
        (
            "POST",
            "/suspend",
            r#"{"suspended":false}"#,
            200,
            json!({"status": "resumed", "suspended": "false"}),
        ),
        ("POST", "/inspection", r#"{"enabled":false}"#, 200, json!({"inspection_enabled": false})),
        ("GET", "/requests", "", 200, json!([])),
        ("GET", "/requests?limit=20", "", 200, json!([])),
    ];
    for (method, action, body, status, expected) in cases {
        let answer = rig.call(ALICE, method, &format!("/v1/tunnels/{id}{action}"), body).await;
        assert_eq!((answer.status, json_of(&answer)), (status, expected), "{action} {body}");
    }
    rig.call(ALICE, "POST", &format!("/v1/tunnels/{id}/suspend"), r#"{"suspended":true}"#).await;
    assert_eq!(json_of(&rig.call(ALICE, "GET", &format!("/v1/tunnels/{id}"), "").await)["suspended"], true);
    let extended =
        json_of(&rig.call(ALICE, "POST", &format!("/v1/tunnels/{id}/extend"), r#"{"ttl":"30m"}"#).await);
    assert!(is_time(&extended["expires_at"]) && extended["slug"] == "web", "{extended}");
    let deleted = rig.call(ALICE, "DELETE", &format!("/v1/tunnels/{id}"), "").await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
}

#[tokio::test]
async fn every_refusal_is_json_with_a_code_and_the_request_id_of_its_header() {
    let rig = Rig::start().await;
    let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
    let of = |action: &str| format!("/v1/tunnels/{id}{action}");
    let create =
        |body: &'static str, status, code| (ALICE, "POST", "/v1/tunnels".to_owned(), body, status, code);
    let long = Box::leak(format!(r#"{{"local_port":1,"name":"{}"}}"#, "x".repeat(200_000)).into_boxed_str());
    let cases = [
        ("", "GET", "/v1/tunnels".to_owned(), "", 401, "unauthorized"),
        ("", "GET", "/v1/version".to_owned(), "", 401, "unauthorized"),
        ("nbk_wrong", "POST", "/v1/tunnels".to_owned(), r#"{"local_port":1}"#, 401, "unauthorized"),
        create("", 400, "invalid_body"),
        create("{", 400, "invalid_body"),
        create("[]", 400, "invalid_body"),
        create(r#"{"local_port":"1"}"#, 400, "invalid_body"),
        create(r#"{"local_port":1} x"#, 400, "invalid_body"),
        create(long, 413, "body_too_large"),
        create(r#"{"local_port":1,"policy":{"alow":[]}}"#, 400, "invalid_policy"),
        create(r#"{"local_port":-1}"#, 400, "invalid_port"),
        create(r#"{"local_port":65536}"#, 400, "invalid_port"),
        create(r#"{"local_port":1,"name":"-a"}"#, 400, "invalid_name"),
        create(r#"{"local_port":1,"name":"health"}"#, 400, "invalid_name"),
        create(r#"{"local_port":1,"name":"../x"}"#, 400, "invalid_name"),
        create(r#"{"local_port":1,"ttl":"-1h"}"#, 400, "invalid_ttl"),
        create(r#"{"local_port":1,"auth_user":"ann"}"#, 400, "invalid_auth"),
        create(r#"{"local_port":1,"auth_user":"a:n","auth_pass":"x"}"#, 400, "invalid_auth"),
        create(r#"{"local_port":1,"host_header":"a b"}"#, 400, "invalid_host_header"),
        (BOB, "POST", "/v1/tunnels".to_owned(), r#"{"local_port":1,"name":"web"}"#, 409, "name_taken"),
        (BOB, "GET", of(""), "", 404, "tunnel_not_found"),
        (BOB, "DELETE", of(""), "", 404, "tunnel_not_found"),
        (BOB, "GET", of("/requests"), "", 404, "tunnel_not_found"),
        (BOB, "POST", of("/suspend"), r#"{"suspended":true}"#, 404, "tunnel_not_found"),
        (BOB, "POST", of("/extend"), r#"{"ttl":"1h"}"#, 404, "tunnel_not_found"),
        (BOB, "POST", of("/inspection"), r#"{"enabled":false}"#, 404, "tunnel_not_found"),
        // A client tries names first, and takes 404 for "no id".
        (ALICE, "DELETE", "/v1/tunnels/web".to_owned(), "", 404, "tunnel_not_found"),
        (ALICE, "GET", format!("/v1/tunnels/{}", &id[..8]), "", 404, "tunnel_not_found"),
        (ALICE, "POST", of("/suspend"), "{}", 400, "invalid_body"),
        (ALICE, "POST", of("/extend"), r#"{"ttl":60}"#, 400, "invalid_body"),
        (ALICE, "POST", of("/inspection"), r#"{"enabled":true}"#, 501, "not_implemented"),
        (ALICE, "PUT", of("/extend"), r#"{"ttl":"1h"}"#, 405, "method_not_allowed"),
        (ALICE, "PATCH", "/v1/tunnels".to_owned(), "", 405, "method_not_allowed"),
        (ALICE, "GET", "/v1/nothing".to_owned(), "", 404, "not_found"),
        ("", "GET", "/favicon.ico".to_owned(), "", 404, "not_found"),
    ];
    for (key, method, path, body, status, code) in cases {
        let what = format!("{method} {path} {}", &body[..body.len().min(80)]);
        let answer = rig.call(key, method, &path, body).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
        let error = json_of(&answer);
        assert_eq!(error["code"], code, "{what}: {error}");
        assert!(error["error"].as_str().is_some_and(|text| text.len() > 5), "{what}: {error}");
        assert_eq!(error["request_id"].as_str(), answer.header("x-request-id"), "{what}");
        assert_eq!(error.as_object().unwrap().len(), 3, "{what}: {error}");
        let sign_in = answer.header("www-authenticate");
        assert_eq!(sign_in, (status == 401).then_some("bearer"), "{what}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{what}");
    }
}

#[tokio::test]
async fn the_callers_request_id_is_kept_if_it_is_plain() {
    let rig = Rig::start().await;
    for (given, kept) in [("my-id_1", true), ("two words", false), (&"x".repeat(65), false), ("", false)] {
        let request = format!(
            "GET /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-ID: {given}\r\n\r\n"
        );
        let answer = rig.raw(request).await;
        let id = answer.header("x-request-id").unwrap();
        assert_eq!(id == given, kept, "{given:?} became {id:?}");
        assert_eq!(json_of(&answer)["request_id"].as_str(), Some(id));
    }
}

/// `ADIT_BLESS=1 cargo test openapi` writes the file anew.
#[test]
fn the_openapi_file_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    if std::env::var_os("ADIT_BLESS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
        std::fs::write(path, adit::relay::openapi()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == adit::relay::openapi(),
        "docs/openapi.json is old; ADIT_BLESS=1 cargo test openapi writes it"
    );
}
