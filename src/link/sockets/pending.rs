//! Where notified connections wait for their data socket: the one rendezvous of the protocol.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Session;
use crate::stream::Duplex;

/// Connections that were notified and not yet claimed. An id is a capability: 122 random bits, good for one claim.
#[derive(Default)]
pub struct Pending {
    waiting: DashMap<Uuid, Waiter>,
    closed: AtomicBool,
}

struct Waiter {
    session: Weak<Session>,
    owner: Arc<str>,
    stream: oneshot::Sender<Box<dyn Duplex>>,
}

/// Why a claim was refused. The id stays good for the right claimant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No such id, or it was claimed already, or its ten seconds are over.
    #[error("connection not found or expired")]
    Unknown,
    /// The bearer belongs to somebody else.
    #[error("this connection belongs to another key")]
    Foreign,
}

impl Pending {
    /// Announces a connection: its id, and the stream once it is claimed. Dropping the receiver withdraws it.
    pub(super) fn announce(self: &Arc<Self>, session: Weak<Session>, owner: Arc<str>) -> (Uuid, Claimed) {
        let id = Uuid::new_v4();
        let (stream, claimed) = oneshot::channel();
        self.waiting.insert(id, Waiter { session, owner, stream });
        (id, Claimed { id, table: Arc::clone(self), stream: claimed })
    }

    /// Connections that were announced and that nobody has claimed yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// From now on nothing more is announced.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Whether nothing more is announced.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Takes up the connection `id`. `bearer` is the owner of the key that came along; at base level none need come,
    /// but one that does must be the right one.
    pub fn claim(&self, id: &str, bearer: Option<&str>) -> Result<Claim, ClaimError> {
        let id = Uuid::parse_str(id).map_err(|_| ClaimError::Unknown)?;
        let right = |waiter: &Waiter| bearer.is_none_or(|bearer| *waiter.owner == *bearer);
        match self.waiting.remove_if(&id, |_, waiter| right(waiter)) {
            Some((_, waiter)) if waiter.session.strong_count() > 0 => Ok(Claim { stream: waiter.stream }),
            Some(_) => Err(ClaimError::Unknown),
            None if self.waiting.contains_key(&id) => Err(ClaimError::Foreign),
            None => Err(ClaimError::Unknown),
        }
    }
}

/// The right to deliver one stream.
pub struct Claim {
    stream: oneshot::Sender<Box<dyn Duplex>>,
}

impl Claim {
    /// Hands the data socket to the viewer. A viewer that has left drops it, which closes it.
    pub fn deliver(self, stream: Box<dyn Duplex>) {
        let _ = self.stream.send(stream);
    }
}

/// The stream to come; withdraws its id when dropped.
pub(super) struct Claimed {
    id: Uuid,
    table: Arc<Pending>,
    stream: oneshot::Receiver<Box<dyn Duplex>>,
}

impl Future for Claimed {
    type Output = Result<Box<dyn Duplex>, oneshot::error::RecvError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.stream).poll(cx)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.table.waiting.remove(&self.id);
    }
}
