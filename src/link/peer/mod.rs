//! The link to a client whose session another process of this relay holds: the one that this one is the successor of.

mod message;
mod passed;

pub use message::{Answer, Dialled, Holder, Question, Refusal, ToPredecessor};

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::sockets::{Bearer, ClaimError};
use super::{Ask, Lane, Link, OpenError, Opening, Rejection};
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
    pub async fn claim(&self, id: &str, bearer: Option<Bearer<'_>>) -> Result<PeerClaim, ClaimError> {
        let inner = self.0.as_ref().ok_or(ClaimError::Unknown)?;
        let holder = |bearer: Bearer<'_>| Holder {
            owner: bearer.owner.to_owned(),
            tunnel: bearer.tunnel.map(str::to_owned),
        };
        let question = Question::Claim { id: id.to_owned(), bearer: bearer.map(holder) };
        match inner.ask(&question, ANSWER_WAIT).await {
            Some((courier, Answer::Claimed)) => Ok(PeerClaim { courier }),
            Some((_, Answer::Refused(Refusal::Foreign))) => Err(ClaimError::Foreign),
            Some((_, Answer::Refused(Refusal::KeyNeeded))) => Err(ClaimError::KeyNeeded),
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
            (_, Answer::Rejected { reason, message }) => {
                Some(Err(OpenError::Rejected(Rejection { reason, message })))
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

    fn open(&self, _: Ask) -> Opening<'_> {
        Box::pin(async {
            let first = lock(&self.first).take();
            match first {
                Some(first) => first,
                None => self.dial().await.unwrap_or(Err(OpenError::ClientGone)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::io::AsyncReadExt;

    use super::*;

    const ASK: Ask = Ask { resendable: true, remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1) };
    const SIZES: Sizes = Sizes { buffer: 64 * 1024, message: 64 * 1024 };

    /// A predecessor whose part the test plays.
    fn played() -> (Predecessor, Courier) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (predecessor, carrying) = Predecessor::new(Courier::new(ours), Duration::from_secs(1), SIZES);
        tokio::spawn(carrying);
        (predecessor, Courier::new(theirs))
    }

    /// The next question, and what its answer goes to.
    async fn asked(courier: &mut Courier) -> (Question, Courier) {
        assert!(matches!(courier.receive().await.unwrap(), Some(ToPredecessor::Question)));
        let stream = std::os::unix::net::UnixStream::from(courier.take_descriptor().unwrap());
        let mut courier = Courier::new(UnixStream::from_std(stream).unwrap());
        (courier.receive().await.unwrap().unwrap(), courier)
    }

    async fn link(predecessor: &Predecessor) -> Option<Arc<dyn Link>> {
        predecessor.link_for("web", "127.0.0.1:1".parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_stream_of_the_predecessor_tells_an_end_from_a_break() {
        let (predecessor, mut courier) = played();
        for whole in [true, false] {
            let (link, mut far) = tokio::join!(link(&predecessor), async {
                let (question, mut far) = asked(&mut courier).await;
                assert!(matches!(question, Question::Open { tunnel, remote }
                    if tunnel == "web" && remote == "127.0.0.1:1"));
                far.send(&Answer::Opened { half_close: false }, &[]).await.unwrap();
                let (stream, already) = far.into_parts();
                WebSocket::new(stream, Role::Server, already, SIZES).with_half_close()
            });
            let link = link.unwrap();
            assert!(link.ready(ASK).is_none());
            let mut lane = link.open(ASK).await.unwrap();
            assert!(lane.waited.is_none() && !lane.stream.half_closes());
            lane.stream.write_all(b"request").await.unwrap();
            lane.stream.flush().await.unwrap();
            let mut read = [0; 7];
            far.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"request");
            far.write_all(b"answer").await.unwrap();
            far.flush().await.unwrap();
            if whole {
                far.shutdown().await.unwrap();
            }
            drop(far);
            let mut next = async || poll_fn(|cx| lane.stream.poll_chunk(cx)).await;
            assert_eq!(next().await.unwrap().unwrap(), "answer");
            assert_eq!(next().await.ok(), whole.then_some(None));
        }
    }

    #[tokio::test]
    async fn refusals_are_told_apart_and_a_predecessor_that_is_gone_has_nothing() {
        let (predecessor, mut courier) = played();
        for (refusal, error) in [
            (Refusal::Unknown, None),
            (Refusal::NotClaimed, Some(OpenError::NotClaimed)),
            (Refusal::TooManyWaiting, Some(OpenError::TooManyWaiting)),
        ] {
            let (link, ()) = tokio::join!(link(&predecessor), async {
                let (_, mut far) = asked(&mut courier).await;
                far.send(&Answer::Refused(refusal), &[]).await.unwrap();
            });
            match (link, error) {
                (Some(link), Some(error)) => assert_eq!(link.open(ASK).await.err(), Some(error)),
                (link, error) => assert!(link.is_none() && error.is_none(), "{refusal:?}"),
            }
        }
        for (refusal, error) in [
            (Refusal::Unknown, ClaimError::Unknown),
            (Refusal::Foreign, ClaimError::Foreign),
            (Refusal::KeyNeeded, ClaimError::KeyNeeded),
        ] {
            let (claim, ()) =
                tokio::join!(predecessor.claim("id", Some(Bearer { owner: "bob", tunnel: None })), async {
                    let (question, mut far) = asked(&mut courier).await;
                    assert!(matches!(question, Question::Claim { id, bearer }
                    if id == "id" && bearer.as_ref().is_some_and(|bearer| bearer.owner == "bob")));
                    far.send(&Answer::Refused(refusal), &[]).await.unwrap();
                });
            assert_eq!(claim.err(), Some(error));
        }
        assert!(predecessor.is_alive());
        drop(courier);
        predecessor.ended().await;
        assert!(!predecessor.is_alive() && link(&predecessor).await.is_none());
        assert_eq!(predecessor.claim("id", None).await.err(), Some(ClaimError::Unknown));
        assert!(link(&Predecessor::none()).await.is_none());
        Predecessor::none().ended().await;
    }
}
