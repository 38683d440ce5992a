//! The same bytes in portions of different sizes, and a socket that gives them so.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// `data` whole, byte by byte, and in uneven portions.
pub fn cuts(data: &[u8]) -> [Vec<&[u8]>; 3] {
    let (mut uneven, mut rest) = (Vec::new(), data);
    while !rest.is_empty() {
        // Which sizes does not matter, as long as they are the same each time.
        let size = 1 + (rest.len() * 7 + usize::from(rest[0])) % 23;
        let (piece, after) = rest.split_at(size.min(rest.len()));
        uneven.push(piece);
        rest = after;
    }
    [vec![data], data.chunks(1).collect(), uneven]
}

/// Gives `pieces` one by one and then the end; keeps what is written to it, some at a time.
pub struct Script {
    pieces: VecDeque<Vec<u8>>,
    /// The next call is told to come again.
    busy: bool,
    /// Bytes that one write takes.
    takes: usize,
    /// What was written.
    pub written: Vec<u8>,
}

impl Script {
    /// A socket on which `pieces` come.
    pub fn new(pieces: &[&[u8]], takes: usize) -> Self {
        let pieces = pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.to_vec());
        Self { pieces: pieces.collect(), busy: false, takes, written: Vec::new() }
    }

    fn is_busy(&mut self, cx: &mut Context<'_>) -> bool {
        self.busy = !self.busy;
        if self.busy {
            cx.waker().wake_by_ref();
        }
        self.busy
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_busy(cx) {
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.front_mut() {
            let count = piece.len().min(out.remaining());
            out.put_slice(&piece[..count]);
            piece.drain(..count);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_busy(cx) {
            return Poll::Pending;
        }
        let count = data.len().min(self.takes);
        self.written.extend_from_slice(&data[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
