//! The conformance kit: scripted peers that drive somebody's client, or somebody's relay, and see whether it keeps to
//! `protocol.md`.
//!
//! A case is one sentence of the protocol. It runs in a world of its own (a scripted relay and target for a client, a probe
//! and viewers for a relay), side by side with others (`run`), and what it saw becomes a report (`report`). Both sides
//! write and read raw bytes: what a library would never send can be sent, and nothing that comes is hidden by one.

pub mod case;
pub mod client;
pub mod relay;
pub mod report;
pub mod requirements;
pub mod run;
pub mod trace;

pub use case::{Case, Ended, Failure, Running, Weight};
