//! Whether each side lives: pings answered, pings of the client's own, and a relay that is silent.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::control::Said;
use crate::conform::client::world::RESPONSE;
use crate::proto::frame::Opcode;
use crate::proto::message::Level;

cases! {
    Required Base "ping-control" ["C-32"], 30, ping_control,
        "a ping on the control socket is answered with its payload";
    Required Base "ping-data" ["C-32"], 30, ping_data,
        "a ping on a data socket is answered with its payload";
    Required Two "two-ping-data" ["C-32"], 30, ping_data,
        "the same at level two";
    Advised Two "two-own-pings" ["C-18"], 30, own_pings,
        "the client pings as often as `welcome` says that the relay does";
    Advised Two "two-silent-relay" ["C-18", "C-42"], 45, silent_relay,
        "a relay that answers no ping for as long as `welcome` says is left, and the client comes back";
    Advised Base "own-pings" ["C-18"], 60, own_pings,
        "the client sends pings of its own";
    Advised Base "slow-viewer-lives" ["C-33"], 90, slow_viewer_lives,
        "while bytes wait to be taken, a missing pong ends nothing";
}

async fn ping_control(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    let longest = [b'p'; 125];
    for payload in [&b"one"[..], b"", &longest, b"\x00\xff"] {
        session.control.frame(Opcode::Ping, true, payload).await;
        session.control.pong(payload, world.wait()).await?;
    }
    Ok(())
}

async fn ping_data(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    let longest = [b'p'; 125];
    for payload in [&b"one"[..], b"", &longest, b"\x00\xff"] {
        data.frame(Opcode::Ping, true, payload).await?;
        data.pong(payload).await?;
    }
    visit.write(RESPONSE).await;
    data.brings(RESPONSE).await
}

async fn own_pings(stage: Stage) -> Result<(), Ended> {
    let (slow, wait) = (stage.settings.slow, stage.settings.ping);
    if stage.level == Level::Base && !slow {
        return Err(Ended::Skipped("it may take half a minute: ask for it by --slow".into()));
    }
    let mut world = stage.start()?;
    let mut session =
        world.session_with(json!({ "ping_interval_ms": 1000, "pong_timeout_ms": 10_000 })).await?;
    let wait = if world.level == Level::Base { wait } else { world.wait().min(Duration::from_secs(4)) };
    let until = Instant::now() + wait;
    loop {
        match session.control.next(until.saturating_duration_since(Instant::now())).await {
            Some(Said::Ping) => return Ok(()),
            Some(Said::End(end)) => return Err(Ended::failed("a ping", format!("there came {end}"))),
            Some(_) => {}
            None => {
                return Err(Ended::failed(
                    "a ping on the control socket",
                    format!("none came within {wait:?}"),
                ));
            }
        }
    }
}

async fn silent_relay(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session_with(json!({ "ping_interval_ms": 1000, "pong_timeout_ms": 2000 })).await?;
    session.control.mute().await;
    let again = world.session().await?;
    world.serves(&again).await
}

/// Longer than libraries that ping by themselves wait for a pong.
const LONG: Duration = Duration::from_secs(45);

async fn slow_viewer_lives(stage: Stage) -> Result<(), Ended> {
    if !stage.settings.slow {
        return Err(Ended::Skipped("it takes most of a minute: ask for it by --slow".into()));
    }
    let long = LONG.min(stage.settings.ping.mul_f64(1.2));
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    let body = vec![b'v'; 16_000_000];
    let target = async {
        visit.write(&body).await;
        visit.fin().await;
    };
    let read = async {
        sleep(long).await;
        data.brings(&body).await
    };
    tokio::join!(target, read).1
}
