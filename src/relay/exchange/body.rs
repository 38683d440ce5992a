//! The body of a target's response as it comes over a lane, with what is left of the request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::delivery::{Broken, Source};
use super::{Exchange, Record};
use crate::link::Lane;
use crate::link::sockets::Load;
use crate::proto::http1::{BodyReader, Framing, Piece};
use crate::relay::carry::Terms;
use crate::relay::errors::Cause;
use crate::relay::viewer::Busy;
use crate::stream::splice::Moved;
use crate::tunnel::{Tunnel, Viewing};

/// What becomes of the lane after a complete response.
pub type Finish = Box<dyn FnOnce(Lane) + Send + Sync>;

/// Reads a response body. Dropping it before its end closes the lane.
pub struct LaneBody {
    exchange: Exchange,
    reader: BodyReader,
    finish: Option<Finish>,
    rest: Rest,
}

/// What an upload needs that outlasts its response.
pub struct Rest {
    /// Owns its task.
    pub tasks: TaskTracker,
    /// Keeps the viewer's connection from counting as idle meanwhile.
    pub busy: Busy,
}

impl LaneBody {
    /// The body of a response whose head came over `exchange`. `finish` gets the lane if it may be used again.
    pub fn new(exchange: Exchange, framing: Framing, finish: Option<Finish>, rest: Rest) -> Self {
        Self { exchange, reader: BodyReader::new(framing), finish, rest }
    }
}

impl Source for LaneBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let exchange = &mut self.exchange;
        if let Err(error) = exchange.poll_upload(cx) {
            return Poll::Ready(Some(Err(Broken::new(error.cause(), io::Error::other(error)))));
        }
        loop {
            match self.reader.next(&mut exchange.input) {
                Ok(Some(Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Piece::End(trailers))) => {
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                }
                Ok(None) => {}
                Err(error) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, error);
                    return Poll::Ready(Some(Err(Broken::new(Cause::BadResponse, error))));
                }
            }
            match exchange.poll_chunk(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(chunk))) => exchange.input = chunk,
                // The end of the stream is the end of the body only where the framing says so; never a clean end
                // of a body that was cut.
                Poll::Ready(Ok(None)) if self.reader.complete_at_close() => {
                    self.finish = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(ended) => {
                    let error = ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Some(Err(Broken::new(Cause::TargetClosed, error))));
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.reader.ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The lane goes back once nothing is left of the request, if nothing came out of turn.
    fn complete(self, terms: &Terms, account: &mut Account) {
        let Self { exchange, finish, rest: Rest { tasks, busy }, .. } = self;
        account.bytes_in(exchange.upload.received);
        let Some(finish) = finish.filter(|_| !exchange.has_input()) else {
            return exchange.lane.dismiss();
        };
        if exchange.upload.is_done() {
            finish(exchange.lane);
        } else if !exchange.upload.is_held() {
            // The target answered early and keeps the connection, so it takes the rest: so must we, or the viewer
            // would see its connection cut while it sends.
            let (tunnel, record) = (Arc::clone(&account.tunnel), account.record.take());
            let (idle, running) = (terms.idle, terms.running.clone());
            let viewing = account.viewing.take();
            tasks.spawn(async move {
                finish_upload(exchange, finish, idle, running, tunnel).await;
                drop((busy, viewing, record));
            });
        } else {
            exchange.lane.dismiss();
        }
    }

    fn abandon(self, account: &mut Account) {
        account.bytes_in(self.exchange.upload.received);
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

/// What one exchange costs: counted, and written when it is over.
pub struct Account {
    /// The tunnel that served it.
    pub tunnel: Arc<Tunnel>,
    /// Counts the viewer; taken by what outlasts the response.
    viewing: Option<Viewing>,
    /// Closes with this; there always is one, as counts are of all exchanges.
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
