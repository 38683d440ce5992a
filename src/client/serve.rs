//! One data socket: claimed from the relay, joined to the target, copied both ways until both ended.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::claims::Claim;
use super::connector::{Connector, SocketError};
use super::dial::RelayIo;
use super::event::{Connected, Events};
use super::lend;
use super::observe::{Observed, Observer};
use super::page;
use super::target::{Fault, Serve, Target, TargetError, TargetIo};
use super::text::percent_encode;
use crate::proto::close;
use crate::proto::control::client::duration;
use crate::proto::frame::Role;
use crate::proto::limits::client::CONNECT_WAIT;
use crate::proto::message::{Level, Reject, ToRelay, Welcome};
use crate::stream::Duplex;
use crate::stream::handshake::{ConnectError, Opened};
use crate::stream::splice::{HalfClose, Moved, splice};
use crate::stream::websocket::{Sizes, WebSocket};

/// Buffers grow to this while bytes fill them. Our messages may be of any length (`protocol.md`, section 4).
const BUFFER: usize = 1024 * 1024;
/// Bytes of a message to a relay of the base protocol, which may gather each message before it passes it on.
const BASE_MESSAGE: usize = 256 * 1024;
/// The relay judges when an exchange has been idle for too long; this only bounds a relay that never does.
pub(super) const IDLE: Duration = Duration::from_secs(24 * 3600);
/// For the relay to take the last bytes: closing before would discard what is under way.
const LINGER: Duration = Duration::from_secs(5);
/// For the head of a request that gets our own answer.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// Bytes of that head, as the relay limits it.
const MAX_HEAD: usize = 64 * 1024;
/// A relay that gives less time than this for a claim is tried all the same.
const LEAST_CLAIM_WAIT: Duration = Duration::from_secs(1);
/// One that gives more is not believed: its sockets would pile up here.
const MOST_CLAIM_WAIT: Duration = Duration::from_secs(60);
/// Characters of a rejection's message, as the protocol has it.
const MAX_REJECT_MESSAGE: usize = 1000;

pub(super) type DataSocket = WebSocket<RelayIo>;

/// What all data sockets of a control session need.
pub(super) struct Server {
    pub(super) connector: Arc<Connector>,
    pub(super) target: Target,
    /// Bytes are passed on as they are; nothing of them is HTTP.
    pub(super) raw: bool,
    pub(super) events: Events,
    /// Id of the tunnel.
    pub(super) tunnel: String,
    pub(super) level: Level,
    /// To the relay, over the control socket.
    pub(super) say: mpsc::Sender<ToRelay>,
    /// The numbers of the session, once it has told them.
    pub(super) welcome: OnceLock<Welcome>,
}

impl Server {
    /// Takes up the connection `id` and serves it to its end. `claim` can end it until its data socket is open.
    pub(super) async fn serve(self: Arc<Self>, id: String, remote: Option<String>, claim: Option<Claim>) {
        if let Some(service) = self.target.here() {
            let claimed = tokio::select! {
                claimed = self.claim(&id) => claimed,
                () = cancelled(claim.as_ref()) => return tracing::debug!("connection cancelled"),
            };
            drop(claim);
            return match claimed {
                Ok(socket) => self.lend(socket, service).await,
                Err(error) => self.not_claimed(id, &error).await,
            };
        }
        match self.take_up(&id, claim).await {
            Ok((mut socket, dialled)) => self.join(id, remote, &mut socket, dialled).await,
            Err(NotTaken::Unclaimed(error)) => self.not_claimed(id, &error).await,
            Err(NotTaken::Unreachable) => tracing::debug!("connection rejected"),
            Err(NotTaken::Cancelled) => tracing::debug!("connection cancelled"),
        }
    }

    /// Opens both ways at the same time.
    async fn take_up(
        &self,
        id: &str,
        claim: Option<Claim>,
    ) -> Result<(DataSocket, Result<TargetIo, TargetError>), NotTaken> {
        // The target is dialled first only by a moment: a relay that has withdrawn the connection costs it an empty one.
        let (mut dialling, mut dialled) = (pin!(self.target.connect()), None);
        let claimed = {
            let (mut claiming, mut cancelled) = (pin!(self.claim(id)), pin!(cancelled(claim.as_ref())));
            loop {
                tokio::select! {
                    claimed = &mut claiming => break claimed.map_err(NotTaken::Unclaimed),
                    reached = &mut dialling, if dialled.is_none() => match reached {
                        // Its viewer need not wait for a socket that would only say so. Said before the claim is given
                        // up: the relay may have taken it, and would see a socket that ends without a word.
                        Err(error) if self.level == Level::Two => {
                            self.reject(id.to_owned(), &error).await;
                            break Err(NotTaken::Unreachable);
                        }
                        reached => dialled = Some(reached),
                    },
                    () = &mut cancelled => break Err(NotTaken::Cancelled),
                }
            }
        };
        // From here on the relay ends it by closing the socket.
        drop(claim);
        let socket = claimed?;
        let dialled = match dialled {
            Some(dialled) => dialled,
            None => dialling.await,
        };
        Ok((socket, dialled))
    }

    /// Serves a standby socket that has become the connection `id`.
    pub(super) async fn serve_assigned(
        self: Arc<Self>,
        id: String,
        remote: Option<String>,
        mut socket: DataSocket,
        claim: Option<Claim>,
    ) {
        if let Some(service) = self.target.here() {
            drop(claim);
            return self.lend(socket, service).await;
        }
        let dialled = tokio::select! {
            dialled = self.target.connect() => dialled,
            () = cancelled(claim.as_ref()) => return tracing::debug!("connection cancelled"),
        };
        drop(claim);
        self.join(id, remote, &mut socket, dialled).await;
    }

    async fn join(
        &self,
        id: String,
        remote: Option<String>,
        socket: &mut DataSocket,
        dialled: Result<TargetIo, TargetError>,
    ) {
        match (dialled, self.level) {
            (Ok(target), _) if self.raw => self.copy_raw(socket, target, remote).await,
            (Ok(target), _) => self.copy(socket, target).await,
            (Err(error), Level::Base) => {
                tracing::debug!(%error, "target not reached");
                self.events.target_down(error.clone());
                match self.raw {
                    true => socket.get_ref().reset_on_close(),
                    false => refuse(socket, &error).await,
                }
            }
            (Err(error), Level::Two) => {
                self.reject(id, &error).await;
                linger(socket).await;
            }
        }
    }

    /// Tells the relay that the target cannot be reached.
    async fn reject(&self, id: String, error: &TargetError) {
        tracing::debug!(%error, "target not reached");
        self.events.target_down(error.clone());
        let message: String = format!("{error}. {}", error.fix()).chars().take(MAX_REJECT_MESSAGE).collect();
        let reject = Reject { id, reason: error.code().to_owned(), message: Some(message) };
        // The queue is as long as its session takes to send; one that has ended needs no answer.
        let _ = timeout(LINGER, self.say.send(ToRelay::Reject(reject))).await;
    }

    /// A viewer whose data socket cannot even be dialled, as when descriptors have run out, need not wait for it.
    async fn not_claimed(&self, id: String, error: &SocketError) {
        tracing::debug!(%error, "connection not taken up");
        if self.level == Level::Two && matches!(error, SocketError::Dial(_)) {
            let message = Some("the client cannot open one more connection: try again later".to_owned());
            let reject = Reject { id, reason: "busy".to_owned(), message };
            let _ = timeout(LINGER, self.say.send(ToRelay::Reject(reject))).await;
        }
    }

    async fn claim(&self, id: &str) -> Result<DataSocket, SocketError> {
        let path = format!("/ws/data?id={}", percent_encode(id));
        let told = self
            .welcome
            .get()
            .map(|welcome| duration(welcome.claim_ms).clamp(LEAST_CLAIM_WAIT, MOST_CLAIM_WAIT));
        let wait = told.unwrap_or(CONNECT_WAIT);
        let mut tries = 0;
        loop {
            let opened = timeout(wait, self.connector.data(&path, self.level)).await;
            tries += 1;
            match opened {
                Ok(Ok(opened)) => return Ok(self.socket(opened)),
                // A failed try does not use up the id.
                Ok(Err(error))
                    if tries == 1
                        && !matches!(error, SocketError::Handshake(ConnectError::Refused { .. })) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(SocketError::Handshake(ConnectError::BadAnswer)),
            }
        }
    }

    /// A data socket after its handshake.
    pub(super) fn socket(&self, opened: Opened<RelayIo>) -> DataSocket {
        let socket = |message| {
            WebSocket::new(opened.io, Role::Client, opened.already, Sizes { buffer: BUFFER, message })
        };
        match self.level {
            Level::Base => socket(BASE_MESSAGE),
            Level::Two => socket(BUFFER).with_half_close(),
        }
    }

    /// Lets the service of this program serve `socket`. Where `remote_addr` is at hand, it goes in the place of `None`.
    async fn lend(&self, socket: DataSocket, service: &dyn Serve) {
        if let Some((mut socket, ended)) = lend::serve(socket, service, &self.events).await {
            finish(&mut socket, None, ended).await;
        }
    }

    /// Nothing of it is looked at; it is told when it is over.
    async fn copy_raw(&self, socket: &mut DataSocket, mut target: TargetIo, viewer: Option<String>) {
        let (began, mut moved) = (Instant::now(), Moved::default());
        let ended = copy_both(socket, &mut target, &mut moved).await;
        if self.events.wants_requests() {
            // Towards the target is what the data socket gave.
            let Moved { inward: bytes_out, outward: bytes_in } = moved;
            let whole = ended.is_ok();
            self.events.connection(Connected {
                viewer,
                duration: began.elapsed(),
                bytes_in,
                bytes_out,
                whole,
            });
        }
        finish(socket, Some(target), ended).await;
    }

    async fn copy(&self, socket: &mut DataSocket, mut target: TargetIo) {
        // Of HTTP/2 nothing is read on its way.
        if !self.events.wants_requests() || self.target.speaks_http2() {
            let ended = copy_both(socket, &mut target, &mut Moved::default()).await;
            return finish(socket, Some(target), ended).await;
        }
        let mut observed = Observed::new(target, Observer::new(), self.events.clone());
        let ended = copy_both(socket, &mut observed, &mut Moved::default()).await;
        if observed.finish() {
            let error = "it answers in TLS to plain HTTP".to_owned();
            self.events.target_down(TargetError::new(&self.target, Fault::NotPlain, error));
        }
        finish(socket, Some(observed.into_inner()), ended).await;
    }
}

/// Why there is no data socket.
enum NotTaken {
    Unclaimed(SocketError),
    Unreachable,
    Cancelled,
}

async fn cancelled(claim: Option<&Claim>) {
    match claim {
        Some(claim) => claim.cancelled().await,
        None => pending().await,
    }
}

async fn copy_both<T>(socket: &mut DataSocket, target: &mut T, moved: &mut Moved) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
{
    let half_close = if socket.half_closes() { HalfClose::Kept } else { HalfClose::EndsBoth };
    splice(target, socket, half_close, IDLE, moved).await
}

/// Lets the relay read to the end; after an error, makes the end look like one, on both sides.
async fn finish(socket: &mut DataSocket, target: Option<TargetIo>, ended: io::Result<()>) {
    let (broken, half_closes) = (ended.is_err(), socket.half_closes());
    if let Err(error) = ended {
        tracing::debug!(%error, "data socket broke off");
        if let Some(target) = &target {
            target.reset_on_close();
        }
    }
    drop(target);
    match (half_closes, broken) {
        (false, false) => linger(socket).await,
        // A plain end here would make a body that was cut short look complete.
        (false, true) => socket.get_ref().reset_on_close(),
        (true, _) => {
            let code = if broken { close::INTERNAL } else { close::DONE };
            let closing = async {
                poll_fn(|cx| socket.poll_close(cx, code)).await?;
                poll_fn(|cx| socket.poll_gone(cx)).await;
                io::Result::Ok(())
            };
            if !matches!(timeout(LINGER, closing).await, Ok(Ok(()))) && broken {
                socket.get_ref().reset_on_close();
            }
        }
    }
}

/// Waits for the relay's end, throwing away what still comes.
async fn linger(socket: &mut DataSocket) {
    let drained = async { while let Ok(Some(_)) = poll_fn(|cx| socket.poll_chunk(cx)).await {} };
    let _ = timeout(LINGER, drained).await;
}

/// Answers the request in the target's place.
async fn refuse(socket: &mut DataSocket, error: &TargetError) {
    let mut head = BytesMut::new();
    let read = async {
        while head.len() < MAX_HEAD && !page::head_ends(&head) {
            match poll_fn(|cx| socket.poll_chunk(cx)).await {
                Ok(Some(chunk)) => head.extend_from_slice(&chunk),
                Ok(None) => return false,
                Err(_) => return false,
            }
        }
        true
    };
    // A connection on which nobody asks needs no answer.
    if !matches!(timeout(HEAD_WAIT, read).await, Ok(true)) {
        return;
    }
    let answer = page::bad_gateway(&head, error);
    let sent = async {
        socket.write_all(&answer).await?;
        socket.shutdown().await
    };
    if matches!(timeout(LINGER, sent).await, Ok(Ok(()))) {
        linger(socket).await;
    }
}
