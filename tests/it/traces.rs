//! The trace of a viewer's request goes on as it came, whatever either side speaks.

use http::HeaderMap;
use tokio::net::TcpStream;

use crate::grpc::client;
use crate::http2::{connect, empty, get};
use crate::multiplex::{by_hand, say};
use crate::rig::{ALICE, Rig, soon};
use crate::wire::{Recorder, Viewer};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const STATES: [&str; 2] = ["congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", "tenant@vendor=\"é\""];

fn request() -> String {
    let [first, second] = STATES;
    format!(
        "GET / HTTP/1.1\r\nHost: web.relay.test\r\nTraceparent: {PARENT}\r\ntracestate: {first}\r\ntraceState: {second}\r\n\r\n"
    )
}

async fn by_http2(rig: &Rig) -> tokio::task::JoinHandle<u16> {
    let mut sender = connect(rig).await;
    let mut request = get("/").header("traceparent", PARENT);
    for state in STATES {
        request = request.header("tracestate", state.as_bytes());
    }
    let request = request.body(empty()).unwrap();
    tokio::spawn(async move { sender.send_request(request).await.unwrap().status().as_u16() })
}

#[tokio::test]
async fn a_trace_goes_on_to_a_target_of_http1_as_it_came() {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    for http2 in [false, true] {
        if http2 {
            assert_eq!(soon(by_http2(&rig).await).await.unwrap(), 200);
        } else {
            let mut viewer = Viewer(TcpStream::connect(rig.address).await.unwrap());
            viewer.say(request()).await;
            assert_eq!(viewer.answer().await.status, 200);
        }
        let seen = recorder.only();
        assert_eq!(seen.all("traceparent"), [PARENT], "{}", seen.head);
        assert_eq!(seen.all("tracestate"), STATES, "{}", seen.head);
    }
}

#[tokio::test]
async fn a_trace_goes_on_to_a_target_of_http2_as_it_came() {
    let rig = Rig::start().await;
    let (address, mut calls) = by_hand(|_| {}).await;
    let _client = client(&rig, address).await;
    for http2 in [false, true] {
        let answered = if http2 {
            by_http2(&rig).await
        } else {
            let mut viewer = Viewer::new(&rig).await;
            viewer.say(request()).await;
            tokio::spawn(async move { viewer.answer().await.status })
        };
        let (_, (request, mut answer)) = soon(calls.recv()).await.unwrap();
        let all = |headers: &HeaderMap, name| {
            let values = headers.get_all(name).iter();
            values.map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(all(request.headers(), "traceparent"), [PARENT]);
        assert_eq!(all(request.headers(), "tracestate"), STATES);
        say(&mut answer, "ok");
        assert_eq!(soon(answered).await.unwrap(), 200);
    }
}

#[cfg(not(feature = "otlp"))]
#[tokio::test]
async fn a_build_without_spans_says_so_where_it_is_asked_for_them() {
    use crate::program::{RELAY, adit, run};
    let home = tempfile::tempdir().unwrap();
    let mut command = adit(home.path(), &RELAY);
    let (code, _, said) = run(command.args(["--otlp-endpoint", "http://localhost:4318"])).await;
    assert!(
        code == 2 && said.contains("flag --otlp-endpoint: this build of adit has no OpenTelemetry"),
        "{said}"
    );
    assert!(said.contains("--features otlp"), "{said}");
    // What all programs of a machine are told is for those that can.
    let mut command = adit(home.path(), &["relay", "--check"]);
    let (code, ..) = run(command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")).await;
    assert_eq!(code, 0);
    let config = adit::relay::config::RelayConfig {
        otlp_endpoint: Some("http://localhost:4318".into()),
        ..Default::default()
    };
    let store = std::sync::Arc::new(adit::store::Sqlite::memory().unwrap());
    let keys = adit::auth::Keys::new(store.clone(), Vec::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listeners = adit::relay::Listeners { tcp: vec![listener], ..Default::default() };
    let started = adit::relay::Relay::start(config, listeners, keys, store).await;
    assert!(started.err().unwrap().to_string().contains("has no OpenTelemetry"));
}
