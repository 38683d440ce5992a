//! Many byte streams in one WebSocket, each with a window of its own: wsmux, as Taskcluster's websocktunnel speaks it.
//!
//! A [`Session`] stands on a WebSocket after its handshake, whichever end asked for that; both ends may open streams. A
//! [`Stream`] is `AsyncRead + AsyncWrite`, so that HTTP or anything else can be spoken on it. The wire is the one of the Go
//! package `wsmux` (<https://github.com/taskcluster/taskcluster>, `tools/websocktunnel`), with which it works in both
//! roles.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use adit::wsmux::{Role, Session, Settings};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! // Any transport after the handshake of a WebSocket, such as what hyper's upgrade gives.
//! let (near, far) = tokio::io::duplex(64 * 1024);
//! let (near, driver) = Session::new(near, Role::Client, Settings::default());
//! let mut driving = tokio::task::JoinSet::new();
//! driving.spawn(driver.run());
//! let (far, driver) = Session::new(far, Role::Server, Settings::default());
//! driving.spawn(driver.run());
//!
//! let echo = async {
//!     let stream = far.accept().await.ok_or(std::io::ErrorKind::UnexpectedEof)?;
//!     let (mut from, mut to) = tokio::io::split(stream);
//!     tokio::io::copy(&mut from, &mut to).await?;
//!     to.shutdown().await
//! };
//! let ask = async {
//!     let mut stream = near.open().await?;
//!     stream.write_all(b"hello").await?;
//!     stream.shutdown().await?;                    // the other direction stays open
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).await?;
//!     assert_eq!(answer, "hello");
//!     std::io::Result::Ok(())
//! };
//! tokio::try_join!(echo, ask)?;
//! near.close(1000, "").await;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```
//!
//! # On the wire
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
//!
//! # What is bounded, and by what
//!
//! | what | by | beyond it |
//! |---|---|---|
//! | bytes of one stream that wait to be read | [`Settings::window`], 4 MiB; taken only as they come | the other end has to wait; if it does not, close code 1008 |
//! | those of all streams | [`Settings::held`], 512 MiB | the WebSocket is not read until some are taken; streams that stand still for a second fail with `ConnectionReset`, and after ten seconds those that take too little |
//! | those of several sessions | [`Settings::budget`], if there is one | each session may hold two windows |
//! | bytes of one stream that wait to be sent | 128 KiB | writing waits |
//! | streams | [`Settings::streams`], 1024 | ours are refused; theirs end the session with 1008 |
//! | streams nobody has accepted | [`Settings::unaccepted`], 200; ours [`Settings::unanswered`], 128 | 1008; ours wait for their turn |
//! | silence | [`Settings::ping_every`], 20 s | the session ends with 1001 |
//! | a WebSocket that takes nothing | [`Settings::write_wait`], 20 s | the session ends |
//!
//! Streams take turns by frames of at most 32 KiB, and what was read is acknowledged when it is taken: a stream that
//! stands still holds up none of the others as long as there is room for what it leaves.
//!
//! The window of a stream is the one of the end that accepts it, in both directions: nobody tells the opener's. So
//! both ends must be set to the same, or the opener to the larger one.

mod driver;
mod session;
mod shared;
mod socket;
mod stream;

#[cfg(test)]
mod tests;

pub use driver::{Beat, Driver};
pub use session::Session;
pub use stream::Stream;

#[doc(inline)]
pub use crate::proto::frame::{FrameError, Role};
#[doc(inline)]
pub use crate::proto::wsmux::{Breach, Broken, Budget, Ended, OpenError, Settings};
