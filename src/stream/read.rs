//! How much is read at one go: little while little comes, much from a stream that has shown that it moves much.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::proto::limits::read::{LARGE_AFTER, LARGE_AT_ONCE, LEAST, MODEST};
use crate::sync::Counted;

/// Streams of this process that may read more than [`MODEST`] at one go.
static LARGE: AtomicUsize = AtomicUsize::new(0);

/// A read buffer that grows while reads fill it. A stream that waits for little holds no memory for it.
pub struct ReadBuffer {
    /// What was read and not yet taken.
    pub bytes: BytesMut,
    size: ReadSize,
}

impl ReadBuffer {
    /// A buffer with `bytes` already read that grows to `most`.
    pub fn new(bytes: BytesMut, most: usize) -> Self {
        Self { bytes, size: ReadSize::new(most) }
    }

    /// Reads once: the number of bytes, 0 at the end.
    pub fn poll_read_from<R: AsyncRead + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        source: Pin<&mut R>,
    ) -> Poll<io::Result<usize>> {
        self.poll_read_some(cx, source, usize::MAX)
    }

    /// The same, of `most` bytes at most.
    pub fn poll_read_some<R: AsyncRead + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        source: Pin<&mut R>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.size.poll_read(cx, source, &mut self.bytes, most)
    }

    /// Reads and throws away until the source ends or fails: ready then.
    pub fn poll_discard<R: AsyncRead + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        mut source: Pin<&mut R>,
    ) -> Poll<()> {
        loop {
            self.bytes.clear();
            if !matches!(ready!(self.poll_read_from(cx, source.as_mut())), Ok(1..)) {
                return Poll::Ready(());
            }
        }
    }

    /// Gives large buffers back if nothing is buffered.
    pub fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.size.rest();
        }
    }
}

/// The size of the next read: four times as much after each one that was filled. Beyond [`MODEST`] only where a stream has
/// moved more than the buffers of the system take of one that nobody reads, and where few others do: what is read and not
/// taken stays in memory as long as its reader is slow.
pub struct ReadSize {
    now: usize,
    most: usize,
    moved: usize,
    large: Option<Counted<'static>>,
}

impl ReadSize {
    /// Grows to `most`.
    pub fn new(most: usize) -> Self {
        Self { now: LEAST, most: most.max(LEAST), moved: 0, large: None }
    }

    /// Reads once behind what is in `bytes`, `most` at most: the number of bytes, 0 at the end. Memory is only taken for
    /// what is there, as long as that is little: it is read into the stack then, and copied.
    pub fn poll_read<R: AsyncRead + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        source: Pin<&mut R>,
        bytes: &mut BytesMut,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let mut room = self.now.min(most);
        let count = if room <= LEAST {
            let mut stack = [const { MaybeUninit::uninit() }; LEAST];
            let mut little = ReadBuf::uninit(&mut stack[..room]);
            ready!(source.poll_read(cx, &mut little))?;
            bytes.extend_from_slice(little.filled());
            little.filled().len()
        } else {
            // Half of it is room enough: asking for all would allocate anew after each read whose bytes are still in use.
            if bytes.capacity() - bytes.len() < room / 2 {
                bytes.reserve(room);
            }
            room = room.min(bytes.capacity() - bytes.len());
            ready!(poll_read_buf(source, cx, &mut bytes.limit(room)))?
        };
        self.moved = self.moved.saturating_add(count);
        if count == room {
            self.grow();
        } else if count < self.now / 8 {
            self.set((self.now / 2).max(LEAST));
        }
        Poll::Ready(Ok(count))
    }

    fn grow(&mut self) {
        let more = (self.now * 4).min(self.most);
        if more > MODEST && self.large.is_none() {
            if self.moved >= LARGE_AFTER {
                self.large = Counted::enter(&LARGE, LARGE_AT_ONCE);
            }
            if self.large.is_none() {
                return self.set(more.min(MODEST));
            }
        }
        self.set(more);
    }

    fn set(&mut self, size: usize) {
        self.now = size;
        if size <= MODEST {
            self.large = None;
        }
    }

    /// Begins anew.
    pub fn rest(&mut self) {
        self.set(LEAST);
        self.moved = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Reads from an endless source until so much has come, each time as much as may be had; what is read is taken.
    fn read(size: &mut ReadSize, until: usize) -> usize {
        let (mut source, mut moved) = (tokio::io::repeat(0), 0);
        let mut last = 0;
        while moved < until {
            let mut bytes = BytesMut::new();
            let mut cx = Context::from_waker(Waker::noop());
            let read = size.poll_read(&mut cx, Pin::new(&mut source), &mut bytes, usize::MAX);
            let Poll::Ready(Ok(count)) = read else { panic!("{read:?}") };
            assert_eq!(count, bytes.len());
            (moved, last) = (moved + count, count);
        }
        last
    }

    const MOST: usize = 1024 * 1024;

    #[test]
    fn reads_are_large_only_once_much_has_moved_and_only_of_a_few_streams_at_a_time() {
        let mut sizes: Vec<ReadSize> = (0..LARGE_AT_ONCE + 2).map(|_| ReadSize::new(MOST)).collect();
        for size in &mut sizes {
            assert_eq!(read(size, LARGE_AFTER / 2), MODEST);
        }
        for (at, size) in sizes.iter_mut().enumerate() {
            assert_eq!(read(size, LARGE_AFTER), if at < LARGE_AT_ONCE { MOST } else { MODEST }, "{at}");
        }
        // One that rests, and one that goes, make room for two others.
        sizes[0].rest();
        drop(sizes.remove(1));
        for size in &mut sizes[LARGE_AT_ONCE - 1..] {
            assert_eq!(read(size, 2 * LARGE_AFTER), MOST);
        }
        assert_eq!(read(&mut sizes[0], 2 * LARGE_AFTER), MODEST);
    }

    #[test]
    fn a_read_takes_no_more_than_it_may_and_no_memory_before_something_comes() {
        let (mut size, mut bytes) = (ReadSize::new(MOST), BytesMut::new());
        let (near, mut far) = tokio::io::duplex(64);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(size.poll_read(&mut cx, Pin::new(&mut far), &mut bytes, 10).is_pending());
        assert_eq!(bytes.capacity(), 0);
        drop(near);
        let read = size.poll_read(&mut cx, Pin::new(&mut &[7; 30][..]), &mut bytes, 10);
        assert!(matches!(read, Poll::Ready(Ok(10))) && bytes[..] == [7; 10]);
        assert!(matches!(size.poll_read(&mut cx, Pin::new(&mut far), &mut bytes, 10), Poll::Ready(Ok(0))));
    }
}
