//! The predecessor's answers: claims of clients that dialled the successor, and streams for viewers of the successor.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::claim::claim;
use crate::link::peer::{Answer, Dialled, Holder, Question, Refusal};
use crate::link::sockets::{Bearer, ClaimError};
use crate::link::{Ask, Lane, OpenError, Rejection};
use crate::proto::frame::Role;
use crate::relay::{Shared, reach};
use crate::stream::courier::Courier;
use crate::stream::splice::{HalfClose, Moved, splice};
use crate::stream::websocket::{Sizes, WebSocket};

/// From the socket to the question, and from a good claim to the data socket, whose handshake has to end before.
const WAIT: Duration = Duration::from_secs(10);
/// Bytes behind the handshake of a data socket: what the front may have read of them.
const MOST_ALREADY: usize = 1024 * 1024;

/// Answers one question that comes over `stream`, and does what follows from the answer.
pub async fn answer(shared: Arc<Shared>, stream: UnixStream) {
    let mut courier = Courier::new(stream);
    let Ok(Ok(Some(question))) = timeout(WAIT, courier.receive()).await else { return };
    let done = match question {
        Question::Claim { id, bearer } => answer_claim(&shared, courier, &id, bearer.as_ref()).await,
        Question::Open { tunnel, remote, proto } => {
            answer_open(&shared, courier, &tunnel, &remote, &proto).await
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, "a question of the successor ended early");
    }
}

async fn answer_claim(
    shared: &Shared,
    mut courier: Courier,
    id: &str,
    holder: Option<&Holder>,
) -> std::io::Result<()> {
    let bearer = holder.map(|holder| Bearer { owner: &holder.owner, tunnel: holder.tunnel.as_deref() });
    let claimed = match claim(&shared.pending, &shared.predecessor, id, bearer).await {
        Ok(claimed) => claimed,
        Err(error) => {
            let refusal = match error {
                ClaimError::Unknown => Refusal::Unknown,
                ClaimError::Foreign => Refusal::Foreign,
                ClaimError::KeyNeeded => Refusal::KeyNeeded,
            };
            return courier.send(&Answer::Refused(refusal), &[]).await;
        }
    };
    let dialled = async {
        courier.send(&Answer::Claimed, &[]).await?;
        let Some(Dialled { already }) = courier.receive().await? else { return Ok(None) };
        let Some(socket) = courier.take_descriptor().filter(|_| already <= MOST_ALREADY) else {
            return Ok(None);
        };
        let (mut stream, mut bytes) = courier.into_parts();
        while bytes.len() < already {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        }
        std::io::Result::Ok(Some((socket, bytes)))
    };
    match timeout(WAIT, dialled).await {
        Ok(Ok(Some((socket, already)))) => {
            claimed.deliver(socket, already, Sizes::from(&shared.config.limits)).await
        }
        Ok(Err(error)) => Err(error),
        _ => Ok(()),
    }
}

async fn answer_open(
    shared: &Shared,
    mut courier: Courier,
    tunnel: &str,
    remote: &str,
    proto: &str,
) -> std::io::Result<()> {
    tracing::debug!(tunnel, remote, "a viewer of the successor");
    let mut lane = match open(shared, tunnel, remote, proto).await {
        Ok(lane) => lane,
        Err(answer) => return courier.send(&answer, &[]).await,
    };
    let half_close = lane.stream.half_closes();
    courier.send(&Answer::Opened { half_close }, &[]).await?;
    let (stream, already): (_, BytesMut) = courier.into_parts();
    // An end is passed on as one; what breaks off is dropped without a word, on both sides.
    let mut peer =
        WebSocket::new(stream, Role::Server, already, Sizes::from(&shared.config.limits)).with_half_close();
    let half_close = if half_close { HalfClose::Kept } else { HalfClose::EndsBoth };
    // The successor judges for how long an exchange may be silent.
    let idle = shared.config.limits.idle_upgraded;
    // A rejection after the claim is not passed on: the client closes its side, or the viewer leaves.
    splice(&mut peer, lane.stream.as_mut(), half_close, idle, &mut Moved::default()).await
}

/// A fresh stream to the client of `tunnel`.
async fn open(shared: &Shared, tunnel: &str, remote: &str, proto: &str) -> Result<Lane, Answer> {
    let unknown = || Answer::Refused(Refusal::Unknown);
    let tunnel = shared.registry.by_name(tunnel).ok_or_else(unknown)?;
    let remote = remote.parse().map_err(|_| unknown())?;
    let ask = Ask { resendable: false, remote, proto: proto.parse().unwrap_or_default(), unused: true };
    let claimed = match shared.ending.leaving.is_cancelled() {
        false => reach::claim(&tunnel, ask, shared.config.limits.claim_wait).await,
        true => None,
    };
    let opened = match claimed {
        Some(opened) => opened,
        None => shared.predecessor.open(&tunnel.name, ask).await.ok_or_else(unknown)?,
    };
    opened.map_err(|error| match error {
        OpenError::NotClaimed => Answer::Refused(Refusal::NotClaimed),
        OpenError::TooManyWaiting => Answer::Refused(Refusal::TooManyWaiting),
        OpenError::Rejected(Rejection { reason, message }) => Answer::Rejected { reason, message },
        OpenError::ClientGone | OpenError::Draining => unknown(),
    })
}
