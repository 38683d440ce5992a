//! A WebSocket as a stream: whatever comes at whatever cut is read alike, and what we write stays well-formed, whole and
//! in order.

use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use adit::proto::frame::{Decoder, Event, Role};
use adit::stream::Duplex;
use adit::stream::websocket::{Sizes, WebSocket};
use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::pieces::{Script, cuts};

/// What we have to say: under and over what is copied behind its header.
const SAYS: [usize; 2] = [300, 17 * 1024];

/// The payload that came, and how it ended.
type Read = (Vec<u8>, Result<(), ErrorKind>);

fn ready<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(ready) = poll(&mut cx) {
            return ready;
        }
    }
}

fn read(mut socket: WebSocket<Script>, says: usize) -> (Read, Vec<u8>) {
    let said: Vec<u8> = (0..says).map(|at| at as u8).collect();
    let mut at = 0;
    let (mut got, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
    let end = loop {
        // Both directions at once, as far as each goes.
        if at < said.len()
            && let Poll::Ready(Ok(count)) = Pin::new(&mut socket).poll_write(&mut cx, &said[at..])
        {
            at += count;
        }
        match socket.poll_chunk(&mut cx) {
            Poll::Ready(Ok(Some(chunk))) => {
                assert!(!chunk.is_empty());
                got.extend_from_slice(&chunk);
            }
            Poll::Ready(Ok(None)) => break Ok(()),
            Poll::Ready(Err(error)) => break Err(error.kind()),
            Poll::Pending => {}
        }
    };
    while at < said.len() {
        match ready(|cx| Pin::new(&mut socket).poll_write(cx, &said[at..])) {
            Ok(count) => at += count,
            Err(_) => break,
        }
    }
    let _ = ready(|cx| Pin::new(&mut socket).poll_shutdown(cx));
    let _ = ready(|cx| Pin::new(&mut socket).poll_flush(cx));
    let written = socket.get_ref().written.clone();
    assert!(said.starts_with(&unframed(role_of_reader(&written), &written, at)));
    ((got, end), written)
}

/// Who can read what was written: clients mask.
fn role_of_reader(written: &[u8]) -> Role {
    if written.get(1).is_some_and(|byte| byte & 0x80 != 0) { Role::Server } else { Role::Client }
}

/// The payload of what we wrote, of which `accepted` bytes were taken from the caller.
fn unframed(role: Role, written: &[u8], accepted: usize) -> Vec<u8> {
    let (mut decoder, mut buffer, mut payload) = (Decoder::new(role), BytesMut::from(written), Vec::new());
    let mut closed = false;
    while let Some(event) = decoder.next(&mut buffer).expect("what we write is well-formed") {
        assert!(!closed, "nothing follows a close frame");
        match event {
            Event::Data(data) => payload.extend_from_slice(&data),
            Event::Close(_) => closed = true,
            Event::EmptyMessage | Event::End | Event::Pong(_) => {}
            Event::Ping(_) => panic!("nobody asked for a ping"),
        }
    }
    assert!(buffer.is_empty(), "a frame is whole");
    assert!(decoder.at_rest(), "a message is whole");
    assert_eq!(payload.len(), accepted, "what was taken went out");
    payload
}

/// See the top. The first byte chooses role, level and how much is written.
pub fn check(data: &[u8]) {
    let Some((flags, wire)) = data.split_first() else { return };
    let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
    let sizes = Sizes { buffer: 64 * 1024, message: if flags & 4 == 0 { 1000 } else { 64 * 1024 } };
    let says = SAYS[usize::from(flags & 8 != 0)];
    let takes = if flags & 16 == 0 { 7 } else { 4000 };
    let outcomes = cuts(wire).map(|pieces| {
        let socket = WebSocket::new(Script::new(&pieces, takes), role, BytesMut::new(), sizes);
        read(if flags & 2 == 0 { socket } else { socket.with_half_close() }, says).0
    });
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[0], outcomes[2]);
    // What came along with the handshake is no different.
    let socket = WebSocket::new(Script::new(&[], takes), role, BytesMut::from(wire), sizes);
    let socket = if flags & 2 == 0 { socket } else { socket.with_half_close() };
    assert_eq!(outcomes[0], read(socket, says).0);
}
