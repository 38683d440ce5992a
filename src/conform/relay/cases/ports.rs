//! Tunnels whose bytes nobody reads, and targets that are told who the viewer is (sections 2.5 and 2.6).

use std::sync::Arc;

use rustls::pki_types::ServerName;
use serde_json::{Value, json};

use super::{QUICK, base, runs, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::data::OK;
use crate::conform::relay::rest::Tunnel;
use crate::conform::relay::socket::Came;
use crate::conform::relay::wire::{End, Wire};
use crate::conform::relay::world::World;

pub(super) static CASES: &[Case<World>] = &[
    base(
        "tcp-bytes",
        "a port of the relay leads to the tunnel, and its bytes pass unread",
        &["R-18"],
        QUICK,
        runs!(bytes),
    ),
    base(
        "tcp-socket-of-its-own",
        "each connection has a data socket of its own",
        &["R-18"],
        QUICK,
        runs!(of_its_own),
    ),
    base("tcp-refusals", "what is for HTTP alone is refused", &["R-19"], QUICK, runs!(refusals)),
    base(
        "tcp-port-kept",
        "the port belongs to the name, also when the tunnel was deleted",
        &["R-20"],
        QUICK,
        runs!(kept),
    ),
    base(
        "tcp-nobody",
        "who cannot be served is cut with a reset, and HTTP to such a name is 421",
        &["R-20"],
        QUICK,
        runs!(nobody),
    ),
    base(
        "tls-hello",
        "a TLS connection for the tunnel's name is passed on from its first byte",
        &["R-21"],
        QUICK,
        runs!(hello),
    ),
    base(
        "proxy-header",
        "with proxy_protocol a data socket begins with a PROXY header, and is one viewer's alone",
        &["R-22"],
        QUICK,
        runs!(proxy_header),
    ),
];

/// A tunnel with such fields, where the relay has that kind.
async fn of_kind(world: &World, proto: &str, fields: Value) -> Outcome<Tunnel> {
    let mut body = json!({ "proto": proto });
    if let (Some(body), Some(fields)) = (body.as_object_mut(), fields.as_object()) {
        body.extend(fields.clone());
    }
    let answer = world.try_create(world.key(), &body).await?;
    let tunnel = answer.json()?;
    if matches!(tunnel["code"].as_str(), Some("no_tcp_ports" | "no_base_domain")) {
        return Err(Ended::Skipped(format!("the relay has no tunnels for {proto}: {}", tunnel["code"])));
    }
    if answer.status < 300 && tunnel["proto"] != proto {
        return Err(Ended::Skipped("the relay knows only HTTP: its tunnels have no such `proto`".into()));
    }
    match answer.status {
        200 | 201 => Tunnel::read(tunnel, world.host()),
        _ => Err(Ended::failed(format!("201 for a tunnel with {body}"), answer.shown())),
    }
}

/// A viewer's connection to the tunnel's port.
async fn connect(world: &World, tunnel: &Tunnel) -> Outcome<Wire> {
    let port = tunnel.json["remote_port"].as_u64().and_then(|port| u16::try_from(port).ok());
    world.port(port.ok_or_else(|| Ended::failed("`remote_port`", tunnel.json.to_string()))?).await
}

async fn bytes(world: World) -> Outcome {
    let mut client = world.serve(of_kind(&world, "tcp", Value::Null).await?).await?;
    let mut viewer = connect(&world, &client.tunnel).await?;
    viewer.say(b"\0\xff not HTTP\r\n").await?;
    let mut data = client.accept().await?;
    data.expect_bytes(b"\0\xff not HTTP\r\n").await?;
    data.say(b"\x01 neither").await?;
    let came = viewer.exactly(9, "what the target says").await?;
    want(came == b"\x01 neither"[..], "what the target says", String::from_utf8_lossy(&came))?;
    viewer.finish().await?;
    data.socket.expect_end("the end of the data socket, as the viewer has ended").await
}

async fn of_its_own(world: World) -> Outcome {
    let mut client = world.serve(of_kind(&world, "tcp", Value::Null).await?).await?;
    for word in [b"one", b"two"] {
        let mut viewer = connect(&world, &client.tunnel).await?;
        viewer.say(word).await?;
        let mut data = client.accept().await?;
        data.expect_bytes(word).await?;
        data.socket.close(1000).await?;
        viewer.rest("the end of the viewer's connection").await?;
    }
    Ok(())
}

async fn refusals(world: World) -> Outcome {
    of_kind(&world, "tcp", Value::Null).await?;
    for (fields, code) in [
        (json!({ "proto": "tcp", "auth_user": "ann", "auth_pass": "secret" }), "only_http"),
        (json!({ "proto": "tcp", "host_header": "localhost" }), "only_http"),
        (json!({ "proto": "tcp", "policy": { "max_body": 1000 } }), "invalid_policy"),
    ] {
        let answer = world.try_create(world.key(), &fields).await?;
        answer.refused(400, code, &format!("for {fields}"))?;
    }
    Ok(())
}

async fn kept(world: World) -> Outcome {
    let first = of_kind(&world, "tcp", Value::Null).await?;
    world.delete(&first).await?;
    let again = of_kind(&world, "tcp", json!({ "name": first.slug })).await?;
    let (before, now) = (&first.json["remote_port"], &again.json["remote_port"]);
    want(before == now, &format!("the port {before}"), now)
}

async fn nobody(world: World) -> Outcome {
    let tunnel = of_kind(&world, "tcp", Value::Null).await?;
    let http = world.tunnel(Value::Null).await?;
    let by_name = |text: &str| text.replace(&http.slug, &tunnel.slug);
    let elsewhere = Tunnel { host: by_name(&http.host), prefix: by_name(&http.prefix), ..http.clone() };
    world.asking(&elsewhere).await?.answer().await?.must_be(421, "for HTTP to the name of a tcp tunnel")?;
    let mut viewer = connect(&world, &tunnel).await?;
    viewer.patience = std::time::Duration::from_secs(25);
    viewer.say(b"anybody").await?;
    let (_, end) = viewer.rest("the end of a connection that nobody serves").await?;
    want(matches!(end, End::Broken(_)), "a reset", Came::Ended(end).shown())
}

async fn hello(world: World) -> Outcome {
    let tunnel = of_kind(&world, "tls", Value::Null).await?;
    let (name, port) = tunnel.host.split_once(':').unwrap_or((&tunnel.host, "443"));
    let hello = client_hello(name).map_err(|error| Ended::failed("a ClientHello of the kit", error))?;
    let mut viewer = world.port(port.parse().unwrap_or(443)).await?;
    let mut client = world.serve(tunnel).await?;
    viewer.write(&hello).await?;
    let mut data = client.accept().await?;
    let came = data.exactly(hello.len(), "the whole ClientHello").await?;
    want(came == hello[..], "the ClientHello byte for byte", format!("{} other bytes", came.len()))?;
    data.say("no TLS").await?;
    let came = viewer.exactly(6, "what the target says").await?;
    want(came == "no TLS", "what the target says", String::from_utf8_lossy(&came))
}

/// The first flight of a TLS client that wants `name`.
fn client_hello(name: &str) -> Result<Vec<u8>, String> {
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let connector = crate::stream::tls::unverified().map_err(|error| error.to_string())?;
    let mut connection = rustls::ClientConnection::new(Arc::clone(connector.config()), name)
        .map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

async fn proxy_header(world: World) -> Outcome {
    let tunnel = world.tunnel(json!({ "proxy_protocol": "v1" })).await?;
    if tunnel.json.get("proxy_protocol").is_none() {
        return Err(Ended::Skipped("the relay knows no proxy_protocol".into()));
    }
    let mut client = world.serve(tunnel).await?;
    for _ in 0..2 {
        let mut viewer = world.asking(&client.tunnel).await?;
        let mut data = client.accept().await?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend_from_slice(&data.exactly(1, "the line of a PROXY header").await?);
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let right = matches!(words[..], ["PROXY", "TCP4" | "TCP6", source, _, port, _]
            if source.parse::<std::net::IpAddr>().is_ok() && port.parse::<u16>().is_ok());
        want(right, "PROXY TCP4 or TCP6 with the addresses and ports", &line)?;
        data.request().await?;
        data.say(OK).await?;
        viewer.answer().await?.must_be(200, "of the target")?;
        // The next viewer gets another socket, though this one is open.
        drop(viewer);
        data.socket.expect_end("the end of the data socket with its viewer's connection").await?;
    }
    Ok(())
}
