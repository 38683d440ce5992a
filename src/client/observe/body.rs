//! Skips over a body by its framing, without looking at more of it than chunk sizes.

/// The framing is not understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

/// A body that is passing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes are left.
    Length(u64),
    /// Chunked.
    Chunked(Chunked),
    /// Up to the end of the connection.
    UntilClose,
}

/// Where in a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In a size line: the size so far, its digits, and whether they are over.
    Size { size: u64, digits: u8, over: bool },
    /// In a chunk, of which this is left with its line end.
    Data(u64),
    /// In the trailers: bytes of the line so far.
    Trailer(usize),
}

/// The beginning of a chunked body.
pub(super) const CHUNKED: Body = Body::Chunked(Chunked::Size { size: 0, digits: 0, over: false });

impl Body {
    /// Whether the end of the connection is the regular end.
    pub(super) fn ends_with_connection(&self) -> bool {
        *self == Self::UntilClose
    }

    /// Takes what belongs to the body off the front of `data`: whether it has ended.
    pub(super) fn skip(&mut self, data: &mut &[u8]) -> Result<bool, Lost> {
        match self {
            Self::UntilClose => {
                *data = &[];
                Ok(false)
            }
            Self::Length(left) => {
                take(data, left);
                Ok(*left == 0)
            }
            Self::Chunked(at) => loop {
                if data.is_empty() {
                    return Ok(false);
                }
                if let Chunked::Data(left) = at {
                    take(data, left);
                    if *left > 0 {
                        return Ok(false);
                    }
                    *at = Chunked::Size { size: 0, digits: 0, over: false };
                    continue;
                }
                let byte = data[0];
                *data = &data[1..];
                if at.step(byte)? {
                    return Ok(true);
                }
            },
        }
    }
}

impl Chunked {
    /// Whether the body has ended.
    fn step(&mut self, byte: u8) -> Result<bool, Lost> {
        match self {
            Self::Size { digits: 0, .. } if !byte.is_ascii_hexdigit() => return Err(Lost),
            Self::Size { size, .. } if byte == b'\n' => {
                *self = match size {
                    0 => Self::Trailer(0),
                    size => Self::Data(*size + 2),
                }
            }
            Self::Size { size, digits, over } if !*over && byte.is_ascii_hexdigit() => {
                if *digits == 15 {
                    return Err(Lost);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                (*size, *digits) = (*size << 4 | u64::from(digit), *digits + 1);
            }
            Self::Size { over, .. } => *over = true,
            Self::Trailer(0) if byte == b'\n' => return Ok(true),
            Self::Trailer(length) if byte == b'\n' => *length = 0,
            // The CR of the empty line is no content of it.
            Self::Trailer(0) if byte == b'\r' => {}
            Self::Trailer(length) => *length += 1,
            Self::Data(_) => {}
        }
        Ok(false)
    }
}

fn take(data: &mut &[u8], left: &mut u64) {
    let count = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
    *data = &data[count..];
    *left -= count as u64;
}
