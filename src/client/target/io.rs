//! A connection to a target, which is not made to wait for our acknowledgements.
//!
//! Many servers write head and body of an answer apart and leave Nagle's algorithm on (RFC 1122, section 4.2.3.4): the body
//! then waits until the head is acknowledged, which our kernel puts off for 40 ms on a connection that is used again. A
//! target that shows this once is acknowledged at once from then on. Others are not, as it is a system call and a packet more
//! for each answer.

use std::io::{self, IoSlice};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::stream::any::AnyStream;

/// Between two portions of an answer, where the second one waited for our acknowledgement.
const HELD_UP: RangeInclusive<Duration> = Duration::from_millis(36)..=Duration::from_millis(60);

/// The stream, and what its pace shows.
pub(in crate::client) struct TargetIo {
    io: AnyStream,
    /// When something was read last; `None` once something was written.
    read: Option<Instant>,
    /// It was held up before.
    held_up: bool,
}

impl TargetIo {
    pub(super) fn new(io: AnyStream) -> Self {
        Self { io, read: None, held_up: false }
    }

    /// Lets the target see an error instead of an end when this is dropped.
    pub(in crate::client) fn reset_on_close(&self) {
        self.io.reset_on_close();
    }

    fn came(&mut self) {
        if !self.held_up {
            let now = Instant::now();
            let before = self.read.replace(now);
            self.held_up = before.is_some_and(|before| HELD_UP.contains(&(now - before)));
        }
        if self.held_up {
            self.io.acknowledge();
        }
    }
}

impl AsyncRead for TargetIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, out))?;
        if out.filled().len() > before {
            self.came();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TargetIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.read = None;
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.read = None;
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Asks until the connection is known for one that is held up, at most `times`.
    async fn ask(times: usize, nodelay: bool) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut served, _) = listener.accept().await.unwrap();
        served.set_nodelay(nodelay).unwrap();
        stream.set_nodelay(true).unwrap();
        let serving = async {
            while served.read_u8().await.is_ok() {
                served.write_all(b"head").await.unwrap();
                served.write_all(b"body").await.unwrap();
            }
        };
        let asking = async move {
            let mut target = TargetIo::new(AnyStream::Tcp(stream));
            for _ in 0..times {
                target.write_all(b"?").await.unwrap();
                target.read_exact(&mut [0; 8]).await.unwrap();
                if target.held_up {
                    return true;
                }
            }
            false
        };
        tokio::join!(serving, asking).1
    }

    /// Each answer of such a target took 40 ms on a connection that was used again.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_target_that_waits_for_acknowledgements_is_known_after_a_few_answers() {
        assert!(ask(1000, false).await);
    }

    #[tokio::test]
    async fn a_target_without_delay_is_not_taken_for_one() {
        assert!(!ask(20, true).await);
    }
}
