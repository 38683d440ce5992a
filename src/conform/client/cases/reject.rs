//! A target that cannot be reached.

use tokio::time::{Instant, timeout_at};

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::data::Data;
use crate::conform::client::settings::Variant;
use crate::conform::client::wire::{End, first};
use crate::conform::client::world::request;

cases! {
    Advised Base "target-refused" ["C-29"], 30, target_refused,
        "a viewer whose target refuses gets 502 of the client, and the next one is served";
    Advised Base "tcp-target-refused" ["C-29"], 30, tcp_target_refused,
        "with TCP the data socket is closed with 1011 in its place";
    Required Two "two-target-refused" ["C-48", "C-64"], 30, two_target_refused,
        "`reject` names the connection whose target refuses, no bytes are sent for it, and the next one is served";
}

async fn target_refused(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    world.target.leave().await;
    let id = session.announce().await;
    let mut data = world.data(&id).await?;
    data.send(&request(&id)).await?;
    let rest = data.rest().await?;
    if !rest.bytes.starts_with(b"HTTP/1.1 502 ") {
        return Err(Ended::failed(
            "\"HTTP/1.1 502 …\" of the client",
            format!("there came \"{}\"", first(&rest.bytes)),
        ));
    }
    if rest.end.is_none() {
        return Err(Ended::failed("the data socket to end behind the 502", "it stayed open"));
    }
    listen_again(&mut world)?;
    world.serves(&session).await
}

async fn tcp_target_refused(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start_as(Variant::Tcp)?;
    let session = world.session().await?;
    world.target.leave().await;
    let id = session.announce().await;
    let mut data = world.data(&id).await?;
    let rest = data.rest().await?;
    match rest.end {
        _ if !rest.bytes.is_empty() => Err(Ended::failed(
            "no bytes of the client's own",
            format!("there came \"{}\"", first(&rest.bytes)),
        )),
        // A reset says the same (section 4: "a code other than 1000 and 1001, a reset …").
        Some(End::Close(Some(1011)) | End::Reset) => Ok(()),
        Some(end) => Err(Ended::failed("a close frame with code 1011", format!("there came {end}"))),
        None => Err(Ended::failed("a close frame with code 1011", "the socket stayed open")),
    }
}

async fn two_target_refused(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    world.target.leave().await;
    let id = session.announce().await;
    // A client may have its data socket open by then.
    let (mut opened, until) = (None, Instant::now() + world.wait());
    let wait = world.wait();
    let told = {
        let mut told = std::pin::pin!(session.control.message("reject", wait));
        loop {
            tokio::select! {
                biased;
                told = &mut told => break told?,
                call = timeout_at(until, world.relay.datas.recv()), if opened.is_none() => {
                    let Ok(Some(call)) = call else { continue };
                    opened = Some(Data::accept(call, wait).await?);
                }
            }
        }
    };
    if told["id"] != id.as_str() {
        return Err(Ended::failed(
            format!("\"id\": {id:?} in `reject`"),
            format!("there was {}", told["id"]),
        ));
    }
    if told["reason"].as_str().is_none_or(str::is_empty) {
        return Err(Ended::failed("a `reason` in `reject`", format!("there was {told}")));
    }
    if let Some(data) = &mut opened {
        // It is the relay that closes it, if the client has not given up its handshake.
        let _ = data.close(1000).await;
        let rest = data.rest().await?;
        if !rest.bytes.is_empty() {
            return Err(Ended::failed(
                "no bytes of a client that rejects",
                format!("there came \"{}\"", first(&rest.bytes)),
            ));
        }
    }
    listen_again(&mut world)?;
    world.serves(&session).await
}

pub(super) fn listen_again(world: &mut crate::conform::client::world::World) -> Result<(), Ended> {
    world.target.listen().map_err(|error| Ended::failed("the kit to listen again", error.to_string()))
}
