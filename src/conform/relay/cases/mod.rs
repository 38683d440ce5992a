//! What is asked of relays, kin by kin. A case is a sentence of `protocol.md`.

mod bytes;
mod claims;
mod control;
mod ends;
mod frames;
mod headers;
mod http2;
mod lifecycle;
mod names;
mod ports;
mod refusals;
mod replicas;
mod rest;
mod reuse;
mod sessions;
mod standby;
mod tokens;
mod two;
mod viewers;

use std::fmt::Display;

use super::Outcome;
use super::world::World;
use crate::conform::case::{Case, Ended, Running, Weight};
use crate::proto::message::Level;

/// All cases, those of the base level first.
pub fn cases() -> Vec<&'static Case<World>> {
    [
        rest::CASES,
        refusals::CASES,
        names::CASES,
        control::CASES,
        claims::CASES,
        frames::CASES,
        bytes::CASES,
        ends::CASES,
        viewers::CASES,
        headers::CASES,
        reuse::CASES,
        lifecycle::CASES,
        ports::CASES,
        replicas::CASES,
        http2::CASES,
        two::CASES,
        sessions::CASES,
        standby::CASES,
        tokens::CASES,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Seconds of a case that waits for nothing but answers.
const QUICK: u64 = 40;

/// Runs a case and deletes its tunnels.
macro_rules! runs {
    ($case:path) => {
        |world| {
            Box::pin(async move {
                let outcome = $case(world.clone()).await;
                world.tidy().await;
                outcome
            })
        }
    };
}
use runs;

/// A case of the base level.
const fn base(
    name: &'static str,
    about: &'static str,
    requirements: &'static [&'static str],
    seconds: u64,
    run: fn(World) -> Running,
) -> Case<World> {
    Case { name, about, level: Level::Base, weight: Weight::Required, requirements, seconds, run }
}

/// A case of level two.
const fn two(
    name: &'static str,
    about: &'static str,
    requirements: &'static [&'static str],
    seconds: u64,
    run: fn(World) -> Running,
) -> Case<World> {
    Case { level: Level::Two, ..base(name, about, requirements, seconds, run) }
}

/// The same as something that is only advised.
const fn advised(case: Case<World>) -> Case<World> {
    let Case { name, about, level, requirements, seconds, run, .. } = case;
    Case { name, about, level, weight: Weight::Advised, requirements, seconds, run }
}

/// Fails unless it holds.
fn want(holds: bool, expected: &str, came: impl Display) -> Outcome {
    if holds { Ok(()) } else { Err(Ended::failed(expected, came.to_string())) }
}
