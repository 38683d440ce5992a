//! How a connection ends: in order, each direction by itself, or broken off so that nobody takes it for complete.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::data::Data;
use crate::conform::client::target::Visit;
use crate::conform::client::wire::{End, first};
use crate::conform::client::world::{RESPONSE, Session, World};
use crate::proto::frame::Opcode;

cases! {
    Required Base "target-end" ["C-27"], 30, target_end,
        "when the target closes, its last byte arrives and the data socket ends in order";
    Required Base "relay-end" ["C-28"], 30, |stage| relay_end(stage, Some(1000)),
        "when the relay closes (1000), all that it sent reaches the target, and then the end";
    Required Base "relay-end-without-frame" ["C-28"], 30, |stage| relay_end(stage, None),
        "the same where the connection just ends, between two messages";
    Required Base "cut-behind-header" ["C-30"], 30, |stage| cut(stage, Cut::BehindHeader),
        "a connection that ends behind a frame's header resets the target";
    Required Base "cut-in-frame" ["C-30"], 30, |stage| cut(stage, Cut::InFrame),
        "a connection that ends within a frame resets the target";
    Required Base "cut-between-fragments" ["C-30"], 30, |stage| cut(stage, Cut::BetweenFragments),
        "a connection that ends between two fragments resets the target";
    Required Base "cut-by-1011" ["C-30"], 30, |stage| cut(stage, Cut::Code),
        "a close frame with 1011 resets the target";
    Required Base "cut-by-reset" ["C-30"], 30, |stage| cut(stage, Cut::Reset),
        "a reset of the data socket resets the target";
    Required Two "two-cut-behind-header" ["C-30"], 30, |stage| cut(stage, Cut::BehindHeader),
        "a connection that ends behind a frame's header resets the target";
    Required Two "two-cut-between-fragments" ["C-30"], 30, |stage| cut(stage, Cut::BetweenFragments),
        "a connection that ends between two fragments resets the target";
    Required Two "two-cut-by-1011" ["C-30"], 30, |stage| cut(stage, Cut::Code),
        "a close frame with 1011 resets the target";
    Required Two "two-cut-without-a-word" ["C-30"], 30, |stage| cut(stage, Cut::Silent),
        "at level two a connection that ends without a word resets the target";
    Required Base "early-answer" ["C-31"], 45, early_answer,
        "an answer arrives whole, though its target takes no more of the request and hangs up";
    Required Two "two-early-answer" ["C-31"], 45, early_answer,
        "the same at level two";
    Required Two "two-target-ends-first" ["C-53", "C-54"], 30, target_ends_first,
        "behind the target's end, bytes go on to it, until the relay's end; then the client closes with 1000";
    Required Two "two-viewer-ends-first" ["C-53", "C-54"], 30, viewer_ends_first,
        "behind the viewer's end, bytes go on from the target, until its end; then the client closes with 1000";
    Required Two "two-empty-fragment" ["C-51"], 30, empty_fragment,
        "an empty last fragment ends nothing, and an empty message in two fragments does";
    Advised Two "two-binary-end" ["C-52"], 30, binary_end,
        "the client's end is a binary message";
    Required Two "two-slow-viewer" ["C-54"], 45, slow_viewer,
        "the last bytes and the close frame reach a viewer who is slow";
    Required Base "target-fails" ["C-65"], 30, target_breaks_off,
        "a target that resets its connection is passed on as a break, behind what it has sent";
    Required Two "two-target-fails" ["C-55"], 30, target_fails,
        "a target that resets its connection is passed on as 1011, behind what it has sent";
}

/// More than goes at once.
const LARGE: usize = 1_000_000;

async fn target_end(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    let body = vec![b'x'; LARGE];
    let (_, came) = tokio::join!(
        async {
            visit.write(&body).await;
            visit.fin().await;
        },
        data.brings(&body)
    );
    came?;
    data.ends_in_order().await
}

async fn relay_end(stage: Stage, code: Option<u16>) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    let (body, wait) = (vec![b'y'; LARGE], world.wait());
    let (sent, (came, end)) = tokio::join!(
        async {
            data.send(&body).await?;
            match code {
                Some(code) => data.dismiss(code).await,
                None => {
                    data.fin().await;
                    Ok(())
                }
            }
        },
        visit.rest(wait)
    );
    sent?;
    if came != body {
        let came = format!("{} bytes came (\"{}\")", came.len(), first(&came));
        return Err(Ended::failed(format!("all {LARGE} bytes at the target"), came));
    }
    ends(end, End::Fin)
}

/// How the relay's side breaks off.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    BehindHeader,
    InFrame,
    BetweenFragments,
    Code,
    Reset,
    Silent,
}

async fn cut(stage: Stage, cut: Cut) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    data.send(b"part").await?;
    visit.gets(b"part", world.wait()).await?;
    match cut {
        Cut::BehindHeader => data.raw(&[0x82, 0x05]).await?,
        Cut::InFrame => data.raw(b"\x82\x05abc").await?,
        Cut::BetweenFragments => data.frame(Opcode::Binary, false, b"abc").await?,
        Cut::Code => data.close(1011).await?,
        Cut::Reset | Cut::Silent => {}
    }
    // The socket is held until the target has seen the end, as a relay may be slow to let go.
    let _held = match cut {
        Cut::Reset => {
            data.reset();
            None
        }
        _ => {
            data.fin().await;
            Some(data)
        }
    };
    let (_, end) = visit.rest(world.wait()).await;
    ends(end, End::Reset)?;
    world.serves(&session).await
}

/// The end at the target is this one.
fn ends(came: Option<End>, wanted: End) -> Result<(), Ended> {
    let named = |end: End| match end {
        End::Reset => "a TCP reset".to_owned(),
        _ => "an end in order (FIN)".to_owned(),
    };
    match came {
        Some(end) if end == wanted => Ok(()),
        Some(end) => {
            Err(Ended::failed(format!("{} at the target", named(wanted)), format!("{} came", named(end))))
        }
        None => Err(Ended::failed(format!("{} at the target", named(wanted)), "its connection stayed open")),
    }
}

async fn early_answer(stage: Stage) -> Result<(), Ended> {
    const ANSWER: &[u8] =
        b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large";
    const ROUNDS: usize = 6;
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (upload, wait) = (vec![b'z'; 4 * LARGE], world.wait());
    for _ in 0..ROUNDS {
        let (mut data, mut visit) = world.viewer(&session).await?;
        data.send(b"upload").await?;
        let target = async {
            visit.write(ANSWER).await;
            let read = timeout(wait, visit.some()).await;
            // With bytes unread, which the system answers with a reset.
            drop(visit);
            match read {
                Ok(Ok(Some(_))) => Ok(()),
                _ => Err(Ended::failed("the upload at a target that has answered early", "it did not come")),
            }
        };
        let (read, came) = tokio::join!(target, data.brings_during(&upload, ANSWER));
        came.and(read)?;
    }
    // And once with a client that cannot write any more when the answer comes.
    let (mut data, mut visit) = world.viewer(&session).await?;
    data.fill().await;
    visit.write(ANSWER).await;
    drop(visit);
    data.brings(ANSWER).await
}

/// A viewer of a session of level two.
async fn two(stage: Stage) -> Result<(World, Data, Visit, Session), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (data, visit) = world.viewer(&session).await?;
    Ok((world, data, visit, session))
}

async fn target_ends_first(stage: Stage) -> Result<(), Ended> {
    let (world, mut data, mut visit, _session) = two(stage).await?;
    visit.write(RESPONSE).await;
    visit.fin().await;
    data.brings(RESPONSE).await?;
    data.brings_end().await?;
    data.send(b"more").await?;
    visit.gets(b"more", world.wait()).await?;
    data.say_end().await?;
    let (_, end) = visit.rest(world.wait()).await;
    ends(end, End::Fin)?;
    data.closes_with(1000).await
}

async fn viewer_ends_first(stage: Stage) -> Result<(), Ended> {
    let (world, mut data, mut visit, _session) = two(stage).await?;
    data.say_end().await?;
    let (_, end) = visit.rest(world.wait()).await;
    ends(end, End::Fin)?;
    visit.write(RESPONSE).await;
    data.brings(RESPONSE).await?;
    data.stays_silent(Duration::from_millis(200)).await?;
    visit.write(b"more").await;
    data.brings(b"more").await?;
    visit.fin().await;
    data.closes_with(1000).await
}

async fn empty_fragment(stage: Stage) -> Result<(), Ended> {
    let (world, mut data, mut visit, _session) = two(stage).await?;
    data.frame(Opcode::Binary, false, b"abc").await?;
    data.frame(Opcode::Continuation, true, b"").await?;
    data.send(b"def").await?;
    visit.gets(b"abcdef", world.wait()).await?;
    data.frame(Opcode::Binary, false, b"").await?;
    data.frame(Opcode::Continuation, true, b"").await?;
    let (_, end) = visit.rest(world.wait()).await;
    ends(end, End::Fin)
}

async fn binary_end(stage: Stage) -> Result<(), Ended> {
    let (_world, mut data, mut visit, _session) = two(stage).await?;
    visit.write(RESPONSE).await;
    visit.fin().await;
    data.brings(RESPONSE).await?;
    data.brings_end().await?;
    match data.reader.is_text() {
        true => Err(Ended::failed("an empty binary message", "it was one of text")),
        false => Ok(()),
    }
}

/// Longer than libraries wait for the other side of a closing handshake by themselves, as far as that can be tried.
const SLOW: Duration = Duration::from_secs(11);

async fn slow_viewer(stage: Stage) -> Result<(), Ended> {
    let (world, mut data, mut visit, _session) = two(stage).await?;
    let body = vec![b'w'; 12 * LARGE];
    data.say_end().await?;
    let target = async {
        visit.write(&body).await;
        visit.fin().await;
    };
    // Meanwhile nothing is read: the answer fills what there is of buffers, and its end stands behind it.
    let read = async {
        sleep(SLOW.min(4 * world.wait())).await;
        data.brings(&body).await?;
        data.closes_with(1000).await
    };
    tokio::join!(target, read).1
}

async fn target_breaks_off(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    visit.write(b"half an answer").await;
    data.brings(b"half an answer").await?;
    visit.reset();
    data.breaks_off().await
}

async fn target_fails(stage: Stage) -> Result<(), Ended> {
    let (_world, mut data, mut visit, _session) = two(stage).await?;
    visit.write(b"half an answer").await;
    data.brings(b"half an answer").await?;
    visit.reset();
    data.closes_with(1011).await
}
