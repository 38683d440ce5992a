//! The control socket of a base client (section 3): its handshake, its messages, its life.

use serde_json::Value;

use super::{QUICK, base, runs, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::http::Answer;
use crate::conform::relay::socket::{Came, frame, handshake};
use crate::conform::relay::world::{World, bearer};
use crate::proto::frame::Opcode;

pub(super) static CASES: &[Case<World>] = &[
    base(
        "control-handshake",
        "the handshake is answered with 101, without a subprotocol or an extension",
        &["R-23", "R-58"],
        QUICK,
        runs!(opens),
    ),
    base(
        "control-refusals",
        "a handshake that is wrong is refused with the code for it",
        &["R-23"],
        QUICK,
        runs!(refusals),
    ),
    base(
        "control-foreign",
        "the control socket of somebody else's tunnel is 403",
        &["R-23"],
        QUICK,
        runs!(foreign),
    ),
    base(
        "control-first-ping",
        "the relay pings right after the handshake",
        &["R-26"],
        QUICK,
        runs!(first_ping),
    ),
    base(
        "control-ping-answered",
        "each ping of the client is answered with its payload",
        &["R-27"],
        QUICK,
        runs!(pings_answered),
    ),
    base(
        "control-connection",
        "a viewer is announced in a text message with a type and an id, each with its own",
        &["R-24", "R-58"],
        QUICK,
        runs!(connection),
    ),
    base(
        "control-client-messages",
        "what a base client says is ignored, up to 64 KiB",
        &["R-25"],
        QUICK,
        runs!(ignored),
    ),
    base(
        "control-large-message",
        "a message over 64 KiB closes the socket with 1009",
        &["R-25", "R-30"],
        QUICK,
        runs!(large),
    ),
    base(
        "control-large-fragments",
        "so does one that is too large in all its fragments",
        &["R-25"],
        QUICK,
        runs!(large_fragments),
    ),
    base(
        "control-bad-text",
        "text that is no UTF-8 closes the socket with 1007",
        &["R-30"],
        QUICK,
        runs!(bad_text),
    ),
    base(
        "control-broken-frame",
        "a frame that breaks RFC 6455 closes the socket with 1002",
        &["R-30"],
        QUICK,
        runs!(broken_frame),
    ),
    base(
        "control-close-answered",
        "a client that says goodbye gets its close frame back",
        &["R-30"],
        QUICK,
        runs!(close_answered),
    ),
    base("control-next-ping", "the relay pings again at its interval", &["R-26"], 75, runs!(next_ping)),
    base(
        "control-silent-client",
        "a client that answers no ping is closed with 1001, though it sends other things",
        &["R-26"],
        100,
        runs!(silent),
    ),
];

async fn opens(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    let lines = format!(
        "{}Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        bearer(world.key())
    );
    let opened = world.socket("control", &format!("/ws/control?tunnel_id={}", tunnel.id), &lines).await?;
    let (mut socket, head) = opened.map_err(|answer| Ended::failed("101", answer.shown()))?;
    for name in ["sec-websocket-extensions", "sec-websocket-protocol"] {
        want(
            !head.headers.contains_key(name),
            &format!("no {name}, as none was agreed"),
            format!("{:?}", head.headers),
        )?;
    }
    socket.ping(b"open").await
}

/// The answer to a handshake as raw as it stands.
async fn answer(world: &World, handshake: &str) -> Outcome<Answer> {
    let mut wire = world.caller().await?;
    wire.say(handshake.as_bytes()).await?;
    Answer::read(&mut wire, &::http::Method::GET, "an answer to a handshake").await
}

async fn refusals(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    let (host, key) = (world.host().to_owned(), bearer(world.key()));
    let path = format!("/ws/control?tunnel_id={}", tunnel.id);
    let good = handshake(&path, &host, &key);
    let unknown = format!("/ws/control?tunnel_id={}", uuid::Uuid::new_v4());
    for (what, request, status, code) in [
        ("without a tunnel", handshake("/ws/control", &host, &key), 400, "missing_parameter"),
        ("without a key", handshake(&path, &host, ""), 401, "unauthorized"),
        (
            "with an unknown key",
            handshake(&path, &host, &bearer("nbk_nobody_0123456789")),
            401,
            "unauthorized",
        ),
        ("for a tunnel that is not there", handshake(&unknown, &host, &key), 404, "tunnel_not_found"),
        ("without an upgrade", good.replace("Upgrade: websocket\r\n", ""), 400, "not_websocket"),
        ("without Sec-WebSocket-Key", good.replace("Sec-WebSocket-Key:", "X-Nothing:"), 400, "not_websocket"),
        ("with version 8", good.replace("Version: 13", "Version: 8"), 426, "websocket_version"),
    ] {
        let refused =
            answer(&world, &request).await?.refused(status, code, &format!("for a handshake {what}"))?;
        if status == 426 {
            let version = refused.header("sec-websocket-version");
            want(version == "13", "Sec-WebSocket-Version: 13 beside 426", version)?;
        }
    }
    Ok(())
}

async fn foreign(world: World) -> Outcome {
    let key2 = bearer(world.key2()?);
    let tunnel = world.tunnel(Value::Null).await?;
    let request = handshake(&format!("/ws/control?tunnel_id={}", tunnel.id), world.host(), &key2);
    answer(&world, &request).await?.refused(403, "foreign_tunnel", "with another owner's key").map(drop)
}

async fn first_ping(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    let mut client = world.serve(tunnel).await?;
    let first = client.socket.next("a ping right after the handshake").await?;
    want(matches!(first, Came::Ping(_)), "a ping right after the handshake", first.shown())
}

async fn pings_answered(world: World) -> Outcome {
    let mut client = world.client().await?;
    for payload in [&b""[..], b"kit", &[0xff; 125]] {
        client.socket.ping(payload).await?;
    }
    Ok(())
}

async fn connection(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let _viewer = world.asking(&client.tunnel).await?;
        let told = client.hear().await?;
        want(
            told["type"] == "connection",
            "a message of the type `connection`, and no other at base level",
            &told,
        )?;
        let id = told["id"].as_str().unwrap_or_default().to_owned();
        let plain = id.len() >= 20 && id.bytes().all(|byte| byte.is_ascii_graphic());
        want(plain && !ids.contains(&id), "an `id` of its own that cannot be guessed", &told)?;
        ids.push(id);
    }
    Ok(())
}

async fn ignored(world: World) -> Outcome {
    let mut client = world.client().await?;
    for text in ["hello", "{\"type\":\"connection\"}", "{\"type\":\"reject\",\"id\":\"x\"}", ""] {
        client.socket.send(Opcode::Text, true, text.as_bytes()).await?;
    }
    client.socket.send(Opcode::Binary, true, b"\xff\x00").await?;
    client.socket.send(Opcode::Text, true, &[b'x'; 64 * 1024]).await?;
    client.socket.ping(b"still here").await?;
    client.served().await.map(drop)
}

async fn large(world: World) -> Outcome {
    let mut client = world.client().await?;
    client.socket.send(Opcode::Text, true, &vec![b'x'; 64 * 1024 + 1]).await?;
    client.socket.expect_close(1009, "as a control message has at most 64 KiB").await.map(drop)
}

async fn large_fragments(world: World) -> Outcome {
    let mut client = world.client().await?;
    client.socket.send(Opcode::Text, false, &[b'x'; 40 * 1024]).await?;
    client.socket.send(Opcode::Continuation, true, &[b'x'; 40 * 1024]).await?;
    client.socket.expect_close(1009, "as a control message has at most 64 KiB").await.map(drop)
}

async fn bad_text(world: World) -> Outcome {
    let mut client = world.client().await?;
    client.socket.send(Opcode::Text, true, b"\xff").await?;
    client.socket.expect_close(1007, "as the text was no UTF-8").await.map(drop)
}

/// Frames that RFC 6455 forbids.
pub(super) fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let with_first = |first: u8| {
        let mut bytes = frame(Opcode::Binary, true, b"x");
        bytes[0] = first;
        bytes
    };
    vec![
        ("a reserved bit was set", with_first(0xc2)),
        ("the opcode is unknown", with_first(0x83)),
        ("the frame was not masked", vec![0x82, 1, b'x']),
        ("a ping came in fragments", with_first(0x09)),
        ("a continuation came of nothing", with_first(0x80)),
        ("a ping was longer than 125 bytes", frame(Opcode::Ping, true, &[0; 126])),
    ]
}

async fn broken_frame(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    for (why, bytes) in broken() {
        let mut client = world.serve(tunnel.clone()).await?;
        client.socket.raw(&bytes).await?;
        client.socket.expect_close(1002, &format!("as {why}")).await?;
    }
    Ok(())
}

async fn close_answered(world: World) -> Outcome {
    let mut client = world.client().await?;
    client.socket.ping(b"open").await?;
    client.socket.close(1000).await?;
    client.socket.expect_close(1000, "as the client has said goodbye").await.map(drop)
}

async fn next_ping(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    let mut client = world.serve(tunnel).await?;
    client.socket.wire.patience = world.beyond(world.times().ping());
    let expected = format!("another ping within {:?}", world.times().ping());
    for _ in 0..2 {
        let came = client.socket.next(&expected).await?;
        want(matches!(came, Came::Ping(_)), &expected, came.shown())?;
    }
    Ok(())
}

async fn silent(world: World) -> Outcome {
    let tunnel = world.tunnel(Value::Null).await?;
    let mut client = world.serve(tunnel).await?;
    client.socket.answers = false;
    client.socket.wire.patience = world.beyond(world.times().pong() + world.times().ping());
    client.socket.send(Opcode::Text, true, b"{}").await?;
    client.socket.send(Opcode::Ping, true, b"alive").await?;
    client.socket.expect_close(1001, "as no ping was answered").await.map(drop)
}
