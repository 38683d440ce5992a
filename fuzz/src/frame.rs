//! The frame decoder: any bytes at any cut give the same payload and no panic.

use adit::proto::frame::{Decoder, Event, Role};
use bytes::BytesMut;

use super::pieces::cuts;

/// Payload, what else came, and whether all of it was right.
fn decode(role: Role, pieces: &[&[u8]]) -> (Vec<u8>, Vec<Event>, bool) {
    let (mut decoder, mut buffer) = (Decoder::new(role), BytesMut::new());
    let (mut payload, mut others) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(Event::Data(data))) => payload.extend_from_slice(&data),
                Ok(Some(event)) => others.push(event),
                Ok(None) => break,
                Err(_) => return (payload, others, false),
            }
        }
    }
    (payload, others, true)
}

/// See the top.
pub fn check(data: &[u8]) {
    for role in [Role::Server, Role::Client] {
        let [whole, others @ ..] = cuts(data);
        let whole = decode(role, &whole);
        for pieces in others {
            assert_eq!(whole, decode(role, &pieces));
        }
    }
}
