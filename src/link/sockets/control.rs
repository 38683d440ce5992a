//! The relay's end of one control socket: carries between the socket and the core of the session.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Session;
use crate::proto::control::Output;
use crate::proto::control::relay::{Asked, End, Ended, RelayEnd, TokenEnd};
use crate::proto::frame::Role;
use crate::proto::message::ToClient;
use crate::stream::messages::{Event, Messages, MessagesError};

/// Judges a fresh key or token of the session: when it ends, or why it is refused.
pub type Judge = Box<dyn Fn(String) -> Judging + Send + Sync>;
/// The future of a [`Judge`].
pub type Judging = Pin<Box<dyn Future<Output = Result<Option<TokenEnd>, String>> + Send>>;

impl From<MessagesError> for Ended {
    fn from(error: MessagesError) -> Self {
        match error {
            MessagesError::Broken(_) => Self::Lost,
            MessagesError::Stuck => Self::Silent,
            MessagesError::TooBig => Self::TooBig,
            MessagesError::NotText => Self::NotText,
            MessagesError::Protocol(_) => Self::Protocol,
        }
    }
}

/// Serves one control socket until it ends. `already` is what was read behind the handshake, `said` what the session
/// wants said, `most` the bytes of the largest message taken.
pub async fn run<IO>(
    session: Arc<Session>,
    (io, already): (IO, Vec<u8>),
    mut core: RelayEnd,
    said: mpsc::Receiver<Box<ToClient>>,
    judge: Judge,
    most: usize,
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let gone = session.gone.clone().drop_guard();
    let mut socket = Messages::new(io, Role::Server, already, most).await;
    let ended = match serve(&mut socket, &session, &mut core, said, &judge).await {
        Ok(ended) => ended,
        Err(error) => {
            core.finish(error.into());
            core.ended().unwrap_or(Ended::Lost)
        }
    };
    // Viewers that wait learn it now and not after the goodbye.
    drop(gone);
    session.over(ended);
    session.forget_lanes();
    while let Some(output) = core.output() {
        let sent = match output {
            Output::Text(text) => socket.text(text).await,
            Output::Ping(_) => Ok(()),
            Output::Close(code, reason) => {
                socket.close(code, reason).await;
                break;
            }
        };
        if sent.is_err() {
            break;
        }
    }
    ended
}

async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Messages<IO>,
    session: &Session,
    core: &mut RelayEnd,
    mut said: mpsc::Receiver<Box<ToClient>>,
    judge: &Judge,
) -> Result<Ended, MessagesError> {
    let mut ending = true;
    let mut judging: Option<Judging> = None;
    loop {
        if let Some(ended) = core.ended() {
            return Ok(ended);
        }
        while let Some(output) = core.output() {
            match output {
                Output::Text(text) => socket.text(text).await?,
                Output::Ping(payload) => {
                    session.pinged();
                    socket.ping(Bytes::from_static(payload)).await?;
                }
                Output::Close(..) => {}
            }
        }
        // In no order: neither a client that sends without pause nor viewers that come without pause hold up the rest.
        tokio::select! {
            () = session.ending.cancelled(), if ending => {
                ending = false;
                core.end(now(), session.end_reason().unwrap_or(End::Restart));
            }
            message = said.recv() => match message {
                Some(message) => core.say(*message),
                None => core.finish(Ended::ByClient),
            },
            () = sleep_until(core.timeout().into()) => core.wake(now()),
            verdict = async { match &mut judging { Some(judging) => judging.await, None => pending().await } } => {
                judging = None;
                core.judged(now(), verdict);
            }
            // One token at a time.
            event = socket.next(), if judging.is_none() => match event? {
                Event::Pong(payload) => {
                    session.ponged();
                    core.ponged(now(), &payload);
                }
                Event::Message(message) => match core.heard(&message) {
                    Some(Asked::Reject(reject)) => session.rejected(reject),
                    Some(Asked::Auth(token)) => judging = Some(judge(token)),
                    None => {}
                },
                Event::Closed(_) => core.finish(Ended::ByClient),
            },
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
