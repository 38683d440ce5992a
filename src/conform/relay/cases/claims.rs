//! Data sockets and who may open them, and until when (section 4).

use std::time::Duration;

use futures_util::future::try_join_all;

use super::{QUICK, base, runs, want};
use crate::conform::case::Case;
use crate::conform::relay::Outcome;
use crate::conform::relay::world::World;

pub(super) static CASES: &[Case<World>] = &[
    base(
        "claim-in-time",
        "a connection is taken up, and its viewer gets what the target says",
        &["R-24", "R-43"],
        QUICK,
        runs!(in_time),
    ),
    base(
        "claim-near-the-end",
        "a connection can be taken up when most of its time is over",
        &["R-24"],
        QUICK,
        runs!(near_the_end),
    ),
    base(
        "claim-late",
        "when nobody takes it up, the viewer gets 504 and the id is void",
        &["R-24", "R-34"],
        QUICK,
        runs!(late),
    ),
    base(
        "claim-twice",
        "an id is good for one data socket, and the first goes on",
        &["R-34"],
        QUICK,
        runs!(twice),
    ),
    base("claim-unknown", "an id of nobody, or none, is refused", &["R-34"], QUICK, runs!(unknown)),
    base("claim-failed-handshake", "a handshake that fails uses up nothing", &["R-34"], QUICK, runs!(failed)),
    base(
        "claim-wrong-key",
        "a key that is sent at base level must be the right one",
        &["R-33"],
        QUICK,
        runs!(wrong_key),
    ),
    base(
        "claim-of-viewer-that-left",
        "the id of a viewer that has gone is void",
        &["R-34"],
        QUICK,
        runs!(left),
    ),
    base(
        "claim-many-at-once",
        "fifty viewers at once are each announced, and each gets its own answer",
        &["R-24"],
        QUICK,
        runs!(many),
    ),
];

async fn in_time(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nkit!").await?;
    let answer = viewer.answer().await?.must_be(200, "of the target")?;
    want(answer.body == "kit!", "the body `kit!`", answer.text())
}

async fn near_the_end(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    client.wait(world.times().claim().mul_f32(0.75)).await?;
    client.take(&id).await?.serve().await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn late(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    viewer.wire.patience = world.beyond(world.times().claim());
    viewer.answer().await?.must_be(504, "for the viewer of a connection that nobody takes up")?;
    world.refused(&id, "", 404, "connection_not_found", "for a late claim").await
}

async fn twice(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    let mut data = client.take(&id).await?;
    world.refused(&id, "", 404, "connection_not_found", "for a used id").await?;
    data.serve().await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn unknown(world: World) -> Outcome {
    let id = uuid::Uuid::new_v4().to_string();
    world.refused(&id, "", 404, "connection_not_found", "for an id of nobody").await?;
    match world.data_at("/ws/data", "").await? {
        Err(answer) => answer.refused(400, "missing_parameter", "for a data socket without an id").map(drop),
        Ok(_) => want(false, "400 for a data socket without an id", "101"),
    }
}

async fn failed(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    let plain = world.ask("GET", &format!("/ws/data?id={id}"), "", b"").await?;
    plain.refused(400, "not_websocket", "for a request that is no handshake")?;
    client.take(&id).await?.serve().await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn wrong_key(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    world
        .refused(&id, "nbk_nobody_0123456789", 401, "unauthorized", "for a data socket with an unknown key")
        .await?;
    if let Ok(key2) = world.key2() {
        world
            .refused(&id, key2, 403, "foreign_connection", "for a data socket with another owner's key")
            .await?;
    }
    let data = world.claim(&id, world.key()).await?;
    let mut data =
        data.map_err(|answer| crate::conform::case::Ended::failed("101 with the right key", answer.shown()))?;
    data.serve().await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn left(world: World) -> Outcome {
    let mut client = world.client().await?;
    let viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    // A reset: who only ends its sending side may still read.
    viewer.wire.reset();
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.refused(&id, "", 404, "connection_not_found", "for the connection of a viewer that has left").await
}

async fn many(world: World) -> Outcome {
    const VIEWERS: usize = 50;
    let mut client = world.client().await?;
    let mut viewers = Vec::new();
    for number in 0..VIEWERS {
        let mut viewer = world.viewer(&client.tunnel).await?;
        viewer.ask("GET", &format!("/{number}"), "", b"").await?;
        viewers.push(viewer);
    }
    // All are announced before the first is taken up.
    let mut ids = Vec::new();
    for _ in 0..VIEWERS {
        ids.push(client.connection().await?);
    }
    let serving = ids.iter().rev().map(async |id| {
        let mut data = client.take(id).await?;
        let request = data.request().await?;
        let path = request.line.split(' ').nth(1).unwrap_or_default().to_owned();
        data.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await?;
        Ok(data)
    });
    let _open = try_join_all(serving).await?;
    for (number, viewer) in viewers.iter_mut().enumerate() {
        let answer = viewer.answer().await?.must_be(200, "of the target")?;
        want(
            answer.text().ends_with(&format!("/{number}")),
            &format!("the answer to /{number}"),
            answer.text(),
        )?;
    }
    Ok(())
}
