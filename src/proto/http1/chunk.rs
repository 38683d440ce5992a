//! The chunked transfer coding (RFC 9112, section 7.1), strict about sizes and line ends.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of one chunk-size line with its extensions; nobody needs more, and a flood of extensions costs nothing.
const MAX_SIZE_LINE: usize = 4096;
/// Bytes of all trailers together.
const MAX_TRAILERS: usize = 64 * 1024;

/// How a chunked body was malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The size is not hexadecimal, or over 2^60.
    #[error("a chunk size is malformed")]
    Size,
    /// A line of the coding does not end in CR LF.
    #[error("a line end of the chunked coding is malformed")]
    LineEnd,
    /// The size line or the trailers are over their limit.
    #[error("the chunk extensions or trailers are too long")]
    TooLong,
    /// A trailer line is no header line.
    #[error("a trailer is malformed")]
    Trailer,
}

/// What [`Chunks::next`] found.
pub(super) enum Chunk {
    Data(Bytes),
    End(Option<HeaderMap>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the digits of a size; `digits` so far.
    Size {
        size: u64,
        digits: u8,
    },
    /// After the digits, in white space or extensions.
    Extension {
        size: u64,
        length: usize,
    },
    /// The CR of a size line was read.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    Trailers,
}

/// Reads a chunked body out of portions of any size.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    trailers: Vec<u8>,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { at: At::Size { size: 0, digits: 0 }, trailers: Vec::new() }
    }

    /// Takes from the front of `input`; `None` asks for more.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Chunk>, ChunkError> {
        while !input.is_empty() {
            if let At::Data { left } = &mut self.at {
                let take = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= take as u64;
                if *left == 0 {
                    self.at = At::DataCr;
                }
                return Ok(Some(Chunk::Data(input.split_to(take))));
            }
            if self.at == At::Trailers {
                if let Some(trailers) = self.trailers(input)? {
                    return Ok(Some(Chunk::End(trailers)));
                }
                continue;
            }
            let byte = input.get_u8();
            self.at = self.step(byte)?;
        }
        Ok(None)
    }

    fn step(&self, byte: u8) -> Result<At, ChunkError> {
        Ok(match (self.at, byte) {
            (At::Size { size, digits }, byte) if byte.is_ascii_hexdigit() => {
                if digits == 15 {
                    return Err(ChunkError::Size);
                }
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    _ => (byte | 0x20) - b'a' + 10,
                };
                At::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (At::Size { digits: 0, .. }, _) => return Err(ChunkError::Size),
            (At::Size { size, .. }, b'\r') => At::SizeEnd { size },
            (At::Size { size, .. }, b';' | b' ' | b'\t') => At::Extension { size, length: 0 },
            (At::Size { .. }, b'\n') => return Err(ChunkError::LineEnd),
            (At::Size { .. }, _) => return Err(ChunkError::Size),
            (At::Extension { size, .. }, b'\r') => At::SizeEnd { size },
            (At::Extension { .. }, b'\n') => return Err(ChunkError::LineEnd),
            (At::Extension { length: MAX_SIZE_LINE, .. }, _) => return Err(ChunkError::TooLong),
            (At::Extension { size, length }, _) => At::Extension { size, length: length + 1 },
            (At::SizeEnd { size: 0 }, b'\n') => At::Trailers,
            (At::SizeEnd { size }, b'\n') => At::Data { left: size },
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { size: 0, digits: 0 },
            _ => return Err(ChunkError::LineEnd),
        })
    }

    /// Gathers the trailer section up to its empty line.
    fn trailers(&mut self, input: &mut Bytes) -> Result<Option<Option<HeaderMap>>, ChunkError> {
        let line = memchr::memchr(b'\n', input).map_or(input.len(), |at| at + 1);
        self.trailers.extend_from_slice(&input.split_to(line));
        if self.trailers == b"\r\n" {
            return Ok(Some(None));
        }
        if self.trailers.ends_with(b"\r\n\r\n") {
            return parse_trailers(&self.trailers).map(Some).map(Some);
        }
        if self.trailers.ends_with(b"\n") && !self.trailers.ends_with(b"\r\n") {
            return Err(ChunkError::LineEnd);
        }
        if self.trailers.len() > MAX_TRAILERS { Err(ChunkError::TooLong) } else { Ok(None) }
    }
}

fn parse_trailers(bytes: &[u8]) -> Result<HeaderMap, ChunkError> {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let Ok(httparse::Status::Complete((_, lines))) = httparse::parse_headers(bytes, &mut lines) else {
        return Err(ChunkError::Trailer);
    };
    let mut trailers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| ChunkError::Trailer)?;
        trailers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| ChunkError::Trailer)?);
    }
    Ok(trailers)
}
