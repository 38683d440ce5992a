//! How frames of a WebSocket are put into a buffer, for all that send them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncRead;

use super::read::ReadSize;
use crate::proto::frame::{HeaderBytes, MAX_HEADER, Opcode, Role, apply_mask};

/// Puts a whole frame behind what is in `out`.
pub fn put_frame(out: &mut BytesMut, role: Role, opcode: Opcode, payload: &[u8]) {
    let mask = mask(role);
    out.extend_from_slice(HeaderBytes::new(opcode, true, payload.len(), mask).as_ref());
    put_masked(out, payload, mask, 0);
}

/// Puts `payload` behind what is in `out`; it stands `at` bytes behind the begin of its frame's.
pub fn put_masked(out: &mut BytesMut, payload: &[u8], mask: Option<[u8; 4]>, at: usize) {
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask, at);
    }
}

/// Reads once from `source`, `most` bytes at most, as the payload of a frame: the bytes taken, 0 at the source's end. The
/// buffer is empty before, and has the frame from the place on that is set beside it.
pub fn fill_frame(
    cx: &mut Context<'_>,
    source: Pin<&mut (dyn AsyncRead + Send + Unpin)>,
    size: &mut ReadSize,
    most: usize,
    (role, opcode): (Role, Opcode),
    (out, at): (&mut BytesMut, &mut usize),
) -> Poll<io::Result<usize>> {
    // The payload is read behind a gap that the longest header fits in; the header is then written against it.
    out.resize(MAX_HEADER, 0);
    let count = match size.poll_read(cx, source, out, most) {
        Poll::Ready(Ok(count)) if count > 0 => count,
        other => {
            out.clear();
            return other;
        }
    };
    let mask = mask(role);
    if let Some(mask) = mask {
        apply_mask(&mut out[MAX_HEADER..], mask, 0);
    }
    let header = HeaderBytes::new(opcode, true, count, mask);
    *at = MAX_HEADER - header.as_ref().len();
    out[*at..MAX_HEADER].copy_from_slice(header.as_ref());
    Poll::Ready(Ok(count))
}

/// The mask of the next frame, which clients have. Nobody outside can foresee it (RFC 6455, section 10.3): it is a keyed
/// hash of a counter, the key random.
pub fn mask(role: Role) -> Option<[u8; 4]> {
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
