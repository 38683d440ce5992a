//! Tests of the whole relay over real sockets: one binary, a module per subject.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod admin;
mod auth;
mod bodies;
mod both_ends;
mod data;
mod drain;
mod edges;
mod examples;
mod floods;
mod frames;
mod framing;
mod headers;
mod http2;
mod keys;
mod kosoku;
mod level_two;
mod library;
mod lifecycle;
mod logs;
mod outsiders;
mod peers;
mod process;
mod program;
mod quotas;
mod records;
mod rest;
mod reuse;
mod rig;
mod routing;
mod smoke;
mod sockets;
mod streaming;
mod takeover;
mod tokens;
mod tools;
mod upgrade;
mod websockets;
mod wire;
