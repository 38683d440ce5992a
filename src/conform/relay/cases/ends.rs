//! How data sockets end at base level, and what viewers make of it: what was cut never looks complete (section 4, "The end").

use super::{QUICK, base, runs, want};
use crate::conform::case::Case;
use crate::conform::relay::Outcome;
use crate::conform::relay::control::Client;
use crate::conform::relay::data::{Data, UNTIL_CLOSE};
use crate::conform::relay::socket::{Came, frame};
use crate::conform::relay::viewer::Viewer;
use crate::conform::relay::wire::End;
use crate::conform::relay::world::World;
use crate::proto::frame::Opcode;

pub(super) static CASES: &[Case<World>] = &[
    base(
        "end-close-1000",
        "a close frame with 1000 ends an answer that lasts until the end",
        &["R-39"],
        QUICK,
        runs!(normal_close),
    ),
    base("end-close-1001", "so does one with 1001", &["R-39"], QUICK, runs!(going_away)),
    base(
        "end-bare",
        "so does the end of the TCP connection between two messages",
        &["R-39"],
        QUICK,
        runs!(bare),
    ),
    base(
        "end-inside-frame",
        "an end inside a frame is an error to the viewer",
        &["R-39", "R-53"],
        QUICK,
        runs!(inside_frame),
    ),
    base(
        "end-inside-header",
        "an end inside a frame's header is an error to the viewer",
        &["R-39", "R-53"],
        QUICK,
        runs!(inside_header),
    ),
    base(
        "end-between-fragments",
        "an end between two fragments is an error to the viewer",
        &["R-39", "R-53"],
        QUICK,
        runs!(between_fragments),
    ),
    base(
        "end-close-1011",
        "another close code is an error to the viewer",
        &["R-39", "R-53"],
        QUICK,
        runs!(failed_close),
    ),
    base("end-reset", "a reset is an error to the viewer", &["R-39", "R-53"], QUICK, runs!(reset)),
    base(
        "end-short-body",
        "a body that is shorter than was said is an error to the viewer, however it ended",
        &["R-53"],
        QUICK,
        runs!(short_body),
    ),
    base(
        "end-before-answer",
        "a data socket that ends without an answer is 502",
        &["R-52", "R-53"],
        QUICK,
        runs!(before_answer),
    ),
    base("end-of-viewer", "when the viewer leaves, its data socket ends", &["R-47"], QUICK, runs!(of_viewer)),
    base(
        "end-of-upgraded",
        "when one side of an upgraded connection ends, all is delivered before the other side ends",
        &["R-49"],
        QUICK,
        runs!(of_upgraded),
    ),
    base(
        "end-broken-upgraded",
        "an upgraded connection that breaks off is not ended in order",
        &["R-39", "R-53"],
        QUICK,
        runs!(broken_upgraded),
    ),
    base(
        "end-close-answered",
        "a close frame on a data socket is answered",
        &["R-39"],
        QUICK,
        runs!(close_answered),
    ),
];

/// A viewer that has the head and the first bytes of an answer that lasts until the end.
async fn lasting(world: &World) -> Outcome<(Client, Viewer, Data)> {
    let mut client = world.client().await?;
    let (viewer, mut data) = client.exchange().await?;
    data.say([UNTIL_CLOSE, b"kit"].concat()).await?;
    Ok((client, viewer, data))
}

async fn expect_whole(mut viewer: Viewer) -> Outcome {
    let answer = viewer.answer().await?.must_be(200, "of the target, complete")?;
    want(answer.body == "kit", "the body `kit`", answer.text())
}

async fn normal_close(world: World) -> Outcome {
    let (_client, viewer, mut data) = lasting(&world).await?;
    data.socket.close(1000).await?;
    expect_whole(viewer).await
}

async fn going_away(world: World) -> Outcome {
    let (_client, viewer, mut data) = lasting(&world).await?;
    data.socket.close(1001).await?;
    expect_whole(viewer).await
}

async fn bare(world: World) -> Outcome {
    let (_client, viewer, mut data) = lasting(&world).await?;
    data.socket.wire.finish().await?;
    expect_whole(viewer).await
}

async fn inside_frame(world: World) -> Outcome {
    let (_client, mut viewer, mut data) = lasting(&world).await?;
    data.socket.raw(&frame(Opcode::Binary, true, b"four")[..8]).await?;
    data.socket.wire.finish().await?;
    viewer.expect_cut("it ended inside a frame").await
}

async fn inside_header(world: World) -> Outcome {
    let (_client, mut viewer, mut data) = lasting(&world).await?;
    data.socket.raw(&frame(Opcode::Binary, true, b"four")[..1]).await?;
    data.socket.wire.finish().await?;
    viewer.expect_cut("it ended inside the header of a frame").await
}

async fn between_fragments(world: World) -> Outcome {
    let (_client, mut viewer, mut data) = lasting(&world).await?;
    data.socket.send(Opcode::Binary, false, b"half").await?;
    data.socket.wire.finish().await?;
    viewer.expect_cut("it ended between two fragments").await
}

async fn failed_close(world: World) -> Outcome {
    let (_client, mut viewer, mut data) = lasting(&world).await?;
    data.socket.close(1011).await?;
    viewer.expect_cut("it ended with 1011").await
}

async fn reset(world: World) -> Outcome {
    let (_client, mut viewer, data) = lasting(&world).await?;
    viewer.wire.more("the beginning of an answer").await?;
    data.socket.wire.reset();
    viewer.expect_cut("the data socket was reset").await
}

async fn short_body(world: World) -> Outcome {
    let mut client = world.client().await?;
    for head in ["Content-Length: 10\r\n\r\nkit", "Transfer-Encoding: chunked\r\n\r\n3\r\nkit\r\n"] {
        let (mut viewer, mut data) = client.exchange().await?;
        data.say(format!("HTTP/1.1 200 OK\r\n{head}")).await?;
        data.socket.close(1000).await?;
        viewer.expect_cut("the target sent less than it said").await?;
    }
    Ok(())
}

async fn before_answer(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.ask("POST", "/", "", b"kit").await?;
    let mut data = client.accept().await?;
    data.request().await?;
    data.socket.close(1000).await?;
    viewer.answer().await?.must_be(502, "as the target hung up without an answer").map(drop)
}

async fn of_viewer(world: World) -> Outcome {
    let (_client, mut viewer, mut data) = lasting(&world).await?;
    viewer.wire.more("the beginning of an answer").await?;
    viewer.wire.reset();
    // What nobody reads any more may be noticed only when it is sent.
    data.say("more").await?;
    data.socket.expect_end("the end of the data socket, as its viewer has left").await
}

async fn of_upgraded(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.upgraded().await?;
    viewer.wire.say(b"question").await?;
    data.expect_bytes(b"question").await?;
    data.say("the last words").await?;
    data.socket.close(1000).await?;
    viewer.expect_bytes(b"the last words").await?;
    viewer.rest().await.map(drop)
}

async fn broken_upgraded(world: World) -> Outcome {
    let client = world.client().await?;
    upgraded_breaks(&world, client).await
}

/// An upgraded connection whose data socket ends with 1011 is reset for its viewer, at both levels.
pub(super) async fn upgraded_breaks(world: &World, mut client: Client) -> Outcome {
    let (mut viewer, mut data) = client.upgraded().await?;
    data.say("words").await?;
    viewer.expect_bytes(b"words").await?;
    data.socket.close(1011).await?;
    let (_, end) = viewer.rest().await?;
    let broken = matches!(end, End::Broken(_));
    // TLS without its own end is an end that was cut.
    want(
        broken || world.settings().place.url().is_tls(),
        "a reset of the viewer's connection",
        Came::Ended(end).shown(),
    )
}

async fn close_answered(world: World) -> Outcome {
    let (_client, viewer, mut data) = lasting(&world).await?;
    data.socket.close(1000).await?;
    data.socket.expect_close(1000, "in answer to that of the client").await?;
    expect_whole(viewer).await
}
