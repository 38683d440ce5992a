//! The side that tests clients: a scripted relay and a scripted target on loopback, one of each for every case.
//!
//! `cases/` is what is asked. `world` has the verbs in which a case is written; below it are `relay` (requests of the
//! client), `control` and `data` (its two kinds of sockets, over the frames of `wire`), `target` and `process` (the client).

mod call;
mod cases;
mod control;
mod data;
mod probe;
mod process;
mod relay;
mod settings;
mod target;
mod wire;
mod world;

use std::sync::Arc;

use uuid::Uuid;

pub use self::cases::all;
pub use self::probe::{Nothing, probe};
pub use self::process::{Launch, Start};
pub use self::settings::{Facts, Settings};
pub use self::world::Stage;
use super::case::Case;
use super::trace::Trace;

/// The stage of a case, and the record of what will cross its wire.
pub fn stage(settings: &Arc<Settings>, case: &Case<Stage>) -> (Stage, Trace) {
    let key = format!("kit_{}", Uuid::new_v4().simple());
    let trace = Trace::new(std::slice::from_ref(&key));
    let (settings, level) = (Arc::clone(settings), case.level);
    (Stage { settings, level, trace: trace.clone(), key }, trace)
}
