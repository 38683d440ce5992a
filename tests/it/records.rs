//! The closing record: each exchange has exactly one, however it ends, with how it ended and what it moved.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit::relay::config::RelayConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use crate::drain::stop;
use crate::frames::Raw;
use crate::http2;
use crate::rig::{ALICE, Client, Rig, found, read_head, soon};
use crate::upgrade::upgraded;
use crate::wire::{Viewer, by_hand, scripted};

/// The records of everything that runs in this thread, as a test and its relay do.
struct Log {
    written: Written,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    fn start() -> Self {
        let written = Written::default();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(written.clone()).finish();
        Self { written, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The closing records since the last call.
    fn take(&self) -> Vec<Value> {
        let bytes = std::mem::take(&mut *self.written.0.lock().unwrap());
        let lines = String::from_utf8(bytes).unwrap();
        let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.filter(|record| record["target"] == "adit::exchange").collect()
    }

    /// The only record since the last call, once it is there. `expected` is a part of it.
    async fn only(&self, what: &str, expected: Value) -> Value {
        let mut records = found(async || Some(self.take()).filter(|records| !records.is_empty())).await;
        assert_eq!(records.len(), 1, "{what}: {records:#?}");
        let record = records.remove(0);
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(record.get(field).unwrap_or(&Value::Null), value, "{what}: {field} of {record:#}");
        }
        assert!(record["viewer"] == "127.0.0.1" && record["ms"].is_u64(), "{what}: {record:#}");
        assert!(!record.to_string().contains("s3cret"), "{what}: {record:#}");
        record
    }

    /// Ends the relay: no exchange has a second record.
    async fn end(&self, rig: Rig) {
        rig.shutdown().await;
        assert_eq!(self.take(), Vec::<Value>::new());
    }
}

async fn rig(change: impl FnOnce(&mut RelayConfig)) -> Rig {
    Rig::with(|config| {
        config.log_exchanges = true;
        change(config);
    })
    .await
}

/// The tunnel `web` with a target in the test's hands.
async fn with_target(change: impl FnOnce(&mut RelayConfig)) -> (Log, Rig, Client, Receiver<TcpStream>) {
    let log = Log::start();
    let rig = rig(change).await;
    let (address, targets) = by_hand().await;
    let client = rig.client(ALICE, "web", address).await;
    (log, rig, client, targets)
}

const GET: &str = "GET /path?token=s3cret HTTP/1.1\r\nHost: web.relay.test\r\n\r\n";
const POST: &str = "POST /path?token=s3cret HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 10\r\n\r\n";

/// A viewer whose request, with its body so far, has reached the target.
async fn begun(rig: &Rig, targets: &mut Receiver<TcpStream>, request: &str) -> (Viewer, TcpStream) {
    let mut viewer = Viewer::new(rig).await;
    viewer.say(request).await;
    let mut target = soon(targets.recv()).await.unwrap();
    soon(read_head(&mut target)).await.unwrap();
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    soon(target.read_exact(&mut vec![0; body.len()])).await.unwrap();
    (viewer, target)
}

#[tokio::test]
async fn an_exchange_that_is_served_has_one_record() {
    let log = Log::start();
    let rig = rig(|_| {}).await;
    let answer = "HTTP/1.1 200 OK\r\nSet-Cookie: s3cret\r\nContent-Length: 5\r\n\r\nhello";
    let _client = rig.client(ALICE, "web", scripted(answer).await).await;
    let mut viewer = Viewer::new(&rig).await;
    for _ in 0..2 {
        viewer.say(POST.replace("Host", "Cookie: s3cret\r\nHost") + "0123456789").await;
        viewer.answer().await;
        let expected = json!({
            "tunnel": "web", "method": "POST", "path": "/path", "status": 200, "cause": null, "complete": true,
            "bytes_in": 10, "bytes_out": 5,
        });
        log.only("served", expected).await;
    }
    rig.raw("GET /t/web/path?s3cret HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    log.only("by path", json!({"tunnel": "web", "path": "/t/web/path", "status": 200})).await;
    let mut sender = http2::connect(&rig).await;
    let request = http2::get("/path?s3cret").body(http2::empty()).unwrap();
    drop(soon(http_body_util::BodyExt::collect(soon(sender.send_request(request)).await.unwrap())).await);
    log.only("HTTP/2", json!({"tunnel": "web", "path": "/path", "status": 200, "complete": true})).await;
    let long = format!("/{}é", "x".repeat(5000));
    rig.get("web", &long).await;
    let record = log.only("a long path", json!({"status": 200})).await;
    assert_eq!(record["path"].as_str().unwrap().chars().count(), 1024);
    // What the relay answers for itself is no exchange.
    rig.api(ALICE, "GET", "/v1/tunnels", "").await;
    log.end(rig).await;
}

#[tokio::test]
async fn a_record_has_the_trace_that_the_viewer_names_if_it_is_one() {
    let log = Log::start();
    let rig = rig(|_| {}).await;
    let _client =
        rig.client(ALICE, "web", scripted("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await).await;
    let mut viewer = Viewer::new(&rig).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    for (lines, trace) in [
        (format!("traceparent: {parent}\r\n"), Some("4bf92f3577b34da6a3ce929d0e0e4736")),
        (String::new(), None),
        (format!("traceparent: {parent}s3cret\r\n"), None),
        (format!("traceparent: {parent}\r\ntraceparent: {parent}\r\n"), None),
    ] {
        viewer.say(GET.replace("Host", &format!("{lines}Host"))).await;
        viewer.answer().await;
        log.only(&lines, json!({"trace_id": trace, "status": 200})).await;
    }
    let refused = GET.replace("web.", "none.").replace("Host", &format!("Traceparent: {parent}\r\nHost"));
    viewer.say(refused).await;
    viewer.answer().await;
    log.only("refused", json!({"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "status": 404})).await;
    log.end(rig).await;
}

#[tokio::test]
async fn whatever_the_relay_refuses_has_one_record() {
    let log = Log::start();
    let rig = rig(|config| {
        config.limits.head_wait = Duration::from_millis(200);
        config.limits.claim_wait = Duration::from_millis(200);
        config.limits.body_bytes = Some(100);
    })
    .await;
    let password = json!({"local_port": 1, "name": "locked", "auth_user": "ann", "auth_pass": "s3cret"});
    rig.api(ALICE, "POST", "/v1/tunnels", &password.to_string()).await;
    rig.create(ALICE, "offline").await;
    let _silent = rig.control(ALICE, "silent").await;
    let to =
        |name: &str, rest: &str| format!("GET /a?s3cret HTTP/1.1\r\nHost: {name}.relay.test\r\n{rest}\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n\r\nc8\r\n";
    for (request, status, cause, tunnel) in [
        (to("none", ""), 404, "no_such_tunnel", None),
        (to("locked", ""), 401, "auth_required", Some("locked")),
        (to("offline", ""), 503, "client_offline", Some("offline")),
        (to("silent", ""), 504, "not_claimed", Some("silent")),
        (to("offline", "Content-Length: 101\r\n"), 413, "body_too_large", Some("offline")),
        (to("offline", "Host: s3cret\r\n"), 400, "bad_host", None),
        (
            to("offline", "").replace("GET", "CONNECT").replace("/a?s3cret", "a:1"),
            405,
            "method_not_allowed",
            None,
        ),
        (
            to("offline", "").replace("/a", &format!("/a?{}", "s3cret".repeat(4000))),
            414,
            "target_too_long",
            None,
        ),
        (to("offline", &format!("X: {}\r\n", "s3cret ".repeat(20_000))), 431, "head_too_large", None),
        (to("offline", "s3cret\r\n"), 400, "bad_request", None),
        ("GET /a?s3cret HTTP/1.1\r\nHost: s3cret".to_owned(), 408, "slow_head", None),
    ] {
        let mut viewer = Viewer::new(&rig).await;
        // A head over the limit is refused while it is being sent.
        let _ = viewer.0.write_all(request.as_bytes()).await;
        let head = viewer.head().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{cause}: {head}");
        let expected =
            json!({"tunnel": tunnel, "status": status, "cause": cause, "complete": true, "bytes_in": 0});
        log.only(cause, expected).await;
    }
    let _client = rig.client(ALICE, "web", crate::rig::echo_target().await).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(to("web", chunked).trim_end_matches("\r\n").to_owned() + "\r\n" + &"x".repeat(200)).await;
    assert!(viewer.head().await.starts_with("http/1.1 413 "));
    log.only("too large as it comes", json!({"status": 413, "cause": "body_too_large", "tunnel": "web"}))
        .await;
    log.end(rig).await;
}

#[tokio::test]
async fn a_target_that_fails_leaves_one_record() {
    let (log, rig, _client, mut targets) =
        with_target(|config| config.limits.idle_exchange = Duration::from_millis(300)).await;
    let get = GET.replace("Host", "Connection: close\r\nHost");
    for (what, answer, status, cause, sent) in [
        ("no answer", "", 502, "target_closed", None),
        ("nonsense", "s3cret\r\n\r\n", 502, "bad_response", None),
        (
            "lengths that differ",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            502,
            "bad_response",
            None,
        ),
        (
            "a switch",
            "HTTP/1.1 101 s3cret\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            502,
            "bad_response",
            None,
        ),
        ("cut", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", 200, "target_closed", Some(4)),
        (
            "a bad chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxs3cret",
            200,
            "bad_response",
            Some(1),
        ),
    ] {
        let (mut viewer, mut target) = begun(&rig, &mut targets, &get).await;
        target.write_all(answer.as_bytes()).await.unwrap();
        drop(target);
        viewer.rest().await;
        let expected = json!({"tunnel": "web", "status": status, "cause": cause, "complete": status == 502});
        let record = log.only(what, expected).await;
        assert!(sent.is_none_or(|sent| record["bytes_out"] == sent), "{what}: {record:#}");
    }
    for (what, answer, status) in
        [("silent", "", 504), ("half", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", 200)]
    {
        let (mut viewer, mut target) = begun(&rig, &mut targets, &get).await;
        target.write_all(answer.as_bytes()).await.unwrap();
        viewer.rest().await;
        log.only(what, json!({"status": status, "cause": "target_silent", "complete": status == 504})).await;
    }
    log.end(rig).await;
}

#[tokio::test]
async fn a_viewer_that_leaves_leaves_one_record() {
    let (log, rig, _client, mut targets) = with_target(|_| {}).await;
    let left = |status: Option<u16>, bytes_in: u64, bytes_out: u64| {
        json!({
            "tunnel": "web", "path": "/path", "status": status, "cause": "viewer_left", "complete": false,
            "bytes_in": bytes_in, "bytes_out": bytes_out,
        })
    };
    let (viewer, _target) = begun(&rig, &mut targets, GET).await;
    viewer.vanish();
    log.only("without an answer", left(None, 0, 0)).await;
    let (viewer, _target) = begun(&rig, &mut targets, &format!("{POST}half")).await;
    viewer.vanish();
    log.only("in the upload", left(None, 4, 0)).await;
    let (mut viewer, mut target) = begun(&rig, &mut targets, GET).await;
    target.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
    viewer.head().await;
    viewer.bytes(4).await;
    viewer.vanish();
    log.only("in the download", left(Some(200), 0, 4)).await;

    // It may still read what it is told.
    let (mut viewer, _target) = begun(&rig, &mut targets, &format!("{POST}half")).await;
    viewer.0.shutdown().await.unwrap();
    assert!(viewer.head().await.starts_with("http/1.1 400 "));
    log.only("shut in the upload", json!({"status": 400, "cause": "upload_cut", "bytes_in": 4})).await;

    let mut sender = http2::connect(&rig).await;
    let request = http2::get("/path?s3cret").body(http2::empty()).unwrap();
    let waiting = tokio::spawn(async move { sender.send_request(request).await });
    let mut target = soon(targets.recv()).await.unwrap();
    soon(read_head(&mut target)).await.unwrap();
    waiting.abort();
    log.only("a stream that is reset", left(None, 0, 0)).await;
    log.end(rig).await;
}

#[tokio::test]
async fn an_early_answer_has_its_record_when_the_upload_is_over() {
    let (log, rig, _client, mut targets) = with_target(|_| {}).await;
    let (mut viewer, mut target) = begun(&rig, &mut targets, &format!("{POST}half")).await;
    target.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    viewer.head().await;
    viewer.bytes(2).await;
    assert_eq!(log.take(), Vec::<Value>::new());
    viewer.say("012345").await;
    let expected = json!({"status": 200, "cause": null, "complete": true, "bytes_in": 10, "bytes_out": 2});
    log.only("early", expected).await;
    log.end(rig).await;
}

#[tokio::test]
async fn an_upgraded_connection_has_one_record_at_its_end() {
    let (log, rig, client, mut targets) = with_target(|_| {}).await;
    let moved = async |viewer: &mut Viewer, target: &mut TcpStream| {
        viewer.say("abc").await;
        soon(target.read_exact(&mut [0; 3])).await.unwrap();
        target.write_all(b"answer").await.unwrap();
        viewer.bytes(6).await;
    };
    let expected = |cause: Option<&str>| {
        json!({
            "tunnel": "web", "path": "/chat", "status": 101, "cause": cause, "complete": cause.is_none(),
            "bytes_in": 3, "bytes_out": 6,
        })
    };
    let (mut viewer, mut target) = upgraded(&rig, &mut targets).await;
    moved(&mut viewer, &mut target).await;
    drop(target);
    viewer.rest().await;
    drop(viewer);
    log.only("in order", expected(None)).await;
    let (mut viewer, mut target) = upgraded(&rig, &mut targets).await;
    moved(&mut viewer, &mut target).await;
    viewer.vanish();
    log.only("broken off", expected(Some("broke_off"))).await;
    let (mut viewer, mut target) = upgraded(&rig, &mut targets).await;
    moved(&mut viewer, &mut target).await;
    rig.api(ALICE, "DELETE", &format!("/v1/tunnels/{}", client.id), "").await;
    log.only("its tunnel is deleted", expected(Some("tunnel_ended"))).await;
    log.end(rig).await;
}

#[tokio::test]
async fn a_connection_of_a_tcp_tunnel_has_one_record_at_its_end() {
    let log = Log::start();
    let rig = crate::tcp::rig(|config| config.log_exchanges = true).await;
    let (address, mut targets) = by_hand().await;
    let tunnel = crate::tcp::tunnel(&rig).name("db").expose(&address.to_string()).await.unwrap();
    let expected = |cause: Option<&str>, moved: bool| {
        json!({
            "tunnel": "db", "proto": "tcp", "status": null, "cause": cause, "complete": cause.is_none(),
            "bytes_in": if moved { 3 } else { 0 }, "bytes_out": if moved { 6 } else { 0 },
        })
    };
    let mut begun = async || {
        let mut viewer = Viewer(crate::tcp::viewer(crate::tcp::viewers_of(&tunnel)).await);
        viewer.say("abc").await;
        let mut target = soon(targets.recv()).await.unwrap();
        soon(target.read_exact(&mut [0; 3])).await.unwrap();
        target.write_all(b"answer").await.unwrap();
        viewer.bytes(6).await;
        (viewer, target)
    };
    let (mut viewer, target) = begun().await;
    drop(target);
    viewer.rest().await;
    drop(viewer);
    log.only("in order", expected(None, true)).await;
    let (viewer, target) = begun().await;
    viewer.vanish();
    log.only("broken off", expected(Some("broke_off"), true)).await;
    drop(target);
    let path = format!("/v1/tunnels/{}/suspend", tunnel.id());
    rig.api(ALICE, "POST", &path, "{\"suspended\":true}").await;
    crate::tcp::viewer(crate::tcp::viewers_of(&tunnel)).await;
    log.only("suspended", expected(Some("suspended"), false)).await;
    drop(tunnel);
    log.end(rig).await;
}

#[tokio::test]
async fn what_is_cut_by_the_end_of_the_relay_has_one_record() {
    let log = Log::start();
    let rig = rig(|config| config.limits.drain = Duration::from_millis(300)).await;
    let (address, mut control) = (rig.address, rig.control(ALICE, "web").await);
    let mut waiting = Viewer::new(&rig).await;
    waiting.say(GET).await;
    let mut first = Raw::data(address, &soon(control.notified()).await.unwrap()).await;
    first.request().await;
    let mut reading = Viewer::new(&rig).await;
    reading.say(GET).await;
    let mut second = Raw::data(address, &soon(control.notified()).await.unwrap()).await;
    second.send(crate::frames::BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    reading.head().await;
    let stopping = stop(rig).await;
    soon(stopping).await.unwrap();
    let mut records = log.take();
    records.sort_by_key(|record| record["status"].as_u64());
    let shown: Vec<_> = records.iter().map(|record| (&record["status"], &record["cause"])).collect();
    assert_eq!(shown, [(&json!(200), &json!("draining")), (&json!(503), &json!("draining"))], "{records:#?}");
}
