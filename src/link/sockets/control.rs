//! The relay's end of one control socket: notifies, pings, judges liveness, and ends it with the right code.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::{End, Session};
use crate::proto::close;
use crate::proto::limits::Limits;
use crate::proto::message::ToClient;

/// A client that does not take a message off its control socket in this time is dead.
const SEND_WAIT: Duration = Duration::from_secs(10);
/// A replaced session that answers a ping in this time is another live process.
const REPLACED_PONG_WAIT: Duration = Duration::from_secs(5);
/// For the close handshake.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Sizes of the WebSocket library's buffers: its defaults cost an idle client over 100 KiB.
pub fn config(limits: &Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_write_buffer_size(128 * 1024)
        .max_message_size(Some(limits.control_message_bytes))
        .max_frame_size(Some(limits.control_message_bytes))
}

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

/// Serves one control socket until it ends. `already` is what was read behind the handshake.
pub async fn run<IO>(
    session: Arc<Session>,
    io: IO,
    already: Vec<u8>,
    said: mpsc::Receiver<ToClient>,
    limits: &Limits,
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Send + Unpin,
{
    let socket = WebSocketStream::from_partially_read(io, already, Role::Server, Some(config(limits))).await;
    let gone = session.gone.clone().drop_guard();
    let mut control = Control { socket, last_pong: Instant::now() };
    let ended = control.serve(&session, said, limits).await;
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
    control.close(code, reason).await;
    ended
}

struct Control<IO> {
    socket: WebSocketStream<IO>,
    last_pong: Instant,
}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin> Control<IO> {
    async fn serve(&mut self, session: &Session, mut said: mpsc::Receiver<ToClient>, limits: &Limits) -> Ended {
        // The first tick is at once: a client learns early that the way back works.
        let mut pings = interval(limits.ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                biased;
                () = session.ending.cancelled() => return self.end_by_us(session).await,
                message = said.recv() => match message {
                    Some(message) => self.send(Message::text(message.to_json())).await,
                    None => return Ended::ByClient,
                },
                // Before what comes: a client that sends without pause is judged all the same.
                () = sleep_until(self.last_pong + limits.pong_wait) => Err(Ended::Silent),
                _ = pings.tick() => self.send(Message::Ping(Bytes::new())).await,
                frame = self.socket.next() => self.received(frame).await,
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Ended> {
        match timeout(SEND_WAIT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::ByClient),
            Err(_) => Err(Ended::Silent),
        }
    }

    async fn received(&mut self, frame: Option<Result<Message, Error>>) -> Result<(), Ended> {
        match frame {
            Some(Ok(Message::Pong(_))) => self.last_pong = Instant::now(),
            // The library has queued the pong; it goes out with the flush.
            Some(Ok(Message::Ping(_))) => match timeout(SEND_WAIT, self.socket.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Ended::ByClient),
                Err(_) => return Err(Ended::Silent),
            },
            // Base clients say nothing; what they say is ignored.
            Some(Ok(Message::Text(_) | Message::Binary(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(_))) | None => return Err(Ended::ByClient),
            Some(Err(Error::Capacity(_))) => return Err(Ended::TooBig),
            Some(Err(Error::Protocol(_) | Error::Utf8(_))) => return Err(Ended::Protocol),
            Some(Err(_)) => return Err(Ended::ByClient),
        }
        Ok(())
    }

    async fn end_by_us(&mut self, session: &Session) -> Ended {
        let end = session.end_reason().unwrap_or(End::Restart);
        if end == End::Replaced && !self.answers_a_ping().await {
            return Ended::Silent;
        }
        Ended::ByUs(end)
    }

    async fn answers_a_ping(&mut self) -> bool {
        let payload = Bytes::from_static(b"replaced?");
        let asked = async {
            self.socket.send(Message::Ping(payload.clone())).await.ok()?;
            loop {
                match self.socket.next().await?.ok()? {
                    Message::Pong(answer) if answer == payload => return Some(()),
                    Message::Close(_) => return None,
                    _ => {}
                }
            }
        };
        matches!(timeout(REPLACED_PONG_WAIT, asked).await, Ok(Some(())))
    }

    /// Says goodbye and waits shortly for the answer, so that the code is not lost in a reset.
    async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let closing = async {
            // Refused after the client's own close frame; reading on then sends the answer to that.
            let _ = self.socket.close(Some(frame)).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        };
        let _ = timeout(CLOSE_WAIT, closing).await;
    }
}
