//! How bytes are framed on a data socket (section 4): boundaries mean nothing, and nothing waits for a whole message.

use super::control::broken;
use super::{QUICK, advised, base, runs, want};
use crate::conform::case::Case;
use crate::conform::relay::Outcome;
use crate::conform::relay::data::{OK, UNTIL_CLOSE};
use crate::conform::relay::socket::{Came, frame};
use crate::conform::relay::wire::End;
use crate::conform::relay::world::World;
use crate::proto::frame::{HeaderBytes, Opcode};

pub(super) static CASES: &[Case<World>] = &[
    base(
        "frames-fragments",
        "a message in fragments, with pings between them, is the same bytes",
        &["R-36", "R-40"],
        QUICK,
        runs!(fragments),
    ),
    base("frames-text", "text messages are taken, too", &["R-35"], QUICK, runs!(text)),
    base("frames-empty", "empty messages mean nothing at base level", &["R-37"], QUICK, runs!(empty)),
    base("frames-large", "one message of a mebibyte is taken", &["R-38"], QUICK, runs!(large)),
    base(
        "frames-of-the-relay",
        "the relay's own messages have at most 64 KiB, however much a viewer sends",
        &["R-38"],
        QUICK,
        runs!(of_the_relay),
    ),
    advised(base(
        "frames-not-held-back",
        "a part of a message reaches the viewer before the rest of it has come",
        &["R-36"],
        QUICK,
        runs!(not_held_back),
    )),
    advised(base(
        "frames-upload-not-held-back",
        "a part of an upload reaches the target before the rest of it has come",
        &["R-36"],
        QUICK,
        runs!(upload),
    )),
    base("frames-ping-answered", "pings on a data socket are answered", &["R-40"], QUICK, runs!(ping)),
    base(
        "frames-broken",
        "a frame that breaks RFC 6455 closes the data socket with 1002, and the viewer sees an error",
        &["R-39"],
        QUICK,
        runs!(broken_frames),
    ),
];

async fn fragments(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.socket.send(Opcode::Binary, false, b"HTTP/1.1 200 OK\r\nContent-").await?;
    data.socket.send(Opcode::Ping, true, b"between").await?;
    data.socket.send(Opcode::Continuation, false, b"").await?;
    data.socket.send(Opcode::Continuation, false, b"Length: 6\r\n\r\nkit").await?;
    data.socket.send(Opcode::Continuation, true, b"kit").await?;
    let answer = viewer.answer().await?.must_be(200, "of the target")?;
    want(answer.body == "kitkit", "the body `kitkit`", answer.text())
}

async fn text(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.socket.send(Opcode::Text, true, OK).await?;
    let answer = viewer.answer().await?.must_be(200, "of the target")?;
    want(answer.body == "ok", "the body `ok`", answer.text())
}

async fn empty(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.say("").await?;
    data.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nkit").await?;
    data.socket.send(Opcode::Text, true, b"").await?;
    data.say("").await?;
    data.say("kit").await?;
    let answer = viewer.answer().await?.must_be(200, "of the target")?;
    want(answer.body == "kitkit", "the body `kitkit`", answer.text())
}

async fn large(world: World) -> Outcome {
    const SIZE: usize = 1024 * 1024;
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
    let whole = [head.as_bytes(), &vec![b'k'; SIZE]].concat();
    let (sent, answer) = tokio::join!(data.say(whole), viewer.answer());
    sent?;
    let answer = answer?.must_be(200, "of the target")?;
    let same = answer.body.len() == SIZE && answer.body.iter().all(|byte| *byte == b'k');
    want(same, "a mebibyte of the same byte", format!("{} bytes", answer.body.len()))
}

async fn of_the_relay(world: World) -> Outcome {
    const SIZE: usize = 300 * 1024;
    let mut client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    let body = vec![b'v'; SIZE];
    let (asked, data) = tokio::join!(viewer.ask("POST", "/", "", &body), async {
        let mut data = client.accept().await?;
        data.request().await?;
        data.exactly(SIZE, "the whole body of the request").await?;
        Ok(data)
    });
    asked?;
    let mut data = data?;
    want(
        data.socket.longest <= 64 * 1024,
        "messages of at most 64 KiB",
        format!("one of {} bytes", data.socket.longest),
    )?;
    data.say(OK).await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn not_held_back(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await?;
    viewer.head().await?;
    // Half of one frame's payload.
    let whole = frame(Opcode::Binary, true, b"firstthere");
    let half = HeaderBytes::new(Opcode::Binary, true, 10, Some([0; 4])).as_ref().len() + 5;
    data.socket.raw(&whole[..half]).await?;
    viewer.expect_bytes(b"first").await?;
    data.socket.raw(&whole[half..]).await?;
    viewer.expect_bytes(b"there").await
}

async fn upload(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.begin("POST", "/", "Content-Length: 10\r\n").await?;
    viewer.wire.say(b"first").await?;
    let mut data = client.accept().await?;
    data.request().await?;
    data.expect_bytes(b"first").await?;
    viewer.wire.say(b"there").await?;
    data.expect_bytes(b"there").await?;
    data.say(OK).await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn ping(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.socket.ping(b"kit").await?;
    data.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok").await?;
    data.socket.ping(b"").await?;
    data.say("ok").await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn broken_frames(world: World) -> Outcome {
    let mut client = world.client().await?;
    for (why, bytes) in broken() {
        let (mut viewer, mut data) = client.exchange().await?;
        data.say(UNTIL_CLOSE).await?;
        data.socket.raw(&bytes).await?;
        data.socket.expect_close(1002, &format!("as {why}")).await?;
        viewer.expect_cut(why).await?;
    }
    // What the relay has refused it does not go on with.
    let (mut viewer, mut data) = client.exchange().await?;
    data.socket.raw(&broken()[0].1).await?;
    viewer.answer().await?.must_be(502, "where a frame was broken before any answer")?;
    let end = data.socket.closed("the end of the data socket").await?;
    want(matches!(end.0, Some(1002)), "1002", Came::Ended(End::Closed).shown())
}
