//! What waits in one stream, in each direction.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::proto::limits::wsmux::{FRAME, KEPT_AS_IT_CAME, UNSENT};

/// Bytes that came and were not taken. Large pieces stay as they are, small ones are gathered: a million pieces of one
/// byte must not cost more than a megabyte.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pieces: VecDeque<Bytes>,
    small: BytesMut,
    bytes: usize,
}

impl Inbox {
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if piece.len() >= KEPT_AS_IT_CAME {
            self.seal();
            self.pieces.push_back(piece);
            return;
        }
        if self.small.len() + piece.len() > 2 * KEPT_AS_IT_CAME {
            self.seal();
        }
        self.small.extend_from_slice(&piece);
    }

    /// The next bytes, at most so many; `None` when there are none.
    pub(super) fn take(&mut self, most: usize) -> Option<Bytes> {
        if self.pieces.is_empty() {
            if self.small.len() <= most {
                self.bytes = 0;
                let all = std::mem::take(&mut self.small).freeze();
                return (!all.is_empty()).then_some(all);
            }
            self.seal();
        }
        let first = self.pieces.front_mut()?;
        let taken = first.split_to(most.min(first.len()));
        if first.is_empty() {
            self.pieces.pop_front();
        }
        self.bytes -= taken.len();
        Some(taken)
    }

    /// Throws all away: how many bytes it was.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).bytes
    }

    #[cfg(test)]
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.small).freeze());
        }
    }
}

/// Bytes that were written and not sent, in pieces of at most one frame.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<BytesMut>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// How many bytes more may wait.
    pub(super) fn room(&self) -> usize {
        UNSENT.saturating_sub(self.bytes)
    }

    /// Takes as much of `data` as there is room for: so many bytes.
    pub(super) fn push(&mut self, data: &[u8]) -> usize {
        let count = data.len().min(self.room());
        self.bytes += count;
        let mut rest = &data[..count];
        if let Some(last) = self.pieces.back_mut() {
            let (fits, more) = rest.split_at(rest.len().min(FRAME.saturating_sub(last.len())));
            last.extend_from_slice(fits);
            rest = more;
        }
        self.pieces.extend(rest.chunks(FRAME).map(BytesMut::from));
        count
    }

    /// The same for bytes that become ours without copying; there must be room for them.
    pub(super) fn push_whole(&mut self, mut data: BytesMut) {
        self.bytes += data.len();
        while data.len() > FRAME {
            self.pieces.push_back(data.split_to(FRAME));
        }
        self.pieces.push_back(data);
    }

    /// The payload of the next frame, at most so many bytes; `None` when nothing waits.
    pub(super) fn take(&mut self, most: usize) -> Option<BytesMut> {
        let first = self.pieces.front_mut()?;
        let taken = if first.len() <= most { self.pieces.pop_front()? } else { first.split_to(most) };
        self.bytes -= taken.len();
        Some(taken)
    }

    /// Throws all away.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
