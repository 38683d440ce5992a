//! Before the first case: whether there is a relay at all, whether it takes the key, and which level it speaks.

use std::sync::Arc;

use serde_json::Value;

use super::Outcome;
use super::world::{Settings, World};
use crate::conform::case::Ended;
use crate::conform::trace::Trace;
use crate::proto::message::Level;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As `/health` tells it.
    pub version: String,
    /// What its control sockets agree to.
    pub level: Level,
}

/// Looks at the relay. The error says what was found in its place, and what to do.
pub async fn start(settings: &Arc<Settings>) -> Result<Found, String> {
    let world = World::new(Arc::clone(settings), Trace::new(&[]));
    let found = look(&world).await;
    world.tidy().await;
    found
}

async fn look(world: &World) -> Result<Found, String> {
    let url = world.settings().place.url();
    let none = |what: String| {
        format!("{url} is no relay, or cannot be reached: {what}. Check the URL, and that the relay runs")
    };
    let health = world.ask("GET", "/health", "", b"").await.map_err(|ended| none(words(ended)))?;
    let told = health.json().ok().filter(|told| health.status == 200 && told["status"].is_string());
    let Some(told) = told else { return Err(none(format!("/health answers with {}", health.shown()))) };
    let version = told["version"].as_str().unwrap_or("unknown").to_owned();
    for (flag, key) in [("--key", Some(world.key())), ("--key2", world.settings().key2.as_deref())] {
        let Some(key) = key else { continue };
        let list = world.call_as(key, "GET", "/v1/tunnels", &Value::Null).await;
        let list = list.map_err(|ended| none(words(ended)))?;
        if matches!(list.status, 401 | 403) {
            return Err(format!("the relay at {url} refuses the key that {flag} gives: {}", list.shown()));
        }
    }
    if world.settings().key2.as_deref().is_some_and(|key2| key2 == world.key()) {
        return Err("--key2 is to be the key of another owner than --key".into());
    }
    // Its `welcome` tells the relay's times.
    let level = match session(world).await {
        Ok(()) => Level::Two,
        Err(Ended::Skipped(_)) => Level::Base,
        Err(ended) => return Err(none(format!("a client cannot be connected: {}", words(ended)))),
    };
    Ok(Found { version, level })
}

async fn session(world: &World) -> Outcome {
    match world.two().await {
        Err(Ended::Failed(_)) => {
            world.client().await.map(drop).and_then(|()| Err(Ended::Skipped(String::new())))
        }
        other => other.map(drop),
    }
}

fn words(ended: Ended) -> String {
    match ended {
        Ended::Skipped(why) => why,
        Ended::Failed(failure) => format!("expected {}, but {}", failure.expected, failure.came),
    }
}
