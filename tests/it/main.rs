//! Tests of the whole relay over real sockets: one binary, a module per subject.

mod framing;
mod frames;
mod sockets;
mod headers;
mod lifecycle;
mod rig;
mod smoke;
mod wire;
