//! A client that is told to stop: SIGTERM.

use serde_json::json;
use tokio::time::sleep;

use super::cases;
use super::reject::listen_again;
use super::standby::{next, wants};
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::wire::End;
use crate::conform::client::world::{World, connection, request};

cases! {
    Required Base "goodbye" ["C-19"], 45, goodbye,
        "a client that stops closes its control socket with 1000, and what runs goes on to its end";
    Required Two "two-goodbye" ["C-19"], 45, goodbye,
        "the same at level two";
    Required Base "goodbye-later" ["C-19"], 45, goodbye_later,
        "a client that stops after connections that were served and cut, and a session that was lost, ends";
    Required Two "two-goodbye-later" ["C-19"], 45, two_goodbye_later,
        "the same after standby sockets that were rejected, used and never used";
    Advised Base "goodbye-deletes" ["C-20"], 45, goodbye_deletes,
        "a tunnel whose name was made up is deleted in the end, and not before its data sockets have ended";
}

async fn goodbye(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    world.client()?.stop();
    closes(&mut session.control, &world).await?;
    visit.write(b"still here").await;
    data.brings(b"still here").await?;
    world.finish(&mut data, &mut visit).await?;
    ends(&mut world).await
}

/// Nothing runs any more, but something did.
async fn goodbye_later(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let lost = world.session().await?;
    world.serves(&lost).await?;
    // The target stays, so that it is the relay's cut that ends this one.
    let (data, _visit) = world.viewer(&lost).await?;
    data.reset();
    lost.control.close(Some(1012), "restart").await;
    let mut session = world.session().await?;
    world.serves(&session).await?;
    world.client()?.stop();
    closes(&mut session.control, &world).await?;
    ends(&mut world).await
}

async fn two_goodbye_later(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    wants(&session, 2).await;
    let (id, mut rejected) = next(&mut world, &session).await?;
    let (_, mut unused) = next(&mut world, &session).await?;
    wants(&session, 1).await;
    world.target.leave().await;
    rejected.say(&connection(&id)).await?;
    rejected.send(&request(&id)).await?;
    session.control.message("reject", world.wait()).await?;
    rejected.dismiss(1000).await?;
    listen_again(&mut world)?;
    world.serves(&session).await?;
    world.client()?.stop();
    closes(&mut session.control, &world).await?;
    // As the relay does with those that wait; the client may have ended before.
    let _ = unused.close(1001).await;
    ends(&mut world).await
}

async fn closes(control: &mut crate::conform::client::control::Control, world: &World) -> Result<(), Ended> {
    let expected = "a close frame with code 1000 on the control socket";
    match control.end(world.wait()).await {
        Some(End::Close(Some(1000))) => Ok(()),
        Some(end) => Err(Ended::failed(expected, format!("there came {end}"))),
        None => Err(Ended::failed(expected, format!("none came within {:?}", world.wait()))),
    }
}

async fn ends(world: &mut World) -> Result<(), Ended> {
    let wait = world.wait();
    match world.client()?.ends_within(wait).await {
        Some(_) => Ok(()),
        None => Err(Ended::failed("the client to end when nothing runs any more", "it goes on")),
    }
}

async fn goodbye_deletes(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let creation = world.creation().await?;
    if creation.json()?["name"].as_str().is_some_and(|name| !name.is_empty()) {
        return Err(Ended::Skipped("the client was started with a name of its own".into()));
    }
    let tunnel = world.grant(creation).await?;
    let mut session = world.open(tunnel.clone(), json!({})).await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    let deleted = |world: &World| {
        let delete = format!("DELETE /v1/tunnels/{}?unless_connected=true", tunnel.id);
        world.relay.log().iter().any(|request| request.trim_start_matches('/').starts_with(&delete))
    };
    world.client()?.stop();
    closes(&mut session.control, &world).await?;
    visit.write(b"still here").await;
    data.brings(b"still here").await?;
    sleep(world.settings.quiet / 2).await;
    if deleted(&world) {
        return Err(Ended::failed("no deletion while a data socket runs", "it came before"));
    }
    world.finish(&mut data, &mut visit).await?;
    world.until("`DELETE /v1/tunnels/{id}?unless_connected=true` in the end", deleted).await
}
