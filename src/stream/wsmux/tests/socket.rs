//! The WebSocket under a session, by itself.

use std::task::{Context, Poll, Waker};

use bytes::BytesMut;

use super::super::socket::{Came, Socket};
use super::*;
use crate::proto::frame::{HeaderBytes, Opcode};
use crate::proto::wsmux::{Head, Output};

/// Pongs were put behind what waits, one for each portion of pings that was read.
#[tokio::test]
async fn pings_that_come_while_nothing_goes_out_cost_no_memory() {
    let (near, mut far) = duplex(1000);
    let mut socket = Socket::new(near, Role::Server, BytesMut::new());
    let mut cx = Context::from_waker(Waker::noop());
    socket.push(Output::Frame(Head::data(0), BytesMut::from(&sample(5000)[..])));
    let waits = socket.waiting();
    for at in 0..100_u8 {
        far.write_all(HeaderBytes::new(Opcode::Ping, true, 1, Some([0; 4])).as_ref()).await.unwrap();
        far.write_all(&[at]).await.unwrap();
        while socket.poll_read(&mut cx, 1000).is_ready() {
            assert!(socket.next().is_none());
        }
        assert!(socket.poll_write(&mut cx).is_pending());
        assert!(socket.waiting() < waits);
    }
    let mut out = vec![0; waits + 3];
    let reading = tokio::spawn(async move {
        far.read_exact(&mut out).await.unwrap();
        out
    });
    std::future::poll_fn(|cx| socket.poll_write(cx)).await.unwrap();
    assert!(reading.await.unwrap().ends_with(&[0x8a, 1, 99]));
}

#[tokio::test]
async fn frames_go_out_masked_by_a_client_whether_they_are_copied_or_not() {
    for size in [0, 1, 100, 2048, 2049, 30_000] {
        for role in [Role::Server, Role::Client] {
            let (near, far) = duplex(100_000);
            let mut socket = Socket::new(near, role, BytesMut::new());
            let other = if role == Role::Server { Role::Client } else { Role::Server };
            let mut peer = Socket::new(far, other, BytesMut::new());
            let mut cx = Context::from_waker(Waker::noop());
            for output in [
                Output::Ping,
                Output::Frame(Head::data(7), BytesMut::from(&sample(size)[..])),
                Output::Close(4000, "a reason"),
            ] {
                socket.push(output);
            }
            assert!(matches!(socket.poll_write(&mut cx), Poll::Ready(Ok(()))));
            assert_eq!(socket.waiting(), 0);
            let (mut got, mut code) = (Vec::new(), None);
            while code.is_none() {
                match peer.next() {
                    Some(Came::Piece(piece, _)) => got.extend_from_slice(&piece),
                    Some(Came::Close(with)) => code = with,
                    Some(other) => panic!("{other:?}"),
                    None => assert!(matches!(peer.poll_read(&mut cx, 1000), Poll::Ready(Ok(1..)))),
                }
            }
            assert_eq!(code, Some(4000));
            assert!(got == [Head::data(7).as_ref(), &sample(size)].concat(), "{size} {role:?}");
        }
    }
}
