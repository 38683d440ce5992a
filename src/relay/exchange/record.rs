//! The closing record of one exchange: made once, however the exchange ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, Method, Request};
use tokio::time::Instant;

use super::ledger::Ledger;
use crate::proto::api::Proto;
use crate::proto::limits::log::PATH_CHARS;
use crate::proto::trace::{TraceId, TraceParent};
use crate::relay::errors::Cause;
use crate::relay::spans::{Ended, Span};
use crate::tunnel::Tunnel;

/// What becomes of a viewer's request, counted, and written if that is wanted, when nothing more will come of it, which is
/// when this is dropped. Never a query string or a header of strangers.
pub struct Record {
    ledger: Arc<Ledger>,
    started: Instant,
    tunnel: Option<Arc<Tunnel>>,
    /// That the viewer was sent.
    status: Option<u16>,
    cause: Option<&'static str>,
    /// The response was delivered whole.
    complete: bool,
    /// Counted by the upload, which may go on when the response is over.
    received: Arc<AtomicU64>,
    sent: u64,
    silent: bool,
    /// What is written beside that.
    text: Option<Text>,
    /// What becomes of it beside that. Boxed: it is rare, and large.
    span: Option<Box<Span>>,
}

struct Text {
    /// What the viewer speaks, where that is not HTTP.
    proto: Option<Proto>,
    /// `None`: what came was not read as a request.
    method: Option<Method>,
    /// Without the query.
    path: String,
    viewer: String,
    /// That of the span, or the one that the viewer names.
    trace: Option<TraceId>,
}

impl Record {
    /// Begins with a request of `viewer`, of which a `span` may be made.
    pub fn new<B>(
        request: &Request<B>,
        viewer: impl FnOnce() -> String,
        span: Option<Span>,
        ledger: &Arc<Ledger>,
    ) -> Box<Self> {
        let text = (ledger.written || span.is_some()).then(|| Text {
            proto: None,
            method: Some(request.method().clone()),
            path: request.uri().path().chars().take(PATH_CHARS).collect(),
            viewer: viewer(),
            trace: match &span {
                Some(span) => Some(span.trace()),
                None => TraceParent::of(request.headers()).map(|parent| parent.trace),
            },
        });
        let mut record = Self::begun(ledger, text);
        record.span = span.map(Box::new);
        record
    }

    /// Of what was refused before it was a request.
    pub fn unread(viewer: &str, ledger: &Arc<Ledger>, cause: &Cause) {
        Self::unnamed(None, viewer, ledger).refuse(cause, 0);
    }

    /// Begins with a connection that nobody reads.
    pub fn connection(
        proto: Proto,
        tunnel: Option<&Arc<Tunnel>>,
        viewer: &str,
        ledger: &Arc<Ledger>,
    ) -> Box<Self> {
        let mut record = Self::unnamed(Some(proto), viewer, ledger);
        tunnel.into_iter().for_each(|tunnel| record.route(tunnel));
        record
    }

    fn unnamed(proto: Option<Proto>, viewer: &str, ledger: &Arc<Ledger>) -> Box<Self> {
        let text = || {
            let (path, viewer) = (String::new(), viewer.to_owned());
            Text { proto, method: None, path, viewer, trace: None }
        };
        Self::begun(ledger, ledger.written.then(text))
    }

    fn begun(ledger: &Arc<Ledger>, text: Option<Text>) -> Box<Self> {
        Box::new(Self {
            ledger: Arc::clone(ledger),
            started: Instant::now(),
            tunnel: None,
            status: None,
            cause: None,
            complete: false,
            received: Arc::default(),
            sent: 0,
            silent: false,
            text,
            span: None,
        })
    }

    /// It is for this tunnel.
    pub fn route(&mut self, tunnel: &Arc<Tunnel>) {
        tunnel.traffic.viewers.fetch_add(1, Ordering::Relaxed);
        self.tunnel = Some(Arc::clone(tunnel));
    }

    /// Where the bytes of the body are counted as they come.
    pub fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// The target's response begins.
    pub fn answer(&mut self, status: u16) {
        self.status = Some(status);
        self.ledger.first_byte.record(self.started.elapsed());
    }

    /// So many bytes of its body are for the viewer.
    pub fn send(&mut self, count: u64) {
        self.sent += count;
        self.ledger.bytes_out.add(count);
    }

    /// Nothing is missing.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// The response breaks off. The first cause counts.
    pub fn fail(&mut self, cause: &Cause) {
        self.cause.get_or_insert(cause.label());
    }

    /// The relay itself answers, with a page of so many bytes.
    pub fn refuse(mut self, cause: &Cause, bytes: u64) {
        self.fail(cause);
        if *cause != Cause::ViewerLeft {
            (self.status, self.sent, self.complete) = (Some(cause.status().as_u16()), bytes, true);
        }
    }

    /// Nothing comes of it: it was no viewer's request.
    pub fn discard(mut self) {
        (self.silent, self.span) = (true, None);
    }

    /// The target is told of the span, if there is one, in the headers of its request.
    pub fn pass_on(&self, headers: &mut HeaderMap) {
        if let Some(span) = &self.span {
            span.pass_on(headers);
        }
    }

    /// Ends the span with what is known of the exchange.
    fn end_span(&mut self, received: u64) {
        let (Some(span), Some(text)) = (self.span.take(), &self.text) else { return };
        let Some(method) = &text.method else { return };
        span.end(&Ended {
            tunnel: self.tunnel.as_ref().map(|tunnel| tunnel.name.as_str()),
            method,
            path: &text.path,
            viewer: &text.viewer,
            status: self.status,
            cause: self.cause,
            received,
            sent: self.sent,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(tunnel) = &self.tunnel {
            tunnel.traffic.viewers.fetch_sub(1, Ordering::Relaxed);
        }
        if self.silent {
            return;
        }
        if !self.complete {
            let cut = self.ledger.ending.cut.is_cancelled();
            self.fail(if cut { &Cause::Draining } else { &Cause::ViewerLeft });
        }
        let (received, lasted) = (self.received.load(Ordering::Relaxed), self.started.elapsed());
        self.ledger.bytes_in.add(received);
        self.ledger.close(self.status, self.cause, lasted);
        if let (Some(tunnel), Some(cause)) = (&self.tunnel, self.cause) {
            tunnel.traffic.failed(cause);
        }
        self.end_span(received);
        let Some(text) = self.text.as_ref().filter(|_| self.ledger.written) else { return };
        tracing::info!(
            target: "adit::exchange",
            tunnel = self.tunnel.as_ref().map(|tunnel| tunnel.name.as_str()),
            proto = text.proto.map(Proto::as_str),
            method = text.method.as_ref().map(Method::as_str),
            path = text.path,
            viewer = text.viewer,
            trace_id = text.trace.map(tracing::field::display),
            status = self.status,
            cause = self.cause,
            complete = self.complete,
            bytes_in = received,
            bytes_out = self.sent,
            ms = lasted.as_millis() as u64,
            "exchange"
        );
    }
}
