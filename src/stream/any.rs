//! A connected byte stream of any of the kinds we dial or accept.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::tcp;

/// TCP, TLS over TCP, or a Unix socket.
pub enum AnyStream {
    /// Plain TCP, also through a proxy.
    Tcp(TcpStream),
    /// TLS; boxed, as its state is large.
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
}

impl AnyStream {
    /// Lets the other end see an error instead of an end when this is dropped: TCP's reset.
    pub fn reset_on_close(&self) {
        let tcp = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Unix(_) => return,
        };
        let _ = socket2::SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl AnyStream {
    /// Sets the options of every TCP socket of ours; see [`tcp::tune`].
    pub fn tune(&self) {
        match self {
            Self::Tcp(stream) => tcp::tune(stream),
            Self::Tls(stream) => tcp::tune(stream.get_ref().0),
            Self::Unix(_) => {}
        }
    }

    /// Whether a drop says to the other end all that a shutdown does, which then need not come before. TLS has a word of its own
    /// for an end.
    pub fn ends_by_drop(&self) -> bool {
        !matches!(self, Self::Tls(_))
    }

    /// What is written from now on is the last, and a drop follows; see [`tcp::end_follows`].
    pub fn end_follows(&self) {
        if let Self::Tcp(stream) = self {
            tcp::end_follows(stream);
        }
    }

    /// Has the other end know at once what has come of it; see [`tcp::acknowledge`].
    pub fn acknowledge(&self) {
        match self {
            Self::Tcp(stream) => tcp::acknowledge(stream),
            Self::Tls(stream) => tcp::acknowledge(stream.get_ref().0),
            Self::Unix(_) => {}
        }
    }

    /// Our own address; a Unix socket has none.
    pub fn local_addr(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Tls(stream) => stream.get_ref().0.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

/// Calls the same method of whatever is inside.
macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            AnyStream::Tcp($stream) => $call,
            AnyStream::Tls($stream) => $call,
            AnyStream::Unix($stream) => $call,
        }
    };
}

impl AsyncRead for AnyStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, out))
    }
}

impl AsyncWrite for AnyStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
