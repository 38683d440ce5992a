//! A message body read by its framing: where it ends, and what was left over.

use bytes::Bytes;
use http::HeaderMap;

use super::chunk::{Chunk, ChunkError, Chunks};
use super::head::Framing;

/// A portion of a body.
#[derive(Debug)]
pub enum Piece {
    /// Content, in the portions in which it came.
    Data(Bytes),
    /// The body is complete; a chunked one may bring trailers.
    End(Option<HeaderMap>),
}

/// Reads one body; bytes after its end stay in the input.
#[derive(Debug)]
pub struct BodyReader {
    at: At,
}

#[derive(Debug)]
enum At {
    Length(u64),
    Chunked(Box<Chunks>),
    UntilClose,
    Ended,
}

impl BodyReader {
    /// A reader at the start of a body with this framing.
    pub fn new(framing: Framing) -> Self {
        let at = match framing {
            Framing::Empty | Framing::Length(0) => At::Ended,
            Framing::Length(length) => At::Length(length),
            Framing::Chunked => At::Chunked(Box::new(Chunks::new())),
            Framing::UntilClose => At::UntilClose,
        };
        Self { at }
    }

    /// Nothing more belongs to this body.
    pub fn ended(&self) -> bool {
        matches!(self.at, At::Ended)
    }

    /// Bytes still to come, where the framing tells.
    pub fn remaining(&self) -> Option<u64> {
        match self.at {
            At::Length(left) => Some(left),
            At::Ended => Some(0),
            At::Chunked(_) | At::UntilClose => None,
        }
    }

    /// The stream has ended: whether the body is complete by that.
    pub fn complete_at_close(&self) -> bool {
        matches!(self.at, At::Ended | At::UntilClose)
    }

    /// Takes from the front of `input`; `None` asks for more.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, ChunkError> {
        match &mut self.at {
            At::Ended => Ok(Some(Piece::End(None))),
            _ if input.is_empty() => Ok(None),
            At::Length(left) => {
                let take = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= take as u64;
                if *left == 0 {
                    self.at = At::Ended;
                }
                Ok(Some(Piece::Data(input.split_to(take))))
            }
            At::Chunked(chunks) => Ok(match chunks.next(input)? {
                Some(Chunk::Data(data)) => Some(Piece::Data(data)),
                Some(Chunk::End(trailers)) => {
                    self.at = At::Ended;
                    Some(Piece::End(trailers))
                }
                None => None,
            }),
            At::UntilClose => Ok(Some(Piece::Data(std::mem::take(input)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{chunk_head, chunked_end};
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;

    type Outcome = Result<(Vec<u8>, Option<HeaderMap>, bool, Vec<u8>), ChunkError>;

    /// Content, trailers, whether it ended, and what was left over.
    fn read(framing: Framing, wire: &[u8], cut: usize) -> Outcome {
        let (mut reader, mut content, mut trailers, mut rest) =
            (BodyReader::new(framing), Vec::new(), None, Vec::new());
        let mut ended = false;
        for piece in wire.chunks(cut) {
            let mut input = Bytes::copy_from_slice(piece);
            while !ended {
                match reader.next(&mut input)? {
                    Some(Piece::Data(data)) => content.extend_from_slice(&data),
                    Some(Piece::End(found)) => (trailers, ended) = (found, true),
                    None => break,
                }
            }
            rest.extend_from_slice(&input);
        }
        Ok((content, trailers, ended, rest))
    }

    #[test]
    fn chunks_extensions_and_trailers_at_any_cut() {
        let wire = b"4;a=b\r\nWiki\r\n5\r\npedia\r\n0\r\nX-Sum: 9\r\n\r\nNEXT";
        for cut in 1..=wire.len() {
            let (content, trailers, ended, rest) = read(Framing::Chunked, wire, cut).unwrap();
            assert_eq!(
                (content.as_slice(), ended, rest.as_slice()),
                (&b"Wikipedia"[..], true, &b"NEXT"[..]),
                "{cut}"
            );
            assert_eq!(trailers.unwrap()["x-sum"], "9");
        }
    }

    #[test]
    fn malformed_chunks_are_errors() {
        for (wire, error) in [
            (&b"\r\n"[..], ChunkError::Size),
            (b"-1\r\n", ChunkError::Size),
            (b"0x5\r\n", ChunkError::Size),
            (b"1234567890abcdef\r\n", ChunkError::Size),
            (b"5\npedia", ChunkError::LineEnd),
            (b"5;x\npedia", ChunkError::LineEnd),
            (b"5\r\rpedia", ChunkError::LineEnd),
            (b"5\r\npediaX\r\n", ChunkError::LineEnd),
            (b"0\r\nno colon\r\n\r\n", ChunkError::Trailer),
            (b"0\r\na: b\n\r\n", ChunkError::LineEnd),
        ] {
            assert_eq!(read(Framing::Chunked, wire, 3).unwrap_err(), error, "{}", wire.escape_ascii());
        }
        let endless = [&b"5;"[..], &b"x".repeat(5000)].concat();
        assert_eq!(read(Framing::Chunked, &endless, 100).unwrap_err(), ChunkError::TooLong);
    }

    #[test]
    fn a_length_ends_exactly_and_a_cut_is_no_end() {
        assert_eq!(read(Framing::Length(3), b"abcdef", 2).unwrap().3, b"def");
        let mut reader = BodyReader::new(Framing::Length(3));
        assert!(reader.next(&mut Bytes::from_static(b"ab")).unwrap().is_some());
        assert!(!reader.complete_at_close());
        assert!(BodyReader::new(Framing::UntilClose).complete_at_close());
    }

    proptest! {
        #[test]
        fn noise_never_panics_and_cuts_do_not_matter(wire in prop::collection::vec(any::<u8>(), 0..120), cut in 1usize..30) {
            prop_assert_eq!(read(Framing::Chunked, &wire, cut), read(Framing::Chunked, &wire, wire.len().max(1)));
        }

        #[test]
        fn what_is_written_in_chunks_is_read_again_at_any_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6),
            trailer in prop::option::of("[a-z]{1,9}"),
            behind in prop::collection::vec(any::<u8>(), 0..20),
            cut in 1usize..400,
        ) {
            let (mut wire, mut trailers) = (BytesMut::new(), HeaderMap::new());
            for chunk in &chunks {
                chunk_head(&mut wire, chunk.len());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            if let Some(trailer) = &trailer {
                trailers.insert("x-sum", trailer.parse().unwrap());
            }
            let trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
            chunked_end(&mut wire, trailers.as_ref());
            wire.extend_from_slice(&behind);
            prop_assert_eq!(read(Framing::Chunked, &wire, cut), Ok((chunks.concat(), trailers, true, behind)));
        }

        #[test]
        fn a_length_is_counted_alike_at_any_cut(wire in prop::collection::vec(any::<u8>(), 1..200), length in 0usize..200, cut in 1usize..50) {
            let (content, _, ended, rest) = read(Framing::Length(length as u64), &wire, cut).unwrap();
            let whole = length.min(wire.len());
            prop_assert_eq!((&content[..], &rest[..]), wire.split_at(whole));
            prop_assert_eq!(ended, length <= wire.len());
        }
    }
}
