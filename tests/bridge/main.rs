//! Tests of `adit bridge` over real sockets: one binary, a module per subject.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

#[path = "../it/chromium.rs"]
mod chromium;
mod doors;
#[path = "../it/frame_bytes.rs"]
mod frame_bytes;
mod frames;
mod pages;
mod rig;
#[path = "../it/tools.rs"]
mod tools;
