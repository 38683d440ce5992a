//! Spans of exchanges at a collector that reads them as OTLP over HTTP has them; for builds with the feature `otlp`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]
#![allow(dead_code, reason = "what it shares with the other tests")]

#[path = "it/certs.rs"]
mod certs;
#[path = "it/frame_bytes.rs"]
mod frame_bytes;
#[path = "it/frames.rs"]
mod frames;
#[path = "it/program.rs"]
mod program;
#[path = "it/rig.rs"]
mod rig;
#[path = "it/wire.rs"]
mod wire;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use adit::relay::config::RelayConfig;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode as Code};
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use program::{RELAY, Running, adit, http as call, keys};
use rig::{ALICE, Rig, soon};
use wire::{Recorder, Viewer, scripted};

/// A collector: what it gets, each with the headers of its request.
struct Collector {
    address: SocketAddr,
    calls: mpsc::Receiver<(http::request::Parts, ExportTraceServiceRequest)>,
}

async fn serve<S>(stream: S, calls: mpsc::Sender<(http::request::Parts, ExportTraceServiceRequest)>)
where
    S: Read + Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let calls = calls.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            calls.send((parts, ExportTraceServiceRequest::decode(body).unwrap())).await.unwrap();
            // An empty message: all were taken.
            let answer = Response::builder().header("content-type", "application/x-protobuf");
            Ok::<_, Infallible>(answer.body(Full::new(Bytes::new())).unwrap())
        }
    });
    drop(hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await);
}

impl Collector {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (send, calls) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (send, tls) = (send.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(TokioIo::new(stream), send).await,
                        Some(tls) => serve(TokioIo::new(tls.accept(stream).await.unwrap()), send).await,
                    }
                });
            }
        });
        Self { address, calls }
    }

    fn url(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// The spans of the next call, and the attributes of what they are of.
    async fn next(&mut self) -> (http::request::Parts, BTreeMap<String, String>, Vec<Span>) {
        let (parts, mut request) = soon(self.calls.recv()).await.unwrap();
        assert_eq!(request.resource_spans.len(), 1, "{request:#?}");
        let mut of = request.resource_spans.remove(0);
        assert_eq!(of.scope_spans.len(), 1, "{of:#?}");
        let spans = of.scope_spans.remove(0);
        assert_eq!(spans.scope.unwrap().name, "adit");
        (parts, attributes(&of.resource.unwrap().attributes), spans.spans)
    }

    /// All spans of a relay, which ends by that.
    async fn all(mut self, rig: Rig) -> Vec<Span> {
        rig.shutdown().await;
        let mut all = Vec::new();
        while let Ok((_, request)) = self.calls.try_recv() {
            let spans = request.resource_spans.into_iter().flat_map(|of| of.scope_spans);
            all.extend(spans.flat_map(|of| of.spans));
        }
        all
    }
}

fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pair = |all: &KeyValue| (all.key.clone(), text(all.value.as_ref()?.value.as_ref()?)).into();
    let pairs: BTreeMap<_, _> = all.iter().filter_map(pair).collect();
    assert_eq!(pairs.len(), all.len(), "each once: {all:#?}");
    pairs
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn rig(collector: &Collector, change: impl FnOnce(&mut RelayConfig)) -> Rig {
    Rig::with(|config| {
        config.otlp_endpoint = Some(collector.url());
        change(config);
    })
    .await
}

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn get(lines: &str) -> String {
    format!("GET /path?token=s3cret HTTP/1.1\r\nHost: web.relay.test:80\r\n{lines}\r\n")
}

#[tokio::test]
async fn an_exchange_is_a_span_and_the_target_is_told_of_it() {
    let collector = Collector::start(None).await;
    let rig = rig(&collector, |_| {}).await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(get("tracestate: of=nothing\r\n")).await;
    assert_eq!(viewer.answer().await.status, 200);
    let seen = recorder.only();
    drop(viewer);
    let spans = collector.all(rig).await;
    let [span] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!((span.name.as_str(), span.kind()), ("GET", SpanKind::Server));
    assert!(span.parent_span_id.is_empty() && span.trace_state.is_empty(), "{span:#?}");
    assert!(0 < span.start_time_unix_nano && span.start_time_unix_nano <= span.end_time_unix_nano);
    assert_eq!(span.status.as_ref().map_or(Code::Unset, |status| status.code()), Code::Unset);
    let told = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
    assert_eq!(seen.all("traceparent"), [told.as_str()]);
    assert_eq!(seen.all("tracestate"), [""; 0], "it was of no trace");
    let expected = [
        ("adit.tunnel", "web"),
        ("client.address", "127.0.0.1"),
        ("http.request.body.size", "0"),
        ("http.request.method", "GET"),
        ("http.response.body.size", "2"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("server.address", "web.relay.test"),
        ("url.path", "/path"),
        ("url.scheme", "http"),
    ];
    assert_eq!(attributes(&span.attributes), expected.map(|(key, value)| (key.into(), value.into())).into());
}

#[tokio::test]
async fn a_span_is_a_child_of_the_viewers_if_that_one_is_recorded() {
    let collector = Collector::start(None).await;
    let rig = rig(&collector, |_| {}).await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(get(&format!("traceparent: {PARENT}\r\ntracestate: a=1\r\ntracestate: b=2\r\n"))).await;
    viewer.answer().await;
    let recorded = recorder.only();
    assert_eq!(recorded.all("tracestate"), ["a=1", "b=2"]);
    // One that nobody records, and some that are none.
    let unrecorded = PARENT.replace("-01", "-00");
    viewer.say(get(&format!("traceparent: {unrecorded}\r\ntracestate: a=1\r\n"))).await;
    viewer.answer().await;
    let seen = recorder.only();
    assert_eq!((seen.all("traceparent"), seen.all("tracestate")), (vec![unrecorded.as_str()], vec!["a=1"]));
    viewer.say(get(&format!("traceparent: {PARENT}-x\r\ntracestate: a=1\r\n"))).await;
    viewer.answer().await;
    let broken = recorder.only();
    assert_eq!(broken.all("tracestate"), [""; 0]);
    drop(viewer);
    let spans = collector.all(rig).await;
    let [child, root] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!(hex(&child.trace_id), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(
        (hex(&child.parent_span_id).as_str(), child.trace_state.as_str()),
        ("00f067aa0ba902b7", "a=1,b=2")
    );
    let told = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", hex(&child.span_id));
    assert_eq!(recorded.all("traceparent"), [told.as_str()]);
    assert!(root.parent_span_id.is_empty() && root.trace_id != child.trace_id);
    let told = format!("00-{}-{}-01", hex(&root.trace_id), hex(&root.span_id));
    assert_eq!(broken.all("traceparent"), [told.as_str()]);
}

#[tokio::test]
async fn what_is_refused_or_fails_has_a_span_with_its_cause() {
    let collector = Collector::start(None).await;
    let rig = rig(&collector, |_| {}).await;
    rig.create(ALICE, "offline").await;
    let _client =
        rig.client(ALICE, "cut", scripted("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await).await;
    let _other = rig.client(ALICE, "bad", scripted("nonsense\r\n\r\n").await).await;
    rig.get("none", "/").await;
    rig.get("offline", "/").await;
    rig.get("bad", "/").await;
    // A method that is a stranger's own makes no name of its own.
    rig.raw("S3CRET / HTTP/1.1\r\nHost: none.relay.test\r\nConnection: close\r\n\r\n").await;
    let io = TokioIo::new(tokio::net::TcpStream::connect(rig.address).await.unwrap());
    let (mut sender, connection) =
        soon(hyper::client::conn::http2::handshake(TokioExecutor::new(), io)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://none.relay.test/").body(Full::new(Bytes::new())).unwrap();
    assert_eq!(soon(sender.send_request(request)).await.unwrap().status(), StatusCode::NOT_FOUND);
    // What the relay answers for itself, and what is no request, has none.
    rig.api(ALICE, "GET", "/v1/tunnels", "").await;
    rig.raw("nonsense\r\n\r\n").await;
    drop(sender);
    let spans = collector.all(rig).await;
    let shown: Vec<_> = spans
        .iter()
        .map(|span| {
            let mut all = attributes(&span.attributes);
            let mut of = |key: &str| all.remove(key).unwrap_or_default();
            let code = span.status.as_ref().map_or(Code::Unset, |status| status.code());
            let (status, cause) = (of("http.response.status_code"), of("adit.cause"));
            (
                span.name.clone(),
                status,
                cause,
                of("error.type"),
                code == Code::Error,
                of("network.protocol.version"),
            )
        })
        .collect();
    let expected = [
        ("GET", "404", "no_such_tunnel", "", false, "1.1"),
        ("GET", "503", "client_offline", "client_offline", true, "1.1"),
        ("GET", "502", "bad_response", "bad_response", true, "1.1"),
        ("HTTP", "404", "no_such_tunnel", "", false, "1.1"),
        ("GET", "404", "no_such_tunnel", "", false, "2"),
    ];
    let expected =
        expected.map(|(a, b, c, d, e, f)| (a.into(), b.into(), c.into(), d.into(), e, f.into())).to_vec();
    assert_eq!(shown, expected, "{spans:#?}");
}

// ---- the program ----

/// A relay whose spans go out soon, with these variables.
async fn relay(home: &std::path::Path, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
    let mut command = adit(home, &RELAY);
    command.args(arguments).env("ADIT_KEYS", keys()).env("OTEL_BSP_SCHEDULE_DELAY", "50");
    command.envs(variables.iter().copied());
    Running::start(command).await
}

async fn request(relay: &Running) {
    call(relay.addresses[0], "GET /t/none/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
}

#[tokio::test]
async fn the_option_and_the_usual_variables_name_the_collector() {
    let home = tempfile::tempdir().unwrap();
    let mut collector = Collector::start(None).await;
    let base = format!("http://{}/", collector.address);
    let whole = format!("http://{}/other", collector.address);
    let named = [("OTEL_SERVICE_NAME", "edge"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=one")];
    for (arguments, variables, path, name, tenant) in [
        (&["--otlp-endpoint", base.as_str()][..], &[][..], "/v1/traces", "adit", None),
        (
            &[],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", base.as_str()), named[0], named[1]],
            "/v1/traces",
            "edge",
            Some("one"),
        ),
        (&[], &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", whole.as_str())], "/other", "adit", None),
    ] {
        let relay = relay(home.path(), arguments, variables).await;
        request(&relay).await;
        let (parts, of, spans) = collector.next().await;
        assert_eq!((parts.uri.path(), parts.method.as_str(), spans.len()), (path, "POST", 1));
        assert_eq!(parts.headers["content-type"], "application/x-protobuf");
        assert_eq!(parts.headers.get("x-tenant").map(|value| value.to_str().unwrap()), tenant);
        assert_eq!(
            (of["service.name"].as_str(), of["service.version"].as_str()),
            (name, env!("CARGO_PKG_VERSION"))
        );
        relay.signal("TERM");
        assert_eq!(relay.end().await.0, Some(0));
    }
}

#[tokio::test]
async fn a_collector_by_tls_is_verified() {
    let home = tempfile::tempdir().unwrap();
    let authority = certs::Authority::new();
    let (certificate, key) = authority.issue(&["localhost"]);
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let mut collector = Collector::start(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let url = format!("https://localhost:{}", collector.address.port());
    let ca = authority.file(home.path());
    let variables = [("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.to_str().unwrap())];
    let relay = relay(home.path(), &["--otlp-endpoint", &url], &variables).await;
    request(&relay).await;
    assert_eq!(collector.next().await.2.len(), 1);
}

#[tokio::test]
async fn a_collector_that_is_away_holds_up_nothing_and_what_it_misses_is_told() {
    let home = tempfile::tempdir().unwrap();
    // It takes connections, and says nothing on them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let variables = [("OTEL_BSP_MAX_QUEUE_SIZE", "100"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")];
    let relay = relay(home.path(), &["--otlp-endpoint", &url], &variables).await;
    let mut viewer = Viewer(tokio::net::TcpStream::connect(relay.addresses[0]).await.unwrap());
    for _ in 0..1000 {
        viewer.say("GET /t/none/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(viewer.answer().await.status, 404);
    }
    drop(viewer);
    relay.signal("TERM");
    let (code, said) = relay.end().await;
    assert_eq!(code, Some(0));
    let records = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let lost: Vec<_> =
        records.filter(|record| record["message"] == "spans did not reach the collector").collect();
    let count: u64 = lost.iter().map(|record| record["count"].as_u64().unwrap()).sum();
    // Ten are on their way all the time.
    assert!((985..=1000).contains(&count), "{lost:#?}");
    assert!(lost.len() <= 3, "{lost:#?}");
    assert_eq!(lost[0]["error"], "too many wait already");
}

#[tokio::test]
async fn a_collector_that_nobody_is_is_named_with_its_error() {
    let home = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let variables = [("OTEL_EXPORTER_OTLP_TIMEOUT", "200")];
    let mut relay = relay(home.path(), &["--otlp-endpoint", &format!("http://{nobody}")], &variables).await;
    request(&relay).await;
    relay.until("spans did not reach the collector").await;
    assert!(relay.said.contains("refused"), "{}", relay.said);
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_what_to_write() {
    let home = tempfile::tempdir().unwrap();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    for (arguments, variables, told) in [
        (&["--otlp-endpoint", "collector:4318"][..], vec![], "write http:// or https://"),
        (&[], vec![endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "http/protobuf"),
        (&[], vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "collector")], "write http:// or https://"),
    ] {
        let mut command = adit(home.path(), &RELAY);
        let (code, _, said) = program::run(command.args(arguments).envs(variables)).await;
        assert!(code == 2 && said.contains(told), "{said}");
    }
    let mut command = adit(home.path(), &["relay", "--check"]);
    let off = [endpoint, ("OTEL_TRACES_EXPORTER", "none")];
    let (code, said, _) = program::run(command.envs(off)).await;
    assert!(code == 0 && said.contains("# otlp-endpoint is not set"), "{said}");
    let mut command = adit(home.path(), &["relay", "--check"]);
    let (_, said, _) = program::run(command.envs([endpoint])).await;
    let shown =
        "otlp-endpoint = \"http://127.0.0.1:4317/v1/traces\"  # environment OTEL_EXPORTER_OTLP_ENDPOINT";
    assert!(said.contains(shown), "{said}");
}
