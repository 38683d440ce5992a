//! The watch over one connection: its deadlines, and viewers that leave while their request is under way.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::{TlsStream, server};

use super::{Connection, Phase};
use crate::proto::limits::{Limits, viewer};
use crate::proto::pace::Pace;
use crate::stream::any::AnyStream;

/// After the viewer shut its side, its deadlines are looked at this often; and so is one who has sent what nobody reads.
const TICK: Duration = Duration::from_secs(1);

/// Why the watch ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was ever said: closed silently.
    SaidNothing,
    /// A head took too long: 408.
    SlowHead,
    /// Idle for too long between two exchanges.
    Idle,
    /// The viewer is gone; what runs for it is dropped.
    Left,
}

/// Watches until the connection has to end. To be polled in the same task as the connection itself, after it.
pub async fn watch(connection: &Connection, limits: &Limits) -> Verdict {
    let (mut fin, mut behind) = (None, false);
    loop {
        let now = Instant::now();
        let due = match connection.verdict(limits, fin) {
            Some((due, verdict)) if due <= now => return verdict,
            Some((due, _)) => due,
            // Busy: the exchange has its own deadlines; look again when the phase may have changed.
            None => now + limits.keep_alive.min(limits.head_wait),
        };
        let due = if fin.is_some() || behind { due.min(now + TICK) } else { due };
        let known = fin.is_some() || behind;
        tokio::select! {
            () = sleep_until(due) => behind = false,
            departure = poll_fn(|cx| connection.poll_departure(cx)), if !known => match departure {
                Departure::Fin => fin = Some(connection.now()),
                Departure::Reset => return Verdict::Left,
                Departure::Behind => behind = true,
            },
        }
    }
}

/// Until the viewer has vanished; one that only shut its side may still read. For while nothing is read of it.
pub async fn vanished(connection: &Connection) {
    loop {
        match poll_fn(|cx| connection.poll_departure(cx)).await {
            Departure::Reset => return,
            Departure::Fin | Departure::Behind => sleep(TICK).await,
        }
    }
}

enum Departure {
    /// It sends no more, but may still read.
    Fin,
    /// It is gone.
    Reset,
    /// Not yet, and no event will tell: what it has sent and nobody reads hides it.
    Behind,
}

impl Connection {
    fn at(&self, ms: u64, wait: Duration) -> Instant {
        self.start + Duration::from_millis(ms) + wait
    }

    /// What happens next unless something changes, and when. `fin`: when the viewer shut its side.
    fn verdict(&self, limits: &Limits, fin: Option<u64>) -> Option<(Instant, Verdict)> {
        let since = self.since.load(Ordering::Relaxed);
        match (self.phase(), fin) {
            (Phase::Fresh, _) => Some((self.at(since, limits.first_byte_wait), Verdict::SaidNothing)),
            (Phase::Head, _) => Some((self.at(since, limits.head_wait), Verdict::SlowHead)),
            (Phase::Idle, _) => Some((self.at(since, limits.keep_alive), Verdict::Idle)),
            (Phase::Busy, None) => None,
            (Phase::Busy, Some(fin)) => {
                let written = self.written.load(Ordering::Relaxed);
                let due = if written > 0 && written >= since {
                    self.at(written.max(fin), viewer::SILENT_AFTER_FIN)
                } else {
                    self.at(fin, viewer::SERVED_AFTER_FIN)
                };
                Some((due, Verdict::Left))
            }
        }
    }

    /// Ready when the viewer shut its side or vanished during an exchange. hyper does not read then, so the socket is
    /// ours to ask; without an event it costs no system call.
    fn poll_departure(&self, cx: &mut Context<'_>) -> Poll<Departure> {
        if self.phase() != Phase::Busy {
            return Poll::Pending;
        }
        match &mut *self.stream() {
            AnyStream::Tcp(stream) => poll_departure(stream, cx),
            AnyStream::Tls(stream) => match &mut **stream {
                TlsStream::Server(stream) => poll_secure_departure(stream, cx),
                TlsStream::Client(_) => Poll::Pending,
            },
            AnyStream::Unix(stream) => poll_local_departure(stream, cx),
        }
    }

    /// Writes a last few bytes if the socket takes them at once.
    pub fn try_say(&self, bytes: &[u8]) {
        let (mut stream, mut cx) = (self.stream(), Context::from_waker(Waker::noop()));
        let _ = Pin::new(&mut *stream).poll_write(&mut cx, bytes);
        let _ = Pin::new(&mut *stream).poll_flush(&mut cx);
    }

    /// Shuts our side and reads what still comes, within bounds, so that the viewer reads our answer before a reset.
    pub async fn linger(&self) {
        const SILENCE: Duration = Duration::from_secs(2);
        const WAIT: Duration = Duration::from_secs(30);
        const MOST: usize = 64 * 1024 * 1024;
        const AHEAD: Duration = Duration::from_millis(10);
        let shut = poll_fn(|cx| Pin::new(&mut *self.stream()).poll_shutdown(cx));
        let _ = timeout(SILENCE, shut).await;
        let rate = NonZeroU64::new(viewer::UNWANTED_A_SECOND).unwrap_or(NonZeroU64::MIN);
        let (mut buffer, mut pace) = (vec![0; 16 * 1024], Pace::new(rate, Duration::from_secs(1), AHEAD));
        let reading = async {
            let mut read = 0;
            while read < MOST {
                let some = poll_fn(|cx| {
                    let mut out = ReadBuf::new(&mut buffer);
                    let polled = Pin::new(&mut *self.stream()).poll_read(cx, &mut out);
                    polled.map_ok(|()| out.filled().len())
                });
                match timeout(SILENCE, some).await {
                    Ok(Ok(count @ 1..)) => {
                        read += count;
                        let wait = pace.take(Instant::now().into_std(), count as u64);
                        // A timer takes a millisecond even for nothing.
                        if !wait.is_zero() {
                            sleep(wait).await;
                        }
                    }
                    _ => return,
                }
            }
        };
        let _ = timeout(WAIT, reading).await;
    }
}

fn poll_departure(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<Departure> {
    ready!(stream.poll_read_ready(cx)).ok();
    let mut byte = [0];
    match ready!(stream.poll_peek(cx, &mut ReadBuf::new(&mut byte))) {
        Ok(0) => Poll::Ready(Departure::Fin),
        Err(_) => Poll::Ready(Departure::Reset),
        Ok(_) if matches!(stream.take_error(), Ok(None)) => Poll::Ready(Departure::Behind),
        Ok(_) => Poll::Ready(Departure::Reset),
    }
}

fn poll_local_departure(stream: &UnixStream, cx: &mut Context<'_>) -> Poll<Departure> {
    loop {
        ready!(stream.poll_read_ready(cx)).ok();
        let mut byte = [MaybeUninit::uninit()];
        match stream.try_io(Interest::READABLE, || SockRef::from(stream).peek(&mut byte)) {
            Ok(0) => return Poll::Ready(Departure::Fin),
            Ok(_) => return Poll::Ready(Departure::Behind),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Poll::Ready(Departure::Reset),
        }
    }
}

/// Under TLS the end is a record, which only reading shows. What comes before it stays in the session for hyper, which is
/// woken, as its own event was taken.
fn poll_secure_departure(stream: &mut server::TlsStream<TcpStream>, cx: &mut Context<'_>) -> Poll<Departure> {
    let (tcp, session) = stream.get_mut();
    loop {
        let Ok(state) = session.process_new_packets() else { return Poll::Ready(Departure::Reset) };
        if state.plaintext_bytes_to_read() > 0 {
            cx.waker().wake_by_ref();
            return Poll::Ready(Departure::Behind);
        }
        if state.peer_has_closed() {
            return Poll::Ready(Departure::Fin);
        }
        ready!(tcp.poll_read_ready(cx)).ok();
        match session.read_tls(&mut Unwaiting(tcp)) {
            Ok(0) => return Poll::Ready(Departure::Fin),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Departure::Reset),
            _ => {}
        }
    }
}

/// Reads what is there.
struct Unwaiting<'a>(&'a TcpStream);

impl io::Read for Unwaiting<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(out)
    }
}
