//! What a client is for: bytes of viewers and of the target, in any portion and amount, many at once.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use uuid::Uuid;

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::data::Data;
use crate::conform::client::target::Visit;
use crate::conform::client::wire::{Heard, MESSAGE};
use crate::conform::client::world::{RESPONSE, connection, request};
use crate::proto::frame::Opcode;

cases! {
    Required Base "exchange" ["C-14", "C-26", "C-27"], 30, exchange,
        "a viewer's bytes reach the target, and its answer the viewer";
    Required Two "two-exchange" ["C-14", "C-26", "C-54"], 30, exchange,
        "the same at level two, and both directions end";
    Required Base "any-bytes" ["C-26"], 30, any_bytes,
        "bytes that are no HTTP pass as they are, in both directions";
    Required Base "fragments" ["C-26"], 30, fragments,
        "a message in fragments, with pings between them, is the same bytes";
    Required Two "two-fragments" ["C-26"], 30, fragments,
        "the same at level two";
    Advised Base "fragments-at-once" ["C-24"], 30, fragments_at_once,
        "a fragment is passed on before the next one comes";
    Advised Base "text-messages" ["C-26"], 30, text_messages,
        "a relay's text messages are taken for bytes, too";
    Advised Base "binary-messages" ["C-23"], 30, binary_messages,
        "the client sends binary messages";
    Required Base "empty-messages" ["C-25"], 30, empty_messages,
        "empty messages mean nothing at base level";
    Required Base "fifty-at-once" ["C-15"], 45, fifty,
        "of fifty viewers at once none waits for another";
    Required Two "two-fifty-at-once" ["C-15"], 45, fifty,
        "the same at level two";
    Required Base "slow-target" ["C-15", "C-32"], 30, slow_target,
        "while a target takes its time, pings are answered and other viewers served";
    Required Two "two-slow-target" ["C-15", "C-32"], 30, slow_target,
        "the same at level two";
    Advised Base "bounded-memory" ["C-62"], 45, bounded,
        "what a target does not take is not held without a limit";
    Required Base "bulk" ["C-26", "C-27"], 180, bulk,
        "a large body each way at the same time arrives whole";
    Required Two "two-bulk" ["C-26", "C-53", "C-54"], 180, bulk,
        "the same at level two";
}

async fn exchange(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    for _ in 0..2 {
        world.serves(&session).await?;
    }
    Ok(())
}

async fn any_bytes(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let id = session.announce().await;
    let mut data = world.data(&id).await?;
    let all: Vec<u8> = (0..=255).chain([13, 10, 13, 10]).chain((0..=255).rev()).collect();
    data.send(&all).await?;
    let mut visit = world.target.visit(&all, world.wait()).await?;
    visit.write(&all).await;
    data.brings(&all).await?;
    world.finish(&mut data, &mut visit).await
}

async fn fragments(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let id = session.announce().await;
    let mut data = world.data(&id).await?;
    data.frame(Opcode::Binary, false, b"").await?;
    for piece in request(&id).chunks(7) {
        data.frame(Opcode::Continuation, false, piece).await?;
        data.frame(Opcode::Ping, true, b"between").await?;
    }
    data.frame(Opcode::Continuation, true, b"").await?;
    let mut visit = world.target.visit(&request(&id), world.wait()).await?;
    visit.write(RESPONSE).await;
    data.brings(RESPONSE).await?;
    world.finish(&mut data, &mut visit).await
}

async fn fragments_at_once(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let id = session.announce().await;
    let mut data = world.data(&id).await?;
    data.frame(Opcode::Binary, false, &request(&id)).await?;
    let mut visit = world.target.visit(&request(&id), world.wait()).await?;
    // And half of a frame.
    data.raw(&[0x80, 10]).await?;
    data.raw(b"half ").await?;
    visit.gets(b"half ", world.wait()).await
}

async fn text_messages(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let id = session.announce().await;
    let mut data = world.data(&id).await?;
    data.frame(Opcode::Text, true, &request(&id)).await?;
    world.target.visit(&request(&id), world.wait()).await.map(drop)
}

async fn binary_messages(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    visit.write(RESPONSE).await;
    data.brings(RESPONSE).await?;
    match data.reader.is_text() {
        true => Err(Ended::failed("binary messages", "the answer came in a text message")),
        false => Ok(()),
    }
}

async fn empty_messages(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    data.frame(Opcode::Binary, true, b"").await?;
    data.frame(Opcode::Text, true, b"").await?;
    data.send(b"more").await?;
    visit.gets(b"more", world.wait()).await?;
    visit.write(RESPONSE).await;
    data.brings(RESPONSE).await?;
    world.finish(&mut data, &mut visit).await
}

async fn fifty(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let ids: Vec<_> = (0..50).map(|_| Uuid::new_v4().to_string()).collect();
    let announced: Vec<_> = ids.iter().map(|id| connection(id)).collect();
    session.control.at_once(&announced).await;
    // None is answered before all have come.
    let mut calls = Vec::new();
    for id in &ids {
        calls.push((id, world.data_call(id).await?));
    }
    let mut open = Vec::new();
    for (id, call) in calls.into_iter().rev() {
        let mut data = Data::accept(call, world.wait()).await?;
        data.send(&request(id)).await?;
        open.push((id, data));
    }
    let mut visits = Vec::new();
    for (id, data) in open.into_iter().rev() {
        visits.push((id, data, world.target.visit(&request(id), world.wait()).await?));
    }
    for (id, mut data, mut visit) in visits.into_iter().rev() {
        visit.write(id.as_bytes()).await;
        data.brings(id.as_bytes()).await?;
        world.finish(&mut data, &mut visit).await?;
    }
    Ok(())
}

async fn slow_target(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    for round in ["one", "two"] {
        data.frame(Opcode::Ping, true, round.as_bytes()).await?;
        data.pong(round.as_bytes()).await?;
        world.serves(&session).await?;
    }
    data.stays_silent(Duration::from_millis(500)).await?;
    visit.write(RESPONSE).await;
    data.brings(RESPONSE).await?;
    world.finish(&mut data, &mut visit).await
}

/// Sockets of a system hold some megabytes; this is far beyond.
const HELD: usize = 96_000_000;
/// A writer that cannot go on for so long is held back.
const STALLED: Duration = Duration::from_secs(1);

async fn bounded(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, _visit) = world.viewer(&session).await?;
    let piece = vec![7; MESSAGE];
    for _ in 0..HELD / MESSAGE {
        match timeout(STALLED, data.writer.frame(Opcode::Binary, true, &piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return Err(Ended::failed("the client to wait for its target", error.to_string()));
            }
            Err(_) => return Ok(()),
        }
    }
    let came = format!("it took {} MB for a target that read nothing", HELD / 1_000_000);
    Err(Ended::failed("the client to read no faster than its target", came))
}

async fn bulk(stage: Stage) -> Result<(), Ended> {
    let size = stage.settings.bulk;
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    both_ways(&mut data, &mut visit, size).await?;
    world.finish(&mut data, &mut visit).await
}

/// So many bytes each way at the same time, whose order and values are looked at.
async fn both_ways(data: &mut Data, visit: &mut Visit, size: u64) -> Result<(), Ended> {
    let Data { reader, writer, .. } = data;
    let (mut from_client, mut to_client) = visit.split();
    let gone = |error: std::io::Error| Ended::failed("the client to take all of it", error.to_string());
    let upload = async {
        for piece in pieces(size, MESSAGE) {
            writer.frame(Opcode::Binary, true, &piece).await.map_err(gone)?;
        }
        Ok::<_, Ended>(())
    };
    let download = async {
        for piece in pieces(size, 1 << 20) {
            to_client.write_all(&piece).await.map_err(gone)?;
        }
        Ok(())
    };
    let at_target = async {
        let (mut pattern, mut buffer) = (Pattern::default(), vec![0; 1 << 18]);
        while pattern.at < size {
            let read = from_client.read(&mut buffer).await.map_err(gone)?;
            pattern.check(&buffer[..read], size, "at the target")?;
        }
        Ok(())
    };
    let at_relay = async {
        let mut pattern = Pattern::default();
        while pattern.at < size {
            match reader.next().await? {
                Heard::Data(bytes) => pattern.check(&bytes, size, "at the relay")?,
                Heard::End(_) => pattern.check(b"", size, "at the relay")?,
                _ => {}
            }
        }
        Ok(())
    };
    tokio::try_join!(upload, download, at_target, at_relay).map(drop)
}

/// A prime, so that a portion that is lost, repeated or out of order is seen.
const PERIOD: usize = 65_521;

fn period() -> Vec<u8> {
    (0..PERIOD).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// `size` bytes of the pattern, in portions.
fn pieces(size: u64, portion: usize) -> impl Iterator<Item = Vec<u8>> {
    let twice = period().repeat(portion / PERIOD + 2);
    let starts = (0..size).step_by(portion);
    starts.map(move |start| {
        let from = (start % PERIOD as u64) as usize;
        let length = portion.min(usize::try_from(size - start).unwrap_or(portion));
        twice[from..from + length].to_vec()
    })
}

/// Where the bytes that came stand in the pattern.
struct Pattern {
    at: u64,
    period: Vec<u8>,
}

impl Default for Pattern {
    fn default() -> Self {
        Self { at: 0, period: period() }
    }
}

impl Pattern {
    /// The next bytes; none are an end before all have come.
    fn check(&mut self, mut bytes: &[u8], size: u64, place: &str) -> Result<(), Ended> {
        let expected = || format!("{size} bytes {place}");
        if bytes.is_empty() {
            return Err(Ended::failed(expected(), format!("an end came behind {}", self.at)));
        }
        while !bytes.is_empty() {
            let rest = &self.period[(self.at % PERIOD as u64) as usize..];
            let (now, later) = bytes.split_at(bytes.len().min(rest.len()));
            if now != &rest[..now.len()] {
                return Err(Ended::failed(
                    expected(),
                    format!("they are not those that were sent, from about {}", self.at),
                ));
            }
            self.at += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }
}
