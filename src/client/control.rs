//! The client's end of one control socket: hears of connections, pings, and judges whether the relay is alive.

use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::dial::RelayIo;
use crate::proto::close;
use crate::proto::frame::Role;
use crate::proto::limits::client::{PING_EVERY, PONG_WAIT, WAKE_PONG_WAIT};
use crate::proto::message::ToClient;
use crate::stream::messages::{Event, Messages, MessagesError};

/// Bytes of one control message, as on the relay's side; a larger one ends the socket.
const MAX_MESSAGE: usize = 64 * 1024;

/// How a control socket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// Close code 1000: the tunnel is over. The relay's reason.
    Done(String),
    /// Anything else; why, as a sentence.
    Lost(String),
    /// We were asked to stop, and have said goodbye.
    Stopped,
}

/// A control socket after its handshake.
pub(super) struct Control {
    socket: Messages<RelayIo>,
    /// When the next ping goes out.
    ping_at: Instant,
    /// When the pong to the last one must be there.
    pong_by: Option<Instant>,
}

impl Control {
    /// `already` is what was read behind the handshake.
    pub(super) async fn new(io: RelayIo, already: BytesMut) -> Self {
        let socket = Messages::new(io, Role::Client, already.into(), MAX_MESSAGE).await;
        Self { socket, ping_at: Instant::now() + PING_EVERY, pong_by: None }
    }

    /// Serves until the end; `claim` is called with the id of each connection and must not wait.
    pub(super) async fn run(
        &mut self,
        stop: &CancellationToken,
        mut woken: watch::Receiver<u64>,
        mut claim: impl FnMut(String),
    ) -> Ended {
        woken.mark_unchanged();
        let mut stopped = pin!(stop.cancelled());
        loop {
            let next = self.pong_by.unwrap_or(self.ping_at);
            let step = tokio::select! {
                biased;
                () = &mut stopped => {
                    self.socket.close(close::DONE, "").await;
                    return Ended::Stopped;
                }
                // Before the deadline: after a stop of this process the pong may lie there, as late as we are.
                event = self.socket.next() => match event {
                    Ok(Event::Message(message)) => {
                        heard(&message, &mut claim);
                        Ok(())
                    }
                    Ok(Event::Pong(_)) => {
                        self.pong_by = None;
                        Ok(())
                    }
                    Ok(Event::Closed(frame)) => {
                        let ended = ended_by(frame);
                        // The answer to its goodbye.
                        self.socket.close(close::DONE, "").await;
                        Err(ended)
                    }
                    Err(error) => Err(Ended::Lost(describe(&error))),
                },
                Ok(()) = woken.changed() => {
                    let sent = self.ping().await;
                    self.pong_by = Some(Instant::now() + WAKE_PONG_WAIT);
                    sent
                }
                () = sleep_until(next) => match self.pong_by {
                    Some(_) => Err(Ended::Lost("the relay does not answer any more".into())),
                    None => self.ping().await,
                },
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        (self.ping_at, self.pong_by) = (now + PING_EVERY, Some(now + PONG_WAIT));
        self.socket.ping(Bytes::new()).await.map_err(|error| Ended::Lost(describe(&error)))
    }
}

fn heard(message: &[u8], claim: &mut impl FnMut(String)) {
    match ToClient::from_json(message) {
        ToClient::Connection(connection) => claim(connection.id),
        // Of a later version, or nonsense: neither may end a session.
        _ => tracing::debug!("control message ignored"),
    }
}

fn ended_by(frame: Option<(u16, String)>) -> Ended {
    let Some((code, reason)) = frame else { return Ended::Lost("the relay closed the connection".into()) };
    if code == close::DONE {
        return Ended::Done(reason);
    }
    let text = match code {
        close::RESTART => "the relay restarts".to_owned(),
        close::GOING_AWAY => "the relay went away".to_owned(),
        close::POLICY => "the relay does not accept this key any more".to_owned(),
        _ => format!("the relay closed the connection with code {code}"),
    };
    Ended::Lost(if reason.is_empty() || code == close::RESTART { text } else { format!("{text} ({reason})") })
}

fn describe(error: &MessagesError) -> String {
    match error {
        MessagesError::Broken(Some(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
            format!("the connection broke: {error}")
        }
        MessagesError::Broken(_) => "the connection broke".into(),
        MessagesError::Stuck => "the relay does not read any more".into(),
        MessagesError::TooBig => "the relay breaks the protocol: a message is too large".into(),
        MessagesError::Protocol(error) => format!("the relay breaks the protocol: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::stream::any::AnyStream;

    /// A control socket, the relay's raw end of it, and the clock stopped.
    async fn pair() -> (Control, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let control = Control::new(RelayIo::Plain(AnyStream::Tcp(near.unwrap())), BytesMut::new()).await;
        tokio::time::pause();
        (control, far.unwrap().0)
    }

    #[tokio::test]
    async fn a_relay_that_answers_no_ping_is_lost() {
        let (mut control, _far) = pair().await;
        let (_woken, woken) = watch::channel(0);
        let began = Instant::now();
        let ended = control.run(&CancellationToken::new(), woken, |_| {}).await;
        assert!(matches!(ended, Ended::Lost(_)));
        assert_eq!(began.elapsed().as_secs(), (PING_EVERY + PONG_WAIT).as_secs());
    }

    #[tokio::test]
    async fn after_sleep_the_relay_must_answer_at_once() {
        let (mut control, mut far) = pair().await;
        let stop = CancellationToken::new();
        let (wake, woken) = watch::channel(0);
        let began = Instant::now();
        let (ended, ping) = tokio::join!(control.run(&stop, woken, |_| {}), async {
            // Not before the session has taken note of where the count stands.
            tokio::task::yield_now().await;
            wake.send(1).unwrap();
            let mut ping = [0; 6];
            far.read_exact(&mut ping).await.unwrap();
            ping
        });
        assert!(matches!(ended, Ended::Lost(_)));
        assert_eq!(ping[..2], [0x89, 0x80]);
        assert_eq!(began.elapsed().as_secs(), WAKE_PONG_WAIT.as_secs());
    }

    #[tokio::test]
    async fn pings_of_the_relay_are_answered_and_large_messages_end_it() {
        let (mut control, mut far) = pair().await;
        tokio::time::resume();
        let stop = CancellationToken::new();
        let (_woken, woken) = watch::channel(0);
        let (ended, pong) = tokio::join!(control.run(&stop, woken, |_| {}), async {
            far.write_all(&[0x89, 1, b'x']).await.unwrap();
            let mut pong = [0; 7];
            far.read_exact(&mut pong).await.unwrap();
            far.write_all(&[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0]).await.unwrap();
            pong
        });
        assert_eq!(pong[..2], [0x8a, 0x81]);
        assert!(matches!(ended, Ended::Lost(text) if text.contains("breaks the protocol")));
    }
}
