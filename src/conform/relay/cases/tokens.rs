//! Tokens in the place of keys (sections 1 and 8), for relays whose secret the kit is given.

use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::{QUICK, base, runs, two, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::world::World;

pub(super) static CASES: &[Case<World>] = &[
    base(
        "token-rules",
        "a token counts as its rules say, and one that breaks any is 401",
        &["R-2"],
        QUICK,
        runs!(rules),
    ),
    base("token-limited", "a token for one tunnel leads to no other", &["R-3"], QUICK, runs!(limited)),
    base(
        "token-ends-session",
        "a session ends with its token, with 1008",
        &["R-70", "R-47"],
        QUICK,
        runs!(ends_base),
    ),
    two(
        "two-token-expired",
        "a session of level two is told of the end of its token, and ends with `token_expired`",
        &["R-63", "R-70", "R-66"],
        QUICK,
        runs!(ends),
    ),
    two(
        "two-token-renewed",
        "a fresh token keeps the session",
        &["R-64", "R-69", "R-70"],
        QUICK,
        runs!(renewed),
    ),
];

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn signed(secret: &str, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text.as_bytes());
    format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

/// The relay's secret, or the case is skipped.
fn secret(world: &World) -> Outcome<&str> {
    let missing =
        || Ended::Skipped("it signs tokens of its own: give --jwt-secret if the relay takes tokens".into());
    world.settings().secret.as_deref().ok_or_else(missing)
}

/// A token for `seconds` from now, of an owner who has no key; `more` claims are added.
fn token(world: &World, seconds: u64, more: Value) -> Outcome<String> {
    let mut claims = json!({ "sub": "kit-owner", "nbf": now() - 1, "exp": now() + seconds });
    if let (Some(claims), Some(more)) = (claims.as_object_mut(), more.as_object()) {
        claims.extend(more.clone());
    }
    Ok(signed(secret(world)?, &json!({ "alg": "HS256", "typ": "JWT" }), &claims))
}

async fn rules(world: World) -> Outcome {
    let secret = secret(&world)?;
    let good = token(&world, 600, json!({ "aud": ["x", "adit"], "unknown": 1 }))?;
    world
        .call_as(&good, "GET", "/v1/tunnels", &Value::Null)
        .await?
        .must_be(200, "for a token that keeps all rules")?;
    let header = json!({ "alg": "HS256" });
    let claims = json!({ "sub": "kit-owner", "nbf": now() - 1, "exp": now() + 600 });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        signed(secret, &header, &claims)
    };
    for (what, token) in [
        ("signed with another secret", signed("another secret of thirty-two bytes!", &header, &claims)),
        ("of another alg", signed(secret, &json!({ "alg": "HS384" }), &claims)),
        ("with crit", signed(secret, &json!({ "alg": "HS256", "crit": ["exp"] }), &claims)),
        ("that has expired", with("exp", json!(now() - 60))),
        ("that is not valid yet", with("nbf", json!(now() + 300))),
        ("for more than 31 days", with("exp", json!(now() + 32 * 24 * 3600))),
        ("without an owner", with("sub", Value::Null)),
        ("for another audience", with("aud", json!("other"))),
    ] {
        let answer = world.call_as(&token, "GET", "/v1/tunnels", &Value::Null).await?;
        answer.refused(401, "unauthorized", &format!("for a token {what}"))?;
    }
    Ok(())
}

async fn limited(world: World) -> Outcome {
    let (name, other) = (world.name(), world.name());
    let free = token(&world, 600, Value::Null)?;
    let bound = token(&world, 600, json!({ "tid": name }))?;
    let foreign =
        world.try_create(&free, &json!({ "name": other })).await?.must_be(201, "for a tunnel")?.json()?;
    world.try_create(&bound, &json!({ "name": world.name() })).await?.refused(
        403,
        "token_limited",
        "for another tunnel",
    )?;
    let made =
        world.try_create(&bound, &json!({})).await?.must_be(201, "for a creation without a name")?.json()?;
    want(made["slug"] == name.as_str(), &format!("the tunnel of `tid`, {name}"), &made)?;
    let id = foreign["id"].as_str().unwrap_or_default();
    world.call_as(&bound, "GET", &format!("/v1/tunnels/{id}"), &Value::Null).await?.refused(
        404,
        "tunnel_not_found",
        "for another tunnel",
    )?;
    let list = world.call_as(&bound, "GET", "/v1/tunnels", &Value::Null).await?.text();
    want(!list.contains(id), "a list without another tunnel", list)?;
    let lines = crate::conform::relay::world::bearer(&bound);
    match world.socket("control", &format!("/ws/control?tunnel_id={id}"), &lines).await? {
        Err(answer) => answer.refused(403, "foreign_tunnel", "for the control socket of another tunnel")?,
        Ok(_) => return want(false, "403 `foreign_tunnel` for the control socket of another tunnel", "101"),
    };
    for tunnel in [&foreign, &made] {
        let path = format!("/v1/tunnels/{}", tunnel["id"].as_str().unwrap_or_default());
        world.call_as(&free, "DELETE", &path, &Value::Null).await?;
    }
    Ok(())
}

async fn ends_base(world: World) -> Outcome {
    let token = token(&world, 4, Value::Null)?;
    let world = world.with_key(token);
    let mut client = world.client().await?;
    client.socket.wire.patience = world.beyond(Duration::from_secs(6));
    client.socket.expect_close(1008, "as the token has ended").await.map(drop)
}

async fn ends(world: World) -> Outcome {
    let token = token(&world, 5, Value::Null)?;
    let world = world.with_key(token);
    let mut client = world.two().await?;
    client.socket.wire.patience = world.beyond(Duration::from_secs(6));
    let told = client.hear_of("expiring").await?;
    want(told["what"] == "token" && told["in_ms"].is_u64(), "`expiring` of the token, with `in_ms`", told)?;
    let told = client.hear_of("closed").await?;
    want(told["reason"] == "token_expired", "`closed` with the reason token_expired", told)?;
    client.socket.expect_close(1008, "as the token has ended").await.map(drop)
}

async fn renewed(world: World) -> Outcome {
    let (short, long) = (token(&world, 4, Value::Null)?, token(&world, 600, Value::Null)?);
    let world = world.with_key(short);
    let mut client = world.two().await?;
    client.say(&json!({ "type": "auth", "token": long })).await?;
    let told = client.hear_of("auth").await?;
    let left = told["expires_in_ms"].as_u64().unwrap_or_default();
    want(
        told["accepted"] == true && left > 500_000,
        "`accepted`, and `expires_in_ms` of the fresh token",
        told,
    )?;
    client.wait(Duration::from_secs(5)).await?;
    client.socket.ping(b"still here").await
}
