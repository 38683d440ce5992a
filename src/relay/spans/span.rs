//! The span of one exchange, by the semantic conventions for HTTP servers.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, SpanData};

use super::{Ended, Spans};
use crate::proto::trace::{TRACEPARENT, TRACESTATE, TraceId, TraceParent};

/// The methods that the conventions know; a stranger's own would be a name of its own each.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::CONNECT,
    Method::TRACE,
];

/// A span under way.
pub struct Span {
    spans: Arc<Spans>,
    /// This one, and what the target is told as the one that its request comes from.
    own: TraceParent,
    /// The viewer's.
    parent: Option<TraceParent>,
    state: TraceState,
    started: SystemTime,
    version: Version,
    secure: bool,
    host: Option<String>,
}

impl Span {
    pub(super) fn begin<B>(spans: &Arc<Spans>, request: &Request<B>, secure: bool) -> Option<Self> {
        let headers = request.headers();
        let parent = TraceParent::of(headers);
        let trace =
            parent.map_or_else(|| TraceId(spans.ids.new_trace_id().to_bytes()), |parent| parent.trace);
        let sampled = spans.sampler.takes(parent, trace);
        // What the viewer says goes on as it came.
        if parent.is_some_and(|parent| !parent.sampled) && !sampled {
            return None;
        }
        let own = TraceParent { trace, span: spans.ids.new_span_id().to_bytes(), sampled };
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let host = authority.or_else(|| headers.get(header::HOST)?.to_str().ok());
        let (state, host) = match sampled {
            true => (parent.map_or_else(TraceState::default, |_| state_of(headers)), host.map(str::to_owned)),
            false => (TraceState::default(), None),
        };
        let (spans, started, version) = (Arc::clone(spans), SystemTime::now(), request.version());
        Some(Self { spans, own, parent, state, started, version, secure, host })
    }

    /// The trace that it belongs to.
    pub fn trace(&self) -> TraceId {
        self.own.trace
    }

    /// Makes this span the one that a request with these headers comes from.
    pub fn pass_on(&self, headers: &mut HeaderMap) {
        let Some(own) = self.own.header() else { return };
        headers.insert(TRACEPARENT, own);
        if self.parent.is_none() {
            // It was of another trace, or of none.
            headers.remove(TRACESTATE);
        }
    }

    /// Sends it, if it is of a trace that is recorded.
    pub fn end(self, ended: &Ended<'_>) {
        if !self.own.sampled {
            return;
        }
        let known = METHODS.contains(ended.method);
        let context = SpanContext::new(
            opentelemetry::TraceId::from_bytes(self.own.trace.0),
            SpanId::from_bytes(self.own.span),
            TraceFlags::SAMPLED,
            false,
            self.state.clone(),
        );
        let failed = failure(ended);
        self.spans.send(SpanData {
            span_context: context,
            parent_span_id: self.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.span)),
            parent_span_is_remote: self.parent.is_some(),
            span_kind: SpanKind::Server,
            name: if known { Cow::Owned(ended.method.to_string()) } else { Cow::Borrowed("HTTP") },
            start_time: self.started,
            end_time: SystemTime::now().max(self.started),
            attributes: self.attributes(ended, known, failed),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: failed.map_or(Status::Unset, |cause| Status::error(cause.unwrap_or_default())),
            instrumentation_scope: self.spans.scope.clone(),
        });
    }

    fn attributes(
        &self,
        ended: &Ended<'_>,
        known: bool,
        failed: Option<Option<&'static str>>,
    ) -> Vec<KeyValue> {
        let mut all = Vec::with_capacity(16);
        let mut text = |key: &'static str, value: &str| all.push(KeyValue::new(key, value.to_owned()));
        text("http.request.method", if known { ended.method.as_str() } else { "_OTHER" });
        if !known {
            text("http.request.method_original", ended.method.as_str());
        }
        text("url.path", ended.path);
        text("url.scheme", if self.secure { "https" } else { "http" });
        text("client.address", ended.viewer);
        if let Some(host) = &self.host {
            text(
                "server.address",
                host.rsplit_once(':')
                    .map_or(host, |(name, port)| if port.ends_with(']') { host } else { name }),
            );
        }
        text(
            "network.protocol.version",
            match self.version {
                Version::HTTP_10 => "1.0",
                Version::HTTP_2 => "2",
                _ => "1.1",
            },
        );
        if let Some(tunnel) = ended.tunnel {
            text("adit.tunnel", tunnel);
        }
        if let Some(cause) = ended.cause {
            text("adit.cause", cause);
        }
        let status = ended.status.map(|status| status.to_string());
        if failed.is_some() {
            text("error.type", ended.cause.or(status.as_deref()).unwrap_or("_OTHER"));
        }
        let mut number =
            |key, value: u64| all.push(KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX)));
        if let Some(status) = ended.status {
            number("http.response.status_code", status.into());
        }
        number("http.request.body.size", ended.received);
        number("http.response.body.size", ended.sent);
        all
    }
}

/// Whether the exchange failed, and why: by its status, or as it broke off behind a good one. A viewer that leaves or is
/// refused is no failure of the server.
fn failure(ended: &Ended<'_>) -> Option<Option<&'static str>> {
    match ended.status.and_then(|status| StatusCode::from_u16(status).ok()) {
        Some(status) if status.is_server_error() => Some(ended.cause),
        Some(status) if status.is_client_error() => None,
        _ => ended.cause.filter(|cause| *cause != "viewer_left").map(Some),
    }
}

fn state_of(headers: &HeaderMap) -> TraceState {
    let mut lines = headers.get_all(TRACESTATE).iter().map(HeaderValue::to_str);
    let Some(Ok(first)) = lines.next() else { return TraceState::default() };
    let joined = lines.try_fold(first.to_owned(), |joined, line| line.map(|line| joined + "," + line));
    joined.ok().and_then(|joined| TraceState::from_str(&joined).ok()).unwrap_or_default()
}
