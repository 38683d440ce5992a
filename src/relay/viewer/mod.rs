//! The viewer's side of a connection: who it is, what it is doing now, and its deadlines.

mod io;
mod watch;

pub use io::ViewerIo;
pub use watch::{Verdict, vanished, watch};

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use tokio::time::Instant;

use crate::link::Lane;
use crate::proto::proxy_header::Ends;
use crate::relay::room::Place;
use crate::stream::any::AnyStream;
use crate::sync::{Count, Held, lock};

/// What a connection is doing; each phase has its own deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Accepted, nothing received yet.
    Fresh = 0,
    /// The head of a request is coming in.
    Head = 1,
    /// At least one exchange is under way.
    Busy = 2,
    /// Between two exchanges.
    Idle = 3,
}

/// One accepted connection, shared by hyper (which reads and writes), the exchanges on it and the watch over its
/// deadlines. All of them run in one task, so the locks are never waited for.
pub struct Connection {
    stream: Mutex<AnyStream>,
    /// What is between the viewer and us.
    pub security: Security,
    /// The viewer: the peer, as the socket has it, or whom a trusted proxy announced.
    pub remote: SocketAddr,
    /// What a trusted proxy says that the viewer has connected to.
    reached: Option<SocketAddr>,
    /// The same as text, made once.
    remote_text: OnceLock<String>,
    start: Instant,
    phase: AtomicU8,
    /// When the phase began, in milliseconds after `start`.
    since: AtomicU64,
    /// When bytes were last written to the viewer, likewise; 0: not in this exchange.
    written: AtomicU64,
    exchanges: AtomicUsize,
    /// A request body was left unread, so that closing at once could destroy our answer.
    unread: AtomicBool,
    /// The end of the connection is the end of the body under way, so a body that was cut must not end it cleanly.
    close_ends_body: AtomicBool,
    /// HTTP/2, where bytes that come are no sign of a new request.
    multiplexed: bool,
    /// A stream of a connection-bound login (NTLM, Negotiate), or whose target knows this viewer, kept for it alone.
    pinned: Mutex<Option<Pinned>>,
    /// Held as long as the socket is open, whatever is made of it.
    _place: Place,
    /// Counts it among those of a kind, once it is one.
    kind: OnceLock<Held>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The viewer.
    pub remote: SocketAddr,
    /// What it has connected to, where a proxy in between has told; else it is our own address.
    pub reached: Option<SocketAddr>,
}

impl From<SocketAddr> for Peer {
    fn from(remote: SocketAddr) -> Self {
        Self { remote, reached: None }
    }
}

/// How a connection came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Security {
    /// Without TLS.
    Plain {
        /// The port is for TLS.
        tls_port: bool,
    },
    /// With TLS.
    Tls {
        /// The name that the viewer asked for in its handshake, in lower case.
        name: Option<Box<str>>,
    },
}

/// A lane that only its viewer may use, and the tunnel it belongs to.
pub struct Pinned {
    /// Id of the tunnel.
    pub tunnel: uuid::Uuid,
    /// It has waited since then.
    pub since: Instant,
    /// No use after this.
    pub until: Instant,
    /// The stream.
    pub lane: Lane,
    /// It carries a connection-bound login; else it only has told who the viewer is.
    pub login: bool,
    /// Counts it.
    pub _counted: Held,
}

impl Connection {
    /// Wraps an accepted socket, which has `place`.
    pub fn new(
        stream: AnyStream,
        security: Security,
        peer: Peer,
        multiplexed: bool,
        place: Place,
    ) -> Arc<Self> {
        Arc::new(Self {
            stream: Mutex::new(stream),
            security,
            remote: peer.remote,
            reached: peer.reached,
            remote_text: OnceLock::new(),
            start: Instant::now(),
            phase: AtomicU8::new(Phase::Fresh as u8),
            since: AtomicU64::new(1),
            written: AtomicU64::new(0),
            exchanges: AtomicUsize::new(0),
            unread: AtomicBool::new(false),
            close_ends_body: AtomicBool::new(false),
            multiplexed,
            pinned: Mutex::new(None),
            _place: place,
            kind: OnceLock::new(),
        })
    }

    /// From now on it is no longer HTTP but one of those that `kind` counts.
    pub fn becomes(&self, kind: &Count) {
        let _ = self.kind.set(kind.hold());
    }

    /// The peer's address without its port, an IPv4 one that came mapped into IPv6 as IPv4.
    pub fn remote_text(&self) -> &str {
        self.remote_text.get_or_init(|| self.remote.ip().to_canonical().to_string())
    }

    /// The peer, an IPv4 address that came mapped into IPv6 as IPv4.
    pub fn remote_canonical(&self) -> SocketAddr {
        SocketAddr::new(self.remote.ip().to_canonical(), self.remote.port())
    }

    /// Both ends of the viewer's connection; `None`: it has no addresses, as on a Unix socket.
    pub fn ends(&self) -> Option<Ends> {
        let destination = self.reached.or_else(|| self.stream().local_addr())?;
        Some(Ends { source: self.remote, destination })
    }

    /// The viewer sees an error instead of an end when the connection is dropped: TCP's reset.
    pub fn reset_on_close(&self) {
        self.stream().reset_on_close();
    }

    /// Whether it has TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.security, Security::Tls { .. })
    }

    /// What the connection is doing.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Fresh,
            1 => Phase::Head,
            2 => Phase::Busy,
            _ => Phase::Idle,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.since.store(self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        // Never 0, which stands for not at all.
        self.start.elapsed().as_millis() as u64 + 1
    }

    /// Counts a new exchange until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Busy {
        if !self.multiplexed {
            // A next request can only be read behind the end of the one before.
            self.unread.store(false, Ordering::Relaxed);
        }
        if self.exchanges.load(Ordering::Relaxed) == 0 {
            self.written.store(0, Ordering::Relaxed);
        }
        self.enter(Phase::Busy);
        self.hold()
    }

    /// Counts the exchange under way once more, as a part of it may outlast the others.
    pub fn hold(self: &Arc<Self>) -> Busy {
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Notes that a request body was not read to its end.
    pub fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether an answer may be lost unless the rest of a request is read first.
    pub fn must_linger(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Notes that nothing but the end of the connection tells the viewer where the body ends (HTTP/1.0).
    pub fn close_ends_body(&self) {
        self.close_ends_body.store(true, Ordering::Relaxed);
    }

    /// A body was cut short: a viewer that could take the end of the connection for the body's own gets a reset.
    pub fn body_was_cut(&self) {
        if self.close_ends_body.load(Ordering::Relaxed) {
            self.reset_on_close();
        }
    }

    /// Keeps a lane for the next request of this viewer.
    pub fn pin(&self, pinned: Pinned) {
        *lock(&self.pinned) = Some(pinned);
    }

    /// The lane kept for `tunnel`, if it is still good. One that is not is closed.
    pub fn unpin(&self, tunnel: uuid::Uuid) -> Option<Pinned> {
        let mut pinned = lock(&self.pinned).take_if(|pinned| pinned.tunnel == tunnel)?;
        (Instant::now() < pinned.until && pinned.lane.is_usable()).then_some(pinned)
    }

    fn stream(&self) -> MutexGuard<'_, AnyStream> {
        lock(&self.stream)
    }
}

/// An exchange under way.
pub struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.exchanges.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.enter(Phase::Idle);
        }
    }
}
