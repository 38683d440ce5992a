//! Where notified connections wait for their data socket: the one rendezvous of the protocol.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Session, Tally};
use crate::link::{OpenError, Rejection};
use crate::proto::frame::Role;
use crate::proto::limits::pulse::{AGENT_CHARS, AGENTS};
use crate::proto::message::{Level, ToClient};
use crate::proto::pending::{Addressee, Table};
pub use crate::proto::pending::{Bearer, ClaimError};
use crate::stream::Duplex;
use crate::stream::websocket::{Sizes, WebSocket};
use crate::sync::{Count, lock};

type Stream = Result<Box<dyn Duplex>, Rejection>;

/// The connections of all sessions of a relay.
#[derive(Default)]
pub struct Pending {
    table: Mutex<Table<oneshot::Sender<Stream>, oneshot::Sender<Rejection>>>,
    /// Standby sockets of all sessions.
    pub(super) standby: AtomicUsize,
    /// Sessions, also those that serve no tunnel any more.
    pub(super) sessions: Count,
    /// What all sessions came to.
    pub tally: Tally,
    /// What clients call themselves: thousands share a few texts.
    agents: Mutex<Vec<Arc<str>>>,
}

impl Pending {
    /// Announces a connection that may be claimed within `wait`. Dropping the [`Ticket`] withdraws it.
    pub(super) fn announce(
        self: &Arc<Self>,
        session: &Weak<Session>,
        to: Addressee,
        wait: Duration,
    ) -> Result<(Ticket, Claimed), OpenError> {
        let (stream, claimed) = oneshot::channel();
        let until = Instant::now() + wait;
        let ticket =
            self.enter(session, Uuid::new_v4(), to, until, Some(stream)).ok_or(OpenError::Draining)?;
        Ok((ticket, Claimed(claimed)))
    }

    /// Notes a standby socket that is being assigned, so that it can be rejected; `None`: its id is taken.
    pub(super) fn assign(
        self: &Arc<Self>,
        session: &Weak<Session>,
        id: Uuid,
        to: Addressee,
    ) -> Option<Ticket> {
        self.enter(session, id, to, Instant::now(), None)
    }

    fn enter(
        self: &Arc<Self>,
        session: &Weak<Session>,
        id: Uuid,
        to: Addressee,
        until: Instant,
        stream: Option<oneshot::Sender<Stream>>,
    ) -> Option<Ticket> {
        let (reject, rejected) = oneshot::channel();
        let entered = lock(&self.table).announce(id, to, until.into_std(), stream, reject);
        entered.then(|| Ticket { id, table: Arc::clone(self), session: session.clone(), rejected })
    }

    /// Takes up the connection `id`.
    pub fn claim(&self, id: &str, bearer: Option<Bearer<'_>>) -> Result<Claim, ClaimError> {
        let id = Uuid::parse_str(id).map_err(|_| ClaimError::Unknown)?;
        let (level, stream) = lock(&self.table).claim(Instant::now().into_std(), id, bearer)?;
        // Whoever waited may have left at this moment.
        if stream.is_closed() { Err(ClaimError::Unknown) } else { Ok(Claim { level, stream }) }
    }

    /// The client of `session` cannot serve `id`. What is not, or no longer, announced there is passed over.
    pub(super) fn reject(&self, id: &str, session: Uuid, rejection: Rejection) {
        let Ok(id) = Uuid::parse_str(id) else { return };
        match lock(&self.table).reject(id, session) {
            Some((Some(waiting), _)) => drop(waiting.send(Err(rejection))),
            Some((None, claimed)) => drop(claimed.send(rejection)),
            None => {}
        }
    }

    /// What a client calls itself, cut to a sane length.
    pub fn agent(&self, agent: &[u8]) -> Arc<str> {
        let text: String = String::from_utf8_lossy(agent).chars().take(AGENT_CHARS).collect();
        let mut agents = lock(&self.agents);
        if let Some(known) = agents.iter().find(|known| ***known == *text) {
            return Arc::clone(known);
        }
        let agent: Arc<str> = text.into();
        if agents.len() == AGENTS {
            agents.remove(0);
        }
        agents.push(Arc::clone(&agent));
        agent
    }

    /// Whether a connection has this id.
    pub(super) fn knows(&self, id: Uuid) -> bool {
        lock(&self.table).knows(id)
    }

    /// Connections that were announced and not claimed yet.
    pub fn waiting(&self) -> usize {
        lock(&self.table).waiting()
    }

    /// Connections that were announced and are not answered yet, claimed or not.
    pub fn announced(&self) -> usize {
        lock(&self.table).len()
    }

    /// Standby sockets of all sessions, with those whose handshake is under way.
    pub fn standby(&self) -> usize {
        self.standby.load(Ordering::Relaxed)
    }

    /// Sessions, also those that serve no tunnel any more.
    pub fn sessions(&self) -> usize {
        self.sessions.get()
    }

    /// From now on nothing can be claimed anew, as nobody could come in.
    pub fn close(&self) {
        lock(&self.table).close();
    }
}

/// The right to deliver one stream.
pub struct Claim {
    level: Level,
    stream: oneshot::Sender<Stream>,
}

impl Claim {
    /// Hands the data socket to the viewer; its level is that of the session to which the connection was announced.
    /// `already` is what was read behind the handshake. A viewer that has left drops it, which closes it.
    pub fn deliver<IO>(self, io: IO, already: BytesMut, sizes: Sizes)
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let socket = WebSocket::new(io, Role::Server, already, sizes);
        let socket = if self.level == Level::Two { socket.with_half_close() } else { socket };
        let _ = self.stream.send(Ok(Box::new(socket)));
    }
}

/// The stream to come.
pub(super) struct Claimed(oneshot::Receiver<Stream>);

impl Future for Claimed {
    type Output = Result<Box<dyn Duplex>, OpenError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|stream| match stream {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(rejection)) => Err(OpenError::Rejected(rejection)),
            // The handshake of the data socket failed behind its 101.
            Err(_) => Err(OpenError::NotClaimed),
        })
    }
}

/// A connection in the table. As a future it is ready when the client rejects the connection after its claim; dropped,
/// it withdraws the connection and tells the client if that has not claimed it.
pub(super) struct Ticket {
    id: Uuid,
    table: Arc<Pending>,
    session: Weak<Session>,
    rejected: oneshot::Receiver<Rejection>,
}

impl Ticket {
    pub(super) fn id(&self) -> Uuid {
        self.id
    }
}

impl Future for Ticket {
    type Output = Rejection;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Rejection> {
        // A rejection before the claim has gone to who waits for the stream.
        if self.rejected.is_terminated() {
            return Poll::Pending;
        }
        match Pin::new(&mut self.rejected).poll(cx) {
            Poll::Ready(Ok(rejection)) => Poll::Ready(rejection),
            _ => Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let unclaimed = lock(&self.table.table).withdraw(self.id);
        if unclaimed && let Some(session) = self.session.upgrade() {
            session.say(ToClient::Cancel { id: self.id.to_string() });
        }
    }
}

#[cfg(test)]
pub(super) mod orders;
