//! The link to a client whose session another process of this relay holds: the one that this one is the successor of.

mod message;
mod passed;

pub use message::{Answer, Dialled, Holder, Question, Refusal, ToPredecessor};

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::sockets::{Bearer, ClaimError};
use super::{Ask, Lane, OpenError, Rejection};
use crate::proto::frame::Role;
use crate::stream::courier::Courier;
use crate::stream::websocket::{Sizes, WebSocket};
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
    ended_at: Arc<OnceLock<Instant>>,
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
        let ended_at = Arc::new(OnceLock::new());
        let inner = Inner { questions, ended_at: Arc::clone(&ended_at), claim_wait, sizes };
        let carrying = async move {
            loop {
                let question = tokio::select! {
                    question = asked.recv() => question,
                    // It says nothing more: this is its end.
                    _ = courier.receive::<serde_json::Value>() => None,
                };
                let Some(socket) = question else { break };
                if courier.send(&ToPredecessor::Question, &[socket.as_fd()]).await.is_err() {
                    break;
                }
            }
            let _ = ended_at.set(Instant::now());
        };
        (Self(Some(Arc::new(inner))), carrying)
    }

    /// Whether it still lives.
    pub fn is_alive(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| !inner.questions.is_closed())
    }

    /// Whether it lives, or did so until less than `ago`: its clients may be on their way.
    pub fn was_alive(&self, ago: Duration) -> bool {
        let ended_at = self.0.as_ref().and_then(|inner| inner.ended_at.get());
        self.is_alive() || ended_at.is_some_and(|at| at.elapsed() < ago)
    }

    /// Questions that are not on their way yet.
    pub fn unasked(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.questions.max_capacity() - inner.questions.capacity())
    }

    /// Until it does not live any more.
    pub async fn ended(&self) {
        if let Some(inner) = &self.0 {
            inner.questions.closed().await;
        }
    }

    /// A fresh stream to the client of `tunnel`, or why the client gives none; `None`: the predecessor does not have its
    /// session.
    pub async fn open(&self, tunnel: &str, ask: Ask) -> Option<Result<Lane, OpenError>> {
        let inner = self.0.as_ref().filter(|inner| !inner.questions.is_closed())?;
        let question = Question::Open {
            tunnel: tunnel.to_owned(),
            remote: ask.remote.to_string(),
            proto: ask.proto.as_str().to_owned(),
        };
        match inner.ask(&question, inner.claim_wait + ANSWER_WAIT).await? {
            (courier, Answer::Opened { half_close }) => {
                let (stream, already) = courier.into_parts();
                let stream = WebSocket::new(stream, Role::Client, already, inner.sizes);
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::proto::api::Proto;

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

    async fn open(predecessor: &Predecessor) -> Option<Result<Lane, OpenError>> {
        let remote = "127.0.0.1:1".parse().unwrap();
        predecessor.open("web", Ask { resendable: false, remote, proto: Proto::Tcp, unused: true }).await
    }

    #[tokio::test]
    async fn a_stream_of_the_predecessor_tells_an_end_from_a_break() {
        let (predecessor, mut courier) = played();
        for whole in [true, false] {
            let (opened, mut far) = tokio::join!(open(&predecessor), async {
                let (question, mut far) = asked(&mut courier).await;
                assert!(matches!(question, Question::Open { tunnel, remote, proto }
                    if tunnel == "web" && remote == "127.0.0.1:1" && proto == "tcp"));
                far.send(&Answer::Opened { half_close: false }, &[]).await.unwrap();
                let (stream, already) = far.into_parts();
                WebSocket::new(stream, Role::Server, already, SIZES).with_half_close()
            });
            let mut lane = opened.unwrap().unwrap();
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
            let (opened, ()) = tokio::join!(open(&predecessor), async {
                let (_, mut far) = asked(&mut courier).await;
                far.send(&Answer::Refused(refusal), &[]).await.unwrap();
            });
            assert_eq!(opened.map(|opened| opened.err()), error.map(Some), "{refusal:?}");
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
        assert!(!predecessor.is_alive() && open(&predecessor).await.is_none());
        assert_eq!(predecessor.claim("id", None).await.err(), Some(ClaimError::Unknown));
        assert!(open(&Predecessor::none()).await.is_none());
        Predecessor::none().ended().await;
    }
}
