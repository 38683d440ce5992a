//! Level two: how sessions end, and how data sockets of such a session do (sections 8.1, 8.3, 8.5).

use super::ends::upgraded_breaks;
use super::{QUICK, runs, two, want};
use crate::conform::case::Case;
use crate::conform::relay::Outcome;
use crate::conform::relay::control::Client;
use crate::conform::relay::data::{Data, OK, UNTIL_CLOSE};
use crate::conform::relay::socket::Came;
use crate::conform::relay::viewer::Viewer;
use crate::conform::relay::world::World;
use crate::proto::frame::Opcode;

pub(super) static CASES: &[Case<World>] = &[
    two(
        "two-closed-deleted",
        "`closed` with the reason comes before the close frame, and nothing between or behind them",
        &["R-66"],
        QUICK,
        runs!(deleted),
    ),
    two(
        "two-closed-replaced",
        "a live session that another one has taken over is `replaced`, with 1000",
        &["R-66", "R-29"],
        QUICK,
        runs!(replaced),
    ),
    two("two-closed-stale", "a dead one is `stale`, with 1001", &["R-66", "R-29"], QUICK, runs!(stale)),
    two(
        "two-closed-protocol-error",
        "a broken frame is `protocol_error`, with 1002",
        &["R-66"],
        QUICK,
        runs!(protocol_error),
    ),
    two(
        "two-successor",
        "a session whose client has opened another one is `succeeded`, and its waiting viewers follow",
        &["R-79"],
        QUICK,
        runs!(successor),
    ),
    two(
        "two-successor-of-nobody",
        "`successor_of` a session that does not hold the tunnel means nothing",
        &["R-79"],
        QUICK,
        runs!(successor_of_nobody),
    ),
    two(
        "two-data-key",
        "a data socket without the session's key is refused, and the id stays good",
        &["R-71"],
        QUICK,
        runs!(data_key),
    ),
    two(
        "two-half-close-of-viewer",
        "a viewer's end is an empty message, and the other direction goes on",
        &["R-72", "R-73", "R-74"],
        QUICK,
        runs!(viewer_ends),
    ),
    two(
        "two-half-close-of-target",
        "an empty message of the client is its end, and the other direction goes on",
        &["R-72", "R-74"],
        QUICK,
        runs!(target_ends),
    ),
    two(
        "two-both-ended",
        "when both sides have ended, the relay closes with 1000",
        &["R-75"],
        QUICK,
        runs!(both_ended),
    ),
    two(
        "two-empty-last-fragment",
        "an empty last fragment of a longer message is no end",
        &["R-72"],
        QUICK,
        runs!(empty_fragment),
    ),
    two(
        "two-end-bare",
        "a data socket that just ends has broken off: its viewer sees that",
        &["R-75", "R-53"],
        QUICK,
        runs!(bare),
    ),
    two("two-end-1000", "one that ends with 1000 has not", &["R-75"], QUICK, runs!(normal)),
    two(
        "two-end-1011",
        "one that ends with another code has broken off",
        &["R-75", "R-53"],
        QUICK,
        runs!(failed),
    ),
    two(
        "two-end-broken-upgraded",
        "an upgraded connection that breaks off is not ended in order",
        &["R-75", "R-53"],
        QUICK,
        runs!(broken_upgraded),
    ),
    two(
        "two-end-then-1011",
        "a direction that has ended stays complete, whatever code follows",
        &["R-74"],
        QUICK,
        runs!(ended_then_failed),
    ),
    two(
        "two-data-ping",
        "a data socket whose answer takes long is pinged, and is waited for as long as pongs come",
        &["R-76"],
        60,
        runs!(data_ping),
    ),
    two(
        "two-data-silent",
        "where no pong comes, a request that is safe to repeat is announced again",
        &["R-76", "R-46"],
        90,
        runs!(data_silent),
    ),
    two(
        "two-data-silent-post",
        "and the viewer of any other gets 504",
        &["R-76", "R-46"],
        90,
        runs!(data_silent_post),
    ),
];

/// Fails unless `closed` with this reason comes, then a close frame with this code, and nothing else.
async fn expect_closed(client: &mut Client, reason: &str, code: u16) -> Outcome {
    let told = client.hear_of("closed").await?;
    want(
        told["reason"] == reason && told["message"].is_string(),
        &format!("`closed` with the reason {reason} and a message"),
        told,
    )?;
    let expected = format!("a close frame with {code} right behind `closed`");
    match client.socket.next(&expected).await? {
        Came::Close(Some(found), _) if found == code => {}
        other => return want(false, &expected, other.shown()),
    }
    client.socket.close(code).await?;
    match client.socket.next("the end of the connection").await? {
        Came::Ended(_) => Ok(()),
        other => want(false, "nothing behind the close frame", other.shown()),
    }
}

async fn deleted(world: World) -> Outcome {
    let mut client = world.two().await?;
    world.delete(&client.tunnel).await?;
    expect_closed(&mut client, "deleted", 1000).await
}

async fn replaced(world: World) -> Outcome {
    let mut old = world.two().await?;
    let _new = world.serve_two(old.tunnel.clone(), "").await?;
    expect_closed(&mut old, "replaced", 1000).await
}

async fn stale(world: World) -> Outcome {
    let mut old = world.two().await?;
    old.socket.answers = false;
    old.socket.wire.patience = world.beyond(std::time::Duration::from_secs(7));
    let _new = world.serve_two(old.tunnel.clone(), "").await?;
    expect_closed(&mut old, "stale", 1001).await
}

async fn protocol_error(world: World) -> Outcome {
    let mut client = world.two().await?;
    client.socket.raw(&super::control::broken()[0].1).await?;
    let told = client.hear_of("closed").await?;
    want(told["reason"] == "protocol_error", "`closed` with the reason protocol_error", told)?;
    client.socket.expect_close(1002, "as a frame was broken").await.map(drop)
}

async fn successor(world: World) -> Outcome {
    let mut first = world.two().await?;
    first.socket.answers = false;
    let mut viewer = world.viewer(&first.tunnel).await?;
    viewer.ask("POST", "/", "", b"kit").await?;
    first.connection().await?;
    let query = format!("&successor_of={}", first.welcome.session);
    let mut second = world.serve_two(first.tunnel.clone(), &query).await?;
    // One that owes pongs is not waited for.
    expect_closed(&mut first, "succeeded", 1000).await?;
    let mut data = second.accept().await?;
    data.request().await?;
    data.expect_bytes(b"kit").await?;
    data.say(OK).await?;
    viewer.answer().await?.must_be(200, "of the successor").map(drop)
}

async fn successor_of_nobody(world: World) -> Outcome {
    let mut first = world.two().await?;
    let query = format!("&successor_of={}", uuid::Uuid::new_v4());
    let mut second = world.serve_two(first.tunnel.clone(), &query).await?;
    expect_closed(&mut first, "replaced", 1000).await?;
    second.served().await.map(drop)
}

async fn data_key(world: World) -> Outcome {
    let mut client = world.two().await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let id = client.connection().await?;
    world.refused(&id, "", 401, "unauthorized", "for a data socket without a key").await?;
    world
        .refused(
            &id,
            "nbk_nobody_0123456789abcdef",
            401,
            "unauthorized",
            "for a data socket with an unknown key",
        )
        .await?;
    if let Ok(key2) = world.key2() {
        world
            .refused(&id, key2, 403, "foreign_connection", "for a data socket with another owner's key")
            .await?;
    }
    client.take(&id).await?.serve().await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn viewer_ends(world: World) -> Outcome {
    let mut client = world.two().await?;
    let (mut viewer, mut data) = client.upgraded().await?;
    viewer.wire.say(b"question").await?;
    viewer.wire.finish().await?;
    data.expect_bytes(b"question").await?;
    let came = data.next("an empty message, as the viewer sends no more").await?;
    want(
        came == Came::Empty && !data.socket.is_text(),
        "an empty binary message, as the viewer sends no more",
        came.shown(),
    )?;
    data.say("answer").await?;
    viewer.expect_bytes(b"answer").await
}

async fn target_ends(world: World) -> Outcome {
    let mut client = world.two().await?;
    let (mut viewer, mut data) = client.upgraded().await?;
    data.say("words").await?;
    data.finish().await?;
    viewer.expect_bytes(b"words").await?;
    if !world.settings().place.url().is_tls() {
        let (rest, _) = viewer.rest().await?;
        want(rest.is_empty(), "the viewer sees the end", format!("{} bytes", rest.len()))?;
    }
    viewer.wire.say(b"still there").await?;
    data.expect_bytes(b"still there").await
}

async fn both_ended(world: World) -> Outcome {
    let mut client = world.two().await?;
    let (mut viewer, mut data) = client.upgraded().await?;
    viewer.wire.finish().await?;
    let came = data.next("an empty message, as the viewer sends no more").await?;
    want(came == Came::Empty, "an empty message, as the viewer sends no more", came.shown())?;
    data.finish().await?;
    data.socket.expect_close(1000, "as both sides have ended").await.map(drop)
}

/// A viewer that has the head and the first bytes of an answer that lasts until the end.
async fn lasting(world: &World) -> Outcome<(Client, Viewer, Data)> {
    let mut client = world.two().await?;
    let (viewer, mut data) = client.exchange().await?;
    data.say([UNTIL_CLOSE, b"kit"].concat()).await?;
    Ok((client, viewer, data))
}

async fn expect_whole(mut viewer: Viewer, body: &str) -> Outcome {
    let answer = viewer.answer().await?.must_be(200, "of the target, complete")?;
    want(answer.body == body, &format!("the body {body:?}"), answer.text())
}

async fn empty_fragment(world: World) -> Outcome {
    let (_client, viewer, mut data) = lasting(&world).await?;
    data.socket.send(Opcode::Binary, false, b"-one").await?;
    data.socket.send(Opcode::Continuation, true, b"").await?;
    data.say("-two").await?;
    data.finish().await?;
    expect_whole(viewer, "kit-one-two").await
}

async fn bare(world: World) -> Outcome {
    let (_client, mut viewer, mut data) = lasting(&world).await?;
    data.socket.wire.finish().await?;
    viewer.expect_cut("the data socket ended without a word").await
}

async fn normal(world: World) -> Outcome {
    let (_client, viewer, mut data) = lasting(&world).await?;
    data.socket.close(1000).await?;
    expect_whole(viewer, "kit").await
}

async fn failed(world: World) -> Outcome {
    let (_client, mut viewer, mut data) = lasting(&world).await?;
    data.socket.close(1011).await?;
    viewer.expect_cut("the data socket ended with 1011").await
}

async fn broken_upgraded(world: World) -> Outcome {
    let client = world.two().await?;
    upgraded_breaks(&world, client).await
}

async fn ended_then_failed(world: World) -> Outcome {
    let (_client, viewer, mut data) = lasting(&world).await?;
    data.finish().await?;
    data.socket.close(1011).await?;
    expect_whole(viewer, "kit").await
}

async fn data_ping(world: World) -> Outcome {
    let mut client = world.two().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    viewer.wire.patience = world.beyond(client.welcome.claim() * 3);
    data.socket.wire.patience = world.beyond(client.welcome.claim());
    for _ in 0..2 {
        let came =
            client.meanwhile(data.socket.next("a ping on a data socket whose answer takes long")).await?;
        want(matches!(came, Came::Ping(_)), "a ping on a data socket whose answer takes long", came.shown())?;
    }
    data.say(OK).await?;
    viewer.answer().await?.must_be(200, "of a target that has taken its time").map(drop)
}

async fn data_silent(world: World) -> Outcome {
    let mut client = world.two().await?;
    let (mut viewer, mut silent) = client.exchange().await?;
    silent.socket.answers = false;
    client.socket.wire.patience = world.beyond(client.welcome.claim() * 2);
    let mut data = client.accept().await?;
    data.serve().await?;
    viewer.answer().await?.must_be(200, "of the second data socket").map(drop)
}

async fn data_silent_post(world: World) -> Outcome {
    let mut client = world.two().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.ask("POST", "/", "", b"").await?;
    let mut silent = client.accept().await?;
    silent.request().await?;
    silent.socket.answers = false;
    viewer.wire.patience = world.beyond(client.welcome.claim() * 2);
    let answer = client.meanwhile(viewer.answer()).await?;
    answer.must_be(504, "for a POST whose client has fallen silent")?;
    client.expect_none_of("connection", "as a POST is not sent twice").await
}
