//! Tests of the whole relay over real sockets: one binary, a module per subject.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod admin;
mod bodies;
mod both_ends;
mod counts;
mod data;
mod drain;
mod edges;
mod examples;
mod faults;
mod floods;
mod frames;
mod frames2;
mod framing;
mod headers;
mod http2;
mod keys;
mod kosoku;
mod leaks;
mod leaks_by_clients;
mod level_two;
mod library;
mod lifecycle;
mod outsiders;
mod peers;
mod process;
mod program;
mod quotas;
mod rest;
mod reuse;
mod rig;
mod routing;
mod smoke;
mod smuggling;
mod sockets;
mod streaming;
mod takeover;
mod tokens;
mod tools;
mod toxiproxy;
mod upgrade;
mod websockets;
mod wire;
