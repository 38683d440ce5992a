//! Coming back: under the same name, as soon as the relay is there, and never in a hurry.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use super::cases;
use crate::conform::case::Ended;
use crate::conform::client::Stage;
use crate::conform::client::call::Call;
use crate::conform::client::world::{Session, World};

cases! {
    Required Base "same-name" ["C-34", "C-36"], 30, same_name,
        "who comes back asks for the name that the tunnel had";
    Required Base "new-id" ["C-35"], 30, new_id,
        "who comes back opens the control socket of the id that the new answer names";
    Advised Base "resumes" ["C-61"], 30, resumes,
        "who comes back says `resume`";
    Required Base "relay-restart" ["C-34", "C-36"], 45, relay_restart,
        "a relay that was away for two seconds is found again, under the same name";
    Required Base "name-taken" ["C-5", "C-38"], 30, name_taken,
        "a name that is another's by now (409) ends it, and no other is taken";
    Required Base "refused-for-now" ["C-7"], 45, |stage| refused(stage, Refusal::Busy),
        "a relay that is busy (503) is tried again";
    Required Base "refused-by-a-proxy" ["C-7"], 45, |stage| refused(stage, Refusal::Proxy),
        "an answer without a code (404, 502), which is a proxy's, is not final";
    Required Base "refused-too-often" ["C-7"], 45, |stage| refused(stage, Refusal::TooMany),
        "429 is not final";
    Required Base "control-not-found" ["C-7"], 45, control_not_found,
        "a tunnel that is gone before its control socket (404) is created again";
    Advised Base "retry-after" ["C-8"], 45, retry_after,
        "`Retry-After` is waited for";
    Advised Base "returns-soon" ["C-34"], 30, returns_soon,
        "the first wait is under a second";
    Required Base "backs-off" ["C-37"], 45, backs_off,
        "a relay that accepts and drops is asked less and less often";
    Advised Base "streams-go-on" ["C-63"], 30, streams_go_on,
        "what runs goes on when the control session is lost";
}

/// Ends the session as a relay does that restarts.
async fn restart(session: &Session) {
    session.control.close(Some(1012), "restart").await;
}

fn is_named(call: &Call, name: &str) -> Result<(), Ended> {
    let asked = call.json()?;
    match asked["name"].as_str() {
        Some(came) if came.eq_ignore_ascii_case(name) => Ok(()),
        _ => {
            let expected = format!("\"name\": {name:?} in the creation, as the tunnel is called");
            Err(Ended::failed(expected, format!("there was {}", asked["name"])))
        }
    }
}

async fn same_name(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let mut session = world.session().await?;
    for _ in 0..2 {
        restart(&session).await;
        let call = world.creation().await?;
        is_named(&call, &session.tunnel.slug)?;
        let tunnel = world.grant(call).await?;
        session = world.open(tunnel, json!({})).await?;
    }
    world.serves(&session).await
}

async fn new_id(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    restart(&session).await;
    // Each creation is granted under an id of its own, and the control socket must name it.
    let again = world.session().await?;
    world.serves(&again).await
}

async fn resumes(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let first = world.creation().await?;
    if first.json()?["resume"] == true {
        return Err(Ended::failed("no `resume` in the first creation", "it was there"));
    }
    let tunnel = world.grant(first).await?;
    let session = world.open(tunnel, json!({})).await?;
    restart(&session).await;
    match world.creation().await?.json()?["resume"].as_bool() {
        Some(true) => Ok(()),
        _ => Err(Ended::failed("\"resume\": true in the creation of who comes back", "it was not there")),
    }
}

async fn relay_restart(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    world.serves(&session).await?;
    world.relay.leave().await;
    session.control.reset().await;
    sleep(Duration::from_secs(2)).await;
    listen(&mut world)?;
    // It may just have begun its longest wait of these seconds.
    let call = world.creation_within(world.wait() + Duration::from_secs(5)).await?;
    is_named(&call, &session.tunnel.slug)?;
    let tunnel = world.grant(call).await?;
    let again = world.open(tunnel, json!({})).await?;
    world.serves(&again).await
}

pub(super) fn listen(world: &mut World) -> Result<(), Ended> {
    world.relay.listen().map_err(|error| Ended::failed("the kit to listen again", error.to_string()))
}

async fn name_taken(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    restart(&session).await;
    world.creation().await?.refuse(409, "name_taken").await;
    world.stays_away("after 409 name_taken").await
}

/// Why the relay does not take it back for now.
#[derive(Clone, Copy)]
enum Refusal {
    Busy,
    Proxy,
    TooMany,
}

async fn refused(stage: Stage, refusal: Refusal) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    restart(&session).await;
    let call = world.creation().await?;
    match refusal {
        Refusal::Busy => call.refuse(503, "store_unavailable").await,
        Refusal::Proxy => {
            call.answer_with(502, "Content-Type: text/html\r\n", "<h1>Bad Gateway</h1>").await;
            world
                .creation()
                .await?
                .answer_with(404, "Content-Type: text/html\r\n", "<h1>Not Found</h1>")
                .await;
        }
        Refusal::TooMany => {
            let body = json!({ "error": "later", "code": "too_many_creations" }).to_string();
            call.answer_with(429, "Retry-After: 1\r\nContent-Type: application/json\r\n", &body).await;
        }
    }
    let again = world.session().await?;
    world.serves(&again).await
}

async fn control_not_found(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    restart(&session).await;
    let call = world.creation().await?;
    let tunnel = world.grant(call).await?;
    world.control_call(&tunnel).await?.refuse(404, "tunnel_not_found").await;
    let again = world.session().await?;
    world.serves(&again).await
}

async fn retry_after(stage: Stage) -> Result<(), Ended> {
    const ASKED: Duration = Duration::from_secs(3);
    let mut world = stage.start()?;
    let session = world.session().await?;
    restart(&session).await;
    let body = json!({ "error": "later", "code": "store_unavailable" }).to_string();
    world.creation().await?.answer_with(503, "Retry-After: 3\r\n", &body).await;
    let began = Instant::now();
    world.creation_within(world.wait() + ASKED).await?;
    let waited = began.elapsed();
    // A little less is a clock's.
    match waited + Duration::from_millis(100) >= ASKED {
        true => Ok(()),
        false => Err(Ended::failed(
            "the client to wait for the three seconds of Retry-After",
            format!("it waited {waited:.1?}"),
        )),
    }
}

async fn returns_soon(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    restart(&session).await;
    let began = Instant::now();
    world.creation().await?;
    let waited = began.elapsed();
    // As much again for a busy machine.
    match waited < Duration::from_secs(2) {
        true => Ok(()),
        false => Err(Ended::failed("the first wait to be under a second", format!("it was {waited:.1?}"))),
    }
}

async fn backs_off(stage: Stage) -> Result<(), Ended> {
    /// With waits that double from a second on, three or four come in this time; chance makes it a few more.
    const TIME: Duration = Duration::from_secs(6);
    const MOST: usize = 12;
    let mut world = stage.start()?;
    let mut creation = Some(world.creation().await?);
    let (mut count, until) = (0, Instant::now() + TIME.min(2 * world.wait()));
    while let Some(call) = creation.take() {
        count += 1;
        let tunnel = world.grant(call).await?;
        let session = world.open(tunnel, json!({})).await?;
        session.control.close(Some(1001), "").await;
        // A creation in time, or none: the client sleeps.
        creation = timeout_at(until, world.relay.creations.recv()).await.ok().flatten();
    }
    match count {
        1 => Err(Ended::failed("the client to come back after 1001", format!("it did not within {TIME:?}"))),
        2..=MOST => Ok(()),
        _ => Err(Ended::failed(format!("at most {MOST} returns in {TIME:?}"), format!("there were {count}"))),
    }
}

async fn streams_go_on(stage: Stage) -> Result<(), Ended> {
    let mut world = stage.start()?;
    let session = world.session().await?;
    let (mut data, mut visit) = world.viewer(&session).await?;
    session.control.reset().await;
    let again = world.session().await?;
    visit.write(b"still here").await;
    data.brings(b"still here").await?;
    world.finish(&mut data, &mut visit).await?;
    world.serves(&again).await
}
