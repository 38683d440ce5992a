//! Response heads and bodies of targets: any bytes at any cut give the same content and no panic.

use adit::proto::http1::{BodyReader, Framing, Piece, ResponseHead};
use bytes::Bytes;
use http::{HeaderMap, Method};

use super::pieces::cuts;

/// Content, trailers, whether it ended, and what was left over.
type Read = (Vec<u8>, Option<HeaderMap>, bool, Vec<u8>);

/// `None` if it was malformed.
fn read(framing: Framing, pieces: &[&[u8]]) -> Option<Read> {
    let (mut reader, mut content, mut rest) = (BodyReader::new(framing), Vec::new(), Vec::new());
    let (mut trailers, mut ended) = (None, false);
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while !ended {
            match reader.next(&mut input).ok()? {
                Some(Piece::Data(data)) => content.extend_from_slice(&data),
                Some(Piece::End(found)) => (trailers, ended) = (found, true),
                None => break,
            }
        }
        rest.extend_from_slice(&input);
    }
    Some((content, trailers, ended || reader.ended(), rest))
}

/// See the top.
pub fn check(data: &[u8]) {
    let input = Bytes::copy_from_slice(data);
    let Ok(Some((head, size))) = ResponseHead::parse(&input, 64 * 1024) else { return };
    let _ = (head.keeps_alive(), head.keep_alive_timeout(), head.content_length());
    for method in [Method::GET, Method::HEAD] {
        let Ok(framing) = head.framing(&method) else { continue };
        let [whole, others @ ..] = cuts(&data[size..]);
        let whole = read(framing, &whole);
        for pieces in others {
            assert_eq!(whole, read(framing, &pieces));
        }
    }
}
