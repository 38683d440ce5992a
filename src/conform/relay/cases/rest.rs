//! The calls of section 2: what they answer, and in which shape.

use serde_json::{Value, json};

use super::{QUICK, base, runs, want};
use crate::conform::case::Case;
use crate::conform::relay::Outcome;
use crate::conform::relay::http::Answer;
use crate::conform::relay::world::{World, bearer};

pub(super) static CASES: &[Case<World>] = &[
    base(
        "rest-health",
        "/health answers anybody with a flat object of strings",
        &["R-80"],
        QUICK,
        runs!(health),
    ),
    base("rest-version", "/v1/version tells version and api_version", &["R-80"], QUICK, runs!(version)),
    base("rest-create", "a creation is 201 with all fields of a tunnel", &["R-80"], QUICK, runs!(create)),
    base(
        "rest-made-up-name",
        "a tunnel of few words gets twelve hex digits as its name, and no end",
        &["R-80"],
        QUICK,
        runs!(made_up),
    ),
    base(
        "rest-create-again",
        "the caller that has the tunnel already gets 200 and the same id",
        &["R-80", "R-12"],
        QUICK,
        runs!(again),
    ),
    base(
        "rest-list",
        "the list is a bare array of the caller's tunnels, oldest first",
        &["R-80"],
        QUICK,
        runs!(list),
    ),
    base("rest-get", "a tunnel is shown by its id as it was created", &["R-80"], QUICK, runs!(get)),
    base("rest-delete", "a deletion is 204, and the tunnel is gone", &["R-80"], QUICK, runs!(delete)),
    base(
        "rest-delete-unless-connected",
        "a tunnel that is served is deleted only without unless_connected",
        &["R-80"],
        QUICK,
        runs!(unless_connected),
    ),
    base(
        "rest-suspend",
        "suspension and resumption answer with strings, and the tunnel shows it",
        &["R-80"],
        QUICK,
        runs!(suspend),
    ),
    base("rest-extend", "an extension moves the end, and 0 takes it away", &["R-80"], QUICK, runs!(extend)),
    base(
        "rest-resume",
        "a client that comes back with `resume` leaves the tunnel's end as it is",
        &["R-9"],
        QUICK,
        runs!(resume),
    ),
    base(
        "rest-policy",
        "a policy is put, shown without its secrets, and deleted",
        &["R-80", "R-16"],
        QUICK,
        runs!(policy),
    ),
    base(
        "rest-policy-kept",
        "a creation with the same policy leaves in force what was put there since",
        &["R-17"],
        QUICK,
        runs!(policy_kept),
    ),
    base(
        "rest-requests",
        "no requests are recorded, and inspection cannot be switched on",
        &["R-80"],
        QUICK,
        runs!(requests),
    ),
    base(
        "rest-double-slashes",
        "paths that begin with two slashes are served without a redirect",
        &["R-4"],
        QUICK,
        runs!(slashes),
    ),
    base(
        "rest-request-id",
        "every response has an X-Request-ID, and a plain one of the caller is kept",
        &["R-6"],
        QUICK,
        runs!(request_id),
    ),
    base(
        "rest-unknown-fields",
        "unknown fields of a creation, and its Content-Type, mean nothing",
        &["R-8", "R-5"],
        QUICK,
        runs!(unknown_fields),
    ),
];

const NEVER: &str = "0001-01-01T00:00:00Z";

async fn health(world: World) -> Outcome {
    let answer =
        world.call_as("", "GET", "/health", &Value::Null).await?.must_be(200, "for /health without a key")?;
    let health = answer.json()?;
    let strings = health.as_object().is_some_and(|fields| fields.values().all(Value::is_string));
    let named = ["status", "version", "api_version"].iter().all(|name| health.get(name).is_some());
    want(strings && named, "a flat object of strings: status, version, api_version", health)
}

async fn version(world: World) -> Outcome {
    let told =
        world.call("GET", "/v1/version", &Value::Null).await?.must_be(200, "for /v1/version")?.json()?;
    want(
        told["version"].is_string() && told["api_version"].is_string(),
        "version and api_version as strings",
        told,
    )
}

/// `2026-11-21T05:49:42.67Z`, or with an offset.
fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default().as_bytes();
    text.len() >= 20 && text[4] == b'-' && text[10] == b'T' && text[13] == b':'
}

async fn create(world: World) -> Outcome {
    let name = world.name();
    let fields = json!({ "local_port": 3000, "name": name, "ttl": "1h30m", "device_name": "kit", "source": "conform" });
    let tunnel = world.try_create(world.key(), &fields).await?.must_be(201, "for a new tunnel")?.json()?;
    let strings = ["id", "slug", "public_url", "client_id", "mode", "ttl"];
    for field in strings {
        want(
            tunnel[field].as_str().is_some_and(|text| !text.is_empty()),
            &format!("`{field}` as a string"),
            &tunnel,
        )?;
    }
    for field in ["local_port", "bytes_in", "bytes_out", "requests"] {
        want(tunnel[field].is_u64(), &format!("`{field}` as an integer"), &tunnel)?;
    }
    for field in ["created_at", "expires_at", "last_active"] {
        want(is_time(&tunnel[field]), &format!("`{field}` as a time of RFC 3339"), &tunnel)?;
    }
    for (field, value) in [
        ("slug", json!(name)),
        ("name", json!(name)),
        ("ttl", json!("1h30m0s")),
        ("local_port", json!(3000)),
        ("mode", json!("relay")),
        ("device_name", json!("kit")),
        ("source", json!("conform")),
    ] {
        want(tunnel[field] == value, &format!("`{field}` is {value}"), &tunnel)?;
    }
    want(tunnel["connected"] == false, "`connected` is false before there is a client", &tunnel)?;
    want(tunnel.get("suspended").is_none_or(|value| value == false), "`suspended` is absent", &tunnel)?;
    let url = tunnel["public_url"].as_str().unwrap_or_default();
    want(
        url.contains("://") && !url.ends_with('/'),
        "`public_url` is absolute and has no slash at its end",
        url,
    )
}

async fn made_up(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({ "name": "", "ttl": "0" })).await?;
    let hex = tunnel.slug.len() == 12 && tunnel.slug.bytes().all(|byte| byte.is_ascii_hexdigit());
    want(hex, "a `slug` of twelve hex digits", &tunnel.json)?;
    want(
        tunnel.json["expires_at"] == NEVER && tunnel.json["ttl"] == "0s",
        "`ttl` 0s and an end that is never",
        &tunnel.json,
    )
}

async fn again(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({ "name": world.name() })).await?;
    let fields = json!({ "name": tunnel.slug });
    let again =
        world.try_create(world.key(), &fields).await?.must_be(200, "for a tunnel that is there")?.json()?;
    want(again["id"] == tunnel.id.as_str(), &format!("the same id, {}", tunnel.id), again)
}

async fn list(world: World) -> Outcome {
    let (first, second) = (world.tunnel(json!({})).await?, world.tunnel(json!({})).await?);
    let list = world.call("GET", "/v1/tunnels", &Value::Null).await?.must_be(200, "for the list")?.json()?;
    let Some(tunnels) = list.as_array() else { return want(false, "a bare array of tunnels", list) };
    let at = |id: &str| tunnels.iter().position(|tunnel| tunnel["id"] == id);
    let places = (at(&first.id), at(&second.id));
    want(
        matches!(places, (Some(older), Some(newer)) if older < newer),
        "both tunnels, the older one first",
        format!("{places:?} in {list}"),
    )
}

async fn get(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({})).await?;
    let shown = world.look(&tunnel.id).await?;
    let same = ["id", "slug", "public_url", "created_at", "expires_at"]
        .iter()
        .all(|field| shown[field] == tunnel.json[field]);
    want(same, &format!("the tunnel as it was created: {}", tunnel.json), shown)
}

async fn delete(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({})).await?;
    let gone = world.call("DELETE", &tunnel.path(""), &Value::Null).await?.must_be(204, "for a deletion")?;
    want(gone.body.is_empty(), "no body", gone.shown())?;
    world
        .call("GET", &tunnel.path(""), &Value::Null)
        .await?
        .refused(404, "tunnel_not_found", "for a deleted tunnel")
        .map(drop)
}

async fn unless_connected(world: World) -> Outcome {
    let client = world.client().await?;
    world.until_connected(&client.tunnel.id, true).await?;
    let path = client.tunnel.path("?unless_connected=true");
    world.call("DELETE", &path, &Value::Null).await?.refused(409, "connected", "while a client serves it")?;
    let id = client.tunnel.id.clone();
    drop(client);
    world.until_connected(&id, false).await?;
    world.call("DELETE", &path, &Value::Null).await?.must_be(204, "when no client serves it").map(drop)
}

async fn suspend(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({})).await?;
    for (suspended, status) in [(true, "suspended"), (false, "resumed")] {
        let body = json!({ "suspended": suspended });
        let said = world
            .call("POST", &tunnel.path("/suspend"), &body)
            .await?
            .must_be(200, "for a suspension")?
            .json()?;
        let expected = json!({ "status": status, "suspended": suspended.to_string() });
        want(said == expected, &expected.to_string(), said)?;
        let shown = world.look(&tunnel.id).await?;
        want(
            shown["suspended"].as_bool().unwrap_or(false) == suspended,
            &format!("`suspended` of the tunnel is {suspended}"),
            shown,
        )?;
    }
    Ok(())
}

async fn extend(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({ "ttl": "30m" })).await?;
    let extended = ttl(&world, &tunnel.path("/extend"), "5h").await?.json()?;
    let later = extended["expires_at"].as_str() > tunnel.json["expires_at"].as_str()
        && is_time(&extended["expires_at"]);
    want(later, "a later `expires_at`", &extended)?;
    let never = ttl(&world, &tunnel.path("/extend"), "0").await?.json()?;
    want(never["expires_at"] == NEVER, &format!("`expires_at` is {NEVER}"), never)
}

async fn ttl(world: &World, path: &str, ttl: &str) -> Outcome<Answer> {
    world.call("POST", path, &json!({ "ttl": ttl })).await?.must_be(200, "for an extension")
}

async fn resume(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({ "ttl": "1h" })).await?;
    let extended = ttl(&world, &tunnel.path("/extend"), "5h").await?.json()?;
    let back = world.tunnel(json!({ "name": tunnel.slug, "ttl": "2h", "resume": true })).await?;
    want(
        back.json["expires_at"] == extended["expires_at"],
        &format!("`expires_at` as it was, {}", extended["expires_at"]),
        &back.json,
    )
}

/// A tunnel on a relay that knows policies.
async fn with_policy(world: &World, fields: Value) -> Outcome<super::super::rest::Tunnel> {
    let tunnel = world.tunnel(fields).await?;
    if tunnel.json.get("policy").is_none() {
        return Err(crate::conform::case::Ended::Skipped(
            "the relay knows no policies: its tunnels have no field `policy`".into(),
        ));
    }
    Ok(tunnel)
}

async fn policy(world: World) -> Outcome {
    let tunnel = with_policy(&world, json!({})).await?;
    let path = tunnel.path("/policy");
    let none = world.call("GET", &path, &Value::Null).await?.must_be(200, "for the policy")?.json()?;
    want(none == json!({}), "{} where there is no policy", none)?;
    let wanted = json!({ "auth": ["ann:secret-of-ann"], "deny": ["192.0.2.0/24"] });
    let put = world.call("PUT", &path, &wanted).await?.must_be(200, "for a policy")?;
    let shown = world.call("GET", &path, &Value::Null).await?.must_be(200, "for the policy")?;
    for answer in [&put, &shown] {
        let text = answer.text();
        want(
            text.contains("***") && !text.contains("secret-of-ann"),
            "*** in the place of the password",
            text,
        )?;
    }
    want(shown.json()?["deny"] == wanted["deny"], "the rules that were put there", shown.text())?;
    let names = world.look(&tunnel.id).await?["policy"].clone();
    want(
        names.as_array().is_some_and(|names| names.len() == 2),
        "the names of both rules in the tunnel's `policy`",
        names,
    )?;
    world.call("DELETE", &path, &Value::Null).await?.must_be(204, "for the end of a policy").map(drop)
}

async fn policy_kept(world: World) -> Outcome {
    let wish = json!({ "deny": ["192.0.2.0/24"] });
    let tunnel = with_policy(&world, json!({ "policy": wish })).await?;
    let path = tunnel.path("/policy");
    let since = json!({ "deny": ["198.51.100.0/24"] });
    world.call("PUT", &path, &since).await?.must_be(200, "for a policy")?;
    world.tunnel(json!({ "name": tunnel.slug, "policy": wish })).await?;
    let shown = world.call("GET", &path, &Value::Null).await?.json()?;
    want(shown["deny"] == since["deny"], "the policy that was put there since the creation", shown)?;
    world.tunnel(json!({ "name": tunnel.slug })).await?;
    let shown = world.call("GET", &path, &Value::Null).await?.json()?;
    want(shown == json!({}), "no policy after a creation that asks for none", shown)
}

async fn requests(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({})).await?;
    let told = world
        .call("GET", &tunnel.path("/requests"), &Value::Null)
        .await?
        .must_be(200, "for the requests")?
        .json()?;
    want(told.is_array(), "an array of requests", told)?;
    let path = tunnel.path("/inspection");
    let off = world
        .call("POST", &path, &json!({ "enabled": false }))
        .await?
        .must_be(200, "for no inspection")?
        .json()?;
    want(off["inspection_enabled"] == false, "`inspection_enabled` is false", off)
}

async fn slashes(world: World) -> Outcome {
    let name = world.name();
    let body = json!({ "local_port": 80, "name": name });
    let made = world.call("POST", "//v1/tunnels", &body).await?.must_be(201, "for //v1/tunnels")?.json()?;
    let tunnel = world.tunnel(json!({ "name": made["slug"] })).await?;
    let path = format!("//ws/control?tunnel_id={}", tunnel.id);
    let socket = world.socket("control", &path, &bearer(world.key())).await?;
    want(
        socket.is_ok(),
        "101 for //ws/control",
        socket.err().map(|answer| answer.shown()).unwrap_or_default(),
    )
}

async fn request_id(world: World) -> Outcome {
    let answers = [
        world.ask("GET", "/health", "", b"").await?,
        world.call("GET", "/v1/tunnels", &Value::Null).await?,
        world.call_as("", "GET", "/v1/tunnels", &Value::Null).await?,
        world.call("GET", "/v1/nothing", &Value::Null).await?,
    ];
    for answer in answers {
        want(!answer.header("x-request-id").is_empty(), "an X-Request-ID", answer.shown())?;
    }
    for given in ["kit-1_x", &"x".repeat(64)] {
        let answer = world.ask("GET", "/health", &format!("X-Request-ID: {given}\r\n"), b"").await?;
        want(
            answer.header("x-request-id") == given,
            &format!("X-Request-ID: {given}"),
            answer.header("x-request-id"),
        )?;
    }
    Ok(())
}

async fn unknown_fields(world: World) -> Outcome {
    let body = json!({ "local_port": 80, "name": world.name(), "zebra": { "stripes": [1, 2] } }).to_string();
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let lines = format!("{}Content-Type: {kind}\r\n", bearer(world.key()));
        let answer = world.ask("POST", "/v1/tunnels", &lines, body.as_bytes()).await?;
        want(
            matches!(answer.status, 200 | 201),
            &format!("the tunnel, whatever Content-Type: {kind} says"),
            answer.shown(),
        )?;
        world.made(&answer);
    }
    Ok(())
}
