//! One end of a session, as its users hold it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::driver::Driver;
use super::shared::{Shared, State, now};
use super::socket::Socket;
use super::stream::Stream;
use crate::proto::close;
use crate::proto::frame::Role;
use crate::proto::wsmux::{Ended, Mux, OpenError, Settings};

impl From<OpenError> for std::io::Error {
    fn from(error: OpenError) -> Self {
        let kind = match error {
            OpenError::Over => std::io::ErrorKind::ConnectionAborted,
            OpenError::TooMany(_) => std::io::ErrorKind::QuotaExceeded,
            OpenError::NotAccepted => std::io::ErrorKind::TimedOut,
            OpenError::Window(_) => std::io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// One end of a session; clones are the same one. When the last of them is dropped the session is closed.
#[derive(Clone)]
pub struct Session(Arc<Handle>);

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.with(|state| state.mux.close(now(), close::DONE, ""));
    }
}

impl Session {
    /// A session on `io`, a WebSocket after its handshake without extensions, of which this is the end `role`. Nothing
    /// happens unless the driver runs.
    pub fn new<IO>(io: IO, role: Role, settings: Settings) -> (Self, Driver<IO>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        Self::with_already(io, role, BytesMut::new(), settings)
    }

    /// The same where `already` was read behind the handshake: the first frames often come along.
    pub fn with_already<IO>(io: IO, role: Role, already: BytesMut, settings: Settings) -> (Self, Driver<IO>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let shared = Arc::new(Shared::new(Mux::new(now(), role, settings)));
        let driver = Driver::new(Arc::clone(&shared), Socket::new(io, role, already));
        (Self(Arc::new(Handle(shared))), driver)
    }

    /// Opens a stream: ready when the other end has accepted it, in [`Settings::open_wait`] at most. May be dropped
    /// meanwhile.
    pub async fn open(&self) -> Result<Stream, OpenError> {
        let shared = &self.0.0;
        let id = shared.with(|state| state.mux.open(now()))?;
        let stream = Stream::new(Arc::clone(shared), id);
        poll_fn(|cx| stream.poll_opened(cx)).await?;
        Ok(stream)
    }

    /// The next stream that the other end opens; `None` when the session is over or being closed. May be dropped without
    /// loss, and called from several tasks.
    pub async fn accept(&self) -> Option<Stream> {
        let shared = &self.0.0;
        let look = |state: &mut State| {
            if state.mux.is_closing() {
                return Some(None);
            }
            state.mux.accept().map(Some)
        };
        let id = wait(shared, &shared.acceptable, look).await?;
        Some(Stream::new(Arc::clone(shared), id))
    }

    /// Closes the session with this close code (RFC 6455, section 7.4) and a reason of at most 123 bytes: no more streams, and what
    /// was written goes out first, in 5 s at most. Ready when the session is over; dropped before, it still closes.
    pub async fn close(&self, code: u16, reason: &'static str) -> Ended {
        self.0.0.with(|state| state.mux.close(now(), code, reason));
        // Those who wait for a stream are to look again.
        self.0.0.acceptable.notify_waiters();
        self.over().await
    }

    /// Ends the session at once with this close code and reason: what was not sent is lost, and no stream ends as if it were whole.
    pub async fn cut(&self, code: u16, reason: &'static str) -> Ended {
        self.0.0.with(|state| state.mux.finish(Ended::ByUs(code, reason)));
        self.0.0.acceptable.notify_waiters();
        self.over().await
    }

    /// Ready when the session is over: how it ended.
    pub async fn over(&self) -> Ended {
        wait(&self.0.0, &self.0.0.over, |state| state.mux.ended()).await
    }

    /// Streams that there are, also those that were dropped and whose end has not come yet.
    pub fn streams(&self) -> usize {
        self.0.0.drive(|state| state.mux.streams())
    }

    /// Bytes that wait to be read in all streams.
    pub fn held(&self) -> usize {
        self.0.0.drive(|state| state.mux.held())
    }
}

/// Looks until there is something, each time that it is told.
async fn wait<T>(shared: &Shared, told: &Notify, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
    loop {
        let mut notified = pin!(told.notified());
        notified.as_mut().enable();
        if let Some(found) = shared.with(&mut look) {
            return found;
        }
        notified.await;
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("streams", &self.streams()).finish_non_exhaustive()
    }
}
