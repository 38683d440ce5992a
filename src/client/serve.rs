//! One data socket: claimed from the relay, joined to the target, copied both ways until either end closes.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::connector::{Connector, SocketError};
use super::dial::RelayIo;
use super::event::Events;
use super::observe::{Observed, Observer};
use super::page;
use super::target::{Fault, Target, TargetError, TargetIo};
use super::text::percent_encode;
use crate::proto::frame::Role;
use crate::proto::limits::client::CONNECT_WAIT;
use crate::stream::Duplex;
use crate::stream::handshake::{ConnectError, Opened};
use crate::stream::splice::{HalfClose, Moved, splice};
use crate::stream::websocket::{Sizes, WebSocket};

/// Buffers grow to a megabyte while bytes fill them. Our messages may be of any length (`protocol.md`, section 4);
/// relays that gather each message before they pass it on need not hold more than this.
const SIZES: Sizes = Sizes { buffer: 1024 * 1024, message: 256 * 1024 };
/// The relay judges when an exchange has been idle for too long; this only bounds a relay that never does.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// For the relay to take the last bytes: closing before would discard what is under way.
const LINGER: Duration = Duration::from_secs(5);
/// For the head of a request that gets our own answer.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// Bytes of that head, as the relay limits it.
const MAX_HEAD: usize = 64 * 1024;

type DataSocket = WebSocket<RelayIo>;

/// What all data sockets of a session need.
pub(super) struct Server {
    pub(super) connector: Arc<Connector>,
    pub(super) target: Target,
    pub(super) events: Events,
}

impl Server {
    /// Takes up the connection `id` and serves it to its end.
    pub(super) async fn serve(self: Arc<Self>, id: String) {
        // Both ways are opened at the same time. The target is dialled first only by a moment: a relay that has
        // withdrawn the connection costs it an empty one.
        let (mut claiming, mut dialling) = (pin!(self.claim(&id)), pin!(self.target.connect()));
        let (claimed, dialled) = tokio::select! {
            claimed = &mut claiming => match claimed {
                Ok(socket) => (Ok(socket), dialling.await),
                Err(error) => return tracing::debug!(%error, "connection not taken up"),
            },
            dialled = &mut dialling => (claiming.await, dialled),
        };
        let mut socket = match claimed {
            Ok(socket) => socket,
            Err(error) => return tracing::debug!(%error, "connection not taken up"),
        };
        match dialled {
            Ok(target) => self.copy(&mut socket, target).await,
            Err(error) => {
                tracing::debug!(%error, "target not reached");
                self.events.target_down(error.clone());
                refuse(&mut socket, &error).await;
            }
        }
    }

    async fn claim(&self, id: &str) -> Result<DataSocket, SocketError> {
        let path = format!("/ws/data?id={}", percent_encode(id));
        let mut tries = 0;
        loop {
            // No key: at base level the id alone is the right to the connection.
            let opened = timeout(CONNECT_WAIT, self.connector.websocket(&path, false)).await;
            tries += 1;
            match opened {
                Ok(Ok(Opened { io, already, .. })) => {
                    return Ok(WebSocket::new(io, Role::Client, already, SIZES));
                }
                // A failed try does not use up the id.
                Ok(Err(error))
                    if tries == 1
                        && !matches!(error, SocketError::Handshake(ConnectError::Refused { .. })) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(SocketError::Handshake(ConnectError::BadAnswer)),
            }
        }
    }

    async fn copy(&self, socket: &mut DataSocket, mut target: TargetIo) {
        if !self.events.wants_requests() {
            let ended = join(socket, &mut target).await;
            return finish(socket, ended).await;
        }
        let mut observed = Observed::new(target, Observer::new(), self.events.clone());
        let ended = join(socket, &mut observed).await;
        if observed.finish() {
            let error = "it answers in TLS to plain HTTP".to_owned();
            self.events.target_down(TargetError::new(&self.target, Fault::NotPlain, error));
        }
        drop(observed);
        finish(socket, ended).await;
    }
}

async fn join<T>(socket: &mut DataSocket, target: &mut T) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
{
    splice(target, socket, HalfClose::EndsBoth, IDLE, &mut Moved::default()).await
}

/// Lets the relay read to the end; after an error, makes the end look like one.
async fn finish(socket: &mut DataSocket, ended: io::Result<()>) {
    match ended {
        Ok(()) => linger(socket).await,
        Err(error) => {
            tracing::debug!(%error, "data socket broke off");
            // A plain end here would make a body that was cut short look complete.
            socket.get_ref().reset_on_close();
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
