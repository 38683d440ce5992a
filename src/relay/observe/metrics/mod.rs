//! `GET /metrics`: what the relay counts, for Prometheus and others that read its formats.
//!
//! Nothing is counted for this alone: a page is made of atomics that are there anyway, when somebody asks, and at most once a
//! second however many ask.

mod families;
mod page;
mod text;

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text::encode};
use prometheus_client::registry::Registry;
use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::FRESH;
use crate::proto::limits::metrics::WAIT;
use crate::relay::Shared;
use crate::relay::fresh::Fresh;
use page::Page;

const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A page, in both formats.
#[derive(Clone)]
struct Written {
    openmetrics: Bytes,
    plain: Bytes,
}

/// The last page, and leave to write the next.
pub struct Pages {
    last: Fresh<Written>,
    turn: Semaphore,
}

impl Default for Pages {
    fn default() -> Self {
        Self { last: Fresh::new(FRESH), turn: Semaphore::new(1) }
    }
}

impl Pages {
    async fn get(&self, shared: &Arc<Shared>) -> Option<Written> {
        if let Some(written) = self.last.get() {
            return Some(written);
        }
        let _turn = self.turn.acquire().await.ok()?;
        if let Some(written) = self.last.get() {
            return Some(written);
        }
        let (shared, runtime) = (Arc::clone(shared), Handle::current().metrics());
        let written = spawn_blocking(move || write(shared, runtime)).await.ok()?.ok()?;
        self.last.set(written.clone());
        Some(written)
    }
}

/// `GET /metrics`: OpenMetrics for whoever asks for that, and for others the older text format, which all scrapers know.
pub async fn metrics(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let Ok(Some(page)) = timeout(WAIT, shared.observer.pages.get(&shared)).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the metrics cannot be written now; try again\n")
            .into_response();
    };
    let (kind, body) =
        if wants_openmetrics(&headers) { (OPENMETRICS, page.openmetrics) } else { (PLAIN, page.plain) };
    let headers =
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (headers, body).into_response()
}

fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|kinds| kinds.contains("application/openmetrics-text"))
}

fn write(shared: Arc<Shared>, runtime: RuntimeMetrics) -> Result<Written, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Figures { shared, runtime }));
    let mut openmetrics = String::new();
    encode(&mut openmetrics, &registry)?;
    let plain = text::plain(&openmetrics);
    Ok(Written { openmetrics: openmetrics.into(), plain: plain.into() })
}

/// Everything, as the library wants it.
struct Figures {
    shared: Arc<Shared>,
    runtime: RuntimeMetrics,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        families::write(&mut Page(encoder), &self.shared, &self.runtime)
    }
}
