//! Standby data sockets: opened in advance, so that a first viewer waits for no handshake.

use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::connector::SocketError;
use super::retry::Retry;
use super::serve::{DataSocket, Server};
use super::text::percent_encode;
use crate::proto::close;
use crate::proto::limits::client::{CONNECT_WAIT, CONTROL_MESSAGE_BYTES, STANDBY};
use crate::proto::message::ToClient;
use crate::stream::Duplex;
use crate::stream::handshake::ConnectError;

/// Between two pings of ours; a relay that has not answered by the next one is not at the other end any more.
const PING_EVERY: Duration = Duration::from_secs(30);
/// For a close frame to go out.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Keeps as many sockets as `want` says, `STANDBY` at most. `assigned` is called with each one that has become a
/// connection, and its id; the next is opened at once. Never ends; dropping it ends the sockets that wait.
pub(super) async fn keep(
    server: &Server,
    want: &watch::Receiver<usize>,
    assigned: impl Fn(String, DataSocket),
) {
    // Most sessions hold none, and then nothing is set aside for them.
    changed(&mut want.clone(), |want| want > 0).await;
    join_all((0..STANDBY).map(|nth| slot(server, nth, want.clone(), &assigned))).await;
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
        matches!(self, Self::NotOpened(SocketError::Handshake(ConnectError::Refused { .. })) | Self::Nonsense)
    }
}

/// The socket number `nth`, over and over, whenever more than that are wanted.
async fn slot(
    server: &Server,
    nth: usize,
    mut want: watch::Receiver<usize>,
    assigned: &impl Fn(String, DataSocket),
) {
    let mut retry = Retry::default();
    while changed(&mut want, |want| want > nth).await {
        let (began, mut socket) = (Instant::now(), None);
        let held = tokio::select! {
            held = hold(server, &mut socket) => held,
            _ = changed(&mut want, |want| want <= nth) => {
                if let Some(mut socket) = socket {
                    let _ = timeout(CLOSE_WAIT, poll_fn(|cx| socket.poll_close(cx, close::DONE))).await;
                }
                continue;
            }
        };
        let error = match (held, socket) {
            (Ok(id), Some(socket)) => {
                assigned(id, socket);
                retry = Retry::default();
                continue;
            }
            // The socket, if there is one, ends here.
            (held, _) => held.err().unwrap_or(Failure::Closed),
        };
        tracing::debug!(%error, "standby socket not held");
        retry.after(began.elapsed());
        let wait = if error.is_refusal() { retry.refused() } else { retry.next() };
        tokio::select! {
            () = sleep(wait) => {}
            _ = changed(&mut want, |want| want <= nth) => {}
        }
    }
}

/// Waits until the number is as `wanted`; `false`: it will not change any more.
async fn changed(want: &mut watch::Receiver<usize>, wanted: impl Fn(usize) -> bool) -> bool {
    want.wait_for(|want| wanted(*want)).await.is_ok()
}

/// Opens a socket and waits until it is assigned: the id of its connection.
async fn hold(server: &Server, place: &mut Option<DataSocket>) -> Result<String, Failure> {
    let id = Uuid::new_v4().to_string();
    let path = format!("/ws/data?tunnel_id={}&id={id}", percent_encode(&server.tunnel));
    // Boxed: what a handshake needs is given back while the socket waits.
    let opened = timeout(CONNECT_WAIT, Box::pin(server.connector.data(&path, server.level))).await;
    let opened = opened.unwrap_or(Err(SocketError::Handshake(ConnectError::BadAnswer)))?;
    let socket = place.insert(server.socket(opened));
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
            ToClient::Connection(connection) if connection.id == id => return Ok(id),
            // Of a later version.
            ToClient::Unknown => {}
            _ => return Err(Failure::Nonsense),
        }
    }
}
