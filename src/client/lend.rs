//! A data socket in the hands of a service of this program: lent, called back when the session is over, and given back
//! for its end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::event::Events;
use super::observe::{Observed, Observer};
use super::target::{Io, Serve};

/// For the end of what was sent to go out.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// Lets `service` serve `io`, and tells of its requests. Afterwards `io` is back, its sending side shut unless
/// something broke off; an upgraded connection is back when whoever upgraded it drops it.
pub(super) async fn serve<I: Io + 'static>(
    io: I,
    service: &dyn Serve,
    events: &Events,
) -> Option<(I, io::Result<()>)> {
    if !events.wants_requests() {
        return lend(io, service).await;
    }
    let observed = Observed::by_target(io, Observer::new(), events.clone());
    let (mut observed, ended) = lend(observed, service).await?;
    observed.finish();
    Some((observed.into_inner(), ended))
}

async fn lend<I: Io + 'static>(io: I, service: &dyn Serve) -> Option<(I, io::Result<()>)> {
    let (back, returned) = oneshot::channel();
    let over = CancellationToken::new();
    // This task is the session's, and ends with it; what was upgraded is in a task of the service's own.
    let _call_back = over.clone().drop_guard();
    let called_back = || Box::pin(over.clone().cancelled_owned());
    let lent = Lent {
        io: Some(io),
        back: Some(back),
        called_back_reader: called_back(),
        called_back_writer: called_back(),
    };
    let ended = service.serve(Box::new(lent)).await;
    let mut io = returned.await.ok()?;
    if ended.is_ok() {
        let _ = timeout(CLOSE_WAIT, io.shutdown()).await;
    }
    Some((io, ended))
}

/// What the service holds. It gives back by being dropped.
struct Lent<I> {
    /// There until the drop, or until the session is over.
    io: Option<I>,
    back: Option<oneshot::Sender<I>>,
    /// Two, as the halves of an upgraded connection may wait in two tasks.
    called_back_reader: CalledBack,
    called_back_writer: CalledBack,
}

type CalledBack = Pin<Box<WaitForCancellationFutureOwned>>;

impl<I> Drop for Lent<I> {
    fn drop(&mut self) {
        if let (Some(io), Some(back)) = (self.io.take(), self.back.take()) {
            // Nobody waits for it when the session is over.
            let _ = back.send(io);
        }
    }
}

/// What `io` does, unless it has to wait and the session is over: then it is closed.
fn unless_over<I: Unpin, T>(
    lent: &mut Option<I>,
    called_back: &mut CalledBack,
    cx: &mut Context<'_>,
    act: impl FnOnce(Pin<&mut I>, &mut Context<'_>) -> Poll<io::Result<T>>,
) -> Poll<io::Result<T>> {
    if let Some(io) = lent {
        let acted = act(Pin::new(io), cx);
        if acted.is_ready() || called_back.as_mut().poll(cx).is_pending() {
            return acted;
        }
        *lent = None;
    }
    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
}

impl<I: Io> AsyncRead for Lent<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        unless_over(&mut this.io, &mut this.called_back_reader, cx, |io, cx| io.poll_read(cx, out))
    }
}

impl<I: Io> AsyncWrite for Lent<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        unless_over(&mut this.io, &mut this.called_back_writer, cx, |io, cx| io.poll_write(cx, data))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        unless_over(&mut this.io, &mut this.called_back_writer, cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        unless_over(&mut this.io, &mut this.called_back_writer, cx, |io, cx| io.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    use crate::client::scripted::{Scripted, soon};
    use crate::client::{Options, Session, Target};

    #[tokio::test]
    async fn at_base_level_too_a_service_answers_and_its_end_comes_last() {
        let relay = Scripted::start().await;
        let site = Router::new().route("/", get(|| async { "ok" }));
        let (_session, _events) = Session::start(Options::new(relay.connector(), Target::service(site)));
        let mut control = relay.session("t1", "abc").await;
        control.send(Message::text(r#"{"type":"connection","id":"c1"}"#)).await.unwrap();
        let mut data = relay.data("c1").await;
        for connection in ["keep-alive", "close"] {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
            data.send(Message::binary(request)).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\nok") {
                match soon(data.next()).await {
                    Some(Ok(Message::Binary(bytes))) => answer.extend_from_slice(&bytes),
                    other => panic!("{other:?} after {answer:?}"),
                }
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
        assert!(matches!(soon(data.next()).await, Some(Ok(Message::Close(_)))));
    }
}
