//! The link to a client whose session another process of this relay holds: the one that this one is the successor of.

mod message;
mod passed;

pub use message::{Answer, Dialled, Question, Refusal, ToPredecessor};

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::sockets::ClaimError;
use super::{Ask, Lane, Link, OpenError, Opening};
use crate::proto::frame::Role;
use crate::stream::courier::Courier;
use crate::stream::websocket::{Sizes, WebSocket};
use crate::sync::lock;
use passed::Passed;

/// Questions on their way to the predecessor; the next one waits until there is room.
const QUEUE: usize = 256;
/// An answer that takes no claim comes at once.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The process that had the listeners before us, while it lives. Cheap to clone.
#[derive(Clone)]
pub struct Predecessor(Option<Arc<Inner>>);

struct Inner {
    questions: mpsc::Sender<OwnedFd>,
    claim_wait: Duration,
    sizes: Sizes,
}

impl Predecessor {
    /// There is none.
    pub fn none() -> Self {
        Self(None)
    }

    /// The one at the other end of `courier`, and what carries the questions there: to be run until it ends, which is when
    /// the predecessor does.
    pub fn new(mut courier: Courier, claim_wait: Duration, sizes: Sizes) -> (Self, impl Future<Output = ()>) {
        let (questions, mut asked) = mpsc::channel::<OwnedFd>(QUEUE);
        let carrying = async move {
            loop {
                let question = tokio::select! {
                    question = asked.recv() => question,
                    // It says nothing more: this is its end.
                    _ = courier.receive::<serde_json::Value>() => None,
                };
                let Some(socket) = question else { return };
                if courier.send(&ToPredecessor::Question, &[socket.as_fd()]).await.is_err() {
                    return;
                }
            }
        };
        (Self(Some(Arc::new(Inner { questions, claim_wait, sizes }))), carrying)
    }

    /// Whether it still lives.
    pub fn is_alive(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| !inner.questions.is_closed())
    }

    /// Until it does not live any more.
    pub async fn ended(&self) {
        if let Some(inner) = &self.0 {
            inner.questions.closed().await;
        }
    }

    /// Whether there was one, ever.
    pub fn was_there(&self) -> bool {
        self.0.is_some()
    }

    /// A link to the client of `tunnel`, if the predecessor has its session. A stream is opened for it at once, as the
    /// session may have ended at the next moment.
    pub async fn link_for(&self, tunnel: &str, remote: SocketAddr) -> Option<Arc<dyn Link>> {
        let inner = self.0.as_ref().filter(|inner| !inner.questions.is_closed())?;
        let peer = Peer {
            inner: Arc::clone(inner),
            tunnel: tunnel.to_owned(),
            remote: remote.to_string(),
            first: Mutex::default(),
        };
        let first = peer.dial().await?;
        *lock(&peer.first) = Some(first);
        Some(Arc::new(peer))
    }

    /// Takes up a connection that the predecessor has announced, for the owner of the key that came along.
    pub async fn claim(&self, id: &str, bearer: Option<&str>) -> Result<PeerClaim, ClaimError> {
        let inner = self.0.as_ref().ok_or(ClaimError::Unknown)?;
        let question = Question::Claim { id: id.to_owned(), bearer: bearer.map(str::to_owned) };
        match inner.ask(&question, ANSWER_WAIT).await {
            Some((courier, Answer::Claimed)) => Ok(PeerClaim { courier }),
            Some((_, Answer::Refused(Refusal::Foreign))) => Err(ClaimError::Foreign),
            _ => Err(ClaimError::Unknown),
        }
    }
}

impl Inner {
    /// The answer, and the socket that it came over. `None`: the predecessor is gone, or says nothing.
    async fn ask(&self, question: &Question, wait: Duration) -> Option<(Courier, Answer)> {
        let (ours, theirs) = UnixStream::pair().ok()?;
        let asking = async {
            self.questions.send(theirs.into_std().ok()?.into()).await.ok()?;
            let mut courier = Courier::new(ours);
            courier.send(question, &[]).await.ok()?;
            let answer = courier.receive().await.ok()??;
            Some((courier, answer))
        };
        timeout(wait, asking).await.ok()?
    }
}

/// The right to deliver one data socket to the predecessor.
pub struct PeerClaim {
    courier: Courier,
}

impl PeerClaim {
    /// Passes on the socket, and what was read behind its handshake. From then on it is none of ours.
    pub async fn deliver(mut self, socket: OwnedFd, already: &[u8]) {
        let delivering = async {
            self.courier.send(&Dialled { already: already.len() }, &[socket.as_fd()]).await?;
            let (mut stream, _) = self.courier.into_parts();
            stream.write_all(already).await
        };
        // A predecessor that is gone has no viewer that waits.
        let _ = timeout(ANSWER_WAIT, delivering).await;
    }
}

/// One tunnel whose client the predecessor has.
struct Peer {
    inner: Arc<Inner>,
    tunnel: String,
    remote: String,
    /// What was opened along with the link.
    first: Mutex<Option<Result<Lane, OpenError>>>,
}

impl Peer {
    /// A fresh stream, or why the client gives none; `None`: the predecessor does not have this client.
    async fn dial(&self) -> Option<Result<Lane, OpenError>> {
        let question = Question::Open { tunnel: self.tunnel.clone(), remote: self.remote.clone() };
        match self.inner.ask(&question, self.inner.claim_wait + ANSWER_WAIT).await? {
            (courier, Answer::Opened { half_close }) => {
                let (stream, already) = courier.into_parts();
                let stream = WebSocket::new(stream, Role::Client, already, self.inner.sizes);
                // Used once: what it leads to is the predecessor's.
                Some(Ok(Lane::new(Box::new(Passed { stream: stream.with_half_close(), half_close }), None)))
            }
            (_, Answer::Refused(Refusal::NotClaimed)) => Some(Err(OpenError::NotClaimed)),
            (_, Answer::Refused(Refusal::TooManyWaiting)) => Some(Err(OpenError::TooManyWaiting)),
            _ => None,
        }
    }
}

impl Link for Peer {
    fn ready(&self, _: Ask) -> Option<Lane> {
        None
    }

    fn open(&self) -> Opening<'_> {
        Box::pin(async {
            let first = lock(&self.first).take();
            match first {
                Some(first) => first,
                None => self.dial().await.unwrap_or(Err(OpenError::ClientGone)),
            }
        })
    }
}
