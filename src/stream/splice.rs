//! Copying bytes both ways between a socket and a [`Duplex`] until both directions ended.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Duplex;
use super::turn::give_way;
use crate::proto::limits::turn;

/// What a splice moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the socket into the [`Duplex`].
    pub inward: u64,
    /// From the [`Duplex`] to the socket.
    pub outward: u64,
}

/// Whether one direction may end before the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// The end of one direction is passed on and the other goes on, unless the [`Duplex`] ended both.
    Kept,
    /// The first end closes both, after what was received has been delivered (base protocol).
    EndsBoth,
}

/// Copies until the end; an error of either side ends both. Silence on both directions for `idle` is an error of kind
/// `TimedOut`.
pub async fn splice<S, D>(
    socket: &mut S,
    duplex: &mut D,
    half_close: HalfClose,
    idle: Duration,
    moved: &mut Moved,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
    D: Duplex + ?Sized,
{
    let mut inward = Inward::Reading;
    let mut outward = Outward::Reading;
    loop {
        let before = *moved;
        let copied = poll_fn(|cx| {
            let first = inward.poll(cx, socket, duplex, &mut moved.inward)?;
            let second = outward.poll(cx, socket, duplex, &mut moved.outward)?;
            let ended = match half_close {
                HalfClose::Kept => second.is_ready() && (first.is_ready() || duplex.is_over()),
                HalfClose::EndsBoth => first.is_ready() || second.is_ready(),
            };
            if ended { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
        });
        match tokio::time::timeout(idle, copied).await {
            Ok(ended) => return ended,
            Err(_) if *moved == before => return Err(io::ErrorKind::TimedOut.into()),
            Err(_) => {}
        }
    }
}

/// From the socket into the duplex.
enum Inward {
    Reading,
    Flushing,
    Ending,
    Ended,
}

impl Inward {
    fn poll<S, D>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
        duplex: &mut D,
        moved: &mut u64,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
        D: Duplex + ?Sized,
    {
        let begun = *moved;
        loop {
            if *moved - begun >= turn::BYTES as u64 {
                give_way(cx);
                return Poll::Pending;
            }
            match self {
                Self::Reading => match ready!(duplex.poll_fill(cx, socket))? {
                    0 => *self = Self::Ending,
                    count => {
                        *moved += count as u64;
                        *self = Self::Flushing;
                    }
                },
                Self::Flushing => {
                    ready!(Pin::new(&mut *duplex).poll_flush(cx))?;
                    *self = Self::Reading;
                }
                Self::Ending => {
                    ready!(Pin::new(&mut *duplex).poll_shutdown(cx))?;
                    *self = Self::Ended;
                }
                Self::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// From the duplex to the socket.
enum Outward {
    Reading,
    Writing(Bytes),
    Ending,
    Ended,
}

impl Outward {
    fn poll<S, D>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
        duplex: &mut D,
        moved: &mut u64,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
        D: Duplex + ?Sized,
    {
        let begun = *moved;
        loop {
            if *moved - begun >= turn::BYTES as u64 {
                give_way(cx);
                return Poll::Pending;
            }
            match self {
                Self::Reading => {
                    *self = match duplex.poll_chunk(cx)? {
                        Poll::Ready(Some(chunk)) => Self::Writing(chunk),
                        Poll::Ready(None) => Self::Ending,
                        Poll::Pending => {
                            ready!(Pin::new(&mut *socket).poll_flush(cx))?;
                            return Poll::Pending;
                        }
                    }
                }
                Self::Writing(chunk) => {
                    let count = ready!(Pin::new(&mut *socket).poll_write(cx, chunk))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    *moved += count as u64;
                    chunk.advance(count);
                    if chunk.is_empty() {
                        *self = Self::Reading;
                    }
                }
                Self::Ending => {
                    ready!(Pin::new(&mut *socket).poll_shutdown(cx))?;
                    *self = Self::Ended;
                }
                Self::Ended => return Poll::Ready(Ok(())),
            }
        }
    }
}
