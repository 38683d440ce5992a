//! Drives the client's end of one control socket: carries what its core wants sent, and what comes, until it ends.

use std::io;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::dial::RelayIo;
pub(super) use crate::proto::control::client::{Ended, Heard};
use crate::proto::control::{Output, client::ClientEnd};
use crate::proto::frame::Role;
use crate::proto::limits::client::CONTROL_MESSAGE_BYTES;
use crate::proto::message::{AuthResult, Level, ToRelay};
use crate::stream::messages::{Event, Messages, MessagesError};

/// Bytes of one control message of a base relay; a larger one ends the socket.
const BASE_MESSAGE_BYTES: usize = 64 * 1024;

/// A control socket after its handshake.
pub(super) struct Control {
    socket: Messages<RelayIo>,
    end: ClientEnd,
}

impl Control {
    /// `already` is what was read behind the handshake.
    pub(super) async fn new(io: RelayIo, already: BytesMut, level: Level) -> Self {
        let most = match level {
            Level::Base => BASE_MESSAGE_BYTES,
            Level::Two => CONTROL_MESSAGE_BYTES,
        };
        let socket = Messages::new(io, Role::Client, already.into(), most).await;
        Self { socket, end: ClientEnd::new(Instant::now().into_std(), level) }
    }

    /// What both sides speak.
    pub(super) fn level(&self) -> Level {
        self.end.level()
    }

    /// Serves until the end, which leaves [`Control::goodbye`] to be said: says what comes out of `said`, and calls `hear`,
    /// which must not wait, with what the relay says.
    pub(super) async fn run(
        &mut self,
        stop: &CancellationToken,
        mut woken: watch::Receiver<u64>,
        said: &mut mpsc::Receiver<ToRelay>,
        mut hear: impl FnMut(Heard),
    ) -> Ended {
        woken.mark_unchanged();
        let now = || Instant::now().into_std();
        let mut stopped = pin!(stop.cancelled());
        loop {
            if self.end.ended().is_none() {
                self.send().await;
            }
            if let Some(ended) = self.end.ended() {
                return ended.clone();
            }
            let next = Instant::from_std(self.end.timeout());
            tokio::select! {
                biased;
                () = &mut stopped => self.end.stop(),
                // Before the deadline: after a stop of this process the pong may lie there, as late as we are.
                event = self.socket.next() => match event {
                    Ok(Event::Message(message)) => match self.end.heard(now(), &message) {
                        Some(heard) => hear(heard),
                        None => tracing::debug!("control message ignored"),
                    },
                    Ok(Event::Pong(_)) => self.end.ponged(),
                    Ok(Event::Closed(frame)) => self.end.closed(frame),
                    Err(error) => self.end.lost(describe(&error)),
                },
                Some(message) = said.recv() => {
                    let auth = matches!(message, ToRelay::Auth { .. });
                    if !self.end.say(message) && auth {
                        let error = Some("the token is longer than this relay takes".to_owned());
                        hear(Heard::Auth(AuthResult { accepted: false, expires_in_ms: None, error }));
                    }
                }
                Ok(()) = woken.changed() => self.end.woke(now()),
                () = sleep_until(next) => self.end.wake(now()),
            }
        }
    }

    /// Says what is left to say and waits shortly for the other end to close.
    pub(super) async fn goodbye(mut self) {
        self.send().await;
    }

    /// Sends what there is; a failure is the end of the socket.
    async fn send(&mut self) {
        while let Some(output) = self.end.output() {
            let sent = match output {
                Output::Text(text) => self.socket.text(text).await,
                Output::Ping(payload) => self.socket.ping(Bytes::from_static(payload)).await,
                Output::Close(code, reason) => {
                    self.socket.close(code, reason).await;
                    Ok(())
                }
            };
            if let Err(error) = sent {
                self.end.lost(describe(&error));
            }
        }
    }
}

fn describe(error: &MessagesError) -> String {
    match error {
        MessagesError::Broken(Some(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
            format!("the connection broke: {error}")
        }
        MessagesError::Broken(_) => "the connection broke".into(),
        MessagesError::Stuck => "the relay does not read any more".into(),
        MessagesError::TooBig => "the relay breaks the protocol: a message is too large".into(),
        MessagesError::NotText => "the relay breaks the protocol: a text is no UTF-8".into(),
        MessagesError::Protocol(error) => format!("the relay breaks the protocol: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::proto::limits::client::{PING_EVERY, PONG_WAIT, WAKE_PONG_WAIT};
    use crate::stream::any::AnyStream;

    /// A control socket, the relay's raw end of it, and the clock stopped.
    async fn pair() -> (Control, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let io = RelayIo::Plain(AnyStream::Tcp(near.unwrap()));
        let control = Control::new(io, BytesMut::new(), Level::Base).await;
        tokio::time::pause();
        (control, far.unwrap().0)
    }

    /// Runs it with nothing to say.
    async fn run(control: &mut Control, stop: &CancellationToken, woken: watch::Receiver<u64>) -> Ended {
        let (_say, mut said) = mpsc::channel(1);
        control.run(stop, woken, &mut said, |_| {}).await
    }

    #[tokio::test]
    async fn a_relay_that_answers_no_ping_is_lost() {
        let (mut control, _far) = pair().await;
        let (_woken, woken) = watch::channel(0);
        let began = Instant::now();
        let ended = run(&mut control, &CancellationToken::new(), woken).await;
        assert!(matches!(ended, Ended::Lost(_)));
        assert_eq!(began.elapsed().as_secs(), (PING_EVERY + PONG_WAIT).as_secs());
    }

    #[tokio::test]
    async fn after_sleep_the_relay_must_answer_at_once() {
        let (mut control, mut far) = pair().await;
        let stop = CancellationToken::new();
        let (wake, woken) = watch::channel(0);
        let began = Instant::now();
        let (ended, ping) = tokio::join!(run(&mut control, &stop, woken), async {
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
        let (ended, pong) = tokio::join!(run(&mut control, &stop, woken), async {
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
