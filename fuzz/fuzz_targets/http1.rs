//! Response heads and bodies of targets: any bytes at any cut give the same content and no panic.
#![no_main]

use adit::proto::http1::{BodyReader, Framing, Piece, ResponseHead};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fn read(framing: Framing, pieces: &mut dyn Iterator<Item = &[u8]>) -> (Vec<u8>, bool) {
    let (mut reader, mut content) = (BodyReader::new(framing), Vec::new());
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match reader.next(&mut input) {
                Ok(Some(Piece::Data(data))) => content.extend_from_slice(&data),
                Ok(Some(Piece::End(_))) => return (content, true),
                Ok(None) => break,
                Err(_) => return (content, false),
            }
        }
    }
    (content, reader.ended())
}

fuzz_target!(|data: &[u8]| {
    let input = Bytes::copy_from_slice(data);
    let Ok(Some((head, size))) = ResponseHead::parse(&input, 64 * 1024) else { return };
    let _ = (head.keeps_alive(), head.keep_alive_timeout(), head.content_length());
    let Ok(framing) = head.framing(&"GET".parse().unwrap_or_default()) else { return };
    let body = &data[size..];
    assert_eq!(read(framing, &mut std::iter::once(body)), read(framing, &mut body.chunks(1)));
});
