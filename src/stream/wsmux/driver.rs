//! Carries between the WebSocket of a session and its core.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::shared::{Shared, State, now};
use super::socket::{Came, Socket};
use crate::proto::limits::turn;
use crate::proto::limits::wsmux::{CLOSE_WAIT, UNSENT};
use crate::proto::wsmux::{Breach, Ended, Output, Reader};
use crate::stream::turn::give_way;

/// What came and is not yet told to the core.
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
    reader: Reader,
    came: Vec<Came>,
    out: Vec<Output>,
    /// Too much waits to be read here for more to be taken.
    full: bool,
    /// Bytes since it last gave way to others.
    moved: usize,
    goodbye: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    pub(super) fn new(shared: Arc<Shared>, socket: Socket<IO>) -> Self {
        Self {
            shared,
            socket,
            reader: Reader::default(),
            came: Vec::new(),
            out: Vec::new(),
            full: false,
            moved: 0,
            goodbye: false,
        }
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
            let wrote = self.write(cx);
            let (ended, full, at) = self.shared.drive(|state| {
                for error in [&read, &wrote].into_iter().filter_map(|moved| moved.as_ref().err()) {
                    state.mux.finish(Ended::Broken(error.kind()));
                }
                // Also where nothing could be taken just now: somebody may close the session.
                state.wait_to_send(cx.waker());
                (state.mux.ended(), state.mux.is_full(), Instant::from_std(state.mux.timeout()))
            });
            if let Some(ended) = ended {
                return Poll::Ready(ended);
            }
            let moved = read.unwrap_or_default() + wrote.unwrap_or_default();
            self.moved += moved;
            if self.moved >= turn::BYTES {
                self.moved = 0;
                give_way(cx);
                return Poll::Pending;
            }
            if moved > 0 || (self.full && !full) {
                self.full = full;
                continue;
            }
            self.full = full;
            if sleep.deadline() != at {
                sleep.as_mut().reset(at);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.socket.rest();
            self.shared.drive(|state| state.mux.wake(now()));
        }
    }

    /// Reads once and tells the core: how many bytes.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        if self.full {
            return Ok(0);
        }
        // What was read behind the handshake comes first.
        self.hear();
        let Poll::Ready(count) = self.socket.poll_read(cx)? else { return Ok(0) };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.shared.drive(|state| state.mux.lives());
        self.hear();
        Ok(count)
    }

    fn hear(&mut self) {
        loop {
            let failed = loop {
                match self.socket.next() {
                    Ok(Some(came)) => self.came.push(came),
                    Ok(None) => break None,
                    Err(error) => break Some(Ended::Frame(error)),
                }
                if self.came.len() >= CAME_AT_ONCE {
                    break None;
                }
            };
            if self.came.is_empty() && failed.is_none() {
                return;
            }
            let more = self.came.len() >= CAME_AT_ONCE && failed.is_none();
            self.shared.drive(|state| {
                for came in self.came.drain(..) {
                    tell(state, &mut self.reader, came);
                }
                if let Some(ended) = failed {
                    state.mux.finish(ended);
                }
            });
            if !more {
                return;
            }
        }
    }

    /// Takes what the core has to send, as much as goes out at one go, and writes: how many bytes.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<usize> {
        let before = self.socket.sent;
        if self.socket.is_clear() {
            self.socket.answer();
            self.take(Some(cx));
        }
        let stuck = self.socket.poll_write(cx)?.is_pending();
        let count = (self.socket.sent - before) as usize;
        self.shared.drive(|state| {
            if count > 0 || !stuck {
                state.mux.stuck(now(), false);
            }
            if stuck {
                state.mux.stuck(now(), true);
            }
        });
        Ok(count)
    }

    fn take(&mut self, cx: Option<&Context<'_>>) {
        self.shared.drive(|state| {
            if let Some(cx) = cx {
                // Under the same lock: whatever there is to send later must wake us.
                state.wait_to_send(cx.waker());
            }
            let mut bytes = 0;
            while bytes < OUT_AT_ONCE && self.out.len() < FRAMES_AT_ONCE {
                let Some(output) = state.mux.output() else { break };
                match &output {
                    Output::Frame(_, payload) => bytes += payload.len(),
                    Output::Close(..) => self.goodbye = true,
                    Output::Ping => {}
                }
                self.out.push(output);
            }
        });
        for output in self.out.drain(..) {
            self.socket.push(output);
        }
    }

    /// Finishes the frame that is under way, says goodbye, and waits for the other end to go.
    async fn part(&mut self) {
        for _ in 0..2 {
            if poll_fn(|cx| self.socket.poll_write(cx)).await.is_err() {
                return;
            }
            if !self.goodbye {
                self.take(None);
            }
        }
        self.socket.gone().await;
    }
}

fn tell(state: &mut State, reader: &mut Reader, came: Came) {
    let mux = &mut state.mux;
    if mux.ended().is_some() {
        return;
    }
    match came {
        Came::Piece(piece, last) => match reader.piece(piece, last) {
            Ok(Some(frame)) => mux.heard(now(), frame),
            Ok(None) => {}
            Err(breach) => mux.finish(Ended::Breach(breach)),
        },
        Came::Text => mux.finish(Ended::Breach(Breach::NotBinary)),
        Came::Pong => mux.ponged(now()),
        Came::Close(code) => mux.finish(Ended::ByPeer(code)),
    }
}

impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        self.shared.drive(|state| state.mux.finish(Ended::Broken(io::ErrorKind::ConnectionAborted)));
    }
}
