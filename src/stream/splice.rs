//! Copying bytes both ways between a socket and a [`Duplex`] until both directions ended.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Duplex;
use super::turn::give_way;
use crate::proto::limits::turn;

/// Chunks put into one vectored write.
const CHUNKS_AT_ONCE: usize = 16;

/// What a splice moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// From the socket into the [`Duplex`].
    pub inward: u64,
    /// From the [`Duplex`] to the socket, with what came once the socket took nothing any more.
    pub outward: u64,
}

impl Moved {
    /// What came after `before`.
    pub fn since(self, before: Self) -> Self {
        Self { inward: self.inward - before.inward, outward: self.outward - before.outward }
    }
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
    let mut splice = Splice::new(half_close);
    splice.run(socket, duplex, idle, |now| *moved = now).await
}

/// A splice between two turns.
pub struct Splice {
    inward: Inward,
    outward: Outward,
    half_close: HalfClose,
    /// What it has moved so far.
    pub moved: Moved,
}

impl Splice {
    /// One that has moved nothing yet.
    pub fn new(half_close: HalfClose) -> Self {
        Self { inward: Inward::Reading, outward: Outward::default(), half_close, moved: Moved::default() }
    }

    /// The same for a socket that is dropped when this is ready, which says the end to it: it is not told before, if the duplex has
    /// ended both directions.
    pub fn before_drop(mut self) -> Self {
        self.outward.dropped = true;
        self
    }

    /// Moves what can be moved now; ready at the end.
    pub fn poll<S, D>(&mut self, cx: &mut Context<'_>, socket: &mut S, duplex: &mut D) -> Poll<io::Result<()>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
        D: Duplex + ?Sized,
    {
        let broken = self.outward.failed.is_some();
        let first = self.inward.poll(cx, socket, duplex, &mut self.moved.inward, broken)?;
        let second = self.outward.poll(cx, socket, duplex, &mut self.moved.outward)?;
        if let Some(error) = self.outward.failed.take_if(|_| first.is_ready()) {
            return Poll::Ready(Err(error));
        }
        let ended = match self.half_close {
            HalfClose::Kept => second.is_ready() && (first.is_ready() || duplex.is_over()),
            HalfClose::EndsBoth => first.is_ready() || second.is_ready(),
        };
        if ended { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Whether the socket has ended, and the duplex was told.
    pub fn inward_ended(&self) -> bool {
        matches!(self.inward, Inward::Ended)
    }

    /// Whether the duplex has ended, and the socket was told.
    pub fn outward_ended(&self) -> bool {
        self.outward.shut
    }

    /// Whether something of the duplex waits to be taken by the socket.
    pub fn outward_waits(&self) -> bool {
        !self.outward.chunks.is_empty()
    }

    /// Goes on to the end, as [`splice`] does. After each turn `note` is told what was moved in all. May be dropped and
    /// called again without a loss.
    pub async fn run<S, D>(
        &mut self,
        socket: &mut S,
        duplex: &mut D,
        idle: Duration,
        mut note: impl FnMut(Moved),
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
        D: Duplex + ?Sized,
    {
        loop {
            let before = self.moved;
            let copied = poll_fn(|cx| {
                let copied = self.poll(cx, socket, duplex);
                note(self.moved);
                copied
            });
            match tokio::time::timeout(idle, copied).await {
                Ok(ended) => return ended,
                Err(_) if self.moved == before => return Err(io::ErrorKind::TimedOut.into()),
                Err(_) => {}
            }
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
        broken: bool,
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
                    // The system told of the reset once, when we wrote; who reads gets a plain end.
                    0 if broken => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
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

/// From the duplex to the socket. What has come is written at one go, however many chunks it is.
#[derive(Default)]
struct Outward {
    chunks: VecDeque<Bytes>,
    /// How the duplex ended, once the chunks before that are written.
    end: Option<io::Result<()>>,
    shut: bool,
    /// See [`Splice::before_drop`].
    dropped: bool,
    /// Why the socket takes nothing any more. What it has said is still read: the answer of a server that hangs up
    /// on the rest of a question.
    failed: Option<io::Error>,
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
            self.gather(cx, duplex);
            if self.failed.is_some() && !self.chunks.is_empty() {
                *moved += self.chunks.drain(..).map(|chunk| chunk.len() as u64).sum::<u64>();
                continue;
            }
            if self.chunks.is_empty()
                && let Some(Err(error)) = self.end.take_if(|end| end.is_err())
            {
                return Poll::Ready(Err(error));
            }
            if self.failed.is_some() {
                return Poll::Pending;
            }
            if self.dropped && self.chunks.is_empty() && self.end.is_some() && duplex.is_over() {
                return Poll::Ready(Ok(()));
            }
            match ready!(self.deliver(cx, socket)) {
                Ok(0) if self.end.is_some() => return Poll::Ready(Ok(())),
                Ok(0) => return Poll::Pending,
                Ok(count) => *moved += count as u64,
                Err(error) => self.failed = Some(error),
            }
        }
    }

    /// Gives the socket what is there: how much it took, 0 when nothing waits any more.
    fn deliver<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
    ) -> Poll<io::Result<usize>> {
        if !self.chunks.is_empty() {
            return self.write(cx, socket);
        }
        if self.end.is_none() {
            ready!(Pin::new(socket).poll_flush(cx))?;
        } else if !self.shut {
            ready!(Pin::new(socket).poll_shutdown(cx))?;
            self.shut = true;
        }
        Poll::Ready(Ok(0))
    }

    /// Takes what the duplex has at hand.
    fn gather<D: Duplex + ?Sized>(&mut self, cx: &mut Context<'_>, duplex: &mut D) {
        let mut gathered: usize = self.chunks.iter().map(Bytes::len).sum();
        while self.end.is_none() && gathered < turn::BYTES && self.chunks.len() < CHUNKS_AT_ONCE {
            match duplex.poll_chunk(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(Some(chunk))) => {
                    gathered += chunk.len();
                    self.chunks.push_back(chunk);
                }
                Poll::Ready(Ok(None)) => self.end = Some(Ok(())),
                Poll::Ready(Err(error)) => self.end = Some(Err(error)),
            }
        }
    }

    fn write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut S,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); CHUNKS_AT_ONCE];
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
        }
        let socket = Pin::new(socket);
        let count = ready!(match self.chunks.len() {
            1 => socket.poll_write(cx, &slices[0]),
            chunks => socket.poll_write_vectored(cx, &slices[..chunks]),
        })?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let mut left = count;
        while let Some(chunk) = self.chunks.front_mut() {
            if left < chunk.len() {
                chunk.advance(left);
                break;
            }
            left -= chunk.len();
            self.chunks.pop_front();
        }
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::proto::frame::Role;
    use crate::stream::websocket::{Sizes, WebSocket};

    /// Gives its chunks, then an error; takes nothing.
    struct Broken(VecDeque<Bytes>);

    impl Duplex for Broken {
        fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
            let chunk = self.0.pop_front();
            Poll::Ready(chunk.map(Some).ok_or_else(|| io::ErrorKind::ConnectionAborted.into()))
        }

        fn poll_fill(
            &mut self,
            cx: &mut Context<'_>,
            source: &mut (dyn AsyncRead + Send + Unpin),
        ) -> Poll<io::Result<usize>> {
            let mut byte = [0];
            let mut byte = ReadBuf::new(&mut byte);
            Pin::new(source).poll_read(cx, &mut byte).map_ok(|()| byte.filled().len())
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(data.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A server that answers without reading the question, and hangs up: the system resets the connection.
    #[tokio::test]
    async fn what_a_socket_has_said_is_delivered_though_it_takes_nothing_more() {
        for round in 0..100 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let (near, far) = tokio::io::duplex(64 * 1024);
            let sizes = Sizes { buffer: 1 << 20, message: 64 * 1024 };
            let mut near = WebSocket::new(near, Role::Client, BytesMut::new(), sizes);
            let mut far = WebSocket::new(far, Role::Server, BytesMut::new(), sizes);
            let asking = tokio::spawn(async move {
                let _ = far.write_all(&vec![7; 4 << 20]).await;
                let _ = far.flush().await;
                std::future::pending::<()>().await;
            });
            let answering = tokio::spawn(async move {
                server.readable().await.unwrap();
                server.write_all(b"too large").await.unwrap();
            });
            let mut moved = Moved::default();
            let idle = Duration::from_secs(60);
            let copied = splice(&mut socket, &mut near, HalfClose::Kept, idle, &mut moved).await;
            // What was cut off is never taken for an end.
            assert!(copied.is_err(), "round {round}");
            assert_eq!(moved.inward, 9, "round {round}");
            asking.abort();
            answering.await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_came_before_an_error_is_delivered_however_little_the_socket_takes() {
        let chunks: Vec<Bytes> = (1..40).map(|size| Bytes::from(vec![size; usize::from(size)])).collect();
        for room in [1, 7, 64, 4096] {
            let (mut near, mut far) = tokio::io::duplex(room);
            let (mut broken, mut moved) = (Broken(chunks.iter().cloned().collect()), Moved::default());
            let copying = async {
                let idle = Duration::from_secs(60);
                let copied = splice(&mut near, &mut broken, HalfClose::Kept, idle, &mut moved).await;
                drop(near);
                copied
            };
            let mut read = Vec::new();
            let (copied, all) = tokio::join!(copying, far.read_to_end(&mut read));
            assert_eq!(copied.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
            assert_eq!((all.unwrap() as u64, &read), (moved.outward, &chunks.concat()));
        }
    }
}
