//! Tests of `adit bridge` over real sockets: one binary, a module per subject.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod background;
#[allow(dead_code, reason = "not all that the tests of the relay need is needed here")]
#[path = "../it/certs.rs"]
mod certs;
#[path = "../it/chromium.rs"]
mod chromium;
mod configured;
mod doors;
#[path = "../it/frame_bytes.rs"]
mod frame_bytes;
mod frames;
mod handshakes;
mod judged;
#[allow(dead_code, reason = "not all that the tests of the relay need is needed here")]
#[path = "../it/kosoku.rs"]
mod kosoku;
mod pages;
mod program;
mod rig;
mod routes;
mod secure;
mod sessions;
mod signals;
mod spawn;
mod through;
#[allow(dead_code, reason = "not all that the tests of the relay need is needed here")]
#[path = "../it/tools.rs"]
mod tools;
mod wrap;
