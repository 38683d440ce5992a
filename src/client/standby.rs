//! Standby data sockets: opened in advance, so that a first viewer waits for no handshake.

use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::connector::SocketError;
use super::retry::Retry;
use super::serve::{DataSocket, Server};
use super::text::percent_encode;
use crate::proto::limits::client::{CONNECT_WAIT, CONTROL_MESSAGE_BYTES};
use crate::proto::message::{Connection, ToClient};
use crate::stream::Duplex;
use crate::stream::handshake::ConnectError;

/// Between two pings of ours; a relay that has not answered by the next one is not at the other end any more.
const PING_EVERY: Duration = Duration::from_secs(30);

/// After one that ended unassigned (`protocol.md`, section 8.4).
const AFTER_END: Duration = Duration::from_secs(1);
/// After one that the relay has refused, unless it says meanwhile what it wants.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// Keeps as many sockets as `want` says. `assigned` is called with each one that has become a connection, its id and its viewer; the
/// next is opened at once. Fewer are reached by the relay closing some: it alone knows which it has not assigned. Never
/// ends; dropping it ends the sockets that wait.
pub(super) async fn keep(
    server: &Server,
    mut want: watch::Receiver<usize>,
    assigned: impl Fn(String, Option<String>, DataSocket),
) {
    let (mut held, mut retry) = (FuturesUnordered::new(), Retry::default());
    let (mut next, mut refused) = (Instant::now(), false);
    loop {
        let wanted = *want.borrow_and_update();
        let now = Instant::now();
        while held.len() < wanted && now >= next {
            held.push(async move { (now, hold(server).await) });
        }
        let lacking = held.len() < wanted;
        tokio::select! {
            Some((began, ended)) = held.next(), if !held.is_empty() => match ended {
                Ok((connection, socket)) => {
                    assigned(connection.id, connection.remote_addr, socket);
                    retry = Retry::default();
                }
                Err(error) => {
                    tracing::debug!(%error, "standby socket not held");
                    retry.after(began.elapsed());
                    refused = error.is_refusal();
                    let wait = if refused { AFTER_REFUSAL + retry.next() } else { retry.next().max(AFTER_END) };
                    next = Instant::now() + wait;
                }
            },
            changed = want.changed() => match changed {
                // The relay wants some again, whatever it has said before.
                Ok(()) if refused => (next, refused) = (Instant::now(), false),
                Ok(()) => {}
                Err(_) => return,
            },
            () = sleep_until(next), if lacking => {}
        }
    }
}

/// Why there is no socket, or no more.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    NotOpened(#[from] SocketError),
    #[error("the relay does not answer")]
    Silent,
    #[error("the relay closed it")]
    Closed,
    #[error("what came first was no connection of this socket")]
    Nonsense,
    #[error(transparent)]
    Broken(#[from] std::io::Error),
}

impl Failure {
    /// The relay has heard us, and wants no such socket now.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::NotOpened(SocketError::Handshake(ConnectError::Refused { .. })))
    }
}

/// Opens a socket and waits until it is assigned: its connection, and itself.
async fn hold(server: &Server) -> Result<(Connection, DataSocket), Failure> {
    let id = Uuid::new_v4().to_string();
    let mut path = format!("/ws/data?tunnel_id={}&id={id}", percent_encode(&server.tunnel));
    if let Some(welcome) = server.welcome.get() {
        // Of several clients of a tunnel, each has its own.
        path = format!("{path}&session={}", percent_encode(&welcome.session));
    }
    // Boxed: what a handshake needs is given back while the socket waits.
    let opened = timeout(CONNECT_WAIT, Box::pin(server.connector.data(&path, server.level))).await;
    let opened = opened.unwrap_or(Err(SocketError::Handshake(ConnectError::BadAnswer)))?;
    let mut socket = server.socket(opened);
    let mut text = BytesMut::new();
    loop {
        let came = poll_fn(|cx| socket.poll_message(cx, &mut text, CONTROL_MESSAGE_BYTES));
        let Ok(message) = timeout(PING_EVERY, came).await else {
            if !socket.ponged() {
                return Err(Failure::Silent);
            }
            socket.ping();
            timeout(CONNECT_WAIT, socket.flush()).await.map_err(|_| Failure::Silent)??;
            continue;
        };
        match ToClient::from_json(&message?.ok_or(Failure::Closed)?) {
            ToClient::Connection(connection) if connection.id == id => return Ok((connection, socket)),
            _ => return Err(Failure::Nonsense),
        }
    }
}
