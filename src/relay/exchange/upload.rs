//! A request on its way to the target: the head, and the body as the viewer sends it.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::proto::http1::{RequestBody, chunk_head, chunked_end};
use crate::proto::limits::{replicas::KEPT, turn};
use crate::relay::errors::Cause;
use crate::relay::forward::strip_trailers;
use crate::relay::policy::Body;
use crate::stream::Duplex;
use crate::stream::turn::give_way;
use crate::tunnel::policy::{Holding, Policy};

/// Portions up to this are gathered with what is already waiting to be written.
const GATHER: usize = 16 * 1024;

/// Why an upload stopped short.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The viewer left or broke HTTP.
    #[error("the request body failed: {0}")]
    Viewer(hyper::Error),
    /// The body is over the limit.
    #[error("the request body is over {0} bytes")]
    TooLarge(u64),
    /// The target takes no more; it may still have answered.
    #[error("the target takes no more: {0}")]
    Target(io::Error),
}

impl UploadError {
    /// What the viewer is told.
    pub fn cause(&self) -> Cause {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, InvalidInput};
        match self {
            Self::Viewer(error) => match io_kind(error) {
                Some(InvalidInput | InvalidData) => Cause::BadRequest("The request body is malformed."),
                Some(BrokenPipe | ConnectionAborted | ConnectionReset) => Cause::ViewerLeft,
                _ => Cause::UploadCut,
            },
            Self::TooLarge(limit) => Cause::BodyTooLarge(*limit),
            Self::Target(_) => Cause::TargetClosed,
        }
    }
}

/// What hyper met when it read a body.
fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        source = error.source();
    }
    None
}

/// The head and the body of one request.
pub struct Upload {
    out: BytesMut,
    /// A large portion that follows `out` as it is.
    portion: Bytes,
    /// The portion is a chunk, whose end is still to be written.
    chunk_open: bool,
    body: Option<Incoming>,
    chunked: bool,
    /// Waits for the target's 100 before the body is touched.
    held: bool,
    limit: Option<u64>,
    /// Body bytes taken from the viewer.
    pub received: u64,
    /// Told of the same, for the record.
    told: Option<Arc<AtomicU64>>,
    done: bool,
    /// What its owner takes out of requests is not to come behind the body, either.
    policy: Option<Arc<Policy>>,
    /// Counts a body that was held for its signature.
    holding: Option<Box<Holding>>,
    /// What was written, where all of it may have to be written once more and it is little.
    kept: Option<BytesMut>,
}

impl Upload {
    /// An upload of `head`, already serialised, and `body` framed as the head says.
    pub fn new(head: BytesMut, body: Incoming, framing: RequestBody, held: bool, limit: Option<u64>) -> Self {
        let body = (framing != RequestBody::None && framing != RequestBody::Length(0)).then_some(body);
        let held = held && body.is_some();
        let chunked = framing == RequestBody::Chunked;
        Self {
            out: head,
            portion: Bytes::new(),
            chunk_open: false,
            body,
            chunked,
            held,
            limit,
            received: 0,
            told: None,
            done: false,
            policy: None,
            holding: None,
            kept: None,
        }
    }

    /// An upload of `head` and a body that has come as a whole, framed as the head says.
    pub fn whole(mut head: BytesMut, body: Body) -> Self {
        let Body { data, trailers, holding } = body;
        let received = data.len() as u64;
        let portion = match trailers {
            None => data,
            Some(mut trailers) => {
                strip_trailers(&mut trailers);
                holding.strip(&mut trailers);
                if !data.is_empty() {
                    chunk_head(&mut head, data.len());
                    head.extend_from_slice(&data);
                    head.extend_from_slice(b"\r\n");
                }
                chunked_end(&mut head, Some(&trailers));
                Bytes::new()
            }
        };
        Self { portion, received, holding: Some(Box::new(holding)), ..Self::of_head(head) }
    }

    /// With `bytes` before the head.
    pub fn behind(mut self, bytes: &[u8]) -> Self {
        let head = std::mem::take(&mut self.out);
        self.out = BytesMut::with_capacity(bytes.len() + head.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(&head);
        self
    }

    /// A request without a body, such as may be sent again.
    pub fn of_head(head: BytesMut) -> Self {
        Self {
            out: head,
            portion: Bytes::new(),
            chunk_open: false,
            body: None,
            chunked: false,
            held: false,
            limit: None,
            received: 0,
            told: None,
            done: false,
            policy: None,
            holding: None,
            kept: None,
        }
    }

    /// Keeps what is written, as long as it is little, to begin anew.
    pub fn keep(&mut self) {
        self.kept = Some(BytesMut::new());
    }

    /// The same from the start, if all of it is still there.
    pub fn rewound(mut self) -> Option<Self> {
        let mut out = self.kept.replace(BytesMut::new())?;
        out.unsplit(std::mem::take(&mut self.out));
        self.out = out;
        self.done = false;
        Some(self)
    }

    fn note(kept: &mut Option<BytesMut>, written: &[u8]) {
        if let Some(bytes) = kept {
            bytes.extend_from_slice(written);
            if bytes.len() > KEPT {
                *kept = None;
            }
        }
    }

    /// Tells `received` how much came.
    pub fn tell(&mut self, received: Option<Arc<AtomicU64>>) {
        if let Some(told) = &received {
            told.store(self.received, Ordering::Relaxed);
        }
        self.told = received;
    }

    /// Changes what comes behind the body as the policy changes heads.
    pub fn keep_to(&mut self, policy: &Arc<Policy>) {
        self.policy = Some(Arc::clone(policy)).filter(|policy| !policy.request.is_empty());
    }

    /// Everything is with the target.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The body still waits for the target's consent.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The target agreed to the body, or did not say.
    pub fn release(&mut self) {
        self.held = false;
    }

    /// Writes as much as both sides allow; ready when all is written.
    pub fn poll(&mut self, cx: &mut Context<'_>, stream: &mut dyn Duplex) -> Poll<Result<(), UploadError>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        let mut moved = 0;
        loop {
            if moved >= turn::BYTES {
                give_way(cx);
                return Poll::Pending;
            }
            // Take from the viewer first, so that a head and a small body go out in one write.
            let more =
                if self.out.len() < GATHER && self.portion.is_empty() { self.take(cx)? } else { false };
            if more {
                continue;
            }
            if !self.out.is_empty() {
                let count =
                    ready!(Pin::new(&mut *stream).poll_write(cx, &self.out)).map_err(UploadError::Target)?;
                Self::note(&mut self.kept, &self.out[..count]);
                self.out.advance(count);
                moved += count;
            } else if !self.portion.is_empty() {
                let count = ready!(Pin::new(&mut *stream).poll_write(cx, &self.portion))
                    .map_err(UploadError::Target)?;
                Self::note(&mut self.kept, &self.portion[..count]);
                self.portion.advance(count);
                moved += count;
                if self.portion.is_empty() && std::mem::take(&mut self.chunk_open) {
                    self.out.extend_from_slice(b"\r\n");
                }
            } else {
                ready!(Pin::new(&mut *stream).poll_flush(cx)).map_err(UploadError::Target)?;
                if self.body.is_some() {
                    return Poll::Pending;
                }
                self.done = true;
                self.holding = None;
                // The buffers are not needed while the response comes.
                self.out = BytesMut::new();
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes one portion of the body, if there is one now.
    fn take(&mut self, cx: &mut Context<'_>) -> Result<bool, UploadError> {
        let Some(body) = self.body.as_mut().filter(|_| !self.held) else { return Ok(false) };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Some(frame)) => Some(frame.map_err(UploadError::Viewer)?),
            Poll::Ready(None) => None,
        };
        match frame.map(http_body::Frame::into_data) {
            Some(Ok(data)) => {
                self.add(data)?;
                // hyper ends a body of known length only when it turns to the next request, if the response is out.
                if !self.chunked && self.body.as_ref().is_some_and(|body| body.is_end_stream()) {
                    self.body = None;
                }
            }
            last => {
                self.body = None;
                if self.chunked {
                    let mut trailers =
                        last.and_then(Result::err).and_then(|frame| frame.into_trailers().ok());
                    trailers.iter_mut().for_each(strip_trailers);
                    if let (Some(trailers), Some(policy)) = (&mut trailers, &self.policy) {
                        policy.request.strip(trailers);
                    }
                    chunked_end(&mut self.out, trailers.as_ref());
                }
            }
        }
        Ok(true)
    }

    fn add(&mut self, data: Bytes) -> Result<(), UploadError> {
        self.received += data.len() as u64;
        if let Some(told) = &self.told {
            told.store(self.received, Ordering::Relaxed);
        }
        if let Some(limit) = self.limit
            && self.received > limit
        {
            return Err(UploadError::TooLarge(limit));
        }
        if data.is_empty() {
            return Ok(());
        }
        if self.chunked {
            chunk_head(&mut self.out, data.len());
        }
        if data.len() <= GATHER {
            self.out.extend_from_slice(&data);
            if self.chunked {
                self.out.extend_from_slice(b"\r\n");
            }
        } else {
            self.portion = data;
            self.chunk_open = self.chunked;
        }
        Ok(())
    }
}
