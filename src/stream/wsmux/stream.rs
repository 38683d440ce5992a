//! One stream of a session.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;

use super::shared::{Shared, State, now};
use crate::proto::limits::wsmux::{KEPT_AS_IT_CAME, UNSENT};
use crate::proto::wsmux::{Broken, Mux, Opening, Taken};
use crate::stream::Duplex;
use crate::stream::read::ReadSize;

/// A byte stream in both directions, inside a session.
///
/// Writing goes on until the other end's window is full and 128 KiB more wait here; flushing does nothing, as what is
/// written goes out by itself. Shutting down ends our direction and leaves the other one open. Reading gives the end only
/// where the other end has ended its direction; a session that ends before is an error.
///
/// Dropped, it sends what was written and ends its direction; what still comes is thrown away. The wire has no reset: the
/// other end cannot tell a stream that was dropped from one that was ended.
///
/// Errors are of kind `BrokenPipe` after our own end, `ConnectionAborted` when the session is over, `TimedOut` when the
/// stream was not accepted, and `ConnectionReset` when it alone has failed; inside is a [`Broken`].
pub struct Stream {
    shared: Arc<Shared>,
    id: u32,
    fill: ReadSize,
    /// Room for what is filled in.
    space: BytesMut,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, id: u32) -> Self {
        Self { shared, id, fill: ReadSize::new(UNSENT), space: BytesMut::new() }
    }

    /// Its number on the wire: even where the server of the WebSocket has opened it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Asks the core until it has something to give; `wait` has it told when to ask again.
    fn poll_core<T>(
        &self,
        cx: &mut Context<'_>,
        wait: fn(&mut State, u32, &Waker),
        ask: impl FnOnce(&mut Mux, u32) -> Result<Option<T>, Broken>,
    ) -> Poll<Result<T, Broken>> {
        let coop = ready!(poll_proceed(cx));
        let given = self.shared.with(|state| {
            let given = ask(&mut state.mux, self.id).transpose();
            if given.is_none() {
                wait(state, self.id, cx.waker());
            }
            given
        });
        let Some(given) = given else { return Poll::Pending };
        coop.made_progress();
        Poll::Ready(given)
    }

    /// Ready when the other end has accepted it.
    pub(super) fn poll_opened(&self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.poll_core(cx, State::wait_to_write, |mux, id| match mux.opening(id) {
            Opening::Open => Ok(Some(())),
            Opening::Waiting => Ok(None),
            Opening::Failed(broken) => Err(broken),
        })
    }

    /// The next bytes, at most so many, without copying; `None` is the end.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Option<Bytes>>> {
        let taken = self.poll_core(cx, State::wait_to_read, |mux, id| {
            Ok(match mux.read(id, most)? {
                Taken::Bytes(bytes) => Some(Some(bytes)),
                Taken::End => Some(None),
                Taken::Nothing => None,
            })
        });
        taken.map_err(Into::into)
    }

    /// Calls `write` until it takes something.
    fn poll_write_by(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Mux, u32) -> Result<usize, Broken>,
    ) -> Poll<io::Result<usize>> {
        let written = self.poll_core(cx, State::wait_to_write, |mux, id| {
            write(mux, id).map(|count| (count > 0).then_some(count))
        });
        written.map_err(Into::into)
    }
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        let kind = match broken {
            Broken::Over(_) => ErrorKind::ConnectionAborted,
            Broken::NotAccepted => ErrorKind::TimedOut,
            Broken::Window(_) | Broken::Overfull => ErrorKind::ConnectionReset,
            Broken::Shut => ErrorKind::BrokenPipe,
        };
        Self::new(kind, broken)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if out.remaining() > 0
            && let Some(bytes) = ready!(self.poll_bytes(cx, out.remaining()))?
        {
            out.put_slice(&bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_write_by(cx, |mux, id| mux.write(id, data))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.poll_write_by(cx, |mux, id| {
            let mut written = 0;
            for part in parts {
                let count = mux.write(id, part)?;
                written += count;
                if count < part.len() {
                    break;
                }
            }
            Ok(written)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.with(|state| state.mux.shutdown(self.id));
        Poll::Ready(Ok(()))
    }
}

impl Duplex for Stream {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.poll_bytes(cx, usize::MAX)
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.poll_write_by(cx, |mux, id| mux.room(id)))?;
        let Self { fill, space, .. } = &mut *self;
        let count = ready!(fill.poll_read(cx, Pin::new(source), space, room))?;
        if count > 0 {
            let bytes = self.space.split();
            let written = self.shared.with(|state| match count {
                // Copied, as it would keep a large buffer for little.
                ..KEPT_AS_IT_CAME => state.mux.write(self.id, &bytes).map(|_| ()),
                _ => state.mux.write_whole(self.id, bytes),
            });
            written.map_err(io::Error::from)?;
        }
        Poll::Ready(Ok(count))
    }

    fn half_closes(&self) -> bool {
        true
    }

    fn is_over(&self) -> bool {
        self.shared.drive(|state| state.mux.ended().is_some())
    }

    fn rest(&mut self) {
        self.fill.rest();
        self.space = BytesMut::new();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _waiting = self.shared.with(|state| {
            state.mux.release(now(), self.id);
            state.forget(self.id)
        });
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).finish_non_exhaustive()
    }
}
