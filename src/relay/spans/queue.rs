//! Spans that wait for the collector: in batches, by a thread of the SDK's; nobody waits for one that is slow or away.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Uri};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, RandomIdGenerator, SpanData, SpanExporter, SpanProcessor,
};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::collector::{Collector, Failure};
use super::sampler::Sampler;
use super::{Span, SpansError};
use crate::proto::limits::spans::{LAST, TELL_EVERY, WAITING};
use crate::stream::tls;
use crate::sync::lock;

/// Sends spans of exchanges to a collector.
pub struct Spans {
    processor: Arc<BatchSpanProcessor>,
    account: Arc<Account>,
    most: usize,
    pub(super) sampler: Sampler,
    pub(super) ids: RandomIdGenerator,
    pub(super) scope: InstrumentationScope,
}

/// What became of spans.
#[derive(Default)]
struct Account {
    /// Ended, and not with the exporter yet.
    waiting: AtomicUsize,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    /// Spans that will never arrive and of which nothing was said yet.
    lost: usize,
    /// When something was said; `None`: all is well.
    at: Option<Instant>,
}

impl Account {
    fn lose(&self, count: usize, error: &str) {
        let mut told = lock(&self.told);
        told.lost += count;
        if told.at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            let count = std::mem::take(&mut told.lost);
            tracing::warn!(count, error, "spans did not reach the collector");
            told.at = Some(Instant::now());
        }
    }

    fn arrive(&self) {
        let mut told = lock(&self.told);
        if told.at.take().is_some() {
            let count = std::mem::take(&mut told.lost);
            tracing::info!(lost_meanwhile = count, "spans reach the collector again");
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Spans {
    /// Begins to send to the collector at `endpoint`, the whole URL for traces. Headers, timeout, compression, resource,
    /// sampler and batches are as the environment has them for every program with OpenTelemetry.
    pub fn open(endpoint: Option<&str>) -> Result<Option<Arc<Self>>, SpansError> {
        let Some(endpoint) = endpoint else { return Ok(None) };
        let unusable = |error: String| SpansError::Unusable(error);
        let uri: Uri = endpoint.parse().map_err(|error| unusable(format!("{endpoint:?}: {error}")))?;
        let tls = match uri.scheme_str() {
            Some("https") => Some(connector()?),
            Some("http") => None,
            _ => return Err(unusable(format!("{endpoint:?}: write http:// or https://, a host and a port"))),
        };
        let (name, argument) = (variable("OTEL_TRACES_SAMPLER"), variable("OTEL_TRACES_SAMPLER_ARG"));
        let sampler = Sampler::read(name.as_deref(), argument.as_deref())?;
        let failure = Failure::default();
        let collector = Collector { runtime: Handle::current(), tls, failure: Arc::clone(&failure) };
        let exporter = Otlp::builder()
            .with_http()
            .with_http_client(collector)
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let account = Arc::new(Account::default());
        let exporter = Exporter { exporter, failure, account: Arc::clone(&account) };
        let most = variable("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|text| text.parse().ok()).unwrap_or(WAITING);
        let batches = BatchConfigBuilder::default().with_max_queue_size(most).build();
        let mut processor = BatchSpanProcessor::new(exporter, batches);
        processor.set_resource(&resource());
        let version = env!("CARGO_PKG_VERSION");
        let scope = InstrumentationScope::builder("adit").with_version(version).build();
        let (processor, ids) = (Arc::new(processor), RandomIdGenerator::default());
        Ok(Some(Arc::new(Self { processor, account, most, sampler, ids, scope })))
    }

    /// Begins with a request; `secure`: it came by TLS. `None`: it is of a trace that nobody records.
    pub fn begin<B>(self: &Arc<Self>, request: &Request<B>, secure: bool) -> Option<Span> {
        Span::begin(self, request, secure)
    }

    /// Sends with the next batch. Never waits.
    pub(super) fn send(&self, span: SpanData) {
        // Counted here, as the SDK does not say how many it drops.
        if self.account.waiting.fetch_add(1, Ordering::AcqRel) >= self.most {
            self.account.waiting.fetch_sub(1, Ordering::AcqRel);
            self.account.lose(1, "too many wait already");
        } else {
            self.processor.on_end(span);
        }
    }

    /// Sends what waits, but not for long. What comes later is lost.
    pub async fn finish(&self) {
        let processor = Arc::clone(&self.processor);
        let finished = spawn_blocking(move || processor.shutdown_with_timeout(LAST)).await;
        let waiting = self.account.waiting.swap(0, Ordering::AcqRel);
        let mut told = lock(&self.account.told);
        let count = std::mem::take(&mut told.lost) + waiting;
        if count > 0 {
            let error = finished.ok().and_then(Result::err).map(|error: OTelSdkError| error.to_string());
            tracing::warn!(count, error, "spans did not reach the collector");
        }
    }
}

/// Verified against the authorities of the environment, or else of the system.
fn connector() -> Result<tokio_rustls::TlsConnector, SpansError> {
    for name in ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"] {
        if let Some(path) = variable(name) {
            let failed =
                |error: String| SpansError::Unusable(format!("environment {name}: {path:?}: {error}"));
            let pem = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
            return tls::trusting(&pem).map_err(failed);
        }
    }
    tls::verified().map_err(|error| SpansError::Unusable(error.to_string()))
}

/// What all spans are of: `adit`, unless the environment has another name.
fn resource() -> Resource {
    let from_environment = Resource::builder().build();
    let named = |attribute: (&opentelemetry::Key, &opentelemetry::Value)| {
        attribute.0.as_str() == "service.name" && !attribute.1.as_str().starts_with("unknown_service")
    };
    let builder =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if from_environment.iter().any(named) {
        builder.build()
    } else {
        builder.with_service_name("adit").build()
    }
}

/// Keeps the account of an exporter.
struct Exporter {
    exporter: Otlp,
    failure: Failure,
    account: Arc<Account>,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exporter.fmt(f)
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.account.waiting.fetch_sub(count, Ordering::AcqRel);
        let exported = self.exporter.export(batch).await;
        match &exported {
            Ok(()) => self.account.arrive(),
            Err(error) => {
                let failure = lock(&self.failure).take();
                self.account.lose(count, &failure.unwrap_or_else(|| error.to_string()));
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
