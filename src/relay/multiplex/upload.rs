//! The body of a request on its way to a target that speaks HTTP/2: as fast as the target's windows let it, by itself, so
//! that a viewer may read and send in any order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use http_body::Body as _;
use hyper::body::Incoming;

use crate::proto::limits::{multiplex, turn};
use crate::relay::errors::Cause;
use crate::relay::exchange::UploadError;
use crate::relay::forward::strip_trailers;
use crate::relay::policy::Body;
use crate::relay::proxy::UploadBody;
use crate::stream::turn::give_way;
use crate::tunnel::Tunnel;
use crate::tunnel::policy::{Holding, Policy};

/// How much of `wanted` bytes may be sent on `stream` now. Room that is there already is not told of once more.
pub fn poll_room(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<usize, h2::Error>>> {
    stream.reserve_capacity(wanted);
    loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                end => return Poll::Ready(end),
            },
            room => return Poll::Ready(Some(Ok(room))),
        }
    }
}

/// What a viewer sends, and what of it may have to be sent once more.
pub struct Upload {
    /// `None`: all of it was taken, or there is none.
    body: Option<Incoming>,
    /// Taken, and not sent yet.
    next: VecDeque<Part>,
    /// Taken and sent, as long as the response has not begun and it is little; `None`: it cannot be sent again.
    kept: Option<Vec<Part>>,
    kept_bytes: usize,
    limit: Option<u64>,
    /// What its owner takes out of requests is not to come behind the body, either.
    policy: Option<Arc<Policy>>,
    /// Counts a body that was held for its signature.
    _holding: Option<Holding>,
    tunnel: Arc<Tunnel>,
    /// Bytes taken.
    received: Arc<AtomicU64>,
}

#[derive(Clone)]
enum Part {
    Data(Bytes),
    /// The last one.
    Trailers(HeaderMap),
    /// The same without trailers.
    End,
}

impl Upload {
    /// The body of a viewer's request; `received` counts what came of it.
    pub fn new(
        body: UploadBody,
        limit: Option<u64>,
        (policy, tunnel): (Option<Arc<Policy>>, Arc<Tunnel>),
        received: Arc<AtomicU64>,
    ) -> Self {
        let mut upload = Self {
            body: None,
            next: VecDeque::new(),
            kept: Some(Vec::new()),
            kept_bytes: 0,
            limit,
            policy,
            _holding: None,
            tunnel,
            received,
        };
        match body {
            UploadBody::Coming(body) => upload.body = (!body.is_end_stream()).then_some(body),
            UploadBody::Whole(body) => upload.take_whole(*body),
        }
        upload
    }

    fn take_whole(&mut self, body: Body) {
        let Body { data, trailers, holding } = body;
        self.tunnel.traffic.bytes_in.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.received.fetch_add(data.len() as u64, Ordering::Relaxed);
        if data.is_empty() && trailers.is_none() {
            return;
        }
        if !data.is_empty() {
            self.next.push_back(Part::Data(data));
        }
        self.next.push_back(trailers.map_or(Part::End, |trailers| Part::Trailers(self.stripped(trailers))));
        self._holding = Some(holding);
    }

    fn stripped(&self, mut trailers: HeaderMap) -> HeaderMap {
        strip_trailers(&mut trailers);
        if let Some(policy) = &self.policy {
            policy.request.strip(&mut trailers);
        }
        trailers
    }

    /// Whether there is no body.
    pub fn is_empty(&self) -> bool {
        self.body.is_none() && self.next.is_empty()
    }

    /// Begins anew; `false`: what is gone cannot be sent again.
    pub fn rewind(&mut self) -> bool {
        let Some(kept) = &mut self.kept else { return false };
        for part in std::mem::take(kept).into_iter().rev() {
            self.next.push_front(part);
        }
        self.kept_bytes = 0;
        true
    }

    /// The response has begun: nothing will be sent again.
    pub fn forget(&mut self) {
        self.kept = None;
    }

    /// Sends as much as both sides allow on `stream`; ready when all is sent, or when the target takes no more.
    pub fn poll(&mut self, cx: &mut Context<'_>, stream: &mut SendStream<Bytes>) -> Poll<Result<(), Cause>> {
        let mut moved = 0;
        loop {
            if moved >= turn::BYTES {
                give_way(cx);
                return Poll::Pending;
            }
            if self.next.is_empty() && self.poll_take(cx, stream)?.is_pending() {
                return Poll::Pending;
            }
            let sent = match self.next.front_mut() {
                None if self.body.is_none() => return Poll::Ready(Ok(())),
                // An empty portion.
                None => continue,
                Some(Part::Data(data)) => {
                    match ready!(poll_room(stream, data.len(), cx)) {
                        // It has answered without the rest, or has reset the stream, which the response tells.
                        None | Some(Err(_)) => return self.stop(),
                        Some(Ok(room)) => {
                            let part = data.split_to(room.min(data.len()));
                            moved += part.len();
                            if data.is_empty() {
                                self.next.pop_front();
                            }
                            self.keep(Part::Data(part.clone()), part.len());
                            stream.send_data(part, false)
                        }
                    }
                }
                Some(Part::Trailers(_) | Part::End) => {
                    let last = self.next.pop_front();
                    self.body = None;
                    if let Some(last) = &last {
                        self.keep(last.clone(), 0);
                    }
                    match last {
                        Some(Part::Trailers(trailers)) => stream.send_trailers(trailers),
                        _ => stream.send_data(Bytes::new(), true),
                    }
                }
            };
            if sent.is_err() {
                return self.stop();
            }
        }
    }

    fn stop(&mut self) -> Poll<Result<(), Cause>> {
        // What still comes is not wanted. It may be, if the request goes out again.
        if self.kept.is_none() {
            self.body = None;
            self.next.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the next part from the viewer. While none comes, the target may stop the upload.
    fn poll_take(&mut self, cx: &mut Context<'_>, stream: &mut SendStream<Bytes>) -> Result<Poll<()>, Cause> {
        let Some(body) = &mut self.body else { return Ok(Poll::Ready(())) };
        let part = match Pin::new(body).poll_frame(cx) {
            Poll::Pending => {
                if self.kept.is_none() && stream.poll_reset(cx).is_ready() {
                    self.body = None;
                    return Ok(Poll::Ready(()));
                }
                return Ok(Poll::Pending);
            }
            Poll::Ready(Some(Err(error))) => return Err(UploadError::Viewer(error).cause()),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let count = data.len() as u64;
                    self.tunnel.traffic.bytes_in.fetch_add(count, Ordering::Relaxed);
                    let received = self.received.fetch_add(count, Ordering::Relaxed) + count;
                    if let Some(limit) = self.limit.filter(|limit| received > *limit) {
                        return Err(Cause::BodyTooLarge(limit));
                    }
                    if data.is_empty() {
                        return Ok(Poll::Ready(()));
                    }
                    Part::Data(data)
                }
                Err(frame) => Part::Trailers(self.stripped(frame.into_trailers().unwrap_or_default())),
            },
            Poll::Ready(None) => Part::End,
        };
        if !matches!(part, Part::Data(_)) {
            self.body = None;
        }
        self.next.push_back(part);
        Ok(Poll::Ready(()))
    }

    fn keep(&mut self, part: Part, bytes: usize) {
        self.kept_bytes += bytes;
        match &mut self.kept {
            Some(kept) if self.kept_bytes <= multiplex::KEPT => kept.push(part),
            kept => *kept = None,
        }
    }
}
