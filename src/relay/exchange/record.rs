//! The closing record of one exchange: written once, however the exchange ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, Method, Request};
use tokio::time::Instant;

use crate::proto::api::Proto;
use crate::proto::limits::log::PATH_CHARS;
use crate::proto::trace::{TraceId, TraceParent};
use crate::relay::ending::Ending;
use crate::relay::errors::Cause;
use crate::relay::spans::{Ended, Span};
use crate::tunnel::Tunnel;

/// What is written of a viewer's request when nothing more will come of it, which is when this is dropped. Never a query
/// string or a header of strangers.
pub struct Record {
    /// What the viewer speaks, where that is not HTTP.
    proto: Option<Proto>,
    /// `None`: what came was not read as a request.
    method: Option<Method>,
    /// Without the query.
    path: String,
    viewer: String,
    started: Instant,
    ending: Arc<Ending>,
    tunnel: Option<Arc<Tunnel>>,
    /// The one that the viewer names, or that begins here.
    trace: Option<TraceId>,
    /// That the viewer was sent.
    status: Option<u16>,
    cause: Option<&'static str>,
    /// The response was delivered whole.
    complete: bool,
    /// Counted by the upload, which may go on when the response is over.
    received: Arc<AtomicU64>,
    sent: u64,
    /// It is written to the log.
    logged: bool,
    /// What becomes of it beside that. Boxed: it is rare, and large.
    span: Option<Box<Span>>,
}

impl Record {
    /// Begins with a request.
    pub fn new<B>(request: &Request<B>, viewer: &str, ending: &Arc<Ending>) -> Box<Self> {
        let path = request.uri().path().chars().take(PATH_CHARS).collect();
        let mut record = Self::begun(Some(request.method().clone()), path, viewer, ending);
        record.trace = TraceParent::of(request.headers()).map(|parent| parent.trace);
        record
    }

    /// Writes of what was refused before it was a request.
    pub fn unread(viewer: &str, ending: &Arc<Ending>, cause: &Cause) {
        Self::begun(None, String::new(), viewer, ending).refuse(cause, 0);
    }

    /// Begins with a connection that nobody reads.
    pub fn connection(
        proto: Proto,
        tunnel: Option<&Arc<Tunnel>>,
        viewer: &str,
        ending: &Arc<Ending>,
    ) -> Box<Self> {
        let mut record = Self::begun(None, String::new(), viewer, ending);
        (record.proto, record.tunnel) = (Some(proto), tunnel.map(Arc::clone));
        record
    }

    fn begun(method: Option<Method>, path: String, viewer: &str, ending: &Arc<Ending>) -> Box<Self> {
        Box::new(Self {
            proto: None,
            method,
            path,
            viewer: viewer.to_owned(),
            started: Instant::now(),
            ending: Arc::clone(ending),
            tunnel: None,
            trace: None,
            status: None,
            cause: None,
            complete: false,
            received: Arc::default(),
            sent: 0,
            logged: true,
            span: None,
        })
    }

    /// It is for this tunnel.
    pub fn route(&mut self, tunnel: &Arc<Tunnel>) {
        self.tunnel = Some(Arc::clone(tunnel));
    }

    /// Where the bytes of the body are counted as they come.
    pub fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// The target's response begins.
    pub fn answer(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// So many bytes of its body are for the viewer.
    pub fn send(&mut self, count: u64) {
        self.sent += count;
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

    /// Nothing is written: it was no viewer's request.
    pub fn discard(mut self) {
        (self.logged, self.span) = (false, None);
    }

    /// A span is made of it, too; and no line in the log, unless that is wanted.
    pub fn trace(&mut self, span: Option<Span>, logged: bool) {
        self.trace = span.as_ref().map(Span::trace).or(self.trace);
        (self.span, self.logged) = (span.map(Box::new), logged);
    }

    /// The target is told of the span, if there is one, in the headers of its request.
    pub fn pass_on(&self, headers: &mut HeaderMap) {
        if let Some(span) = &self.span {
            span.pass_on(headers);
        }
    }

    /// Ends the span with what is known of the exchange.
    fn end_span(&mut self) {
        let (Some(span), Some(method)) = (self.span.take(), &self.method) else { return };
        span.end(&Ended {
            tunnel: self.tunnel.as_ref().map(|tunnel| tunnel.name.as_str()),
            method,
            path: &self.path,
            viewer: &self.viewer,
            status: self.status,
            cause: self.cause,
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.logged && self.span.is_none() {
            return;
        }
        if !self.complete {
            let cut = self.ending.cut.is_cancelled();
            self.fail(if cut { &Cause::Draining } else { &Cause::ViewerLeft });
        }
        self.end_span();
        if !self.logged {
            return;
        }
        tracing::info!(
            target: "adit::exchange",
            tunnel = self.tunnel.as_ref().map(|tunnel| tunnel.name.as_str()),
            proto = self.proto.map(Proto::as_str),
            method = self.method.as_ref().map(Method::as_str),
            path = self.path,
            viewer = self.viewer,
            trace_id = self.trace.map(tracing::field::display),
            status = self.status,
            cause = self.cause,
            complete = self.complete,
            bytes_in = self.received.load(Ordering::Relaxed),
            bytes_out = self.sent,
            ms = self.started.elapsed().as_millis() as u64,
            "exchange"
        );
    }
}
