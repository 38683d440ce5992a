//! The link of the two-socket protocol: a control socket that notifies, data sockets that carry.

mod control;
mod idle;
mod pending;

pub use control::run as run_control;
pub use pending::{Claim, ClaimError, Pending};

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Ask, Home, Lane, Link, OpenError, Opening};
use crate::proto::close;
use crate::proto::limits::Limits;
use crate::proto::message::{Connection, Drain, Level, ToClient};
use crate::stream::Duplex;
use crate::sync::lock;
use idle::IdleLanes;

/// Why the relay ends a session; decides the close code that the client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The tunnel expired.
    Expired,
    /// The tunnel was deleted.
    Deleted,
    /// A newer control socket of the same key has the tunnel. The old one is pinged once: if it answers, it is
    /// another live process and is closed for good; if not, it is a dead connection.
    Replaced,
    /// The key was revoked.
    Revoked,
    /// The relay shuts down.
    Restart,
}

impl End {
    /// Close code and reason.
    pub fn close(self) -> (u16, &'static str) {
        match self {
            Self::Expired => (close::DONE, "tunnel expired"),
            Self::Deleted => (close::DONE, "tunnel deleted"),
            Self::Replaced => (close::DONE, "replaced by a newer client of the same key"),
            Self::Revoked => (close::POLICY, "key revoked"),
            Self::Restart => (close::RESTART, "relay restarting"),
        }
    }
}

/// Whether the client serves more than one request a data socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Reuse {
    /// Not seen yet: only requests that are safe to resend may try.
    Untried = 0,
    /// It does.
    Proven = 1,
    /// It does not, or its owner does not want it.
    Off = 2,
}

/// One control socket with everything that belongs to it. A new control socket is a new session; what belonged to the
/// old one ends with it.
pub struct Session {
    /// Itself, for the lanes that come home.
    this: Weak<Session>,
    /// Name of the key that opened it.
    pub owner: Arc<str>,
    say: mpsc::Sender<ToClient>,
    end: Mutex<Option<End>>,
    /// Cancelled when somebody wants the session to end.
    ending: CancellationToken,
    /// Cancelled when the control socket is gone.
    gone: CancellationToken,
    pending: Arc<Pending>,
    waiting: AtomicUsize,
    idle: Mutex<IdleLanes>,
    reuse: AtomicU8,
    claim_wait: Duration,
    waiting_most: usize,
}

impl Session {
    /// A session of `owner`, and the queue that its control socket drains.
    pub fn new(
        owner: Arc<str>,
        reuse: bool,
        pending: Arc<Pending>,
        limits: &Limits,
    ) -> (Arc<Self>, mpsc::Receiver<ToClient>) {
        let (say, said) = mpsc::channel(limits.waiting_per_tunnel.max(1));
        let reuse = if reuse { Reuse::Untried } else { Reuse::Off };
        let session = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            owner,
            say,
            end: Mutex::new(None),
            ending: CancellationToken::new(),
            gone: CancellationToken::new(),
            pending,
            waiting: AtomicUsize::new(0),
            idle: Mutex::new(IdleLanes::default()),
            reuse: AtomicU8::new(reuse as u8),
            claim_wait: limits.claim_wait,
            waiting_most: limits.waiting_per_tunnel,
        });
        (session, said)
    }

    /// Asks the control socket to end; the first reason stays.
    pub fn end(&self, reason: End) {
        lock(&self.end).get_or_insert(reason);
        if reason != End::Replaced {
            self.forget_lanes();
        }
        self.ending.cancel();
    }

    /// The level that its client speaks.
    pub fn level(&self) -> Level {
        Level::Base
    }

    /// Tells the client that the relay is about to stop; a base client cannot be told.
    pub fn drain(&self, _: Drain) {}

    /// Whether the control socket is gone.
    pub fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Pings and weeds the waiting data sockets; to be called about once a second.
    pub fn tend(&self) {
        lock(&self.idle).tend();
    }

    fn end_reason(&self) -> Option<End> {
        *lock(&self.end)
    }

    fn forget_lanes(&self) {
        self.reuse.store(Reuse::Off as u8, Ordering::Relaxed);
        let lanes = std::mem::take(&mut *lock(&self.idle));
        drop(lanes);
    }

    fn reuse(&self) -> Reuse {
        match self.reuse.load(Ordering::Relaxed) {
            0 => Reuse::Untried,
            1 => Reuse::Proven,
            _ => Reuse::Off,
        }
    }

    async fn claim(&self) -> Result<Lane, OpenError> {
        let _waiting = Waiting::enter(self).ok_or(OpenError::TooManyWaiting)?;
        let (id, claimed) = self.pending.announce(self.this.clone(), Arc::clone(&self.owner));
        if self.pending.is_closed() {
            return Err(OpenError::Draining);
        }
        self.say
            .try_send(ToClient::Connection(Connection { id: id.to_string(), ..Connection::default() }))
            .map_err(|_| OpenError::ClientGone)?;
        tokio::select! {
            stream = claimed => {
                let stream = stream.map_err(|_| OpenError::NotClaimed)?;
                Ok(Lane::new(stream, self.this.upgrade().map(|session| session as Arc<dyn Home>)))
            }
            () = tokio::time::sleep(self.claim_wait) => Err(OpenError::NotClaimed),
            () = self.gone.cancelled() => Err(OpenError::ClientGone),
        }
    }
}

impl Link for Session {
    fn ready(&self, ask: Ask) -> Option<Lane> {
        let reuse = self.reuse();
        if reuse == Reuse::Off || (reuse == Reuse::Untried && !ask.resendable) {
            return None;
        }
        let (stream, waited) = lock(&self.idle).take(ask.resendable)?;
        let home = self.this.upgrade().map(|session| session as Arc<dyn Home>);
        Some(Lane { waited: Some(waited), trial: reuse == Reuse::Untried, ..Lane::new(stream, home) })
    }

    fn open(&self) -> Opening<'_> {
        Box::pin(self.claim())
    }
}

impl Home for Session {
    fn take_back(&self, mut stream: Box<dyn Duplex>, keep: Duration) {
        if self.reuse() == Reuse::Off || self.is_gone() || keep.is_zero() {
            return;
        }
        stream.rest();
        lock(&self.idle).put(stream, keep);
    }

    fn is_open(&self) -> bool {
        !self.is_gone()
    }

    fn reuse_answered(&self, answered: bool) {
        match (answered, self.reuse()) {
            (true, Reuse::Untried) => self.reuse.store(Reuse::Proven as u8, Ordering::Relaxed),
            (false, Reuse::Untried) => self.forget_lanes(),
            _ => {}
        }
    }
}

/// Counts a viewer among the waiting ones until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(session: &'a Session) -> Option<Self> {
        let before = session.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(&session.waiting);
        (before < session.waiting_most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
