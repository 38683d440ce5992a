//! wsmux: many streams in one WebSocket, as Taskcluster's websocktunnel speaks it; the pure core of a session.
//!
//! Each frame is one binary message of the WebSocket: a byte for its kind, four bytes for the stream's id (little-endian),
//! and a payload. There is no handshake and no version.
//!
//! | kind | payload | meaning |
//! |---|---|---|
//! | 0 DAT | any | bytes of the stream |
//! | 1 SYN | none | opens a stream: even ids by the server of the WebSocket, odd ones by its client |
//! | 2 ACK | four bytes, a little-endian number | the first one accepts the stream; each allows so many more bytes to be sent |
//! | 3 FIN | none | no more bytes come in this direction |
//!
//! Nothing is sent on a stream before it was accepted. Whoever accepts it may then send as many bytes as it has allowed
//! itself: both directions begin with the number of the first ACK. There is no reset: a stream that nobody holds any more
//! is ended, and what still comes on it is acknowledged and thrown away. Frames of a stream that is not known mean
//! nothing. Any other breach ends the session with close code 1008.

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
