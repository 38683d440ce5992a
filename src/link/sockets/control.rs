//! The relay's end of one control socket: notifies, pings, judges liveness, and ends it with the right code.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::{End, Session};
use crate::proto::close;
use crate::proto::frame::Role;
use crate::proto::limits::Limits;
use crate::proto::message::ToClient;
use crate::stream::messages::{Event, Messages, MessagesError};

/// A replaced session that answers a ping in this time is another live process.
const REPLACED_PONG_WAIT: Duration = Duration::from_secs(5);

/// How a control socket ended, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// We ended it.
    ByUs(End),
    /// The client closed or dropped it.
    ByClient,
    /// No pong, or a message not taken, for too long.
    Silent,
    /// The client broke the protocol.
    Protocol,
    /// A message of the client was over the limit.
    TooBig,
}

impl From<MessagesError> for Ended {
    fn from(error: MessagesError) -> Self {
        match error {
            MessagesError::Broken(_) => Self::ByClient,
            MessagesError::Stuck => Self::Silent,
            MessagesError::TooBig => Self::TooBig,
            MessagesError::Protocol(_) => Self::Protocol,
        }
    }
}

/// Serves one control socket until it ends. `already` is what was read behind the handshake.
pub async fn run<IO>(
    session: Arc<Session>,
    io: IO,
    already: Vec<u8>,
    said: mpsc::Receiver<ToClient>,
    limits: &Limits,
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let gone = session.gone.clone().drop_guard();
    let mut socket = Messages::new(io, Role::Server, already, limits.control_message_bytes).await;
    let ended = serve(&mut socket, &session, said, limits).await;
    // Viewers that wait learn it now and not after the goodbye.
    drop(gone);
    session.forget_lanes();
    let (code, reason) = match ended {
        Ended::ByUs(end) => end.close(),
        // If it reads this at all, it must not take it for the end of its tunnel.
        Ended::ByClient => (close::GOING_AWAY, ""),
        Ended::Silent => (close::GOING_AWAY, "no pong"),
        Ended::Protocol => (close::PROTOCOL_ERROR, "protocol error"),
        Ended::TooBig => (close::TOO_BIG, "message too big"),
    };
    socket.close(code, reason).await;
    ended
}

async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Messages<IO>,
    session: &Session,
    mut said: mpsc::Receiver<ToClient>,
    limits: &Limits,
) -> Ended {
    // The first tick is at once: a client learns early that the way back works.
    let mut pings = interval(limits.ping_every);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_pong = Instant::now();
    loop {
        let step = tokio::select! {
            biased;
            () = session.ending.cancelled() => return end_by_us(socket, session).await,
            message = said.recv() => match message {
                Some(message) => socket.text(message.to_json()).await,
                None => return Ended::ByClient,
            },
            // Before what comes: a client that sends without pause is judged all the same.
            () = sleep_until(last_pong + limits.pong_wait) => return Ended::Silent,
            _ = pings.tick() => socket.ping(Bytes::new()).await,
            event = socket.next() => match event {
                Ok(Event::Pong(_)) => {
                    last_pong = Instant::now();
                    Ok(())
                }
                // Base clients say nothing; what they say is ignored.
                Ok(Event::Message(_)) => Ok(()),
                Ok(Event::Closed(_)) => return Ended::ByClient,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = step {
            return error.into();
        }
    }
}

async fn end_by_us<IO: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Messages<IO>,
    session: &Session,
) -> Ended {
    let end = session.end_reason().unwrap_or(End::Restart);
    if end == End::Replaced && !answers_a_ping(socket).await {
        return Ended::Silent;
    }
    Ended::ByUs(end)
}

async fn answers_a_ping<IO: AsyncRead + AsyncWrite + Unpin>(socket: &mut Messages<IO>) -> bool {
    let payload = Bytes::from_static(b"replaced?");
    let asked = async {
        socket.ping(payload.clone()).await.ok()?;
        loop {
            match socket.next().await.ok()? {
                Event::Pong(answer) if answer == payload => return Some(()),
                Event::Closed(_) => return None,
                _ => {}
            }
        }
    };
    matches!(timeout(REPLACED_PONG_WAIT, asked).await, Ok(Some(())))
}
