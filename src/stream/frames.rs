//! How frames of a WebSocket are put into a buffer, for all that send them.

use bytes::BytesMut;

use crate::proto::frame::{HeaderBytes, Opcode, Role, apply_mask};

/// Puts a whole frame behind what is in `out`.
pub(super) fn put_frame(out: &mut BytesMut, role: Role, opcode: Opcode, payload: &[u8]) {
    let mask = mask(role);
    out.extend_from_slice(HeaderBytes::new(opcode, true, payload.len(), mask).as_ref());
    put_masked(out, payload, mask, 0);
}

/// Puts `payload` behind what is in `out`; it stands `at` bytes behind the begin of its frame's.
pub(super) fn put_masked(out: &mut BytesMut, payload: &[u8], mask: Option<[u8; 4]>, at: usize) {
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask, at);
    }
}

/// The mask of the next frame, which clients have. Nobody outside can foresee it (RFC 6455, section 10.3): it is a keyed
/// hash of a counter, the key random.
pub(super) fn mask(role: Role) -> Option<[u8; 4]> {
    use std::hash::{BuildHasher, RandomState};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if role == Role::Server {
        return None;
    }
    let hash = SEED.hash_one(COUNT.fetch_add(1, Ordering::Relaxed)).to_ne_bytes();
    Some([hash[0], hash[1], hash[2], hash[3]])
}
