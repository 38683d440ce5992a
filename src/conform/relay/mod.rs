//! The kit's side that tests relays: a probe client and viewers made by hand, and what they expect of a relay.

mod cases;
mod control;
mod data;
mod http;
mod place;
mod rest;
mod socket;
mod start;
mod viewer;
mod wire;
mod world;

pub use cases::cases;
pub use place::Place;
pub use start::{Found, start};
pub use world::{Settings, World};

use crate::conform::case::Ended;

/// How a step of a case went.
pub(crate) type Outcome<T = ()> = Result<T, Ended>;
