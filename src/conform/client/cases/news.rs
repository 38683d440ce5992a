//! What the relay announces: ids of any kind, claims that fail, and messages that nobody knows.

use serde_json::json;

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::world::connection;
use crate::proto::frame::Opcode;
use crate::proto::message::Level;

cases! {
    Required Base "odd-ids" ["C-16"], 30, odd_ids,
        "an id is escaped as a value of a query";
    Required Two "two-odd-ids" ["C-16"], 30, odd_ids,
        "the same at level two";
    Required Base "split-messages" ["C-14"], 30, split_messages,
        "a control message is the same in fragments, and byte by byte";
    Required Base "late-claim" ["C-14"], 30, late_claim,
        "an id that is void (404) disturbs nothing";
    Required Two "two-late-claim" ["C-14"], 30, late_claim,
        "the same at level two";
    Advised Base "handshake-again" ["C-22"], 30, handshake_again,
        "a data socket whose handshake breaks off is tried again";
    Required Base "unknown-messages" ["C-13"], 30, unknown_messages,
        "types and fields that nobody knows are ignored";
    Required Two "two-unknown-messages" ["C-41"], 30, unknown_messages,
        "the same at level two";
    Required Base "nonsense-messages" ["C-13"], 30, nonsense_messages,
        "what is no message at all is ignored";
    Required Two "two-nonsense-messages" ["C-41"], 30, nonsense_messages,
        "the same at level two";
    Required Base "says-nothing" ["C-17"], 30, says_nothing,
        "a base client sends no messages";
}

/// What stands in a query for something else, what may not stand there, and what is no ASCII.
const ODD_ID: &str = "a b+c/d?e=f&g%20h#i;j\"é~";

async fn odd_ids(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    for id in [ODD_ID, "%", "..", "&id=2"] {
        session.control.say(&connection(id)).await;
        world.data_call(id).await?.refuse(404, "connection_not_found").await;
    }
    world.serves(&session).await
}

async fn split_messages(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let text = connection("in-fragments").to_string();
    let (first, rest) = text.as_bytes().split_at(9);
    session.control.frame(Opcode::Text, false, first).await;
    session.control.frame(Opcode::Ping, true, b"between").await;
    session.control.frame(Opcode::Continuation, false, b"").await;
    session.control.frame(Opcode::Continuation, true, rest).await;
    world.data_call("in-fragments").await?;
    let whole = crate::conform::client::wire::frame(
        Opcode::Text,
        true,
        connection("by-bytes").to_string().as_bytes(),
    );
    session.control.slowly(whole).await;
    world.data_call("by-bytes").await.map(drop)
}

async fn late_claim(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    let id = session.announce().await;
    world.data_call(&id).await?.refuse(404, "connection_not_found").await;
    world.serves(&session).await?;
    match world.level {
        Level::Base => session.control.said_nothing(world.wait()).await,
        // A `reject` of an id that is void is ignored by relays.
        Level::Two => Ok(()),
    }
}

async fn handshake_again(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let id = session.announce().await;
    world.data_call(&id).await?.drop_it();
    world.data_call(&id).await.map(drop)
}

async fn unknown_messages(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    for message in [
        json!({ "type": "x-kit" }),
        json!({ "type": "x-kit", "id": "no-connection", "want": 3 }),
        json!({ "type": "connections", "ids": ["a", "b"] }),
        json!({ "id": "no-type" }),
        json!({}),
    ] {
        session.control.say(&message).await;
    }
    let mut known = connection("with-more-fields");
    known["x-kit"] = json!({ "type": "cancel", "id": "with-more-fields" });
    known["priority"] = json!([1, null]);
    session.control.say(&known).await;
    world.data_call("with-more-fields").await?;
    world.serves(&session).await
}

async fn nonsense_messages(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let deep = "[".repeat(30_000);
    for text in [
        "",
        " ",
        "nonsense",
        "null",
        "42",
        "\"connection\"",
        "[]",
        "[{\"type\":\"connection\"}]",
        "{",
        "{\"type\":7}",
        "{\"type\":\"connection\"}",
        "{\"type\":\"connection\",\"id\":{}}",
        "{\"type\":\"connection\",\"id\":null}",
        "{\"type\":\"standby\",\"want\":-1e999}",
        "{\"type\":\"cancel\"}",
        "{\"type\":\"drain\",\"deadline_ms\":\"soon\"}",
        &deep,
    ] {
        session.control.text(text).await;
    }
    session.control.frame(Opcode::Binary, true, b"\xff\xfe\x00binary").await;
    world.serves(&session).await
}

async fn says_nothing(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    world.serves(&session).await?;
    session.control.say(&json!({ "type": "expiring", "what": "token", "in_ms": 1000 })).await;
    // A viewer whose target is away is what a client would have to speak of.
    world.target.leave().await;
    let id = session.announce().await;
    let mut data = world.data(&id).await?;
    data.send(&crate::conform::client::world::request(&id)).await?;
    data.rest().await?;
    session.control.said_nothing(world.wait()).await
}
