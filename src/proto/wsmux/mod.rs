//! wsmux: many streams in one WebSocket, as Taskcluster's websocktunnel speaks it; the pure core of a session.
//!
//! The wire is described where users see it, in `stream::wsmux`. Nothing here knows a socket, a task or a clock.

mod boxes;
mod frame;
mod hear;
mod life;
mod mux;
mod output;
mod stream;
mod timers;

#[cfg(test)]
mod tests;

pub use frame::{Breach, Frame, HEAD, Head, Reader};
pub use mux::{Broken, Ended, Event, Mux, Opening, Refused, Settings, Taken};
pub use output::Output;
