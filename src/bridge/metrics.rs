//! What is counted of sessions, and the page on which Prometheus reads it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::story::By;
use crate::proto::limits::ACCEPT_PAUSE;
use crate::proto::limits::metrics::{AT_ONCE, CONNECTION, HEAD_WAIT};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a bridge has done since it began.
pub(super) struct Counts {
    registry: Registry,
    open: Gauge,
    begun: Counter,
    ended: [Counter; By::ALL.len()],
    received: Counter,
    sent: Counter,
    refused: Counter,
}

impl Counts {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("adit_bridge");
        let (open, begun, received, sent, refused) = Default::default();
        let ended = Family::<[(&'static str, &'static str); 1], Counter>::default();
        registry.register("sessions_open", "Sessions that are open now", Gauge::clone(&open));
        registry.register("sessions_begun", "Sessions whose handshake was answered", Counter::clone(&begun));
        registry.register("sessions_ended", "Sessions that have ended, by who ended them", ended.clone());
        registry.register("received_bytes", "Payload from viewers to targets", Counter::clone(&received));
        registry.register("sent_bytes", "Payload from targets to viewers", Counter::clone(&sent));
        registry.register("requests_refused", "Requests that got no WebSocket", Counter::clone(&refused));
        let ended = By::ALL.map(|by| ended.get_or_create_owned(&[("by", by.as_str())]));
        Self { registry, open, begun, ended, received, sent, refused }
    }

    pub(super) fn begin(&self) {
        self.begun.inc();
        self.open.inc();
    }

    /// So many bytes more went to a target, and to a viewer.
    pub(super) fn moved(&self, outward: u64, inward: u64) {
        self.received.inc_by(outward);
        self.sent.inc_by(inward);
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.received.get(), self.sent.get())
    }

    pub(super) fn end(&self, by: By) {
        self.open.dec();
        self.ended[by as usize].inc();
    }

    pub(super) fn refuse(&self) {
        self.refused.inc();
    }

    fn page(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => {
                let mut page = String::new();
                match encode(&mut page, &self.registry) {
                    Ok(()) => (StatusCode::OK, page.into()),
                    Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
                }
            }
            (&Method::GET, "/healthz") => (StatusCode::OK, Bytes::from_static(b"ok\n")),
            _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"GET /metrics or /healthz\n")),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let kind = if request.uri().path() == "/metrics" { OPENMETRICS } else { "text/plain; charset=utf-8" };
        response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        response
    }
}

/// Serves the page until it is dropped, with all its connections.
pub(super) async fn serve(listener: TcpListener, counts: Arc<Counts>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < AT_ONCE => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let counts = Arc::clone(&counts);
        connections.spawn(async move {
            let service = service_fn(|request| std::future::ready(Ok::<_, io::Error>(counts.page(&request))));
            let mut http = hyper::server::conn::http1::Builder::new();
            http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
            drop(timeout(CONNECTION, http.serve_connection(TokioIo::new(stream), service)).await);
        });
    }
}
