//! A passive look at the HTTP/1 that is copied, for the line per request: never delays or changes a byte.
//!
//! It follows both directions by heads and lengths, copies no bodies, and stops looking at the first thing that it
//! does not understand, at an upgrade, and at whatever is no HTTP.

mod body;
mod head;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::event::Events;
use body::Body;
use head::{Gathered, Head, RequestFacts, ResponseFacts};

/// Requests that may wait for their answers on one connection; a relay sends one at a time.
const MOST_WAITING: usize = 64;

/// A request and its answer, as a viewer caused it. Method and path are a stranger's words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exchange {
    /// As sent.
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// `None`: the connection ended before an answer.
    pub status: Option<u16>,
    /// From the request's head to the last byte of the answer.
    pub duration: Duration,
    /// Bytes of the request's body, as framed.
    pub bytes_in: u64,
    /// Bytes of the answer's body, as framed.
    pub bytes_out: u64,
    /// The answer came to its end.
    pub whole: bool,
}

/// Follows one connection.
pub(super) struct Observer {
    off: bool,
    tls: bool,
    started: bool,
    requests: Half,
    responses: Half,
    waiting: VecDeque<Waiting>,
    /// Number of the request whose body is passing; the first of `waiting` has number `answered`.
    asked: u64,
    answered: u64,
    done: Vec<Exchange>,
}

/// Where a direction stands.
#[derive(Default)]
struct Half {
    head: Head,
    body: Option<Body>,
}

struct Waiting {
    method: String,
    path: String,
    status: Option<u16>,
    began: Instant,
    bytes_in: u64,
    bytes_out: u64,
}

impl Waiting {
    fn exchange(self, whole: bool) -> Exchange {
        let Self { method, path, status, began, bytes_in, bytes_out } = self;
        Exchange { method, path, status, duration: began.elapsed(), bytes_in, bytes_out, whole }
    }
}

impl Observer {
    pub(super) fn new() -> Self {
        Self {
            off: false,
            tls: false,
            started: false,
            requests: Half::default(),
            responses: Half::default(),
            waiting: VecDeque::new(),
            asked: 0,
            answered: 0,
            done: Vec::new(),
        }
    }

    /// Bytes that went to the target.
    fn request(&mut self, mut data: &[u8]) {
        while !self.off && !data.is_empty() {
            if let Some(body) = &mut self.requests.body {
                let before = data.len();
                let ended = body.skip(&mut data);
                let current = self.asked.checked_sub(self.answered + 1).map(|at| at as usize);
                if let Some(waiting) = current.and_then(|at| self.waiting.get_mut(at)) {
                    waiting.bytes_in += (before - data.len()) as u64;
                }
                match ended {
                    Ok(true) => self.requests.body = None,
                    Ok(false) => {}
                    Err(body::Lost) => self.off = true,
                }
                continue;
            }
            match self.requests.head.gather(&mut data, RequestFacts::parse) {
                Gathered::Some(facts) => {
                    if self.waiting.len() == MOST_WAITING {
                        self.off = true;
                        return;
                    }
                    self.requests.body = facts.body;
                    self.asked += 1;
                    self.waiting.push_back(Waiting {
                        method: facts.method,
                        path: facts.path,
                        status: None,
                        began: Instant::now(),
                        bytes_in: 0,
                        bytes_out: 0,
                    });
                }
                Gathered::More => return,
                Gathered::Lost => self.off = true,
            }
        }
    }

    /// Bytes that came from the target.
    fn response(&mut self, mut data: &[u8]) {
        if !self.started && !data.is_empty() {
            self.started = true;
            // A TLS record that is an alert: what a TLS server says to plain HTTP.
            self.tls = data.starts_with(b"\x15\x03");
        }
        while !self.off && !data.is_empty() {
            if let Some(body) = &mut self.responses.body {
                let before = data.len();
                let ended = body.skip(&mut data);
                if let Some(waiting) = self.waiting.front_mut() {
                    waiting.bytes_out += (before - data.len()) as u64;
                }
                match ended {
                    Ok(true) => self.answer(),
                    Ok(false) => {}
                    Err(body::Lost) => self.off = true,
                }
                continue;
            }
            // An answer to nothing: what comes now cannot be told apart.
            let Some(waiting) = self.waiting.front_mut() else {
                self.off = true;
                return;
            };
            let method = &waiting.method;
            match self.responses.head.gather(&mut data, |bytes| ResponseFacts::parse(bytes, method)) {
                Gathered::Some(facts) if matches!(facts.status, 100..=199) && facts.status != 101 => {}
                Gathered::Some(facts) => {
                    waiting.status = Some(facts.status);
                    self.responses.body = facts.body;
                    if facts.status == 101 {
                        self.answer();
                        self.off = true;
                    } else if self.responses.body.is_none() {
                        self.answer();
                    }
                }
                Gathered::More => return,
                Gathered::Lost => self.off = true,
            }
        }
    }

    /// The first waiting request has its whole answer.
    fn answer(&mut self) {
        self.responses.body = None;
        self.answered += 1;
        self.done.extend(self.waiting.pop_front().map(|waiting| waiting.exchange(true)));
    }

    /// The connection ended: what waits is cut off, unless the end was the end of its body.
    fn end(&mut self) {
        if self.off {
            return;
        }
        if self.responses.body.as_ref().is_some_and(Body::ends_with_connection) {
            self.answer();
        }
        self.done.extend(self.waiting.drain(..).map(|waiting| waiting.exchange(false)));
        self.off = true;
    }
}

/// A stream to a target, or at the target, whose bytes are looked at in passing.
pub(super) struct Observed<S> {
    io: S,
    /// Whoever reads here is the target: requests are read, and responses written.
    by_target: bool,
    observer: Observer,
    events: Events,
}

impl<S> Observed<S> {
    pub(super) fn new(io: S, observer: Observer, events: Events) -> Self {
        Self { io, by_target: false, observer, events }
    }

    /// The same for a stream that the target itself reads.
    pub(super) fn by_target(io: S, observer: Observer, events: Events) -> Self {
        Self { by_target: true, ..Self::new(io, observer, events) }
    }

    /// The stream alone.
    pub(super) fn into_inner(self) -> S {
        self.io
    }

    /// At the end of the connection. Whether the target spoke TLS to us instead of HTTP.
    pub(super) fn finish(&mut self) -> bool {
        self.observer.end();
        self.tell();
        self.observer.tls
    }

    fn look(&mut self, data: &[u8], is_request: bool) {
        if self.observer.off {
            return;
        }
        if is_request {
            self.observer.request(data);
        } else {
            self.observer.response(data);
            self.tell();
        }
    }

    fn tell(&mut self) {
        for exchange in self.observer.done.drain(..) {
            self.events.request(exchange);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = out.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, out))?;
        let data = &out.filled()[before..];
        this.look(data, this.by_target);
        if data.is_empty() && out.remaining() > 0 && !this.by_target {
            // The other direction may go on, and answers come no more.
            this.observer.end();
            this.tell();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, data))?;
        this.look(&data[..count], !this.by_target);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let count = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, data))?;
        let mut left = count;
        for part in data {
            let written = left.min(part.len());
            this.look(&part[..written], !this.by_target);
            left -= written;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
