//! A data socket as HTTP/2 reads and writes it: told apart by its first words, metered, and asked for signs of life.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, Sleep, sleep};

use super::hello::{Heard, Hello};
use crate::link::{Lane, Rejected};
use crate::proto::limits::multiplex::{PING_EVERY, PROBE_AFTER};
use crate::relay::errors::Cause;
use crate::stream::Duplex;
use crate::tunnel::{Meter, Metered};

/// Signs of life of one connection, shared by its socket and those who ask.
pub struct Pulse {
    start: Instant,
    /// When bytes or a pong came last, in milliseconds after `start`.
    last: AtomicU64,
    asked: AtomicBool,
    /// Of the task that reads.
    reader: AtomicWaker,
    answered: Notify,
}

impl Pulse {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            answered: Notify::new(),
        })
    }

    /// Whether nothing has come for so long that the client may be gone.
    pub fn is_quiet(&self) -> bool {
        self.now().saturating_sub(self.last.load(Ordering::Relaxed)) > PROBE_AFTER.as_millis() as u64
    }

    /// Until a sign of life that is asked for now, or any that comes.
    pub async fn sign(&self) {
        let answered = self.answered.notified();
        self.asked.store(true, Ordering::Relaxed);
        self.reader.wake();
        answered.await;
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn beat(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
        self.answered.notify_waiters();
    }
}

/// The stream of a lane.
pub struct LaneIo {
    stream: Box<dyn Duplex>,
    meter: Option<Box<Meter>>,
    /// Came, and is not read yet.
    left: Bytes,
    /// The client may reject the connection until the target's first byte.
    rejected: Option<Rejected>,
    beginning: Option<Beginning>,
    pulse: Arc<Pulse>,
    /// A ping is on its way.
    pinged: bool,
    /// The client takes nothing now, so it cannot answer either.
    blocked: bool,
    next_ping: Pin<Box<Sleep>>,
}

/// Until the target has said that it speaks HTTP/2.
struct Beginning {
    hello: Hello,
    /// It has; told once its words are read.
    heard: bool,
    tell: oneshot::Sender<Result<(), Cause>>,
}

impl LaneIo {
    /// Takes the stream of `lane`, and says what the target's first words were. It holds nothing of the lane's session.
    pub fn new(
        lane: Lane,
        meter: Option<Box<Meter>>,
    ) -> (Self, oneshot::Receiver<Result<(), Cause>>, Arc<Pulse>) {
        let (tell, told) = oneshot::channel();
        let Lane { stream, rejected, .. } = lane;
        let pulse = Pulse::new();
        let io = Self {
            stream,
            meter,
            left: Bytes::new(),
            rejected,
            beginning: Some(Beginning { hello: Hello::default(), heard: false, tell }),
            pulse: Arc::clone(&pulse),
            pinged: false,
            blocked: false,
            next_ping: Box::pin(sleep(PING_EVERY)),
        };
        (io, told, pulse)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        match &mut self.meter {
            None => self.stream.poll_chunk(cx),
            Some(meter) => Metered::new(self.stream.as_mut(), meter).poll_chunk(cx),
        }
    }

    /// The target's first words are none of HTTP/2, or it says none.
    fn fail(&mut self, cause: Cause) -> io::Error {
        let text = cause.label();
        if let Some(beginning) = self.beginning.take() {
            let _ = beginning.tell.send(Err(cause));
        }
        io::Error::other(text)
    }

    fn hear(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.rejected = None;
        self.pinged = false;
        self.pulse.beat();
        let Some(beginning) = self.beginning.as_mut().filter(|beginning| !beginning.heard) else {
            return Ok(());
        };
        match beginning.hello.hear(chunk) {
            Heard::Part => Ok(()),
            Heard::Settings => {
                beginning.heard = true;
                Ok(())
            }
            Heard::Other => Err(self.fail(Cause::NotHttp2)),
        }
    }

    /// While nothing comes: pings the client when it is time, or when somebody asks; an error if it does not answer.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(rejected) = &mut self.rejected
            && let Poll::Ready(rejection) = rejected.as_mut().poll(cx)
        {
            return Poll::Ready(self.fail(Cause::Rejected(rejection)));
        }
        if self.pinged && self.stream.ponged() {
            self.pinged = false;
            self.pulse.beat();
        }
        self.pulse.reader.register(cx.waker());
        let mut due = self.pulse.asked.swap(false, Ordering::Relaxed) && !self.pinged;
        while self.next_ping.as_mut().poll(cx).is_ready() {
            if self.pinged && !self.blocked {
                return Poll::Ready(self.fail(Cause::TargetSilent));
            }
            self.next_ping.as_mut().reset(Instant::now() + PING_EVERY);
            due = true;
        }
        if due {
            self.stream.ping();
            self.pinged = true;
            // What cannot go out now goes out with the next bytes.
            let _ = Pin::new(self.stream.as_mut()).poll_flush(cx);
            if self.stream.ponged() {
                // It has no such thing.
                self.pinged = false;
                self.pulse.beat();
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for LaneIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left.is_empty() {
            // What was read before has had its effect by now.
            if let Some(beginning) = this.beginning.take_if(|beginning| beginning.heard) {
                let _ = beginning.tell.send(Ok(()));
            }
            match this.poll_chunk(cx) {
                Poll::Ready(Ok(Some(chunk))) => {
                    this.hear(&chunk)?;
                    this.left = chunk;
                }
                Poll::Ready(Ok(None)) => {
                    this.fail(Cause::NotHttp2);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Err(error)) => {
                    this.fail(Cause::TargetClosed);
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return this.poll_silence(cx).map(Err),
            }
        }
        let count = this.left.len().min(out.remaining());
        out.put_slice(&this.left[..count]);
        this.left.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LaneIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.meter {
            None => Pin::new(this.stream.as_mut()).poll_write(cx, data),
            Some(meter) => Pin::new(&mut Metered::new(this.stream.as_mut(), meter)).poll_write(cx, data),
        };
        this.blocked = written.is_pending();
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(this.stream.as_mut()).poll_flush(cx);
        this.blocked = flushed.is_pending();
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream.as_mut()).poll_shutdown(cx)
    }
}

impl Drop for LaneIo {
    fn drop(&mut self) {
        self.stream.dismiss();
    }
}
