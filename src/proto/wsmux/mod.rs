//! wsmux: many streams in one WebSocket, as Taskcluster's websocktunnel speaks it; the pure core of a session.
//!
//! The wire is described where users see it, in `stream::wsmux`. Nothing here knows a socket, a task or a clock.

mod boxes;
mod budget;
mod ended;
mod frame;
mod hear;
mod ids;
mod life;
mod mux;
mod output;
mod settings;
mod stream;
mod timers;
mod user;

#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use ended::{Broken, Ended, OpenError};
pub use frame::{Breach, Frame, Head, Reader};
pub use ids::ByStream;
pub use mux::{Event, Mux};
pub use output::Output;
pub use settings::Settings;
pub use user::{Opening, Taken};
