//! The socket of a viewer as hyper sees it: reads and writes go through, and move the connection's phase.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Connection, Phase};
use crate::stream::any::AnyStream;

/// Reads and writes one [`Connection`].
pub struct ViewerIo {
    /// The connection.
    pub connection: Arc<Connection>,
    /// What was read of it already.
    first: Bytes,
}

impl AsyncRead for ViewerIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { connection, first } = self.get_mut();
        let before = out.filled().len();
        let read = if first.is_empty() {
            Pin::new(&mut *connection.stream()).poll_read(cx, out)
        } else {
            out.put_slice(&first.split_to(first.len().min(out.remaining())));
            Poll::Ready(Ok(()))
        };
        if out.filled().len() > before {
            match (connection.phase(), connection.multiplexed) {
                (Phase::Fresh | Phase::Idle, false) => connection.enter(Phase::Head),
                (Phase::Fresh, true) => connection.enter(Phase::Idle),
                _ => {}
            }
        }
        read
    }
}

impl ViewerIo {
    /// Of `connection`, of which `first` was read.
    pub fn new(connection: Arc<Connection>, first: Bytes) -> Self {
        Self { connection, first }
    }

    /// The socket for another process: it lives on when this one is dropped. `None` where more than the socket is needed.
    pub fn descriptor(&self) -> Option<OwnedFd> {
        match &*self.connection.stream() {
            AnyStream::Tcp(stream) => stream.as_fd().try_clone_to_owned().ok(),
            AnyStream::Unix(stream) => stream.as_fd().try_clone_to_owned().ok(),
            AnyStream::Tls(_) => None,
        }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.connection.written.store(self.connection.now(), Ordering::Relaxed);
        }
        written
    }
}

impl AsyncWrite for ViewerIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.connection.stream()).poll_write(cx, data);
        self.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.connection.stream()).poll_write_vectored(cx, data);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.connection.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.connection.stream()).poll_shutdown(cx)
    }
}
