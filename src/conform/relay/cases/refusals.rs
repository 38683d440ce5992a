//! What the REST API refuses, and how it says so (section 2.3).

use serde_json::{Value, json};

use super::{QUICK, base, runs, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::world::{World, bearer};

pub(super) static CASES: &[Case<World>] = &[
    base(
        "refusal-shape",
        "an error is JSON with a text for people, a code for programs and the request's id",
        &["R-14", "R-6"],
        QUICK,
        runs!(shape),
    ),
    base("refusal-key", "a missing or unknown key is 401", &["R-1"], QUICK, runs!(key)),
    base(
        "refusal-key-elsewhere",
        "a key counts in the Authorization header alone",
        &["R-1"],
        QUICK,
        runs!(key_elsewhere),
    ),
    base("refusal-token", "a token that is not signed as it must be is 401", &["R-2"], QUICK, runs!(token)),
    base(
        "refusal-body",
        "a body that is no JSON object of the right types is 400",
        &["R-14", "R-5"],
        QUICK,
        runs!(body),
    ),
    base("refusal-large-body", "a body over the limit is 413", &["R-5"], QUICK, runs!(large_body)),
    base(
        "refusal-names",
        "names that break a rule, or are reserved, are 400",
        &["R-10"],
        QUICK,
        runs!(names),
    ),
    base("refusal-fields", "each field that is wrong has its code", &["R-14"], QUICK, runs!(fields)),
    base(
        "refusal-policy",
        "a policy with unknown rules is 400, and nothing of it is in force",
        &["R-15"],
        QUICK,
        runs!(policy),
    ),
    base(
        "refusal-domain",
        "hosts of the relay's own, and with tcp any, are 400",
        &["R-13"],
        QUICK,
        runs!(domain),
    ),
    base(
        "refusal-unknown-tunnel",
        "a tunnel that is not there is 404 for each call",
        &["R-14"],
        QUICK,
        runs!(unknown_tunnel),
    ),
    base(
        "refusal-unknown-path",
        "other paths are 404, other methods 405",
        &["R-14"],
        QUICK,
        runs!(unknown_path),
    ),
    base(
        "refusal-foreign-tunnel",
        "somebody else's tunnel is 404 for each call, and not listed",
        &["R-7"],
        QUICK,
        runs!(foreign),
    ),
    base("refusal-inspection", "what the relay does not do is 501", &["R-14"], QUICK, runs!(inspection)),
];

async fn shape(world: World) -> Outcome {
    let path = format!("/v1/tunnels/{}", uuid::Uuid::new_v4());
    let answer =
        world.call("GET", &path, &Value::Null).await?.must_be(404, "for a tunnel that is not there")?;
    want(
        answer.header("content-type").starts_with("application/json"),
        "Content-Type: application/json",
        answer.header("content-type"),
    )?;
    let error = answer.json()?;
    want(error["error"].as_str().is_some_and(|text| !text.is_empty()), "`error` in words", &error)?;
    want(error["code"] == "tunnel_not_found", "`code`: tunnel_not_found", &error)?;
    let id = answer.header("x-request-id");
    want(
        !id.is_empty() && error["request_id"] == id,
        "`request_id` as in X-Request-ID",
        format!("{error} and {id:?}"),
    )
}

async fn key(world: World) -> Outcome {
    for key in ["", "nbk_nobody_0123456789abcdef"] {
        for (method, path) in [("GET", "/v1/tunnels"), ("GET", "/v1/version"), ("POST", "/v1/tunnels")] {
            let body = if method == "POST" { json!({ "local_port": 80 }) } else { Value::Null };
            let what = if key.is_empty() { "without a key" } else { "with an unknown key" };
            world.call_as(key, method, path, &body).await?.refused_with_code(401, "unauthorized", what)?;
        }
    }
    Ok(())
}

async fn key_elsewhere(world: World) -> Outcome {
    let key = world.key();
    let places = [
        (format!("/v1/tunnels?key={key}"), String::new()),
        (format!("/v1/tunnels?token={key}"), String::new()),
        (format!("/v1/tunnels?access_token={key}"), String::new()),
        ("/v1/tunnels".into(), format!("X-Api-Key: {key}\r\n")),
        ("/v1/tunnels".into(), format!("Cookie: key={key}\r\n")),
        ("/v1/tunnels".into(), format!("Authorization: Basic {key}\r\n")),
    ];
    for (path, lines) in places {
        world
            .ask("GET", &path, &lines, b"")
            .await?
            .must_be(401, "where the key is not behind `Authorization: Bearer`")?;
    }
    Ok(())
}

async fn token(world: World) -> Outcome {
    // {"alg":"none"} and {"alg":"HS256"}, with {"sub":"kit","nbf":0,"exp":9999999999}, without and with a signature of nobody.
    let claims = "eyJzdWIiOiJraXQiLCJuYmYiOjAsImV4cCI6OTk5OTk5OTk5OX0";
    let tokens = [
        format!("eyJhbGciOiJub25lIn0.{claims}."),
        format!("eyJhbGciOiJIUzI1NiJ9.{claims}.c2lnbmVkIGJ5IG5vYm9keSwgMzIgYnl0ZXMgbG9uZyE"),
        format!("eyJhbGciOiJIUzI1NiJ9.{claims}.{}", "A".repeat(9000)),
    ];
    for token in tokens {
        let answer = world.call_as(&token, "GET", "/v1/tunnels", &Value::Null).await?;
        want(matches!(answer.status, 401 | 431), "401 for a token that nobody has signed", answer.shown())?;
    }
    Ok(())
}

async fn body(world: World) -> Outcome {
    for body in [
        "",
        "{",
        "[]",
        "7",
        "null",
        r#"{"local_port":"80"}"#,
        r#"{"local_port":80,"name":7}"#,
        r#"{"local_port":80} x"#,
    ] {
        let answer = world.ask("POST", "/v1/tunnels", &bearer(world.key()), body.as_bytes()).await?;
        world.made(&answer);
        answer.refused_with_code(400, "invalid_body", &format!("for the body {body:?}"))?;
    }
    Ok(())
}

async fn large_body(world: World) -> Outcome {
    let body = json!({ "local_port": 80, "name": "x".repeat(200 * 1024) });
    world.call("POST", "/v1/tunnels", &body).await?.refused_with_code(
        413,
        "body_too_large",
        "for a creation of 200 KiB",
    )?;
    let tunnel = world.tunnel(json!({})).await?;
    let body = json!({ "ttl": "x".repeat(65 * 1024) });
    world
        .call("POST", &tunnel.path("/extend"), &body)
        .await?
        .refused_with_code(413, "body_too_large", "for a body of 65 KiB")
        .map(drop)
}

async fn names(world: World) -> Outcome {
    for name in [
        "a",
        "-ab",
        "ab-",
        "a--b",
        "a_b",
        "a.b",
        "../x",
        "\u{fc}ber",
        &"x".repeat(64),
        "www",
        "api",
        "health",
    ] {
        let answer = world.try_create(world.key(), &json!({ "name": name })).await?;
        answer.refused_with_code(400, "invalid_name", &format!("for the name {name:?}"))?;
    }
    Ok(())
}

async fn fields(world: World) -> Outcome {
    for (fields, code) in [
        (json!({ "local_port": 65536 }), "invalid_port"),
        (json!({ "ttl": "-1h" }), "invalid_ttl"),
        (json!({ "ttl": "soon" }), "invalid_ttl"),
        (json!({ "auth_user": "ann" }), "invalid_auth"),
        (json!({ "auth_user": "a:n", "auth_pass": "x" }), "invalid_auth"),
        (json!({ "host_header": "a b" }), "invalid_host_header"),
    ] {
        let answer = world.try_create(world.key(), &fields).await?;
        answer.refused_with_code(400, code, &format!("for {fields}"))?;
    }
    Ok(())
}

async fn policy(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({})).await?;
    want_policies(&tunnel.json)?;
    for policy in [json!({ "alow": ["10.0.0.0/8"] }), json!({ "allow": [] }), json!({ "max_body": "many" })] {
        let what = format!("for {policy}");
        world.try_create(world.key(), &json!({ "policy": policy })).await?.refused_with_code(
            400,
            "invalid_policy",
            &what,
        )?;
        world.call("PUT", &tunnel.path("/policy"), &policy).await?.refused_with_code(
            400,
            "invalid_policy",
            &what,
        )?;
    }
    let both = json!({ "alow": ["10.0.0.0/8"], "dney": ["10.0.0.0/8"] });
    let error = world.call("PUT", &tunnel.path("/policy"), &both).await?.text();
    want(
        error.contains("alow") && error.contains("dney"),
        "an `error` that names both unknown rules",
        error,
    )?;
    let shown = world.call("GET", &tunnel.path("/policy"), &Value::Null).await?.json()?;
    want(shown == json!({}), "no policy", shown)
}

/// Skips where the relay knows no policies.
pub(super) fn want_policies(tunnel: &Value) -> Outcome {
    let unknown = || Ended::Skipped("the relay knows no policies: its tunnels have no field `policy`".into());
    tunnel.get("policy").map(drop).ok_or_else(unknown)
}

async fn domain(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    let host = tunnel.host.split(':').next().unwrap_or_default();
    let base = host.strip_prefix(&format!("{}.", tunnel.slug)).map(|base| format!("kit.{base}"));
    let own = world.settings().place.url().host().to_owned();
    for host in [own, "localhost".into()].into_iter().chain(base) {
        let answer = world.try_create(world.key(), &json!({ "domains": [host] })).await?;
        if answer.status < 300 && answer.json()?.get("domains").is_none() {
            return Err(Ended::Skipped("the relay knows no domains of its clients".into()));
        }
        answer.refused_with_code(400, "invalid_domain", &format!("for {host}, which is the relay's own"))?;
    }
    let fields = json!({ "proto": "tcp", "domains": ["kit.example.com"] });
    let answer =
        world.try_create(world.key(), &fields).await?.must_be(400, "for a tcp tunnel with a domain")?;
    let code = answer.json()?["code"].clone();
    want(code == "only_http" || code == "no_tcp_ports", "only_http", code)
}

async fn unknown_tunnel(world: World) -> Outcome {
    for (method, path, body) in calls(&uuid::Uuid::new_v4().to_string()).into_iter().chain(calls("kit")) {
        world.call(method, &path, &body).await?.refused_with_code(
            404,
            "tunnel_not_found",
            &format!("for {method} {path}"),
        )?;
    }
    Ok(())
}

/// Each call about one tunnel.
fn calls(id: &str) -> [(&'static str, String, Value); 6] {
    [
        ("GET", format!("/v1/tunnels/{id}"), Value::Null),
        ("GET", format!("/v1/tunnels/{id}/requests"), Value::Null),
        ("POST", format!("/v1/tunnels/{id}/suspend"), json!({ "suspended": true })),
        ("POST", format!("/v1/tunnels/{id}/extend"), json!({ "ttl": "1h" })),
        ("POST", format!("/v1/tunnels/{id}/inspection"), json!({ "enabled": false })),
        ("DELETE", format!("/v1/tunnels/{id}"), Value::Null),
    ]
}

async fn unknown_path(world: World) -> Outcome {
    world.call("GET", "/v1/nothing", &Value::Null).await?.refused_with_code(
        404,
        "not_found",
        "for a path of nobody",
    )?;
    world
        .call("PATCH", "/v1/tunnels", &json!({}))
        .await?
        .refused_with_code(405, "method_not_allowed", "for a method of nobody")
        .map(drop)
}

async fn foreign(world: World) -> Outcome {
    let key2 = world.key2()?;
    let tunnel = world.tunnel(json!({})).await?;
    for (method, path, body) in calls(&tunnel.id) {
        let answer = world.call_as(key2, method, &path, &body).await?;
        answer.refused_with_code(
            404,
            "tunnel_not_found",
            &format!("for {method} {path} with another owner's key"),
        )?;
    }
    let list =
        world.call_as(key2, "GET", "/v1/tunnels", &Value::Null).await?.must_be(200, "for the list")?.text();
    want(!list.contains(&tunnel.id), "a list without somebody else's tunnel", "it is in it")?;
    world.look(&tunnel.id).await.map(drop)
}

async fn inspection(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({})).await?;
    let body = json!({ "enabled": true });
    world
        .call("POST", &tunnel.path("/inspection"), &body)
        .await?
        .refused_with_code(501, "not_implemented", "for inspection")
        .map(drop)
}
