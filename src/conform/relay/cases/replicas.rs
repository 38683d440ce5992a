//! Several clients of one tunnel (section 3.2).

use serde_json::json;

use super::{QUICK, base, runs, two, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::data::OK;
use crate::conform::relay::rest::Tunnel;
use crate::conform::relay::world::World;

pub(super) static CASES: &[Case<World>] = &[
    base(
        "replica-shares",
        "clients that ask for it share a tunnel, and the one with the fewest viewers gets the next",
        &["R-31", "R-29"],
        QUICK,
        runs!(shares),
    ),
    base("replica-lost", "a request whose client is gone goes to another one", &["R-32"], QUICK, runs!(lost)),
    base("replica-not-taken-up", "so does one that is not taken up", &["R-32"], QUICK, runs!(not_taken_up)),
    two("replica-rejected", "so does one that is rejected", &["R-32"], QUICK, runs!(rejected)),
    base(
        "replica-taken-back",
        "a client that does not ask to share takes over from all",
        &["R-29"],
        QUICK,
        runs!(taken_back),
    ),
];

/// A tunnel for several clients, where the relay knows such.
async fn shared(world: &World) -> Outcome<Tunnel> {
    let tunnel = world.tunnel(json!({ "replica": true })).await?;
    if tunnel.json["replica"] != true {
        return Err(Ended::Skipped("the relay lets one client serve a tunnel: it knows no `replica`".into()));
    }
    Ok(tunnel)
}

async fn shares(world: World) -> Outcome {
    let tunnel = shared(&world).await?;
    let (mut first, mut second) = (world.serve(tunnel.clone()).await?, world.serve(tunnel.clone()).await?);
    let shown = world.look(&tunnel.id).await?;
    want(shown["clients"] == 2, "`clients` is 2", shown)?;
    // With one viewer each under way, both have been asked.
    let (mut one, mut other) = (world.asking(&tunnel).await?, world.asking(&tunnel).await?);
    let (mut left, mut right) = tokio::try_join!(first.accept(), second.accept())?;
    left.serve().await?;
    right.serve().await?;
    one.answer().await?.must_be(200, "of one client")?;
    other.answer().await?.must_be(200, "of the other client")?;
    first.socket.ping(b"still here").await?;
    second.socket.ping(b"still here").await
}

async fn lost(world: World) -> Outcome {
    let tunnel = shared(&world).await?;
    let (mut first, mut second) = (world.serve(tunnel.clone()).await?, world.serve(tunnel.clone()).await?);
    let mut viewer = world.asking(&tunnel).await?;
    // Whoever is asked goes away.
    let mut left = tokio::select! {
        told = first.connection() => { told?; first.socket.wire.reset(); second }
        told = second.connection() => { told?; second.socket.wire.reset(); first }
    };
    left.accept().await?.serve().await?;
    viewer.answer().await?.must_be(200, "of the client that is left").map(drop)
}

async fn not_taken_up(world: World) -> Outcome {
    let tunnel = shared(&world).await?;
    let (mut first, mut second) = (world.serve(tunnel.clone()).await?, world.serve(tunnel.clone()).await?);
    let mut viewer = world.asking(&tunnel).await?;
    let wait = world.times().claim();
    let mut left = tokio::select! {
        told = first.connection() => { told?; second }
        told = second.connection() => { told?; first }
    };
    left.socket.wire.patience = world.beyond(wait);
    left.accept().await?.serve().await?;
    viewer.wire.patience = world.beyond(wait);
    viewer.answer().await?.must_be(200, "of the other client, as the first was idle").map(drop)
}

async fn rejected(world: World) -> Outcome {
    let tunnel = shared(&world).await?;
    let mut first = world.serve_two(tunnel.clone(), "").await?;
    let mut second = world.serve_two(tunnel.clone(), "").await?;
    let mut viewer = world.asking(&tunnel).await?;
    let (id, asked, mut left) = tokio::select! {
        told = first.connection() => (told?, &mut first, &mut second),
        told = second.connection() => (told?, &mut second, &mut first),
    };
    asked.say(&json!({ "type": "reject", "id": id, "reason": "busy" })).await?;
    let mut data = left.accept().await?;
    data.request().await?;
    data.say(OK).await?;
    left = asked;
    left.socket.ping(b"still here").await?;
    viewer.answer().await?.must_be(200, "of the client that has not rejected").map(drop)
}

async fn taken_back(world: World) -> Outcome {
    let tunnel = shared(&world).await?;
    let mut first = world.serve(tunnel.clone()).await?;
    let mut second = world.serve(tunnel.clone()).await?;
    let alone = world.tunnel(json!({ "name": tunnel.slug })).await?;
    let mut third = world.serve(alone).await?;
    first.socket.expect_close(1000, "as a client has taken over that does not share").await?;
    second.socket.expect_close(1000, "as a client has taken over that does not share").await?;
    third.served().await.map(drop)
}
