//! The life of a session and its tunnel at base level: takeover, deletion, suspension, expiry (sections 3 and 4.1).

use std::time::Duration;

use serde_json::{Value, json};

use super::{QUICK, base, runs, want};
use crate::conform::case::Case;
use crate::conform::relay::Outcome;
use crate::conform::relay::control::Client;
use crate::conform::relay::data::{Data, OK};
use crate::conform::relay::viewer::Viewer;
use crate::conform::relay::world::World;

pub(super) static CASES: &[Case<World>] = &[
    base(
        "takeover-serves-at-once",
        "a newer control socket serves at once",
        &["R-29"],
        QUICK,
        runs!(at_once),
    ),
    base(
        "takeover-of-live",
        "an older one that answers pings is closed with 1000",
        &["R-29", "R-30"],
        QUICK,
        runs!(of_live),
    ),
    base(
        "takeover-of-dead",
        "an older one that does not is closed with 1001, and the newer one stays",
        &["R-29", "R-30"],
        QUICK,
        runs!(of_dead),
    ),
    base("takeover-running", "what runs through the older one goes on", &["R-47"], QUICK, runs!(running)),
    base(
        "delete-closes",
        "a deletion closes the client with 1000 and a reason",
        &["R-30"],
        QUICK,
        runs!(delete_closes),
    ),
    base(
        "delete-cuts",
        "a deletion cuts what runs, and it does not look complete",
        &["R-47", "R-53"],
        QUICK,
        runs!(delete_cuts),
    ),
    base("suspend-cuts", "so does a suspension", &["R-47"], QUICK, runs!(suspend_cuts)),
    base(
        "expiry-closes",
        "a tunnel whose time is over closes its client with 1000, and is gone",
        &["R-30"],
        QUICK,
        runs!(expiry),
    ),
    base(
        "lost-running",
        "what runs goes on when the control socket is lost",
        &["R-47"],
        QUICK,
        runs!(lost_running),
    ),
    base(
        "half-closed-viewer",
        "a viewer that only ends its sending side still gets its answer",
        &["R-43"],
        QUICK,
        runs!(half_closed),
    ),
];

async fn at_once(world: World) -> Outcome {
    let old = world.client().await?;
    let mut new = world.serve(old.tunnel.clone()).await?;
    new.served().await.map(drop)
}

async fn of_live(world: World) -> Outcome {
    let mut old = world.client().await?;
    let mut new = world.serve(old.tunnel.clone()).await?;
    let reason = old.socket.expect_close(1000, "as a newer session has taken over").await?;
    want(!reason.is_empty(), "a close frame whose reason text says which end it is", "none")?;
    new.served().await.map(drop)
}

async fn of_dead(world: World) -> Outcome {
    let mut old = world.client().await?;
    old.socket.answers = false;
    old.socket.wire.patience = world.beyond(Duration::from_secs(7));
    let mut new = world.serve(old.tunnel.clone()).await?;
    old.socket.expect_close(1001, "as it answered no ping when a newer session came").await?;
    new.served().await.map(drop)
}

/// A viewer whose answer has begun, with its data socket.
async fn begun(client: &mut Client) -> Outcome<(Viewer, Data)> {
    let (mut viewer, mut data) = client.exchange().await?;
    data.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nkit").await?;
    viewer.wire.more("the beginning of an answer").await?;
    Ok((viewer, data))
}

async fn expect_end_of(mut viewer: Viewer, mut data: Data) -> Outcome {
    data.say("kit").await?;
    let answer = viewer.answer().await?.must_be(200, "of the target, which goes on")?;
    want(answer.body == "kitkit", "the body `kitkit`", answer.text())
}

async fn running(world: World) -> Outcome {
    let mut old = world.client().await?;
    let (viewer, data) = begun(&mut old).await?;
    let mut new = world.serve(old.tunnel.clone()).await?;
    new.served().await?;
    old.socket.expect_end("the end of the older session").await?;
    expect_end_of(viewer, data).await
}

async fn delete_closes(world: World) -> Outcome {
    let mut client = world.client().await?;
    world.delete(&client.tunnel).await?;
    let reason = client.socket.expect_close(1000, "as the tunnel was deleted").await?;
    want(!reason.is_empty(), "a close frame whose reason text says which end it is", "none")
}

async fn delete_cuts(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = begun(&mut client).await?;
    world.delete(&client.tunnel).await?;
    viewer.expect_cut("the tunnel was deleted").await?;
    data.socket.expect_end("the end of the data socket of a deleted tunnel").await
}

async fn suspend_cuts(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = begun(&mut client).await?;
    world
        .call("POST", &client.tunnel.path("/suspend"), &json!({ "suspended": true }))
        .await?
        .must_be(200, "for a suspension")?;
    viewer.expect_cut("the tunnel was suspended").await?;
    data.socket.expect_end("the end of the data socket of a suspended tunnel").await
}

async fn expiry(world: World) -> Outcome {
    let mut client = world.client().await?;
    world
        .call("POST", &client.tunnel.path("/extend"), &json!({ "ttl": "1s" }))
        .await?
        .must_be(200, "for an extension")?;
    client.socket.wire.patience = world.beyond(Duration::from_secs(5));
    client.socket.expect_close(1000, "as the tunnel's time is over").await?;
    world.asking(&client.tunnel).await?.answer().await?.must_be(404, "for a tunnel whose time is over")?;
    let look = world.call("GET", &client.tunnel.path(""), &Value::Null).await?;
    look.refused(404, "tunnel_not_found", "for a tunnel whose time is over").map(drop)
}

async fn lost_running(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (viewer, data) = begun(&mut client).await?;
    let id = client.tunnel.id.clone();
    client.socket.wire.reset();
    world.until_connected(&id, false).await?;
    expect_end_of(viewer, data).await
}

async fn half_closed(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    viewer.wire.finish().await?;
    let mut data = client.accept().await?;
    data.request().await?;
    data.say(OK).await?;
    viewer.answer().await?.must_be(200, "for a viewer that has only ended its sending side").map(drop)
}
