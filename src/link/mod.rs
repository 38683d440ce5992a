//! Links: ways to open a byte stream to a target. Fronts ask, links answer; neither knows the other's wire.

pub mod peer;
pub mod sockets;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::task::coop::unconstrained;

use crate::proto::api::Proto;
use crate::proto::message::Level;
use crate::stream::Duplex;
use sockets::Load;

/// What a client speaks with the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// The two-socket protocol at one of its levels (`protocol.md`).
    Sockets(Level),
    /// One WebSocket with many streams in it, as Taskcluster's workers have it (`docs/taskcluster.md`).
    Wsmux,
}

impl Speaks {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Sockets(Level::Base), Self::Sockets(Level::Two), Self::Wsmux];

    /// As operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sockets(level) => level.as_str(),
            Self::Wsmux => "wsmux",
        }
    }

    /// Whether it is told that the relay goes, before it does.
    pub fn is_told_of_drains(self) -> bool {
        self == Self::Sockets(Level::Two)
    }
}

/// What a front needs of the stream it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// The request may be sent a second time if the stream turns out dead: only then may it get a stream that has
    /// waited for long, or one of a client that has not yet shown that it serves more than one request a stream.
    pub resendable: bool,
    /// The viewer, as the client is told.
    pub remote: SocketAddr,
    /// What the bytes will be, as the client is told.
    pub proto: Proto,
    /// The stream must be the first one of its connection to the target: nothing of another viewer has gone over it.
    pub unused: bool,
}

/// Why no stream could be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The client was told and did not open a data socket in time.
    #[error("the client did not take up the connection in time")]
    NotClaimed,
    /// The client left, was replaced by a newer one, or is not reading what it is told.
    #[error("the client went away")]
    ClientGone,
    /// The client says that it cannot reach the target.
    #[error("the client cannot reach the target ({})", .0.reason)]
    Rejected(Rejection),
    /// The relay stops, so that no client could open a data socket any more.
    #[error("the relay stops")]
    Draining,
    /// As many viewers wait for this client as may.
    #[error("too many viewers are waiting for this client")]
    TooManyWaiting,
}

/// What a client says of a connection that it cannot serve. Both texts are a stranger's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// A word for programs.
    pub reason: String,
    /// For the viewer.
    pub message: Option<String>,
}

/// Ready when the client rejects a connection whose stream was had already.
pub type Rejected = Pin<Box<dyn Future<Output = Rejection> + Send>>;

/// The future of [`Link::open`].
pub type Opening<'a, T = Lane> = Pin<Box<dyn Future<Output = Result<T, OpenError>> + Send + 'a>>;

/// A way to open byte streams to one target.
pub trait Link: Send + Sync {
    /// A stream that already waits and suits `ask`.
    fn ready(&self, ask: Ask) -> Option<Lane>;

    /// A stream of its own for the caller, however long that takes within the link's deadline.
    fn open(&self, ask: Ask) -> Opening<'_>;
}

/// Where a stream came from, and may go back to.
pub trait Home: Send + Sync {
    /// Takes back a stream that stands between two exchanges, to be used within `keep`.
    fn take_back(&self, stream: Box<dyn Duplex>, keep: Duration);

    /// Whether its streams may still be used.
    fn is_open(&self) -> bool;

    /// Whether its client fell silent, so that its streams lead nowhere unless they show otherwise.
    fn is_lost(&self) -> bool;

    /// Tells how the first use of a waiting stream went.
    fn reuse_answered(&self, answered: bool);
}

/// A stream to a target, lent by a link.
pub struct Lane {
    /// The bytes.
    pub stream: Box<dyn Duplex>,
    /// For how long it waited, since its last exchange or since it was opened in advance; `None` if it is fresh.
    pub waited: Option<Duration>,
    /// Whether it has carried an exchange before.
    pub reused: bool,
    /// A first use that shows whether the client serves more than one request a stream.
    pub trial: bool,
    /// The target was told who the viewer is, so it is no other's any more.
    pub greeted: bool,
    /// The client may reject the connection until the first byte of the target.
    pub rejected: Option<Rejected>,
    /// Counts the viewer among those of its session, where several share a tunnel.
    pub load: Option<Load>,
    home: Option<Arc<dyn Home>>,
}

impl Lane {
    /// A fresh stream; `home` is where it may go back to.
    pub fn new(stream: Box<dyn Duplex>, home: Option<Arc<dyn Home>>) -> Self {
        Self {
            stream,
            waited: None,
            reused: false,
            trial: false,
            greeted: false,
            rejected: None,
            load: None,
            home,
        }
    }

    /// The same, whose viewer is counted by `load`.
    pub fn counted(self, load: Option<Load>) -> Self {
        Self { load, ..self }
    }

    /// Gives the stream back for the next exchange of any viewer, within `keep`. The caller vouches that both sides
    /// are between two messages.
    pub fn give_back(self, keep: Duration) {
        if let Some(home) = self.home.filter(|_| !self.greeted) {
            home.take_back(self.stream, keep);
        }
    }

    /// Ends it in order: all that was wanted of it has been had.
    pub fn dismiss(mut self) {
        self.stream.dismiss();
    }

    /// Whether this lane, which waited outside of its link, may be used: its link is there, and nothing has come.
    pub fn is_usable(&mut self) -> bool {
        self.home.as_ref().is_some_and(|home| home.is_open()) && quiet(self.stream.as_mut())
    }

    /// Whether its link has lost the client, which fell silent.
    pub fn is_lost(&self) -> bool {
        self.home.as_ref().is_some_and(|home| home.is_lost())
    }

    /// Tells the link how a lane that had carried an exchange before did.
    pub fn answered(&self, answered: bool) {
        if self.reused
            && let Some(home) = &self.home
        {
            home.reuse_answered(answered);
        }
    }
}

/// Whether nothing has come: a byte or an end on a waiting stream makes it useless.
fn quiet(stream: &mut dyn Duplex) -> bool {
    // Unconstrained: a caller that has used up its share of the scheduler would find every stream quiet.
    let look = pin!(unconstrained(poll_fn(|cx| stream.poll_chunk(cx))));
    look.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}
