//! The first look at a client, before any case: whether it shows anything at all, and what it offers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::settings::{Facts, Settings};
use super::world::{Stage, World};
use crate::conform::case::Ended;
use crate::conform::trace::Trace;
use crate::proto::message::{ADIT_1, Level};

/// A client whose library takes an answer without a subprotocol for an error opens its second socket within this.
const REOPENS: Duration = Duration::from_secs(1);

/// There is nothing to test, in a few lines for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nothing(pub String);

/// Starts the client once and looks at its first steps.
pub async fn probe(settings: &Arc<Settings>) -> Result<Facts, Nothing> {
    let key = format!("kit_{}", uuid::Uuid::new_v4().simple());
    let trace = Trace::new(std::slice::from_ref(&key));
    let stage = Stage { settings: Arc::clone(settings), level: Level::Base, trace: trace.clone(), key };
    let mut world = stage.start().map_err(|ended| Nothing(told(&ended)))?;
    look(&mut world).await.map_err(|ended| {
        let reached = if world.relay.was_reached() {
            format!("It asked for: {}", world.relay.log().join(", "))
        } else {
            "It did not connect to the relay. Does it take {relay}, or ADIT_RELAY, as the relay's URL, and {key}, or \
             ADIT_KEY, as its key?"
                .to_owned()
        };
        Nothing(format!("{}\n{reached}\n{}", told(&ended), trace.lines().join("\n")).trim_end().to_owned())
    })
}

async fn look(world: &mut World) -> Result<Facts, Ended> {
    let creation = world.creation().await?;
    let tunnel = world.grant(creation).await?;
    let call = world.control_call(&tunnel).await?;
    let offers_two = call.list("sec-websocket-protocol").iter().any(|name| name == ADIT_1);
    let Ok(_open) = call.switch(None).await else { return Ok(Facts { offers_two, reopens: false }) };
    let reopens = offers_two && timeout(REOPENS, world.relay.controls.recv()).await.is_ok();
    Ok(Facts { offers_two, reopens })
}

fn told(ended: &Ended) -> String {
    match ended {
        Ended::Skipped(why) => why.clone(),
        Ended::Failed(failure) => format!("expected {}, but {}", failure.expected, failure.came),
    }
}
