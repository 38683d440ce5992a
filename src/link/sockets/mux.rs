//! The relay's end of one WebSocket with many streams in it: a client that has it accepts a stream where others open a data
//! socket.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use super::{End, Ended, Session};
use crate::link::OpenError;
use crate::proto::limits::wsmux::{REPLACED_LOOK_EVERY, REPLACED_WAIT};
use crate::stream::Duplex;
use crate::stream::wsmux::{self, Beat, Driver};

/// A stream of its own for a viewer. The caller sets the deadline.
pub(super) async fn open(mux: &wsmux::Session) -> Result<Box<dyn Duplex>, OpenError> {
    match mux.open().await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(wsmux::OpenError::Over) => Err(OpenError::ClientGone),
        Err(wsmux::OpenError::TooMany(_)) => Err(OpenError::TooManyWaiting),
        Err(error) => {
            tracing::debug!(%error, "a client did not accept a stream");
            Err(OpenError::NotClaimed)
        }
    }
}

/// Serves the WebSocket of `session` until it ends.
pub async fn run<IO>(session: Arc<Session>, mux: wsmux::Session, driver: Driver<IO>) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let gone = session.gone.clone().drop_guard();
    let beats = Arc::clone(&session);
    let driver = driver.telling(move |beat| match beat {
        Beat::Ping => beats.pinged(),
        Beat::Pong => beats.ponged(),
    });
    let close = async {
        session.ending.cancelled().await;
        let end = session.end_reason().unwrap_or(End::Restart);
        if matches!(end, End::Replaced | End::Succeeded) {
            // What runs in its streams would end with it.
            session.forget_lanes();
            let emptied = async {
                while mux.streams() > 0 {
                    sleep(REPLACED_LOOK_EVERY).await;
                }
            };
            let _ = timeout(REPLACED_WAIT, emptied).await;
        }
        let (code, reason) = end.close();
        mux.close(code, reason).await
    };
    // Closing only says so: the driver does it.
    let ((), ended) = tokio::join!(
        async {
            tokio::select! {
                _ = close => {}
                _ = mux.over() => {}
            }
            // Viewers that wait learn it now and not after the goodbye.
            drop(gone);
        },
        driver.run()
    );
    if matches!(ended, wsmux::Ended::Frame(_) | wsmux::Ended::Breach(_)) {
        tracing::warn!(session = %session.id(), %ended, "a client broke the protocol of its streams");
    }
    let ended = of(ended, &session);
    session.over(ended);
    session.forget_lanes();
    ended
}

fn of(ended: wsmux::Ended, session: &Session) -> Ended {
    match ended {
        wsmux::Ended::ByUs(..) => Ended::ByUs(session.end_reason().unwrap_or(End::Restart)),
        wsmux::Ended::ByPeer(_) => Ended::ByClient,
        wsmux::Ended::Silent | wsmux::Ended::Stuck => Ended::Silent,
        wsmux::Ended::Frame(_) | wsmux::Ended::Breach(_) => Ended::Protocol,
        _ => Ended::Lost,
    }
}
