//! The body of a target's response on its way to the viewer, with what is left of the request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

use super::{Exchange, Record};
use crate::link::Lane;
use crate::link::sockets::Load;
use crate::proto::http1::{BodyReader, Framing, Piece};
use crate::proto::limits::turn;
use crate::relay::ending::Ending;
use crate::relay::errors::Cause;
use crate::relay::forward::strip_trailers;
use crate::relay::viewer::Busy;
use crate::stream::splice::Moved;
use crate::stream::turn::give_way;
use crate::tunnel::policy::Policy;
use crate::tunnel::{Tunnel, Viewing};

/// What becomes of the lane after a complete response.
pub type Finish = Box<dyn FnOnce(Lane) + Send + Sync>;

/// Streams a response body. Dropping it before its end closes the lane, which tells the target that the viewer left.
pub struct ResponseBody {
    /// `None` once the response is complete.
    exchange: Option<Exchange>,
    reader: BodyReader,
    finish: Option<Finish>,
    idle: Duration,
    /// Set on the first wait; never reset by a byte but compared with `moved` when it fires.
    deadline: Option<Pin<Box<Sleep>>>,
    moved: Option<Instant>,
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// An error that the viewer is not yet told of.
    failed: Option<io::Error>,
    /// Bytes given in this turn.
    turn: usize,
    running: CancellationToken,
    rest: Rest,
    account: Account,
    /// What its owner takes out of responses is not to come behind the body, either.
    policy: Option<Arc<Policy>>,
}

/// What an upload needs that outlasts its response.
pub struct Rest {
    /// Owns its task.
    pub tasks: TaskTracker,
    /// Keeps the viewer's connection from counting as idle meanwhile.
    pub busy: Busy,
    /// Why a tunnel has ended.
    pub ending: Arc<Ending>,
}

impl ResponseBody {
    /// The body of a response whose head came over `exchange`. `finish` gets the lane if it may be used again.
    pub fn new(
        exchange: Exchange,
        framing: Framing,
        finish: Option<Finish>,
        idle: Duration,
        running: CancellationToken,
        rest: Rest,
        account: Account,
    ) -> Self {
        let mut body = Self {
            exchange: Some(exchange),
            reader: BodyReader::new(framing),
            finish,
            idle,
            deadline: None,
            moved: None,
            stopped: None,
            failed: None,
            turn: 0,
            running,
            rest,
            account,
            policy: None,
        };
        if body.reader.ended() {
            body.complete();
        }
        body
    }

    /// Changes what comes behind the body as the policy changes heads.
    pub fn keep_to(&mut self, policy: &Arc<Policy>) {
        self.policy = Some(Arc::clone(policy)).filter(|policy| !policy.response.is_empty());
    }

    /// The response is complete: the lane goes back once nothing is left of the request, if nothing came out of turn.
    fn complete(&mut self) {
        self.account.complete();
        let Some(exchange) = self.exchange.take() else { return };
        self.account.bytes_in(exchange.upload.received);
        let Some(finish) = self.finish.take().filter(|_| !exchange.has_input()) else {
            return exchange.lane.dismiss();
        };
        if exchange.upload.is_done() {
            finish(exchange.lane);
        } else if !exchange.upload.is_held() {
            // The target answered early and keeps the connection, so it takes the rest: so must we, or the viewer
            // would see its connection cut while it sends.
            let (tunnel, busy) = (Arc::clone(&self.account.tunnel), self.rest.busy.hold());
            let record = self.account.record.take();
            let (idle, running) = (self.idle, self.running.clone());
            let viewing = self.account.viewing.take();
            self.rest.tasks.spawn(async move {
                finish_upload(exchange, finish, idle, running, tunnel).await;
                drop((busy, viewing, record));
            });
        } else {
            exchange.lane.dismiss();
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(exchange) = self.exchange.as_mut() else { return Poll::Ready(None) };
        if let Err(error) = exchange.poll_upload(cx) {
            self.account.fail(&error.cause());
            return Poll::Ready(Some(Err(io::Error::other(error))));
        }
        loop {
            match self.reader.next(&mut exchange.input) {
                Ok(Some(Piece::Data(data))) => {
                    self.account.bytes_out(data.len() as u64);
                    if self.reader.ended() {
                        self.complete();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Some(Piece::End(trailers))) => {
                    self.complete();
                    return Poll::Ready(trailers.map(|mut trailers| {
                        strip_trailers(&mut trailers);
                        if let Some(policy) = &self.policy {
                            policy.response.strip(&mut trailers);
                        }
                        Ok(Frame::trailers(trailers))
                    }));
                }
                Ok(None) => {}
                Err(error) => {
                    self.account.fail(&Cause::BadResponse);
                    return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::InvalidData, error))));
                }
            }
            match exchange.poll_chunk(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(chunk))) => exchange.input = chunk,
                // The end of the stream is the end of the body only where the framing says so; never a clean end
                // of a body that was cut.
                Poll::Ready(Ok(None)) if self.reader.complete_at_close() => {
                    self.finish = None;
                    self.complete();
                    return Poll::Ready(None);
                }
                Poll::Ready(ended) => {
                    self.account.fail(&Cause::TargetClosed);
                    let error = ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// While nothing comes: ends after a long silence, or when the tunnel ends.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let running = &self.running;
        let stopped = self.stopped.get_or_insert_with(|| Box::pin(running.clone().cancelled_owned()));
        if stopped.as_mut().poll(cx).is_ready() {
            self.account.fail(&self.rest.ending.why_stopped());
            return Poll::Ready(io::Error::other("the tunnel has ended"));
        }
        let idle = self.idle;
        let moved = *self.moved.get_or_insert_with(Instant::now);
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(idle)));
        while deadline.as_mut().poll(cx).is_ready() {
            let due = moved + idle;
            if due <= Instant::now() {
                self.account.fail(&Cause::TargetSilent);
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            deadline.as_mut().reset(due);
        }
        Poll::Pending
    }
}

async fn finish_upload(
    mut exchange: Exchange,
    finish: Finish,
    idle: Duration,
    running: CancellationToken,
    tunnel: Arc<Tunnel>,
) {
    let before = exchange.upload.received;
    let sent = tokio::select! {
        sent = exchange.rest_of_upload(idle) => sent,
        () = running.cancelled() => false,
    };
    tunnel.traffic.bytes_in.fetch_add(exchange.upload.received - before, Ordering::Relaxed);
    if sent {
        finish(exchange.lane);
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            self.account.bytes_in(exchange.upload.received);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if this.turn >= turn::BYTES {
            this.turn = 0;
            give_way(cx);
            return Poll::Pending;
        }
        match this.poll_piece(cx) {
            Poll::Ready(Some(Err(error))) => {
                // At an error hyper throws away what it has not flushed, the head too. It flushes when we are pending.
                this.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(piece) => {
                let data = piece.as_ref().and_then(|piece| piece.as_ref().ok()?.data_ref());
                this.turn += data.map_or(0, Bytes::len);
                if this.deadline.is_some() {
                    this.moved = Some(Instant::now());
                }
                Poll::Ready(piece)
            }
            Poll::Pending => {
                this.turn = 0;
                this.poll_waiting(cx).map(|error| Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.reader.remaining() {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// What one exchange costs: counted, and written when it is over.
pub struct Account {
    /// The tunnel that served it.
    pub tunnel: Arc<Tunnel>,
    /// Counts the viewer; taken by what outlasts the response.
    viewing: Option<Viewing>,
    /// If records are wanted.
    record: Option<Box<Record>>,
    /// Counts the viewer among those of its session, where several share the tunnel.
    load: Option<Load>,
}

impl Account {
    /// An account of a response with `status`.
    pub fn new(tunnel: Arc<Tunnel>, viewing: Viewing, status: u16, mut record: Option<Box<Record>>) -> Self {
        if let Some(record) = &mut record {
            record.answer(status);
        }
        Self { tunnel, viewing: Some(viewing), record, load: None }
    }

    /// Counts the viewer by `load` for as long as it lasts.
    pub fn hold(&mut self, load: Option<Load>) {
        self.load = load;
    }

    /// An account of a connection that nobody reads.
    pub fn of_connection(tunnel: Arc<Tunnel>, viewing: Viewing, record: Option<Box<Record>>) -> Self {
        Self { tunnel, viewing: Some(viewing), record, load: None }
    }

    /// Counts what moved through a connection that nobody reads.
    pub fn moved(&mut self, moved: Moved) {
        if moved.inward > 0 {
            self.bytes_in(moved.inward);
            if let Some(record) = &self.record {
                record.received().fetch_add(moved.inward, Ordering::Relaxed);
            }
        }
        if moved.outward > 0 {
            self.bytes_out(moved.outward);
        }
    }

    /// It ended in order.
    pub fn complete(&mut self) {
        if let Some(record) = &mut self.record {
            record.complete();
        }
    }

    /// It broke off.
    pub fn fail(&mut self, cause: &Cause) {
        if let Some(record) = &mut self.record {
            record.fail(cause);
        }
    }

    fn bytes_in(&self, count: u64) {
        self.tunnel.traffic.bytes_in.fetch_add(count, Ordering::Relaxed);
    }

    /// So many bytes of the response are for the viewer.
    pub fn bytes_out(&mut self, count: u64) {
        self.tunnel.traffic.bytes_out.fetch_add(count, Ordering::Relaxed);
        if let Some(record) = &mut self.record {
            record.send(count);
        }
    }
}
