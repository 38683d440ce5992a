//! Tests of the whole relay over real sockets: one binary, a module per subject.

mod rig;
mod smoke;
