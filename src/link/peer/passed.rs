//! A stream of a client that the predecessor passes on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::stream::Duplex;
use crate::stream::websocket::WebSocket;

/// The way to the predecessor always tells the ends of both directions apart; what lies behind it may not.
pub struct Passed {
    /// The way to the predecessor.
    pub stream: WebSocket<UnixStream>,
    /// Whether the client does.
    pub half_close: bool,
}

impl Duplex for Passed {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.stream.poll_chunk(cx)
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_fill(cx, source)
    }

    fn half_closes(&self) -> bool {
        self.half_close
    }

    fn is_over(&self) -> bool {
        self.stream.is_over()
    }

    fn dismiss(&mut self) {
        self.stream.dismiss();
    }
}

impl AsyncWrite for Passed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
