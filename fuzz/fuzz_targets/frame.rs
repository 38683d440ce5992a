//! The frame decoder: any bytes at any cut give the same payload and no panic.
#![no_main]

use adit::proto::frame::{Decoder, Event, Role};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fn decode(role: Role, pieces: &mut dyn Iterator<Item = &[u8]>) -> (Vec<u8>, bool) {
    let (mut decoder, mut buffer, mut payload) = (Decoder::new(role), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(Event::Data(data))) => payload.extend_from_slice(&data),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return (payload, false),
            }
        }
    }
    (payload, true)
}

fuzz_target!(|data: &[u8]| {
    for role in [Role::Server, Role::Client] {
        let whole = decode(role, &mut std::iter::once(data));
        assert_eq!(whole, decode(role, &mut data.chunks(1)));
    }
});
