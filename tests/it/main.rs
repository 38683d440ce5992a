//! Tests of the whole relay over real sockets: one binary, a module per subject.

mod bodies;
mod framing;
mod frames;
mod sockets;
mod headers;
mod keys;
mod lifecycle;
mod process;
mod program;
mod rest;
mod http2;
mod peers;
mod reuse;
mod rig;
mod smoke;
mod streaming;
mod upgrade;
mod wire;
