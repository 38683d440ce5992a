//! What viewers see where no target answers, and where a request breaks a rule (section 6).

use std::time::Duration;

use serde_json::{Value, json};

use super::refusals::want_policies;
use super::{QUICK, advised, base, runs, want};
use crate::conform::case::Case;
use crate::conform::relay::Outcome;
use crate::conform::relay::data::OK;
use crate::conform::relay::http::Answer;
use crate::conform::relay::rest::Tunnel;
use crate::conform::relay::world::World;

/// How long relays let a viewer wait for a client that is away: five seconds by default, and this at most.
const AWAY: Duration = Duration::from_secs(25);

pub(super) static CASES: &[Case<World>] = &[
    base(
        "viewer-unknown-name",
        "a name that nobody has is 404, and so is a deleted one",
        &["R-52", "R-28"],
        QUICK,
        runs!(unknown),
    ),
    base(
        "viewer-problem",
        "an error is HTML for browsers, else problem details with a cause",
        &["R-52"],
        QUICK,
        runs!(problem),
    ),
    base(
        "viewer-of-absent-client",
        "a viewer of a client that stays away gets 503 with Retry-After",
        &["R-52", "R-28"],
        50,
        runs!(absent),
    ),
    base(
        "viewer-waits-for-client",
        "a viewer that came while the client was away is served when it is back",
        &["R-28"],
        QUICK,
        runs!(waits),
    ),
    base(
        "viewer-of-lost-client",
        "a viewer that waits for a claim is served by the client that comes back",
        &["R-28"],
        QUICK,
        runs!(lost),
    ),
    base("viewer-bad-answer", "an answer that is no HTTP is 502", &["R-52"], QUICK, runs!(bad_answer)),
    base(
        "viewer-suspended",
        "viewers of a suspended tunnel get 503 with Retry-After until it is resumed",
        &["R-52"],
        QUICK,
        runs!(suspended),
    ),
    base(
        "viewer-password",
        "auth_user is asked of viewers, and the target does not see it",
        &["R-52"],
        QUICK,
        runs!(password),
    ),
    base(
        "viewer-ambiguous-request",
        "a request that could be read in two ways is 400, and reaches no target",
        &["R-52"],
        QUICK,
        runs!(ambiguous),
    ),
    base(
        "viewer-large-target",
        "a request target over the limit is 414",
        &["R-52"],
        QUICK,
        runs!(large_target),
    ),
    base("viewer-large-head", "a head over the limit is 431", &["R-52"], QUICK, runs!(large_head)),
    base("viewer-large-body", "a body over the policy's limit is 413", &["R-52"], QUICK, runs!(large_body)),
    base("viewer-connect", "CONNECT is 405", &["R-56"], QUICK, runs!(connect)),
    base(
        "viewer-address-denied",
        "a viewer that the policy does not let in is 403",
        &["R-52"],
        QUICK,
        runs!(denied),
    ),
    base(
        "viewer-rate",
        "a viewer beyond the policy's rate is 429 with Retry-After",
        &["R-52"],
        QUICK,
        runs!(rate),
    ),
    base(
        "viewer-keep-alive",
        "a viewer's connection serves one request after the other",
        &["R-43"],
        QUICK,
        runs!(keep_alive),
    ),
    advised(base(
        "viewer-early-answer",
        "a target that answers before the upload has ended is heard",
        &["R-43"],
        QUICK,
        runs!(early_answer),
    )),
];

fn expect_retry_after(answer: &Answer) -> Outcome {
    let seconds = answer.header("retry-after");
    want(seconds.parse::<u64>().is_ok(), "Retry-After in seconds", format!("{seconds:?}"))
}

async fn unknown(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    let elsewhere = nobody(&world, &tunnel);
    world.asking(&elsewhere).await?.answer().await?.must_be(404, "for a name that nobody has")?;
    world.delete(&tunnel).await?;
    world.asking(&tunnel).await?.answer().await?.must_be(404, "at once for a deleted tunnel").map(drop)
}

/// Where a tunnel would be whose name nobody has.
fn nobody(world: &World, tunnel: &Tunnel) -> Tunnel {
    let name = world.name();
    let (host, prefix) =
        (tunnel.host.replace(&tunnel.slug, &name), tunnel.prefix.replace(&tunnel.slug, &name));
    Tunnel { host, prefix, ..tunnel.clone() }
}

async fn problem(world: World) -> Outcome {
    let elsewhere = nobody(&world, &world.tunnel(Value::Null).await?);
    for (accept, kind) in [("text/html,*/*;q=0.8", "text/html"), ("*/*", "application/problem+json")] {
        let mut viewer = world.viewer(&elsewhere).await?;
        viewer.ask("GET", "/", &format!("Accept: {accept}\r\n"), b"").await?;
        let answer = viewer.answer().await?.must_be(404, "for a name that nobody has")?;
        let found = answer.header("content-type");
        want(found.starts_with(kind), &format!("Content-Type: {kind} for Accept: {accept}"), found)?;
        if kind != "text/html" {
            let told = answer.json()?;
            want(
                told["cause"] == "no_such_tunnel" && told["request_id"].is_string(),
                "`cause` no_such_tunnel, and `request_id`",
                told,
            )?;
        }
    }
    Ok(())
}

async fn absent(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    let mut viewer = world.asking(&tunnel).await?;
    viewer.wire.patience = AWAY;
    expect_retry_after(&viewer.answer().await?.must_be(503, "for the viewer of a client that stays away")?)
}

async fn waits(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    let mut viewer = world.asking(&tunnel).await?;
    // It waits already when the client comes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut client = world.serve(tunnel).await?;
    client.accept().await?.serve().await?;
    viewer.answer().await?.must_be(200, "of the client that has come back").map(drop)
}

async fn lost(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.ask("POST", "/", "", b"kit").await?;
    client.connection().await?;
    let tunnel = client.tunnel.clone();
    client.socket.wire.reset();
    let mut back = world.serve(tunnel).await?;
    let mut data = back.accept().await?;
    data.request().await?;
    data.expect_bytes(b"kit").await?;
    data.say(OK).await?;
    viewer.answer().await?.must_be(200, "of the client that has come back").map(drop)
}

async fn bad_answer(world: World) -> Outcome {
    let mut client = world.client().await?;
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nkit!",
    ] {
        let (mut viewer, mut data) = client.exchange().await?;
        data.say(answer).await?;
        viewer.answer().await?.must_be(502, &format!("for the answer {answer:?}"))?;
    }
    Ok(())
}

async fn suspended(world: World) -> Outcome {
    let mut client = world.client().await?;
    client.served().await?;
    let path = client.tunnel.path("/suspend");
    world.call("POST", &path, &json!({ "suspended": true })).await?.must_be(200, "for a suspension")?;
    let answer = world
        .asking(&client.tunnel)
        .await?
        .answer()
        .await?
        .must_be(503, "for a viewer of a suspended tunnel")?;
    expect_retry_after(&answer)?;
    world.call("POST", &path, &json!({ "suspended": false })).await?.must_be(200, "for a resumption")?;
    client.served().await.map(drop)
}

async fn password(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({ "auth_user": "ann", "auth_pass": "secret" })).await?;
    want(!tunnel.json.to_string().contains("secret"), "a tunnel without its password", &tunnel.json)?;
    let mut client = world.serve(tunnel).await?;
    // ann:wrong and ann:secret in base64.
    for lines in ["", "Authorization: Basic YW5uOndyb25n\r\n", "Authorization: Bearer secret\r\n"] {
        let mut viewer = world.viewer(&client.tunnel).await?;
        viewer.ask("GET", "/", lines, b"").await?;
        let refused = viewer.answer().await?.must_be(401, &format!("for {lines:?}"))?;
        let asks = refused.header("www-authenticate");
        want(asks.to_ascii_lowercase().starts_with("basic"), "WWW-Authenticate: Basic", asks)?;
    }
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.ask("GET", "/", "Authorization: Basic YW5uOnNlY3JldA==\r\n", b"").await?;
    client.accept().await?.serve().await?.must_not_have("authorization")?;
    viewer.answer().await?.must_be(200, "for the right user and password").map(drop)
}

async fn ambiguous(world: World) -> Outcome {
    let mut client = world.client().await?;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    for lines in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: +3\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Host: elsewhere.example.com\r\n",
        "X-Kit: a\r\n b\r\n",
    ] {
        let mut viewer = world.viewer(&client.tunnel).await?;
        viewer.begin("POST", "/", lines).await?;
        viewer.wire.say(format!("0\r\n\r\n{hidden}").as_bytes()).await?;
        // What is still unread may cut the body of such an answer.
        let answer = viewer.answer().await?;
        want(answer.status == 400, &format!("400 for a request with {lines:?}"), answer.shown())?;
    }
    client.expect_none_of("connection", "as no request was one").await
}

async fn large_target(world: World) -> Outcome {
    let client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.ask("GET", &format!("/{}", "k".repeat(20 * 1024)), "", b"").await?;
    viewer.answer().await?.must_be(414, "for a target of 20 KiB").map(drop)
}

async fn large_head(world: World) -> Outcome {
    let client = world.client().await?;
    for lines in [format!("X-Kit: {}\r\n", "k".repeat(70 * 1024)), "X-Kit: k\r\n".repeat(150)] {
        let mut viewer = world.viewer(&client.tunnel).await?;
        viewer.ask("GET", "/", &lines, b"").await?;
        viewer.answer().await?.must_be(431, &format!("for a head of {} bytes", lines.len()))?;
    }
    Ok(())
}

/// A client of a tunnel with a policy, where the relay knows policies.
async fn with_policy(world: &World, policy: Value) -> Outcome<crate::conform::relay::control::Client> {
    let tunnel = world.tunnel(json!({ "policy": policy })).await?;
    want_policies(&tunnel.json)?;
    world.serve(tunnel).await
}

async fn large_body(world: World) -> Outcome {
    let mut client = with_policy(&world, json!({ "max_body": 1000 })).await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.begin("POST", "/", "Content-Length: 1001\r\n").await?;
    viewer.answer().await?.must_be(413, "for a body over max_body")?;
    client.expect_none_of("connection", "as the body was too large").await?;
    client.served().await.map(drop)
}

async fn connect(world: World) -> Outcome {
    let client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    let host = viewer.host.clone();
    viewer
        .wire
        .say(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    viewer.answer().await?.must_be(405, "for CONNECT").map(drop)
}

async fn denied(world: World) -> Outcome {
    let mut client = with_policy(&world, json!({ "allow": ["192.0.2.1"] })).await?;
    world
        .asking(&client.tunnel)
        .await?
        .answer()
        .await?
        .must_be(403, "for an address that `allow` does not name")?;
    client.expect_none_of("connection", "as the viewer was not let in").await
}

async fn rate(world: World) -> Outcome {
    let mut client =
        with_policy(&world, json!({ "rate_limit": { "rate": "1/h", "burst": 1, "per": "tunnel" } })).await?;
    client.served().await?;
    expect_retry_after(
        &world
            .asking(&client.tunnel)
            .await?
            .answer()
            .await?
            .must_be(429, "for the second request in an hour that has one")?,
    )
}

async fn keep_alive(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.ask("POST", "/1", "", b"one").await?;
    viewer.ask("POST", "/2", "", b"two").await?;
    for number in ["/1", "/2"] {
        let mut data = client.accept().await?;
        let request = data.request().await?;
        want(request.line.contains(number), &format!("the request for {number}"), request.line)?;
        data.exactly(3, "the body of the request").await?;
        data.say(OK).await?;
        viewer.answer().await?.must_be(200, "of the target")?;
    }
    Ok(())
}

async fn early_answer(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.begin("POST", "/", "Content-Length: 1000000\r\n").await?;
    viewer.wire.say(b"kit").await?;
    let mut data = client.accept().await?;
    data.request().await?;
    data.say("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await?;
    viewer.answer().await?.must_be(413, "of the target").map(drop)
}
