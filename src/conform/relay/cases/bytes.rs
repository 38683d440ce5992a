//! Many bytes, each way and both ways at once, unchanged and in order.

use super::{base, runs, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::data::{Data, OK};
use crate::conform::relay::viewer::Viewer;
use crate::conform::relay::world::World;

/// Seconds for a gigabyte and more over loopback, or for what a thin line takes of a few megabytes.
const LONG: u64 = 90;

pub(super) static CASES: &[Case<World>] = &[
    base(
        "bytes-request",
        "a request comes as it was sent, with its body",
        &["R-43"],
        super::QUICK,
        runs!(request),
    ),
    base(
        "bytes-chunked",
        "a chunked upload, whose length nobody tells, comes whole",
        &["R-43"],
        super::QUICK,
        runs!(chunked),
    ),
    base("bytes-down", "a long answer reaches the viewer unchanged", &["R-43"], LONG, runs!(down)),
    base("bytes-up", "a long upload reaches the target unchanged", &["R-43"], LONG, runs!(up)),
    base(
        "bytes-both-ways",
        "an upgraded connection carries many bytes both ways at once",
        &["R-49"],
        LONG,
        runs!(both_ways),
    ),
    base(
        "bytes-slow-viewer",
        "a viewer that reads late loses nothing, and the target is held back meanwhile",
        &["R-43"],
        LONG,
        runs!(slow_viewer),
    ),
];

/// Bytes of one message.
const PART: usize = 48 * 1024;

/// The byte at `at` of what is sent: no part of it looks like another.
fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn part(from: u64, count: usize) -> Vec<u8> {
    (from..from + count as u64).map(byte).collect()
}

/// Portions of what is sent: where each begins, and its bytes.
fn parts(total: u64) -> impl Iterator<Item = (u64, usize)> + Send {
    (0..total).step_by(PART).map(move |from| (from, usize::try_from(total - from).unwrap_or(PART).min(PART)))
}

async fn target_sends(data: &mut Data, total: u64) -> Outcome {
    for (from, count) in parts(total) {
        data.say(part(from, count)).await?;
    }
    Ok(())
}

async fn viewer_sends(viewer: &mut Viewer, total: u64) -> Outcome {
    for (from, count) in parts(total) {
        viewer.wire.write(&part(from, count)).await?;
    }
    Ok(())
}

fn same(from: u64, came: &[u8]) -> Outcome {
    match came.iter().zip(from..).find(|(found, at)| **found != byte(*at)) {
        None => Ok(()),
        Some((_, at)) => Err(Ended::failed("the bytes that were sent", format!("another byte at {at}"))),
    }
}

async fn viewer_reads(viewer: &mut Viewer, total: u64) -> Outcome {
    let mut at = 0;
    while at < total {
        let left = usize::try_from(total - at).unwrap_or(usize::MAX);
        let mut came = viewer.wire.some("more of what the target has sent").await?;
        came.truncate(left);
        want(!came.is_empty(), &format!("{total} bytes"), format!("the end after {at}"))?;
        same(at, &came)?;
        at += came.len() as u64;
    }
    Ok(())
}

async fn target_reads(data: &mut Data, total: u64) -> Outcome {
    for (from, count) in parts(total) {
        same(from, &data.exactly(count, "more of what the viewer has sent").await?)?;
    }
    Ok(())
}

async fn request(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer
        .ask("PUT", "/a%2Fb//c?d=%00&e=/../", "X-Kit: one\r\nX-Kit: two\r\n", b"\0\r\n\r\nbody\xff")
        .await?;
    let mut data = client.accept().await?;
    let request = data.request().await?;
    want(
        request.line.starts_with("PUT ") && request.line.ends_with("/a%2Fb//c?d=%00&e=/../ HTTP/1.1"),
        "the request line as it was sent",
        &request.line,
    )?;
    request.must_have("x-kit", "one, two")?;
    request.must_have("content-length", "10")?;
    data.expect_bytes(b"\0\r\n\r\nbody\xff").await?;
    data.say(OK).await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn chunked(world: World) -> Outcome {
    let mut client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.begin("POST", "/", "Transfer-Encoding: chunked\r\n").await?;
    viewer.wire.say(b"3\r\nkit\r\n5;x=y\r\n-kit!\r\n0\r\n\r\n").await?;
    let mut data = client.accept().await?;
    let request = data.request().await?;
    let mut body = Vec::new();
    if request.header("transfer-encoding") == "chunked" {
        while !body.ends_with(b"0\r\n\r\n") {
            body.extend_from_slice(&data.exactly(1, "the end of the chunked body").await?);
        }
    } else {
        request.must_have("content-length", "8")?;
        body.extend_from_slice(&data.exactly(8, "the whole body").await?);
    }
    let text: String =
        String::from_utf8_lossy(&body).split("\r\n").filter(|line| line.contains(['k', '-'])).collect();
    want(text == "kit-kit!", "the body `kit-kit!`", text)?;
    data.say(OK).await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn down(world: World) -> Outcome {
    let total = world.settings().bytes;
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")).await?;
    viewer.head().await?;
    tokio::try_join!(target_sends(&mut data, total), viewer_reads(&mut viewer, total)).map(drop)
}

async fn up(world: World) -> Outcome {
    let total = world.settings().bytes;
    let mut client = world.client().await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.begin("POST", "/", &format!("Content-Length: {total}\r\n")).await?;
    let mut data = client.accept().await?;
    data.request().await?;
    tokio::try_join!(viewer_sends(&mut viewer, total), target_reads(&mut data, total))?;
    data.say(OK).await?;
    viewer.answer().await?.must_be(200, "of the target").map(drop)
}

async fn both_ways(world: World) -> Outcome {
    let total = world.settings().bytes;
    let mut client = world.client().await?;
    let (viewer, data) = client.upgraded().await?;
    both(viewer, data, total).await
}

/// Echoes by portions: each side sends and reads in turn, so neither can be held up for ever by the other.
async fn both(mut viewer: Viewer, mut data: Data, total: u64) -> Outcome {
    const WINDOW: u64 = 256 * 1024;
    let mut at = 0;
    while at < total {
        let count = usize::try_from((total - at).min(WINDOW)).unwrap_or(PART);
        let bytes = part(at, count);
        viewer.wire.write(&bytes).await?;
        data.say(&bytes).await?;
        same(at, &data.exactly(count, "what the viewer has sent").await?)?;
        same(at, &viewer.wire.exactly(count, "what the target has sent").await?)?;
        at += count as u64;
    }
    Ok(())
}

async fn slow_viewer(world: World) -> Outcome {
    let total = world.settings().bytes;
    let mut client = world.client().await?;
    let (mut viewer, mut data) = client.exchange().await?;
    data.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n")).await?;
    viewer.head().await?;
    let late = async {
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        viewer_reads(&mut viewer, total).await
    };
    tokio::try_join!(target_sends(&mut data, total), late).map(drop)
}
