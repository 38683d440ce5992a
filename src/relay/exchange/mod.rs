//! One request and its response over one lane: the head comes back as soon as it is there, the body follows.

mod body;
mod delivery;
mod ledger;
mod record;
mod upload;

pub use body::{Account, Finish, LaneBody, Rest};
pub use delivery::{Broken, Delivery, Source};
pub use ledger::{Ledger, OK};
pub use record::Record;
pub use upload::{Upload, UploadError};

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use tokio::time::timeout;

use crate::link::{Lane, Rejection};
use crate::proto::http1::{HeadError, ResponseHead};
use crate::proto::limits::viewer;
use crate::stream::Duplex;
use crate::tunnel::{Meter, Metered};

/// Bytes of a response head; targets with larger ones are broken.
const HEAD_LIMIT: usize = 256 * 1024;

/// Why no response head came.
#[derive(Debug, thiserror::Error)]
pub enum NoHead {
    /// The stream ended before the first byte of a response: a waiting stream that was dead, or a target that hangs up.
    #[error("the connection to the target ended before an answer")]
    Nothing,
    /// The stream ended or failed within the head.
    #[error("the connection to the target ended within the response head: {0}")]
    Cut(io::Error),
    /// What came is no response.
    #[error("{0}")]
    Bad(HeadError),
    /// Nothing moved for too long.
    #[error("nothing moved for too long")]
    Silent,
    /// The client cannot reach the target.
    #[error("the client cannot reach the target ({})", .0.reason)]
    Rejected(Rejection),
    /// The client gives no sign of life.
    #[error("the client does not answer")]
    Gone,
    /// The viewer is at fault, or gone.
    #[error("{0}")]
    Upload(UploadError),
}

/// A request under way on a lane.
pub struct Exchange {
    /// The stream.
    pub lane: Lane,
    /// The request.
    pub upload: Upload,
    /// What came and has not been read as a head.
    pub input: Bytes,
    /// The target takes no more of the upload.
    write_failed: bool,
    /// Where the owner's bandwidth is limited. Boxed: it is rare.
    meter: Option<Box<Meter>>,
}

impl Exchange {
    /// Begins `upload` on `lane`; nothing happens before [`Exchange::head`] is polled.
    pub fn new(lane: Lane, upload: Upload, meter: Option<Box<Meter>>) -> Self {
        Self { lane, upload, input: Bytes::new(), write_failed: false, meter }
    }

    /// Sends the request and waits for the final response head, also while the body is still being sent. 1xx responses
    /// are taken for what they are: 100 lets the body go, 101 is final, others are passed over.
    pub async fn head(&mut self, idle: Duration) -> Result<ResponseHead, NoHead> {
        let held = self.upload.is_held();
        let mut wait = if held { viewer::EXPECT_WAIT } else { idle };
        loop {
            let before = self.upload.received;
            match timeout(wait, poll_fn(|cx| self.poll_head(cx))).await {
                Ok(head) => return head,
                Err(_) if self.upload.is_held() => {
                    self.upload.release();
                    wait = idle;
                }
                Err(_) if self.upload.received == before => return Err(NoHead::Silent),
                Err(_) => {}
            }
        }
    }

    /// Whether anything of a response has come.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty() || self.meter.as_ref().is_some_and(|meter| meter.holds())
    }

    /// What of the upgraded connection has come, and the stream that it goes on with.
    pub fn into_parts(self) -> (Bytes, Box<dyn Duplex>, Option<Box<Meter>>) {
        (self.input, self.lane.stream, self.meter)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        match &mut self.meter {
            None => self.lane.stream.poll_chunk(cx),
            Some(meter) => Metered::new(self.lane.stream.as_mut(), meter).poll_chunk(cx),
        }
    }

    /// Sends what is left of the request after a complete response; `false` if the target stops taking it or speaks
    /// out of turn, the viewer fails, or nothing moves for `idle`.
    async fn rest_of_upload(&mut self, idle: Duration) -> bool {
        loop {
            let before = self.upload.received;
            let sending = poll_fn(|cx| {
                if self.poll_upload(cx).is_err()
                    || self.write_failed
                    || self.has_input()
                    || self.poll_chunk(cx).is_ready()
                {
                    return Poll::Ready(false);
                }
                if self.upload.is_done() { Poll::Ready(true) } else { Poll::Pending }
            });
            match timeout(idle, sending).await {
                Ok(sent) => return sent,
                Err(_) if self.upload.received == before => return false,
                Err(_) => {}
            }
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, NoHead>> {
        loop {
            self.poll_upload(cx).map_err(NoHead::Upload)?;
            let chunk = match self.poll_chunk(cx) {
                Poll::Pending => {
                    let Some(rejected) = &mut self.lane.rejected else { return Poll::Pending };
                    return rejected.as_mut().poll(cx).map(|rejection| Err(NoHead::Rejected(rejection)));
                }
                Poll::Ready(Ok(Some(chunk))) => {
                    self.lane.rejected = None;
                    chunk
                }
                Poll::Ready(Ok(None)) if self.input.is_empty() => return Poll::Ready(Err(NoHead::Nothing)),
                Poll::Ready(Ok(None)) => {
                    return Poll::Ready(Err(NoHead::Cut(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Err(_)) if self.input.is_empty() => return Poll::Ready(Err(NoHead::Nothing)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(NoHead::Cut(error))),
            };
            self.input = if self.input.is_empty() { chunk } else { join(&self.input, &chunk) };
            while let Some((head, size)) =
                ResponseHead::parse(&self.input, HEAD_LIMIT).map_err(NoHead::Bad)?
            {
                self.input = self.input.slice(size..);
                match head.status {
                    StatusCode::CONTINUE => self.upload.release(),
                    status if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {}
                    _ => return Poll::Ready(Ok(head)),
                }
            }
        }
    }

    /// Moves the upload on. A target that takes no more may have answered all the same, so that is no error here.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), UploadError> {
        if self.write_failed {
            return Ok(());
        }
        let sent = match &mut self.meter {
            None => self.upload.poll(cx, self.lane.stream.as_mut()),
            Some(meter) => self.upload.poll(cx, &mut Metered::new(self.lane.stream.as_mut(), meter)),
        };
        match sent {
            Poll::Ready(Err(UploadError::Target(_))) => {
                self.write_failed = true;
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

fn join(first: &Bytes, second: &Bytes) -> Bytes {
    let mut joined = BytesMut::with_capacity(first.len() + second.len());
    joined.extend_from_slice(first);
    joined.extend_from_slice(second);
    joined.freeze()
}

/// Whether a request may be sent a second time when nothing of a response came: safe by its method, and without a
/// body that is gone once read.
pub fn is_resendable(method: &Method, has_body: bool) -> bool {
    !has_body && matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}
