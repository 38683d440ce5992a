//! Which headers and which target go on, each way (section 6), and what upgrades are.

use serde_json::{Value, json};

use super::{QUICK, base, runs, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::data::Request;
use crate::conform::relay::rest::Tunnel;
use crate::conform::relay::world::World;

pub(super) static CASES: &[Case<World>] = &[
    base("header-host", "the target gets the viewer's Host", &["R-54"], QUICK, runs!(host)),
    base("header-host-wanted", "or the one that the client wants", &["R-54"], QUICK, runs!(host_wanted)),
    base(
        "header-forwarded",
        "the target is told who asked, by which scheme and for which host",
        &["R-54"],
        QUICK,
        runs!(forwarded),
    ),
    base(
        "header-forwarded-claimed",
        "what a viewer claims to be is replaced",
        &["R-54"],
        QUICK,
        runs!(claimed),
    ),
    base(
        "header-hop-by-hop",
        "headers of the viewer's connection stay at the relay, and others pass",
        &["R-54", "R-43"],
        QUICK,
        runs!(hop_by_hop),
    ),
    base(
        "header-answer",
        "headers of the answer pass, but for those of the target's connection",
        &["R-43"],
        QUICK,
        runs!(answer),
    ),
    base("header-target-raw", "the request target goes on as raw as it came", &["R-54"], QUICK, runs!(raw)),
    base("header-prefix", "by path the prefix is taken off and told", &["R-55"], QUICK, runs!(prefix)),
    base(
        "header-no-body",
        "HEAD, 204 and 304 have no body, whatever their headers say",
        &["R-43"],
        QUICK,
        runs!(no_body),
    ),
    base(
        "header-policy",
        "a policy adds, replaces and removes headers both ways",
        &["R-54"],
        QUICK,
        runs!(policy),
    ),
    base(
        "upgrade-raw",
        "after the target's 101 bytes pass raw both ways, also those right behind a head",
        &["R-49"],
        QUICK,
        runs!(upgrade),
    ),
    base(
        "upgrade-not-asked",
        "a 101 that nobody asked for is 502",
        &["R-49", "R-52"],
        QUICK,
        runs!(not_asked),
    ),
];

/// The request that the target gets when a viewer sends these header lines.
async fn seen(world: &World, fields: Value, path: &str, lines: &str) -> Outcome<(Request, Tunnel)> {
    let mut client = world.client_of(fields).await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.ask("GET", path, lines, b"").await?;
    let request = client.accept().await?.serve().await?;
    viewer.answer().await?.must_be(200, "of the target")?;
    Ok((request, client.tunnel))
}

async fn host(world: World) -> Outcome {
    let (request, tunnel) = seen(&world, Value::Null, "/", "").await?;
    request.must_have("host", &tunnel.host)
}

async fn host_wanted(world: World) -> Outcome {
    let (request, _) = seen(&world, json!({ "host_header": "localhost:3000" }), "/", "").await?;
    request.must_have("host", "localhost:3000")
}

async fn forwarded(world: World) -> Outcome {
    let (request, tunnel) = seen(&world, Value::Null, "/", "").await?;
    let address = request.header("x-forwarded-for");
    want(
        address.rsplit(", ").next().is_some_and(|last| last.parse::<std::net::IpAddr>().is_ok()),
        "X-Forwarded-For with an address",
        address,
    )?;
    let scheme = if world.settings().place.url().is_tls() { "https" } else { "http" };
    request.must_have("x-forwarded-proto", scheme)?;
    request.must_have("x-forwarded-host", &tunnel.host)
}

async fn claimed(world: World) -> Outcome {
    let lines = "X-Forwarded-For: 192.0.2.66\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: evil.example.com\r\nX-Forwarded-Prefix: /evil\r\n";
    let (request, tunnel) = seen(&world, Value::Null, "/", lines).await?;
    let address = request.header("x-forwarded-for");
    let expected = "an X-Forwarded-For that the viewer has not made up (a relay that trusts this machine as a proxy is to be \
                    tested from another)";
    want(!address.contains("192.0.2.66"), expected, address)?;
    want(
        request.header("x-forwarded-proto") != "gopher",
        "an X-Forwarded-Proto that the viewer has not made up",
        "gopher",
    )?;
    want(
        !request.header("x-forwarded-prefix").contains("evil"),
        "no X-Forwarded-Prefix that the viewer has made up",
        &request.head,
    )?;
    request.must_have("x-forwarded-host", &tunnel.host)
}

async fn hop_by_hop(world: World) -> Outcome {
    let lines = "Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: Basic eDp5\r\n\
                 Upgrade: h2c\r\nTE: gzip\r\nX-Kept: yes\r\nX-Kept: twice\r\nAuthorization: Basic eDp5\r\nCookie: a=b\r\n";
    let (request, _) = seen(&world, Value::Null, "/", lines).await?;
    for gone in ["x-secret", "keep-alive", "proxy-authorization", "upgrade", "te"] {
        request.must_not_have(gone)?;
    }
    for (kept, value) in [("x-kept", "yes, twice"), ("authorization", "Basic eDp5"), ("cookie", "a=b")] {
        request.must_have(kept, value)?;
    }
    Ok(())
}

async fn answer(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.say(
        "HTTP/1.1 404 Not Found\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=9\r\nX-Kept: yes\r\n\
         Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 2\r\n\r\nno",
    )
    .await?;
    let answer = viewer.answer().await?.must_be(404, "of the target")?;
    for gone in ["x-secret", "keep-alive"] {
        want(!answer.headers.contains_key(gone), &format!("no {gone}"), format!("{:?}", answer.headers))?;
    }
    let cookies = answer.headers.get_all("set-cookie").iter().count();
    want(
        cookies == 2 && answer.header("x-kept") == "yes",
        "both cookies, and X-Kept",
        format!("{:?}", answer.headers),
    )
}

async fn raw(world: World) -> Outcome {
    let mut client = world.client_of(json!({ "reuse": false })).await?;
    for path in [
        "/",
        "//",
        "/a//b///",
        "/%2F%2f",
        "/..%2f..%2fetc",
        "/a/../b/./c",
        "/%zz",
        "/?",
        "/?a=b&&c=%26?d",
        "/v1/tunnels",
        "/health",
    ] {
        let mut viewer = world.viewer(&client.tunnel).await?;
        viewer.ask("GET", path, "Connection: close\r\n", b"").await?;
        let request = client.accept().await?.serve().await?;
        let expected = format!("GET {path} HTTP/1.1");
        want(request.line == expected, &expected, &request.line)?;
        viewer.answer().await?.must_be(200, "of the target")?;
    }
    Ok(())
}

async fn prefix(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    let prefix = format!("/t/{}", tunnel.slug);
    let by_path = Tunnel { host: world.host().to_owned(), prefix: prefix.clone(), ..tunnel.clone() };
    let mut client = world.serve(tunnel).await?;
    let mut viewer = world.viewer(&by_path).await?;
    viewer.ask("GET", "/a%2Fb?c", "", b"").await?;
    let request = tokio::select! {
        answer = viewer.answer() => {
            let answer = answer?;
            return match answer.status {
                404 => Err(Ended::Skipped("the relay has no tunnels by path".into())),
                _ => want(false, "the request by path reaches the target", answer.shown()),
            };
        }
        data = client.accept() => data?.serve().await?,
    };
    want(request.line == "GET /a%2Fb?c HTTP/1.1", "GET /a%2Fb?c HTTP/1.1", &request.line)?;
    request.must_have("x-forwarded-prefix", &prefix)
}

async fn no_body(world: World) -> Outcome {
    let mut client = world.client().await?;
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let mut viewer = world.viewer(&client.tunnel).await?;
        viewer.ask(method, "/", "", b"").await?;
        let mut data = client.accept().await?;
        data.request().await?;
        let length = if status == 204 { "" } else { "Content-Length: 4\r\n" };
        data.say(format!("HTTP/1.1 {status} Kit\r\nConnection: close\r\n{length}\r\n")).await?;
        viewer.answer().await?.must_be(status, "of the target")?;
        // A body would pass for the beginning of the next answer.
        viewer.ask("GET", "/", "", b"").await?;
        client.accept().await?.serve().await?;
        viewer.answer().await?.must_be(200, &format!("behind a {status} of {method} without a body"))?;
    }
    Ok(())
}

async fn policy(world: World) -> Outcome {
    let policy = json!({ "request_headers": ["X-Kit: one", "-X-Gone"], "response_headers": ["X-Frame-Options: DENY", "-Server"] });
    let tunnel = world.tunnel(json!({ "policy": policy })).await?;
    super::refusals::want_policies(&tunnel.json)?;
    let mut client = world.serve(tunnel).await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.ask("GET", "/", "X-Gone: yes\r\nX-Kit: other\r\n", b"").await?;
    let mut data = client.accept().await?;
    let request = data.request().await?;
    request.must_have("x-kit", "one")?;
    request.must_not_have("x-gone")?;
    data.say("HTTP/1.1 200 OK\r\nServer: kit\r\nContent-Length: 0\r\n\r\n").await?;
    let answer = viewer.answer().await?.must_be(200, "of the target")?;
    want(
        answer.header("x-frame-options") == "DENY" && answer.header("server") != "kit",
        "the headers that the policy wants",
        format!("{:?}", answer.headers),
    )
}

async fn upgrade(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: kit\r\n\r\nfirst words",
        viewer.target("/"),
        viewer.host
    );
    viewer.wire.say(head.as_bytes()).await?;
    let mut data = client.accept().await?;
    data.request().await?.must_have("upgrade", "kit")?;
    data.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: kit\r\n\r\nwelcome")
        .await?;
    let answer = viewer.head().await?;
    want(
        answer.status == 101 && answer.headers.get("upgrade").is_some_and(|value| value == "kit"),
        "101 with Upgrade: kit",
        format!("{answer:?}"),
    )?;
    viewer.expect_bytes(b"welcome").await?;
    data.expect_bytes(b"first words").await?;
    viewer.wire.say(b"GET / HTTP/1.1\r\n\r\n\0\r\n").await?;
    data.expect_bytes(b"GET / HTTP/1.1\r\n\r\n\0\r\n").await?;
    data.say("HTTP/1.1 400 \0").await?;
    viewer.expect_bytes(b"HTTP/1.1 400 \0").await
}

async fn not_asked(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: kit\r\n\r\nraw").await?;
    viewer.answer().await?.must_be(502, "for a 101 that nobody asked for").map(drop)
}
