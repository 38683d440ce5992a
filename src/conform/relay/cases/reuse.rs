//! One data socket for many requests (section 4.1): when it may be used again, and when a request may be sent again.

use std::time::Duration;

use serde_json::json;

use super::{QUICK, advised, base, runs, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::control::Client;
use crate::conform::relay::data::{Data, OK};
use crate::conform::relay::socket::Came;
use crate::conform::relay::viewer::Viewer;
use crate::conform::relay::world::World;
use crate::proto::frame::Opcode;

/// A waiting socket is pinged so often, and has so long for its pong.
const PING: Duration = Duration::from_secs(15);
const PONG: Duration = Duration::from_secs(5);
/// And is not used again after this.
const IDLE: Duration = Duration::from_secs(55);

pub(super) static CASES: &[Case<World>] = &[
    advised(base(
        "reuse-next-request",
        "the next request comes on the socket that waits",
        &["R-43"],
        QUICK,
        runs!(next_request),
    )),
    base(
        "reuse-client-that-closes",
        "a client that closes after each answer is served as well",
        &["R-44"],
        QUICK,
        runs!(closes),
    ),
    base(
        "reuse-client-that-counts",
        "so is one that passes over a second request on a socket",
        &["R-44", "R-46"],
        QUICK,
        runs!(counts),
    ),
    base(
        "reuse-off",
        "with `reuse` false each request has a socket of its own",
        &["R-48"],
        QUICK,
        runs!(off),
    ),
    base(
        "reuse-byte-discards",
        "a byte that comes on a waiting socket discards it",
        &["R-45"],
        QUICK,
        runs!(byte_discards),
    ),
    base(
        "reuse-close-target",
        "a socket whose target closes its connection is not used again",
        &["R-43"],
        QUICK,
        runs!(target_closes),
    ),
    base(
        "reuse-dead-socket",
        "a request that is safe to repeat is sent again when its socket was dead",
        &["R-46"],
        QUICK,
        runs!(dead),
    ),
    base("reuse-only-once", "it is sent again only once", &["R-46"], QUICK, runs!(only_once)),
    base(
        "reuse-unsafe",
        "a request that is not safe to repeat is never sent twice",
        &["R-46"],
        QUICK,
        runs!(not_safe),
    ),
    base(
        "reuse-begun-answer",
        "nothing is sent twice once an answer has begun",
        &["R-46"],
        QUICK,
        runs!(begun),
    ),
    base(
        "reuse-ends-with-session",
        "waiting sockets end with their control socket, and what runs goes on",
        &["R-47"],
        QUICK,
        runs!(ends_with_session),
    ),
    base(
        "reuse-waiting-ping",
        "a socket that waits is pinged, and is dropped when no pong comes",
        &["R-42"],
        60,
        runs!(waiting_ping),
    ),
    base(
        "reuse-only-so-long",
        "a socket that has waited for 55 seconds gets no other request",
        &["R-43"],
        100,
        runs!(only_so_long),
    ),
    base(
        "reuse-pong-behind-bytes",
        "a pong that waits behind bytes a slow viewer does not take costs nothing",
        &["R-41"],
        60,
        runs!(pong_behind_bytes),
    ),
];

/// A viewer asks for the front page, and its request comes on `data` (again) or is announced: on which it came.
async fn asked_on<'a>(
    client: &'a mut Client,
    data: &'a mut Data,
    world: &World,
) -> Outcome<(Viewer, Option<Data>)> {
    let viewer = world.asking(&client.tunnel).await?;
    let mut accepting = std::pin::pin!(client.accept());
    let fresh = tokio::select! {
        fresh = &mut accepting => Some(fresh?),
        request = data.request() => match request {
            Ok(_) => None,
            // It has ended: the request comes on another one.
            Err(_) => Some(accepting.await?),
        },
    };
    Ok((viewer, fresh))
}

/// A client one of whose sockets has been used twice, and waits.
async fn reusing(world: &World) -> Outcome<(Client, Data)> {
    let mut client = world.client().await?;
    let mut data = client.served().await?;
    let (mut viewer, fresh) = asked_on(&mut client, &mut data, world).await?;
    if fresh.is_some() {
        return Err(Ended::Skipped("the relay opens a fresh data socket for each request, as it may".into()));
    }
    data.say(OK).await?;
    viewer.answer().await?.must_be(200, "of the target")?;
    Ok((client, data))
}

async fn next_request(world: World) -> Outcome {
    match reusing(&world).await {
        Err(Ended::Skipped(_)) => {
            want(false, "the next request comes on the waiting socket", "a fresh one was asked for")
        }
        other => other.map(drop),
    }
}

async fn closes(world: World) -> Outcome {
    let mut client = world.client().await?;
    for _ in 0..4 {
        let mut data = client.served().await?;
        data.socket.close(1000).await?;
        data.socket.expect_end("the end of the data socket").await?;
    }
    Ok(())
}

async fn counts(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut first = client.served().await?;
    // Whatever comes on the first socket now is passed over.
    let (mut viewer, fresh) = asked_on(&mut client, &mut first, &world).await?;
    let mut data = match fresh {
        Some(data) => data,
        None => client.accept().await?,
    };
    data.serve().await?;
    viewer.answer().await?.must_be(200, "of the fresh socket").map(drop)
}

async fn off(world: World) -> Outcome {
    let mut client = world.client_of(json!({ "reuse": false })).await?;
    for _ in 0..3 {
        let (mut viewer, mut data) = client.exchange().await?;
        data.say(OK).await?;
        viewer.answer().await?.must_be(200, "of the target")?;
        let came = data.next("the end of a socket that has carried its one request").await?;
        want(!matches!(came, Came::Data(_)), "no other request on the socket", came.shown())?;
    }
    Ok(())
}

async fn byte_discards(world: World) -> Outcome {
    let (mut client, mut data) = reusing(&world).await?;
    data.say("x").await?;
    data.socket.expect_end("the end of the socket on which a byte came that nobody asked for").await?;
    client.served().await.map(drop)
}

async fn target_closes(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await?;
    viewer.answer().await?.must_be(200, "of the target")?;
    let (mut viewer, fresh) = asked_on(&mut client, &mut data, &world).await?;
    let came = "it came on one whose target closes its connection";
    let Some(mut fresh) = fresh else { return want(false, "a fresh socket for the next request", came) };
    fresh.serve().await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn dead(world: World) -> Outcome {
    let (mut client, mut data) = reusing(&world).await?;
    let (mut viewer, fresh) = asked_on(&mut client, &mut data, &world).await?;
    want(fresh.is_none(), "the request on the waiting socket", "it was announced")?;
    data.socket.wire.reset();
    client.accept().await?.serve().await?;
    viewer.answer().await?.must_be(200, "of the fresh socket").map(drop)
}

async fn only_once(world: World) -> Outcome {
    let (mut client, mut data) = reusing(&world).await?;
    let (mut viewer, _) = asked_on(&mut client, &mut data, &world).await?;
    data.socket.wire.reset();
    let mut again = client.accept().await?;
    again.request().await?;
    again.socket.wire.reset();
    viewer.answer().await?.must_be(502, "as both sockets broke off")?;
    client.expect_none_of("connection", "as it was sent twice already").await
}

async fn not_safe(world: World) -> Outcome {
    let (mut client, mut data) = reusing(&world).await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.ask("POST", "/", "", b"kit").await?;
    // On whichever socket it comes, it is lost with it.
    tokio::select! {
        request = data.request() => { request?; data.socket.wire.reset(); }
        fresh = client.accept() => {
            let mut fresh = fresh?;
            fresh.request().await?;
            fresh.socket.wire.reset();
        }
    }
    viewer.answer().await?.must_be(502, "for a POST whose data socket broke off")?;
    client.expect_none_of("connection", "as a POST is not sent twice").await
}

async fn begun(world: World) -> Outcome {
    let (mut client, mut data) = reusing(&world).await?;
    let (mut viewer, _) = asked_on(&mut client, &mut data, &world).await?;
    data.say("HTTP/1.1 200 O").await?;
    data.socket.close(1000).await?;
    viewer.answer().await?.must_be(502, "as the answer broke off")?;
    client.expect_none_of("connection", "as an answer had begun").await
}

async fn ends_with_session(world: World) -> Outcome {
    let mut client = world.client().await?;
    let (mut running, mut target) = client.exchange().await?;
    target.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nkit").await?;
    let mut waiting = client.served().await?;
    client.socket.close(1000).await?;
    waiting.socket.expect_end("the end of a socket that waits, as the client has said goodbye").await?;
    target.say("kit").await?;
    let answer = running.answer().await?.must_be(200, "of the target, which goes on")?;
    want(answer.body == "kitkit", "the body `kitkit`", answer.text())
}

async fn waiting_ping(world: World) -> Outcome {
    let (mut client, mut data) = reusing(&world).await?;
    data.socket.answers = false;
    data.socket.wire.patience = world.beyond(PING);
    let expected = "a ping on a socket that waits";
    let came = client.meanwhile(data.socket.next(expected)).await?;
    want(matches!(came, Came::Ping(_)), expected, came.shown())?;
    data.socket.wire.patience = world.beyond(PONG);
    client.meanwhile(data.socket.expect_end("the end of a socket that owes a pong")).await
}

async fn only_so_long(world: World) -> Outcome {
    let (mut client, mut data) = reusing(&world).await?;
    data.socket.wire.patience = world.beyond(PING);
    // Its pings are answered as long as it waits.
    let waiting = async {
        while !matches!(
            data.socket.next("a ping on a socket that waits").await?,
            Came::Close(..) | Came::Ended(_)
        ) {}
        Ok(())
    };
    let _ = tokio::time::timeout(IDLE + Duration::from_secs(1), client.meanwhile(waiting)).await;
    let mut viewer = world.asking(&client.tunnel).await?;
    let mut fresh = client.accept().await?;
    fresh.serve().await?;
    viewer.answer().await?.must_be(200, "of a fresh socket").map(drop)
}

async fn pong_behind_bytes(world: World) -> Outcome {
    // More than all buffers on the way hold.
    const TOTAL: usize = 24 * 1024 * 1024;
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n")).await?;
    viewer.head().await?;
    data.socket.wire.patience = PING + PONG + Duration::from_secs(30);
    viewer.wire.patience = data.socket.wire.patience;
    let sending = async {
        let part = vec![b'k'; 64 * 1024];
        for _ in 0..TOTAL / part.len() {
            data.socket.send(Opcode::Binary, true, &part).await?;
        }
        Ok(())
    };
    let reading = async {
        tokio::time::sleep(PING + PONG + Duration::from_secs(2)).await;
        let mut left = TOTAL;
        while left > 0 {
            let came = viewer.wire.some("the rest of the answer").await?;
            want(!came.is_empty(), &format!("{TOTAL} bytes"), format!("the end, {left} bytes before"))?;
            left -= came.len().min(left);
        }
        Ok(())
    };
    client.meanwhile(async { tokio::try_join!(sending, reading).map(drop) }).await
}
