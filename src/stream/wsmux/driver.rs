//! Carries between the WebSocket of a session and its core.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::shared::{Shared, now};
use super::socket::{Came, Socket};
use crate::proto::limits::turn;
use crate::proto::limits::wsmux::{CLOSE_WAIT, READ, READ_BESIDE_MUCH, UNSENT};
use crate::proto::wsmux::{Breach, Ended, Mux, Output};
use crate::stream::turn::give_way;

/// What is told to the core at one go: bytes, and pieces of frames.
const IN_AT_ONCE: usize = 256 * 1024;
const CAME_AT_ONCE: usize = 256;
/// Payload that is put out at one go, and frames.
const OUT_AT_ONCE: usize = 2 * UNSENT;
const FRAMES_AT_ONCE: usize = 64;

/// Does the work of a session while [`Driver::run`] is polled; when it is dropped before its end, the session has broken.
///
/// One task reads and writes, and reading does not wait for writing: what comes is taken in whatever does not go out, within
/// the windows of the streams and what all of them together may hold.
#[must_use = "a session does nothing unless its driver runs"]
pub struct Driver<IO> {
    shared: Arc<Shared>,
    socket: Socket<IO>,
    came: Vec<Came>,
    out: Vec<Output>,
    /// Something may lie there that was not told yet.
    more: bool,
    /// Too much waits to be read here for more to be taken.
    full: bool,
    /// Bytes to read at one go.
    at_once: usize,
    /// The core knows that the WebSocket takes nothing.
    stuck: bool,
    /// Bytes since it last gave way to others.
    moved: usize,
    /// Is told of pings and pongs.
    beat: Option<Box<dyn FnMut(Beat) + Send>>,
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The other end is asked for one.
    Ping,
    /// It gives one.
    Pong,
}

/// What the core says when it has been told all.
struct Told {
    ended: Option<Ended>,
    full: bool,
    little: bool,
    wake_at: Instant,
    /// There is more to send than was taken.
    unsaid: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    pub(super) fn new(shared: Arc<Shared>, socket: Socket<IO>) -> Self {
        let (came, out) = (Vec::new(), Vec::new());
        // What was read behind the handshake comes first.
        Self {
            shared,
            socket,
            came,
            out,
            more: true,
            full: false,
            at_once: READ,
            stuck: false,
            moved: 0,
            beat: None,
        }
    }

    /// Has `beat` told of each ping that goes out and each pong that comes; it must not take long.
    pub fn telling(mut self, beat: impl FnMut(Beat) + Send + 'static) -> Self {
        self.beat = Some(Box::new(beat));
        self
    }

    /// Runs until the session is over and the WebSocket is closed: how it ended. To be spawned, or polled beside
    /// whatever uses the session.
    pub async fn run(mut self) -> Ended {
        let mut sleep = pin!(sleep_until(Instant::now()));
        let ended = poll_fn(|cx| self.poll(cx, sleep.as_mut())).await;
        if ended.goodbye().is_some() {
            let _ = timeout(CLOSE_WAIT, self.part()).await;
        }
        ended
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<Ended> {
        loop {
            let read = self.read(cx);
            let mut told = self.tell(cx, read);
            let wrote = self.write(cx, &mut told);
            if let Some(ended) = told.ended {
                return Poll::Ready(ended);
            }
            self.at_once = if told.little { READ } else { READ_BESIDE_MUCH };
            let was_full = std::mem::replace(&mut self.full, told.full);
            self.moved += read + wrote;
            if self.moved >= turn::BYTES {
                self.moved = 0;
                give_way(cx);
                return Poll::Pending;
            }
            let readable = !self.full && (self.more || was_full);
            if readable || (told.unsaid && !self.stuck) {
                continue;
            }
            if sleep.deadline() != told.wake_at {
                sleep.as_mut().reset(told.wake_at);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.socket.rest();
            self.shared.drive(|state| state.mux.wake(now()));
        }
    }

    /// Takes in what comes: how many bytes were read.
    fn read(&mut self, cx: &mut Context<'_>) -> usize {
        let mut bytes = 0;
        while !self.full {
            self.more = true;
            while let Some(came) = self.socket.next() {
                let lost = matches!(came, Came::Broken(_));
                if let (Came::Pong, Some(beat)) = (&came, &mut self.beat) {
                    beat(Beat::Pong);
                }
                self.came.push(came);
                if lost || self.came.len() >= CAME_AT_ONCE {
                    return bytes;
                }
            }
            if bytes >= IN_AT_ONCE {
                return bytes;
            }
            match self.socket.poll_read(cx, self.at_once) {
                Poll::Ready(Ok(count @ 1..)) => bytes += count,
                Poll::Ready(read) => {
                    let kind = read.err().map_or(io::ErrorKind::UnexpectedEof, |error| error.kind());
                    self.came.push(Came::Broken(Ended::Broken(kind)));
                    return bytes;
                }
                Poll::Pending => {
                    self.more = false;
                    return bytes;
                }
            }
        }
        bytes
    }

    /// Tells the core what came, and takes what it has to send if that can go out: all under one lock.
    fn tell(&mut self, cx: &Context<'_>, read: usize) -> Told {
        let told = self.shared.drive(|state| {
            // Also where nothing is taken: what there is to send later must wake us, and whoever closes the session.
            state.wait_to_send(cx.waker());
            if read > 0 {
                state.mux.lives();
            }
            if !self.came.is_empty() {
                let now = now();
                self.came.drain(..).for_each(|came| hear(&mut state.mux, now, came));
            }
            Told {
                unsaid: !self.socket.is_clear() || !take(&mut state.mux, &mut self.out),
                ended: state.mux.ended(),
                full: state.mux.is_full(),
                little: state.mux.holds_little(),
                wake_at: Instant::from_std(state.mux.timeout()),
            }
        });
        for output in self.out.drain(..) {
            if let (Output::Ping, Some(beat)) = (&output, &mut self.beat) {
                beat(Beat::Ping);
            }
            self.socket.push(output);
        }
        told
    }

    /// Writes what waits to go out: how many bytes went.
    fn write(&mut self, cx: &mut Context<'_>, told: &mut Told) -> usize {
        let before = self.socket.sent;
        let wrote = self.socket.poll_write(cx);
        let count = (self.socket.sent - before) as usize;
        let was_stuck = std::mem::replace(&mut self.stuck, wrote.is_pending());
        if self.stuck || was_stuck || matches!(wrote, Poll::Ready(Err(_))) {
            self.shared.drive(|state| {
                if let Poll::Ready(Err(error)) = wrote {
                    state.mux.finish(Ended::Broken(error.kind()));
                }
                state.mux.wrote(now(), count > 0, self.stuck);
                told.ended = state.mux.ended();
                told.wake_at = Instant::from_std(state.mux.timeout());
            });
        }
        count
    }

    /// Finishes the frame that is under way, says goodbye, and waits for the other end to go.
    async fn part(&mut self) {
        for _ in 0..2 {
            if poll_fn(|cx| self.socket.poll_write(cx)).await.is_err() {
                return;
            }
            self.shared.drive(|state| take(&mut state.mux, &mut self.out));
            self.out.drain(..).for_each(|output| self.socket.push(output));
        }
        self.socket.gone().await;
    }
}

/// Takes what the core has to send, as much as goes out at one go: whether that is all.
fn take(mux: &mut Mux, out: &mut Vec<Output>) -> bool {
    let mut bytes = 0;
    while bytes < OUT_AT_ONCE && out.len() < FRAMES_AT_ONCE {
        let Some(output) = mux.output() else { return true };
        if let Output::Frame(_, payload) = &output {
            bytes += payload.len();
        }
        out.push(output);
    }
    false
}

fn hear(mux: &mut Mux, now: std::time::Instant, came: Came) {
    match came {
        Came::Piece(piece, last) => mux.piece(now, piece, last),
        Came::Text => mux.finish(Ended::Breach(Breach::NotBinary)),
        Came::Pong => mux.ponged(now),
        Came::Close(code) => mux.finish(Ended::ByPeer(code)),
        Came::Broken(ended) => mux.finish(ended),
    }
}

impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        self.shared.drive(|state| state.mux.finish(Ended::Broken(io::ErrorKind::ConnectionAborted)));
    }
}
