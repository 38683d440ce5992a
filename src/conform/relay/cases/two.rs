//! What a relay says at level two (section 8.1), and what clients say to it (8.2).

use std::time::Duration;

use serde_json::{Value, json};

use super::{QUICK, runs, two, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::control::Client;
use crate::conform::relay::socket::Came;
use crate::conform::relay::world::{World, bearer};
use crate::proto::frame::Opcode;

pub(super) static CASES: &[Case<World>] = &[
    two(
        "two-welcome",
        "`welcome` is the first message and has every number",
        &["R-58", "R-60"],
        QUICK,
        runs!(welcome),
    ),
    two(
        "two-among-offers",
        "adit.1 is found among other offers, and adit.2 alone is a session of the base level",
        &["R-58"],
        QUICK,
        runs!(offers),
    ),
    two(
        "two-connection",
        "`connection` says what the bytes are and who the viewer is",
        &["R-61"],
        QUICK,
        runs!(connection),
    ),
    two(
        "two-unknown-messages",
        "messages and fields that the relay does not know are ignored",
        &["R-59"],
        QUICK,
        runs!(unknown),
    ),
    two(
        "two-error",
        "a message that cannot be read is answered with `error`, ten times at most, and the session goes on",
        &["R-65"],
        QUICK,
        runs!(error),
    ),
    two(
        "two-cancel",
        "a viewer that leaves before its claim is cancelled, and its id is void",
        &["R-62"],
        QUICK,
        runs!(cancel),
    ),
    two(
        "two-cancel-late",
        "a connection that nobody took up is cancelled",
        &["R-62"],
        60,
        runs!(cancel_late),
    ),
    two(
        "two-cancel-not-for-half-closed",
        "a viewer that only ends its sending side is not cancelled",
        &["R-62"],
        QUICK,
        runs!(half_closed),
    ),
    two(
        "two-reject",
        "the viewer of a rejected connection gets 502 at once, with the client's message",
        &["R-67"],
        QUICK,
        runs!(reject),
    ),
    two(
        "two-reject-after-claim",
        "a connection can be rejected when its data socket is open",
        &["R-67"],
        QUICK,
        runs!(reject_after),
    ),
    two(
        "two-reject-others",
        "ids that are not announced in this session cannot be rejected",
        &["R-68"],
        QUICK,
        runs!(reject_others),
    ),
    two("two-auth", "a key that is good for the session is accepted", &["R-64", "R-69"], QUICK, runs!(auth)),
    two(
        "two-auth-refused",
        "one that is not is refused with a reason, which changes nothing",
        &["R-64", "R-69"],
        QUICK,
        runs!(auth_refused),
    ),
    two("two-auth-order", "answers come in the order of the questions", &["R-69"], QUICK, runs!(auth_order)),
    two(
        "two-expiring",
        "a tunnel that ends within a minute is told so, once",
        &["R-63"],
        QUICK,
        runs!(expiring),
    ),
    two(
        "two-large-message",
        "a message over the limit closes with `message_too_big` and 1009",
        &["R-66", "R-25"],
        QUICK,
        runs!(large),
    ),
];

async fn welcome(world: World) -> Outcome {
    let client = world.two().await?;
    let told = &client.first;
    want(told["session"].as_str().is_some_and(|session| !session.is_empty()), "`session`", told)?;
    for field in ["ping_interval_ms", "pong_timeout_ms", "claim_ms"] {
        want(told[field].is_u64(), &format!("`{field}` in milliseconds"), told)?;
    }
    for field in ["control_message_bytes", "data_message_bytes", "waiting", "standby"] {
        want(told["limits"][field].is_u64(), &format!("`limits` with `{field}`"), told)?;
    }
    let other = world.two().await?;
    want(
        other.welcome.session != client.welcome.session,
        "a `session` of its own for each",
        &other.welcome.session,
    )
}

async fn offers(world: World) -> Outcome {
    let tunnel = world.two().await?.tunnel;
    let key = bearer(world.key());
    for (offer, agreed) in
        [("chat, adit.1", Some("adit.1")), ("adit.2, adit.1", Some("adit.1")), ("chat, adit.2", None)]
    {
        let lines = format!("{key}Sec-WebSocket-Protocol: {offer}\r\n");
        let opened = world.socket("control", &format!("/ws/control?tunnel_id={}", tunnel.id), &lines).await?;
        let (_, head) =
            opened.map_err(|answer| Ended::failed(format!("101 for the offer {offer}"), answer.shown()))?;
        let found = head.headers.get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
        want(found == agreed, &format!("{agreed:?} of the offer {offer}"), format!("{found:?}"))?;
    }
    Ok(())
}

async fn connection(world: World) -> Outcome {
    let mut client = world.two().await?;
    let _viewer = world.asking(&client.tunnel).await?;
    let told = client.hear_of("connection").await?;
    want(told["id"].is_string() && told["proto"] == "http", "`id`, and `proto` http", &told)?;
    let address = told["remote_addr"].as_str().and_then(|text| text.parse::<std::net::SocketAddr>().ok());
    want(address.is_some(), "`remote_addr` as ADDRESS:PORT", &told)
}

/// Answered by the relay when all that was said before has been read.
async fn sentinel(client: &mut Client, world: &World) -> Outcome<Value> {
    client.say(&json!({ "type": "auth", "token": world.settings().key })).await?;
    client.hear_of("auth").await
}

async fn unknown(world: World) -> Outcome {
    let mut client = world.two().await?;
    client.say(&json!({ "type": "dance", "partner": [1, 2] })).await?;
    client.say(&json!({ "type": "auth", "token": world.settings().key, "since": 1 })).await?;
    loop {
        let told = client.hear().await?;
        want(told["type"] != "error", "no `error` for an unknown message", &told)?;
        if told["type"] == "auth" {
            return want(told["accepted"] == true, "an `auth` whose unknown field is ignored", told);
        }
    }
}

async fn error(world: World) -> Outcome {
    let mut client = world.two().await?;
    for bad in ["nonsense", "[]", "{}", r#"{"type":7}"#, r#"{"type":"auth"}"#] {
        client.socket.send(Opcode::Text, true, bad.as_bytes()).await?;
        let told = client.hear_of("error").await?;
        want(
            told["message"].as_str().is_some_and(|text| !text.is_empty()),
            "a `message` for the author of the client",
            told,
        )?;
    }
    for _ in 0..10 {
        client.socket.send(Opcode::Text, true, b"nonsense").await?;
    }
    client.say(&json!({ "type": "auth", "token": world.settings().key })).await?;
    let mut told = 5;
    loop {
        match client.hear().await? {
            message if message["type"] == "error" => told += 1,
            message if message["type"] == "auth" => {
                return want(told <= 10, "at most ten `error`s in a session", told);
            }
            _ => {}
        }
    }
}

async fn cancel(world: World) -> Outcome {
    let mut client = world.two().await?;
    let viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    viewer.wire.reset();
    let told = client.hear_of("cancel").await?;
    want(told["id"] == id.as_str(), &format!("`cancel` of {id}"), told)?;
    world.refused(&id, client.data_key(), 404, "connection_not_found", "for a cancelled connection").await
}

async fn cancel_late(world: World) -> Outcome {
    let mut client = world.two().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    client.socket.wire.patience = world.beyond(client.welcome.claim());
    let told = client.hear_of("cancel").await?;
    want(told["id"] == id.as_str(), &format!("`cancel` of {id}"), told)?;
    viewer.answer().await?.must_be(504, "for the viewer of a connection that nobody takes up").map(drop)
}

async fn half_closed(world: World) -> Outcome {
    let mut client = world.two().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    viewer.wire.finish().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.expect_none_of("cancel", "as the viewer waits for its answer").await?;
    client.take(&id).await?.serve().await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn reject(world: World) -> Outcome {
    let mut client = world.two().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    client
        .say(&json!({ "type": "reject", "id": id, "reason": "refused", "message": "the kit is not at home" }))
        .await?;
    let answer = viewer.answer().await?.must_be(502, "at once for a rejected connection")?;
    want(
        answer.text().contains("the kit is not at home"),
        "the client's message, shown to the viewer",
        answer.text(),
    )?;
    world.refused(&id, client.data_key(), 404, "connection_not_found", "for a rejected connection").await
}

async fn reject_after(world: World) -> Outcome {
    let mut client = world.two().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    let mut data = client.take(&id).await?;
    data.request().await?;
    client.say(&json!({ "type": "reject", "id": id, "reason": "timed_out" })).await?;
    viewer.answer().await?.must_be(502, "at once for a rejected connection")?;
    data.socket.expect_end("the end of the data socket of a rejected connection").await
}

async fn reject_others(world: World) -> Outcome {
    let (mut client, mut other) = tokio::try_join!(world.two(), world.two())?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    for nobody in [json!(id), json!(uuid::Uuid::new_v4()), json!("x")] {
        other.say(&json!({ "type": "reject", "id": nobody, "reason": "refused" })).await?;
    }
    sentinel(&mut other, &world).await?;
    client.take(&id).await?.serve().await?;
    viewer.answer().await?.must_be(200, "of the client that was not asked").map(drop)
}

async fn auth(world: World) -> Outcome {
    let mut client = world.two().await?;
    let told = sentinel(&mut client, &world).await?;
    want(told["accepted"] == true, "`accepted` is true", &told)?;
    let left = told.get("expires_in_ms").is_none_or(Value::is_u64);
    want(left, "`expires_in_ms` as an integer, or none for a key that has no end", told)?;
    client.served().await.map(drop)
}

async fn auth_refused(world: World) -> Outcome {
    let mut client = world.two().await?;
    let foreign = world.key2().ok().map(str::to_owned);
    for token in
        ["nbk_nobody_0123456789abcdef".to_owned(), "a\nb".into(), "".into()].into_iter().chain(foreign)
    {
        client.say(&json!({ "type": "auth", "token": token })).await?;
        let told = client.hear_of("auth").await?;
        want(
            told["accepted"] == false && told["error"].is_string(),
            "`accepted` is false, and an `error` in words",
            told,
        )?;
    }
    client.served().await.map(drop)
}

async fn auth_order(world: World) -> Outcome {
    let mut client = world.two().await?;
    let key = world.key();
    let questions = [
        (key, true),
        ("nbk_nobody", false),
        (key, true),
        ("nbk_nobody", false),
        ("nbk_nobody", false),
        (key, true),
    ];
    for (token, _) in questions {
        client.say(&json!({ "type": "auth", "token": token })).await?;
    }
    for (number, (_, good)) in questions.into_iter().enumerate() {
        let told = client.hear_of("auth").await?;
        want(told["accepted"] == good, &format!("`accepted` is {good} in answer {number}"), told)?;
    }
    Ok(())
}

async fn expiring(world: World) -> Outcome {
    let mut client = world.two().await?;
    let path = client.tunnel.path("/extend");
    world.call("POST", &path, &json!({ "ttl": "3s" })).await?.must_be(200, "for an extension")?;
    let told = client.hear_of("expiring").await?;
    want(told["what"] == "tunnel" && told["at"].is_string(), "`what` is tunnel, and `at` a time", &told)?;
    want(told["in_ms"].as_u64().is_some_and(|left| left <= 3000), "`in_ms`, at most 3000", told)?;
    client.socket.wire.patience = world.beyond(Duration::from_secs(5));
    loop {
        let next = client.hear().await?;
        want(next["type"] != "expiring", "that it is told once", &next)?;
        if next["type"] == "closed" {
            return want(next["reason"] == "expired", "`closed` with the reason expired", next);
        }
    }
}

async fn large(world: World) -> Outcome {
    let mut client = world.two().await?;
    client.say(&json!({ "type": "auth", "token": "x".repeat(70_000) })).await?;
    let told = client.hear_of("closed").await?;
    want(told["reason"] == "message_too_big", "`closed` with the reason message_too_big", told)?;
    match client.socket.next("a close frame behind `closed`").await? {
        Came::Close(Some(1009), _) => Ok(()),
        other => want(false, "a close frame with 1009 behind `closed`", other.shown()),
    }
}
