//! The conformance kit, tested: our own ends pass all of it, and a mutant of each case is caught by it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod client;
mod docs;
#[allow(dead_code, reason = "not all that the tests of the relay need is needed here")]
#[path = "../it/ports.rs"]
mod ports;
mod relay;
mod tutorial;
