//! Data sockets that are held in advance.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::call::Call;
use crate::conform::client::data::Data;
use crate::conform::client::wire::first;
use crate::conform::client::world::{RESPONSE, Session, World, connection, request};
use crate::proto::frame::Opcode;

cases! {
    Required Two "two-standby" ["C-44", "C-50", "C-56"], 30, held,
        "as many standby sockets are held as the relay wants, each with a random UUID, the session's name and the key";
    Required Two "two-standby-assigned" ["C-44", "C-58"], 30, assigned,
        "a standby socket is silent until it is assigned, then serves its viewer, and another takes its place";
    Required Two "two-standby-falls" ["C-57"], 30, falls,
        "when fewer are wanted the client closes none, and opens none";
    Required Two "two-standby-nonsense" ["C-59"], 30, nonsense,
        "a standby socket that begins with anything but its own assignment is dropped";
    Required Two "two-standby-refused" ["C-60"], 30, refused,
        "a standby socket that is refused is tried again with the next `standby`, and not before";
    Required Two "two-standby-ended" ["C-60"], 30, ended,
        "a standby socket that ends unassigned is replaced, and not at once";
    Required Two "two-standby-target-refused" ["C-48"], 30, target_refused,
        "`reject` names the assigned standby socket whose target refuses, and leaves it for the relay to close";
}

/// The next handshake of a standby socket, which is looked at.
async fn call(world: &mut World, session: &Session, wait: Duration) -> Result<(String, Call), Ended> {
    let expected = "the client to open a standby socket (GET /ws/data?tunnel_id=…&id=…&session=…)";
    let Ok(Some(call)) = timeout(wait, world.relay.datas.recv()).await else {
        return Err(Ended::failed(expected, format!("it did not within {wait:?}")));
    };
    let is = |name: &str, value: &str| call.query(name).as_deref() == Some(value);
    let id = call.query("id").unwrap_or_default();
    let random =
        Uuid::parse_str(&id).ok().filter(|uuid| uuid.get_version_num() == 4 && uuid.to_string() == id);
    if random.is_none() || !is("tunnel_id", &session.tunnel.id) || !is("session", &session.name) {
        return Err(Ended::failed(expected, format!("there came {}", call.target)));
    }
    if call.bearer() != Some(world.key.as_str()) {
        return Err(Ended::failed("the key on a standby socket", "it was not there"));
    }
    Ok((id, call))
}

/// The same, open.
pub(super) async fn next(world: &mut World, session: &Session) -> Result<(String, Data), Ended> {
    let wait = world.wait();
    let (id, call) = call(world, session, wait).await?;
    Ok((id, Data::accept(call, wait).await?))
}

/// Asks for as many.
pub(super) async fn wants(session: &Session, want: u32) {
    session.control.say(&json!({ "type": "standby", "want": want })).await;
}

/// No other one is opened within a short time.
async fn no_other(world: &mut World) -> Result<(), Ended> {
    match timeout(world.settings.quiet / 2, world.relay.datas.recv()).await {
        Ok(Some(call)) => Err(Ended::failed(
            "no standby socket but those that are wanted",
            format!("there came {}", call.target),
        )),
        _ => Ok(()),
    }
}

async fn held(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    wants(&session, 2).await;
    let (first, mut one) = next(&mut world, &session).await?;
    let (second, _two) = next(&mut world, &session).await?;
    if first == second {
        return Err(Ended::failed("an id of its own for each standby socket", format!("both are {first}")));
    }
    no_other(&mut world).await?;
    one.frame(Opcode::Ping, true, b"there?").await?;
    one.pong(b"there?").await?;
    wants(&session, 3).await;
    let (_, _three) = next(&mut world, &session).await?;
    world.serves(&session).await
}

/// Assigns it to a viewer who asks for something.
async fn assign(world: &mut World, id: &str, data: &mut Data) -> Result<(), Ended> {
    data.say(&connection(id)).await?;
    data.send(&request(id)).await?;
    let mut visit = world.target.visit(&request(id), world.wait()).await?;
    visit.write(RESPONSE).await;
    data.brings(RESPONSE).await?;
    world.finish(data, &mut visit).await
}

async fn assigned(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    wants(&session, 1).await;
    let (id, mut data) = next(&mut world, &session).await?;
    data.stays_silent(Duration::from_millis(300)).await?;
    assign(&mut world, &id, &mut data).await?;
    let (id, mut data) = next(&mut world, &session).await?;
    assign(&mut world, &id, &mut data).await
}

async fn falls(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    wants(&session, 2).await;
    let (_, mut one) = next(&mut world, &session).await?;
    let (_, mut two) = next(&mut world, &session).await?;
    wants(&session, 1).await;
    one.stays_silent(world.settings.quiet / 4).await?;
    two.stays_silent(world.settings.quiet / 4).await?;
    // It is the relay that closes what is too much.
    one.dismiss(1000).await?;
    no_other(&mut world).await?;
    wants(&session, 0).await;
    two.dismiss(1000).await?;
    no_other(&mut world).await?;
    world.serves(&session).await
}

async fn nonsense(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    wants(&session, 1).await;
    let other = connection("another-id").to_string();
    for (opcode, begin) in
        [(Opcode::Binary, &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]), (Opcode::Text, other.as_bytes())]
    {
        let (_, mut data) = next(&mut world, &session).await?;
        data.frame(opcode, true, begin).await?;
        // What would follow an assignment.
        let _ = data.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let rest = data.rest().await?;
        if rest.end.is_none() || !rest.bytes.is_empty() {
            let came = match rest.end {
                None => "it stayed open".to_owned(),
                Some(_) => format!("there came \"{}\"", first(&rest.bytes)),
            };
            return Err(Ended::failed("a socket that begins with no assignment to be dropped", came));
        }
    }
    let (id, mut data) = next(&mut world, &session).await?;
    assign(&mut world, &id, &mut data).await
}

async fn refused(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    wants(&session, 1).await;
    let wait = world.wait();
    call(&mut world, &session, wait).await?.1.refuse(409, "too_many_standby").await;
    match timeout(world.settings.quiet, world.relay.datas.recv()).await {
        Ok(_) => {
            return Err(Ended::failed(
                "no other try until the next `standby`, or for half a minute",
                "one came",
            ));
        }
        Err(_) => wants(&session, 1).await,
    }
    let (id, mut data) = next(&mut world, &session).await?;
    assign(&mut world, &id, &mut data).await
}

async fn ended(stage: Stage) -> Result<(), Ended> {
    /// A second, less what timers and a clock are off by.
    const LEAST: Duration = Duration::from_millis(800);
    let mut world = stage.start()?;
    let session = world.session().await?;
    wants(&session, 1).await;
    let (_, mut data) = next(&mut world, &session).await?;
    data.dismiss(1000).await?;
    if let Ok(Some(_)) = timeout_at(Instant::now() + LEAST, world.relay.datas.recv()).await {
        return Err(Ended::failed("another standby socket a second later", "it came at once"));
    }
    let (id, mut data) = next(&mut world, &session).await?;
    assign(&mut world, &id, &mut data).await
}

async fn target_refused(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    wants(&session, 1).await;
    let (id, mut data) = next(&mut world, &session).await?;
    world.target.leave().await;
    data.say(&connection(&id)).await?;
    data.send(&request(&id)).await?;
    let told = session.control.message("reject", world.wait()).await?;
    match told["id"] == id.as_str() {
        true => data.stays_silent(world.settings.quiet / 4).await,
        false => {
            Err(Ended::failed(format!("\"id\": {id:?} in `reject`"), format!("there was {}", told["id"])))
        }
    }
}
