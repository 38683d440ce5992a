//! What only level two can say: cancel, drain, and fresh tokens.

use serde_json::json;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::control::Said;
use crate::conform::client::world::connection;
use crate::proto::frame::Opcode;

cases! {
    Required Two "two-cancel" ["C-43"], 30, cancel,
        "a connection that is cancelled before its data socket is open disturbs nothing, and what was opened to the target for it ends";
    Advised Two "two-cancel-at-once" ["C-43"], 30, cancel_at_once,
        "no data socket is opened for what was cancelled with its announcement";
    Advised Two "two-drain" ["C-45"], 30, drain,
        "a relay that drains gets a new control socket that names the session before, and that session ends without harm";
    Required Two "two-drain-serves-on" ["C-46"], 30, drain_serves_on,
        "a session that drains is served until it ends";
    Required Two "two-drain-restart" ["C-34", "C-46"], 45, drain_restart,
        "a relay that drains, goes away and comes back is found again";
    Required Two "two-fresh-token" ["C-49"], 30, fresh_token,
        "data sockets carry the token that was accepted last";
    Required Two "two-answers-to-nothing" ["C-41"], 30, answers_to_nothing,
        "an `auth` that answers nothing, an `error` and an `expiring` disturb nothing";
}

async fn cancel(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let before = world.target.silent();
    let id = session.announce().await;
    let call = world.data_call(&id).await?;
    session.control.say(&json!({ "type": "cancel", "id": id })).await;
    call.refuse(404, "connection_not_found").await;
    world.serves(&session).await?;
    let given_up = |world: &crate::conform::client::world::World| world.target.silent() <= before;
    world.until("the connection to the target to end whose viewer has gone", given_up).await
}

async fn cancel_at_once(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let id = Uuid::new_v4().to_string();
    session.control.at_once(&[connection(&id), json!({ "type": "cancel", "id": id })]).await;
    world.serves(&session).await?;
    match world.data_call_within(&id, world.settings.quiet / 2).await {
        Err(_) => Ok(()),
        Ok(_) => {
            Err(Ended::failed("no data socket for a connection that was cancelled at once", "it was opened"))
        }
    }
}

async fn drain(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let older = world.session().await?;
    older.control.say(&json!({ "type": "drain", "deadline_ms": 20_000, "reconnect_ms": 200 })).await;
    let creation = world.creation().await?;
    let tunnel = world.grant(creation).await?;
    if tunnel.slug != older.tunnel.slug {
        return Err(Ended::failed(
            format!("the name {:?} again", older.tunnel.slug),
            format!("it asked for {:?}", tunnel.slug),
        ));
    }
    let call = world.control_call(&tunnel).await?;
    let named = call.query("successor_of");
    if named.as_deref() != Some(older.name.as_str()) {
        return Err(Ended::failed(
            format!("`successor_of={}`", older.name),
            format!("it asked for {}", call.target),
        ));
    }
    let newer = world.open_by(call, tunnel, json!({})).await?;
    world.serves(&newer).await?;
    older.control.say(&json!({ "type": "closed", "reason": "succeeded", "message": "succeeded" })).await;
    older.control.close(Some(1000), "succeeded").await;
    world.serves(&newer).await?;
    // One session is enough.
    match timeout(world.settings.quiet / 2, world.relay.creations.recv()).await {
        Err(_) => world.serves(&newer).await,
        Ok(_) => {
            Err(Ended::failed("no third session after `succeeded`", "the client created its tunnel again"))
        }
    }
}

async fn drain_serves_on(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    session.control.say(&json!({ "type": "drain", "deadline_ms": 20_000, "reconnect_ms": 300 })).await;
    world.serves(&session).await?;
    let creation = world.creation().await?;
    let tunnel = world.grant(creation).await?;
    let newer = world.open(tunnel, json!({})).await?;
    world.serves(&newer).await?;
    world.serves(&session).await?;
    visit.write(b"still here").await;
    data.brings(b"still here").await?;
    world.finish(&mut data, &mut visit).await
}

async fn drain_restart(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    world.relay.leave().await;
    session.control.say(&json!({ "type": "drain", "deadline_ms": 20_000, "reconnect_ms": 100 })).await;
    session.control.frame(Opcode::Ping, true, b"heard").await;
    session.control.pong(b"heard", world.wait()).await?;
    // It knows by now, and is refused in the meantime.
    sleep(world.settings.quiet).await;
    session.control.say(&json!({ "type": "closed", "reason": "restart", "message": "restart" })).await;
    session.control.close(Some(1012), "restart").await;
    super::back::listen(&mut world)?;
    let again = world.session().await?;
    world.serves(&again).await
}

async fn fresh_token(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    for accepted in [true, false] {
        let expiring =
            json!({ "type": "expiring", "what": "token", "at": "2030-01-01T00:00:00Z", "in_ms": 60_000 });
        session.control.say(&expiring).await;
        let wait = world.settings.quiet / 2;
        let token = loop {
            match session.control.next(wait).await {
                Some(Said::Message(bytes)) => {
                    let message: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
                    match message["token"].as_str().filter(|_| message["type"] == "auth") {
                        Some(token) => break token.to_owned(),
                        None => {
                            return Err(Ended::failed(
                                "`auth` with a `token`",
                                format!("there came {message}"),
                            ));
                        }
                    }
                }
                Some(Said::Ping | Said::Pong(_)) => {}
                Some(_) => {
                    return Err(Ended::failed(
                        "`auth`, or nothing, after `expiring`",
                        "the session has ended",
                    ));
                }
                None => {
                    return Err(Ended::Skipped("the client has one key, and no fresh token to give".into()));
                }
            }
        };
        let error = (!accepted).then_some("the kit refuses this one");
        session.control.say(&json!({ "type": "auth", "accepted": accepted, "error": error })).await;
        if accepted {
            world.key = token;
        }
        // Which key it carries is looked at with each data socket.
        world.serves(&session).await?;
    }
    Ok(())
}

async fn answers_to_nothing(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    for message in [
        json!({ "type": "auth", "accepted": false, "error": "nobody asked" }),
        json!({ "type": "auth", "accepted": true, "expires_in_ms": 1 }),
        json!({ "type": "error", "message": "this message cannot be read: \u{1b}[2J" }),
        json!({ "type": "expiring", "what": "tunnel", "at": "2030-01-01T00:00:00Z", "in_ms": 60_000 }),
        json!({ "type": "cancel", "id": "unknown" }),
        json!({ "type": "welcome", "session": "another" }),
    ] {
        session.control.say(&message).await;
    }
    world.serves(&session).await
}
