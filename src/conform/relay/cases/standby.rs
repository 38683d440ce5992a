//! Data sockets that a client holds in advance (section 8.4).

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::{QUICK, runs, two, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::control::Client;
use crate::conform::relay::data::{Data, OK};
use crate::conform::relay::socket::{Came, message};
use crate::conform::relay::world::World;

pub(super) static CASES: &[Case<World>] = &[
    two(
        "standby-assigned",
        "a standby socket is assigned by a text message with its id, then carries the connection",
        &["R-78"],
        QUICK,
        runs!(assigned),
    ),
    two(
        "standby-too-many",
        "one socket more than was asked for is refused",
        &["R-77"],
        QUICK,
        runs!(too_many),
    ),
    two(
        "standby-id-in-use",
        "an id that is in use is refused, and so is one that is no UUID",
        &["R-77"],
        QUICK,
        runs!(ids),
    ),
    two("standby-key", "a standby socket needs the key of the tunnel's owner", &["R-71"], QUICK, runs!(key)),
    two(
        "standby-of-base-session",
        "a tunnel without a session of level two has no standby sockets",
        &["R-77"],
        QUICK,
        runs!(of_base),
    ),
    two("standby-rejected", "an assigned one can be rejected", &["R-67", "R-78"], QUICK, runs!(rejected)),
    two("standby-dead", "one that has died costs no viewer its answer", &["R-78"], QUICK, runs!(dead)),
    two("standby-ends-with-session", "they end with their control socket", &["R-77"], QUICK, runs!(ends)),
    two("standby-ping", "they are pinged, and closed when no pong comes", &["R-77"], 60, runs!(ping)),
];

/// How often the relay pings, and how late a pong may be.
const PING: Duration = Duration::from_secs(15);
const PONG: Duration = Duration::from_secs(5);

/// A client that was asked for standby sockets, and for how many.
async fn asked(world: &World) -> Outcome<(Client, u64)> {
    let mut client = world.two().await?;
    let first = tokio::time::timeout(world.patience().mul_f32(0.5), client.hear_of("standby")).await;
    match first {
        Ok(told) => match told?["want"].as_u64() {
            Some(wanted @ 1..) => Ok((client, wanted)),
            _ => Err(Ended::Skipped("the relay asks for no standby sockets, as it may".into())),
        },
        Err(_) => Err(Ended::Skipped("the relay asks for no standby sockets, as it may".into())),
    }
}

fn path(client: &Client, id: &str) -> String {
    format!("/ws/data?tunnel_id={}&id={id}&session={}", client.tunnel.id, client.welcome.session)
}

/// A standby socket, and its id.
async fn spare(world: &World, client: &Client) -> Outcome<(Data, String)> {
    let id = Uuid::new_v4().to_string();
    let opened = world.data_at(&path(client, &id), client.data_key()).await?;
    Ok((opened.map_err(|answer| Ended::failed("101 for a standby socket", answer.shown()))?, id))
}

async fn refused(world: &World, path: &str, key: &str, status: u16, code: &str, what: &str) -> Outcome {
    match world.data_at(path, key).await? {
        Err(answer) => answer.refused(status, code, what).map(drop),
        Ok(_) => want(false, &format!("{status} `{code}` {what}"), "101: the socket was taken"),
    }
}

/// The assignment of `spare`.
async fn assignment(spare: &mut Data) -> Outcome<Value> {
    let expected = "the assignment of the standby socket";
    match spare.next(expected).await? {
        Came::Data(first) => {
            want(spare.socket.is_text(), "a text message first", "a binary one")?;
            let text = message(&mut spare.socket, first, expected).await?;
            serde_json::from_slice(&text).map_err(|_| Ended::failed(expected, String::from_utf8_lossy(&text)))
        }
        other => Err(Ended::failed(expected, other.shown())),
    }
}

async fn assigned(world: World) -> Outcome {
    let (client, _) = asked(&world).await?;
    let (mut spare, id) = spare(&world, &client).await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let told = assignment(&mut spare).await?;
    want(
        told["type"] == "connection" && told["id"] == id.as_str(),
        &format!("`connection` with the id {id}"),
        &told,
    )?;
    want(told["proto"] == "http" && told["remote_addr"].is_string(), "`proto` and `remote_addr`", told)?;
    spare.request().await?;
    spare.say(OK).await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn too_many(world: World) -> Outcome {
    let (client, wanted) = asked(&world).await?;
    let mut spares = Vec::new();
    for _ in 0..wanted {
        spares.push(spare(&world, &client).await?);
    }
    let one_more = path(&client, &Uuid::new_v4().to_string());
    refused(&world, &one_more, client.data_key(), 409, "too_many_standby", "for one more than was asked for")
        .await
}

async fn ids(world: World) -> Outcome {
    let (client, _) = asked(&world).await?;
    let (_spare, id) = spare(&world, &client).await?;
    let key = client.data_key();
    refused(&world, &path(&client, &id), key, 409, "id_in_use", "for an id that is in use").await?;
    for bad in ["x", &id.to_uppercase(), &id.replace('-', "")] {
        refused(&world, &path(&client, bad), key, 400, "invalid_id", &format!("for the id {bad}")).await?;
    }
    Ok(())
}

async fn key(world: World) -> Outcome {
    let (client, _) = asked(&world).await?;
    let path = path(&client, &Uuid::new_v4().to_string());
    refused(&world, &path, "", 401, "unauthorized", "for a standby socket without a key").await?;
    if let Ok(key2) = world.key2() {
        refused(&world, &path, key2, 403, "foreign_tunnel", "for a standby socket with another owner's key")
            .await?;
    }
    let opened = world.data_at(&path, client.data_key()).await?;
    opened
        .map(drop)
        .map_err(|answer| Ended::failed("101 for a standby socket with the right key", answer.shown()))
}

async fn of_base(world: World) -> Outcome {
    // Skipped where the relay knows no level two.
    world.two().await?;
    let base = world.client().await?;
    let path = format!("/ws/data?tunnel_id={}&id={}", base.tunnel.id, Uuid::new_v4());
    refused(&world, &path, world.key(), 409, "no_session", "for a tunnel whose session is of the base level")
        .await
}

async fn rejected(world: World) -> Outcome {
    let (mut client, _) = asked(&world).await?;
    let (mut spare, id) = spare(&world, &client).await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    assignment(&mut spare).await?;
    client.say(&serde_json::json!({ "type": "reject", "id": id, "reason": "refused" })).await?;
    viewer.answer().await?.must_be(502, "at once for a rejected connection")?;
    spare.socket.expect_end("the end of a rejected socket").await
}

async fn dead(world: World) -> Outcome {
    let (mut client, _) = asked(&world).await?;
    let (spare, _) = spare(&world, &client).await?;
    spare.socket.wire.reset();
    let mut viewer = world.asking(&client.tunnel).await?;
    client.accept().await?.serve().await?;
    viewer.answer().await?.must_be(200, "of a fresh data socket").map(drop)
}

async fn ends(world: World) -> Outcome {
    let (mut client, _) = asked(&world).await?;
    let (mut spare, _) = spare(&world, &client).await?;
    client.socket.close(1000).await?;
    spare.socket.expect_end("the end of a standby socket, as its session has ended").await
}

async fn ping(world: World) -> Outcome {
    let (mut client, _) = asked(&world).await?;
    let (mut spare, _) = spare(&world, &client).await?;
    spare.socket.answers = false;
    spare.socket.wire.patience = world.beyond(PING);
    let came = client.meanwhile(spare.socket.next("a ping on a standby socket")).await?;
    want(matches!(came, Came::Ping(_)), "a ping on a standby socket", came.shown())?;
    spare.socket.wire.patience = world.beyond(PONG);
    client.meanwhile(spare.socket.expect_end("the end of a standby socket that owes a pong")).await
}
