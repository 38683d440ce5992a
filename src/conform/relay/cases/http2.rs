//! Targets that speak HTTP/2 (section 4.2): as much of it as a target by hand needs.

use bytes::BytesMut;
use serde_json::json;

use super::{QUICK, base, runs, want};
use crate::conform::case::{Case, Ended};
use crate::conform::relay::Outcome;
use crate::conform::relay::control::Client;
use crate::conform::relay::data::Data;
use crate::conform::relay::world::World;

pub(super) static CASES: &[Case<World>] = &[
    base(
        "h2-preface",
        "to such a target a data socket begins with the preface of HTTP/2, and an answer comes back",
        &["R-50"],
        QUICK,
        runs!(preface),
    ),
    base(
        "h2-trailers",
        "trailers reach a viewer of HTTP/1.1 that takes them",
        &["R-51"],
        QUICK,
        runs!(trailers),
    ),
    base(
        "h2-reset",
        "an answer whose stream is reset does not look complete",
        &["R-51", "R-53"],
        QUICK,
        runs!(reset),
    ),
];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` in the static table of HPACK.
const STATUS_200: u8 = 0x88;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header of HPACK that is put in no table.
fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// A client of a tunnel whose target speaks HTTP/2.
async fn client(world: &World) -> Outcome<Client> {
    let tunnel = world.tunnel(json!({ "target_proto": "h2" })).await?;
    if tunnel.json["target_proto"] != "h2" {
        return Err(Ended::Skipped("the relay knows no `target_proto`".into()));
    }
    world.serve(tunnel).await
}

/// Reads up to the headers of the first request: its stream.
async fn request(data: &mut Data) -> Outcome<u32> {
    data.expect_bytes(PREFACE).await?;
    data.say(frame(SETTINGS, 0, 0, b"")).await?;
    loop {
        let head = data.exactly(9, "a frame of HTTP/2").await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let _payload: BytesMut = data.exactly(length, "the payload of a frame of HTTP/2").await?;
        match head[3] {
            SETTINGS if head[4] == 0 => data.say(frame(SETTINGS, 1, 0, b"")).await?,
            HEADERS => return Ok(stream),
            _ => {}
        }
    }
}

async fn preface(world: World) -> Outcome {
    let mut client = client(&world).await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let mut data = client.accept().await?;
    let stream = request(&mut data).await?;
    data.say(frame(HEADERS, END_HEADERS, stream, &[STATUS_200])).await?;
    data.say(frame(DATA, END_STREAM, stream, b"kit")).await?;
    let answer = viewer.answer().await?.must_be(200, "of the target")?;
    want(answer.body == "kit", "the body `kit`", answer.text())
}

async fn trailers(world: World) -> Outcome {
    let mut client = client(&world).await?;
    let mut viewer = world.viewer(&client.tunnel).await?;
    viewer.ask("GET", "/", "TE: trailers\r\nConnection: TE\r\n", b"").await?;
    let mut data = client.accept().await?;
    let stream = request(&mut data).await?;
    let head = [&[STATUS_200][..], &literal("trailer", "x-kit")].concat();
    data.say(frame(HEADERS, END_HEADERS, stream, &head)).await?;
    data.say(frame(DATA, 0, stream, b"kit")).await?;
    data.say(frame(HEADERS, END_HEADERS | END_STREAM, stream, &literal("x-kit", "behind"))).await?;
    let answer = viewer.answer().await?.must_be(200, "of the target")?;
    let found = answer.trailers.get("x-kit").is_some_and(|value| value == "behind");
    want(found, "the trailer x-kit: behind", format!("{:?}", answer.trailers))
}

async fn reset(world: World) -> Outcome {
    let mut client = client(&world).await?;
    let mut viewer = world.asking(&client.tunnel).await?;
    let mut data = client.accept().await?;
    let stream = request(&mut data).await?;
    data.say(frame(HEADERS, END_HEADERS, stream, &[STATUS_200])).await?;
    data.say(frame(DATA, 0, stream, b"kit")).await?;
    viewer.wire.more("the beginning of an answer").await?;
    // INTERNAL_ERROR.
    data.say(frame(RESET, 0, stream, &[0, 0, 0, 2])).await?;
    viewer.expect_cut("its stream was reset").await
}
