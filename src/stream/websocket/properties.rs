//! Two ends of a WebSocket over a transport that takes and gives as little as it likes, with pings in between.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use super::*;

/// A transport whose every call moves a few bytes, or asks to come again.
struct Stingy {
    io: DuplexStream,
    moves: Vec<u8>,
    /// Which of them comes next is as good as random, so that no order of calls always meets the same.
    at: u32,
}

impl Stingy {
    fn next(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        self.at = self.at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let count = usize::from(self.moves[(self.at >> 16) as usize % self.moves.len()]);
        if count == 0 {
            cx.waker().wake_by_ref();
        }
        // Small numbers are the interesting ones; the large ones keep it short.
        (count > 0).then_some(if count > 200 { count * 100 } else { count })
    }
}

impl AsyncRead for Stingy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(most) = self.next(cx) else { return Poll::Pending };
        let mut bytes = vec![0; most.min(out.remaining())];
        let mut part = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        out.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stingy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(most) = self.next(cx) else { return Poll::Pending };
        let most = most.min(data.len());
        Pin::new(&mut self.io).poll_write(cx, &data[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Into the first buffers, as far as the count goes: a header may be cut in the middle.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write(cx, &parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<u8>>())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// Writes all of `says` in portions and then the end, reads up to the other's end, and pings at times.
async fn talk(mut socket: WebSocket<Stingy>, says: Vec<u8>, portion: usize, pings: usize) -> (Vec<u8>, bool) {
    let (mut got, mut at, mut turns, mut shut) = (Vec::new(), 0, 0, false);
    let mut ended = false;
    std::future::poll_fn(|cx| {
        loop {
            let before = (got.len(), at, shut, ended);
            turns += 1;
            if pings > 0 && turns % pings == 0 && !shut {
                socket.ping();
            }
            if at < says.len() {
                let to = says.len().min(at + portion);
                if let Poll::Ready(count) = Pin::new(&mut socket).poll_write(cx, &says[at..to]) {
                    at += count.expect("the other end takes it");
                }
            } else if !shut && let Poll::Ready(shutdown) = Pin::new(&mut socket).poll_shutdown(cx) {
                shutdown.expect("the other end is there");
                shut = true;
            }
            if !ended {
                match socket.poll_chunk(cx) {
                    Poll::Ready(chunk) => match chunk.expect("the other end did nothing wrong") {
                        Some(chunk) => got.extend_from_slice(&chunk),
                        None => ended = true,
                    },
                    Poll::Pending => {}
                }
            }
            if shut && ended {
                return Poll::Ready(());
            }
            if before == (got.len(), at, shut, ended) {
                let _ = Pin::new(&mut socket).poll_flush(cx);
                return Poll::Pending;
            }
        }
    })
    .await;
    // The answer to the other's end may still be on its way out.
    let _ = socket.shutdown().await;
    (got, pings == 0 || socket.pings.sent > 0)
}

fn sample(size: usize) -> impl Strategy<Value = Vec<u8>> {
    (0..size, any::<u8>())
        .prop_map(|(size, seed)| (0..size).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect())
}

fn moves() -> impl Strategy<Value = Vec<u8>> {
    let moves = prop::collection::vec(prop_oneof![Just(0u8), 1u8..8, any::<u8>()], 3..20);
    moves.prop_map(|moves| [&moves[..], &[200, 255]].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn bytes_come_whole_and_in_order_whatever_the_transport_does(
        there in sample(20_000),
        back in sample(3_000),
        (server_moves, client_moves) in (moves(), moves()),
        portion in prop_oneof![10usize..100, 10_000usize..20_000],
        message in prop_oneof![100usize..2000, Just(64 * 1024)],
        pings in 0usize..50,
    ) {
        let (near, far) = duplex(5000);
        let sizes = Sizes { buffer: 64 * 1024, message };
        let end = |io, moves, role| WebSocket::new(Stingy { io, moves, at: 0 }, role, BytesMut::new(), sizes).with_half_close();
        let (server, client) = (end(near, server_moves, Role::Server), end(far, client_moves, Role::Client));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (at_server, at_client) = runtime.block_on(async {
            let both = async { tokio::join!(talk(server, there.clone(), portion, pings), talk(client, back.clone(), portion, 0)) };
            tokio::time::timeout(std::time::Duration::from_secs(20), both).await.expect("it goes on")
        });
        prop_assert!(at_server.0 == back && at_client.0 == there);
    }
}

#[tokio::test]
async fn a_stream_that_ends_is_read_to_its_end_and_no_further() {
    let (near, far) = duplex(100);
    let sizes = Sizes { buffer: 4096, message: 4096 };
    let stingy = |io| Stingy { io, moves: vec![1, 2, 3], at: 0 };
    let mut server = WebSocket::new(stingy(near), Role::Server, BytesMut::new(), sizes).with_half_close();
    let mut client = WebSocket::new(stingy(far), Role::Client, BytesMut::new(), sizes).with_half_close();
    let writing = async {
        server.write_all(b"all of it").await.unwrap();
        server.shutdown().await.unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        rest
    };
    let reading = async {
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        // Our own direction is open still.
        client.write_all(b"more").await.unwrap();
        client.shutdown().await.unwrap();
        got
    };
    assert_eq!(tokio::join!(writing, reading), (b"more".to_vec(), b"all of it".to_vec()));
}
