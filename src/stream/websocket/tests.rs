//! Two ends of one WebSocket over pipes of every width, and what breaks a socket.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::stream::splice::{HalfClose, Moved, splice};

/// Two ends of one socket; `pipe` is how many bytes the transport holds.
fn pair(pipe: usize) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (server, client) = duplex(pipe);
    let sizes = Sizes { buffer: 1 << 20, message: 64 * 1024 };
    let end = |io, role| WebSocket::new(io, role, BytesMut::new(), sizes);
    (end(server, Role::Server), end(client, Role::Client))
}

fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn bytes_come_out_as_they_went_in_whatever_the_transport_holds() {
    for pipe in [1, 7, 1000, 1 << 20] {
        for length in [1, 125, 126, 16 * 1024 + 1, 65535, 65536, 200_000] {
            if pipe < 7 && length > 70_000 {
                continue;
            }
            let (mut server, mut client) = pair(pipe);
            let sent = sample(length);
            let (there, back) = (sent.clone(), sent.clone());
            let server = tokio::spawn(async move {
                let mut got = vec![0; length];
                server.read_exact(&mut got).await.unwrap();
                server.write_all(&back).await.unwrap();
                server.shutdown().await.unwrap();
                got
            });
            client.write_all(&there).await.unwrap();
            client.flush().await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(server.await.unwrap(), sent, "{pipe} {length}");
            assert_eq!(got, sent, "{pipe} {length}");
        }
    }
}

#[tokio::test]
async fn a_splice_fills_frames_in_place_in_both_roles() {
    for pipe in [3, 5000, 1 << 20] {
        let (server, client) = pair(pipe);
        let (mut near, near_end) = duplex(pipe);
        let (far, mut far_end) = duplex(pipe);
        for (mut socket, mut end) in [(near_end, server), (far, client)] {
            tokio::spawn(async move {
                let idle = std::time::Duration::from_secs(10);
                splice(&mut socket, &mut end, HalfClose::EndsBoth, idle, &mut Moved::default())
                    .await
                    .unwrap();
            });
        }
        let sent = sample(100_000);
        let there = sent.clone();
        let (mut read, mut write) = tokio::io::split(far_end);
        let echo = tokio::spawn(async move {
            let mut got = vec![0; 100_000];
            read.read_exact(&mut got).await.unwrap();
            write.write_all(&got).await.unwrap();
            (read, write)
        });
        let writing = async { near.write_all(&there).await.unwrap() };
        writing.await;
        let mut got = vec![0; 100_000];
        near.read_exact(&mut got).await.unwrap();
        assert!(got == sent, "{pipe}");
        far_end = {
            let (read, write) = echo.await.unwrap();
            read.unsplit(write)
        };
        drop(far_end);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_ping_is_answered_and_our_own_is_noticed() {
    let (mut server, mut client) = pair(1000);
    client.ping();
    assert!(!client.ponged());
    client.flush().await.unwrap();
    let answering = tokio::spawn(async move { server.read(&mut [0; 10]).await });
    let reading = tokio::time::timeout(std::time::Duration::from_millis(50), client.read_u8()).await;
    assert!(reading.is_err() && client.ponged());
    client.write_all(b"x").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(answering.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn an_end_inside_a_frame_is_an_error_and_between_messages_is_not() {
    for (wire, clean) in [(&b"\x82\x03abc"[..], true), (b"\x82\x05abc", false), (b"\x02\x03abc", false)] {
        let (io, mut raw) = duplex(100);
        raw.write_all(wire).await.unwrap();
        drop(raw);
        let mut socket =
            WebSocket::new(io, Role::Client, BytesMut::new(), Sizes { buffer: 8192, message: 8192 });
        let mut got = Vec::new();
        assert_eq!(socket.read_to_end(&mut got).await.is_ok(), clean, "{wire:?}");
        assert_eq!(got, b"abc");
    }
}

#[tokio::test]
async fn a_message_that_ends_in_an_empty_fragment_is_whole_and_not_part_of_the_next() {
    let (io, mut raw) = duplex(100);
    raw.write_all(b"\x01\x03one\x80\x00\x81\x03two\x02\x00\x00\x03six\x80\x00").await.unwrap();
    let mut socket = WebSocket::new(io, Role::Client, BytesMut::new(), Sizes { buffer: 8192, message: 8192 });
    let mut part = BytesMut::new();
    for message in ["one", "two", "six"] {
        let came = std::future::poll_fn(|cx| socket.poll_message(cx, &mut part, 100));
        let came = tokio::time::timeout(std::time::Duration::from_secs(5), came).await;
        assert_eq!(came.unwrap().unwrap().unwrap(), message);
    }
    raw.write_all(b"\x01\x01a\x80\x00\x81\x01b").await.unwrap();
    drop(raw);
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, b"ab", "an empty fragment is no end");
}

/// What was sent before the other end went away comes after a write to it has failed.
struct Gone {
    late: Vec<u8>,
    polls: u8,
}

impl AsyncRead for Gone {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.polls += 1;
        match self.polls {
            // The news of it is still on its way.
            1 => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            2 => out.put_slice(&std::mem::take(&mut self.late)),
            _ => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gone {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_pong_that_nobody_takes_any_more_loses_nothing_that_was_sent_before() {
    let io = Gone { late: b"\x82\x03abc\x82\x00\x88\x00".to_vec(), polls: 0 };
    let ping = BytesMut::from(&b"\x89\x01p"[..]);
    let sizes = Sizes { buffer: 8192, message: 8192 };
    let mut socket = WebSocket::new(io, Role::Client, ping, sizes).with_half_close();
    let mut got = Vec::new();
    socket.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"abc");
}

/// A socket whose empty message is cut by a full transport, and the other end of that.
async fn shutting_down() -> (WebSocket<DuplexStream>, DuplexStream) {
    let (raw, io) = duplex(5);
    let sizes = Sizes { buffer: 8192, message: 8192 };
    let mut socket = WebSocket::new(io, Role::Client, BytesMut::new(), sizes).with_half_close();
    let pending =
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut socket).poll_shutdown(cx).is_pending()));
    assert!(pending.await, "an empty message of a client is six bytes");
    (socket, raw)
}

/// Now and then an end that both sides had told each other was an error, and the target's connection was reset.
#[tokio::test]
async fn whoever_goes_once_both_have_ended_breaks_nothing_off() {
    let (mut socket, mut raw) = shutting_down().await;
    raw.read_exact(&mut [0; 5]).await.unwrap();
    raw.write_all(b"\x82\x00").await.unwrap();
    socket.read_to_end(&mut Vec::new()).await.unwrap();
    drop(raw);
    socket.shutdown().await.unwrap();
}

#[tokio::test]
async fn whoever_goes_before_our_end_is_out_has_broken_off() {
    let (mut socket, mut raw) = shutting_down().await;
    raw.write_all(b"\x82\x00").await.unwrap();
    socket.read_to_end(&mut Vec::new()).await.unwrap();
    drop(raw);
    assert_eq!(socket.shutdown().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
