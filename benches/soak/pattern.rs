//! Bodies whose every byte is known by its place, so that a wrong, lost or doubled one is seen where it happens.

use std::sync::OnceLock;

/// A prime, so that no power of two that is lost or doubled goes unseen.
const PERIOD: usize = 65_521;
/// How often the period stands in the table: pieces are as long as that allows.
const TIMES: usize = 4;

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut state = 0x9e37_79b9_u32;
        let next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        };
        let period: Vec<u8> = std::iter::repeat_with(next).take(PERIOD).collect();
        period.repeat(TIMES)
    })
}

/// Some bytes from `offset` on, of a body of `length`; empty at its end.
pub fn piece(offset: u64, length: u64) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
    let rest = &table()[start..];
    &rest[..left.min(rest.len())]
}

/// Whether `bytes` are those from `offset` on.
pub fn is_right(mut offset: u64, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let expected = piece(offset, offset + bytes.len() as u64);
        if bytes[..expected.len()] != *expected {
            return false;
        }
        offset += expected.len() as u64;
        bytes = &bytes[expected.len()..];
    }
    true
}
