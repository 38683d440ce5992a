//! Tests of `adit bridge` over real sockets: one binary, a module per subject.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod doors;
#[path = "../it/frame_bytes.rs"]
mod frame_bytes;
mod frames;
mod rig;
