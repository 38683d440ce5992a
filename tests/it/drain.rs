//! A relay that is told to stop: what is under way ends well, what is new is turned away, and nobody waits in vain.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::frames::{BINARY, Raw, TEXT};
use crate::program::{Running, http};
use crate::rig::{ALICE, Answer, Rig, echo_target, soon};
use crate::wire::Viewer;

const READY: &str = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Begins the end of the relay and returns when it has begun.
pub async fn stop(rig: Rig) -> JoinHandle<()> {
    let admin = rig.admin;
    let stopping = tokio::spawn(rig.shutdown());
    soon(async { while http(admin, READY).await.status != 503 {} }).await;
    stopping
}

/// Waits until nothing is accepted any more.
async fn deaf(address: SocketAddr) {
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
}

#[tokio::test]
async fn a_viewer_whose_client_was_just_told_gets_its_answer() {
    let rig = Rig::start().await;
    let (address, admin, mut control) = (rig.address, rig.admin, rig.control(ALICE, "web").await);
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let id = soon(control.notified()).await.unwrap();
    let stopping = stop(rig).await;

    // Whoever comes meanwhile is turned away, but for the data socket.
    for (target, cause) in [
        ("/ HTTP/1.1\r\nHost: web.relay.test", "\"cause\":\"draining\""),
        ("/health HTTP/1.1\r\nHost: localhost", "\"code\":\"draining\""),
        (
            "/ws/control?tunnel_id=x HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket",
            "\"code\":\"draining\"",
        ),
    ] {
        let refused = http(address, format!("GET {target}\r\n\r\n")).await;
        assert_eq!((refused.status, refused.header("connection")), (503, Some("close")), "{target}");
        assert!(refused.header("retry-after").is_some(), "{}", refused.head);
        assert!(refused.text().contains(cause), "{}", refused.text());
    }
    let mut data = Raw::data(address, &id).await;
    data.request().await;
    deaf(address).await;
    assert_eq!(http(admin, READY).await.status, 503, "the probes answer to the end");
    data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved").await;
    let answer = Answer::parse(&viewer.rest().await);
    assert_eq!((answer.status, answer.text()), (200, "served".into()));
    assert_eq!(control.closed().await, Some(1012));
    soon(stopping).await.unwrap();
}

#[tokio::test]
async fn a_claim_that_never_comes_holds_the_relay_no_longer_than_it_may() {
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_millis(300)).await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    soon(control.notified()).await.unwrap();
    let (_, answer) = tokio::join!(rig.shutdown(), viewer.rest());
    let answer = Answer::parse(&answer);
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("not_claimed"), "{}", answer.text());
}

/// A request on a waiting data socket that turns out dead would be announced afresh, and nobody could dial for it.
#[tokio::test]
async fn a_claim_after_the_listeners_are_closed_fails_at_once() {
    let rig = Rig::start().await;
    let (address, mut control) = (rig.address, rig.control(ALICE, "web").await);
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET /1 HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let mut data = Raw::data(address, &soon(control.notified()).await.unwrap()).await;
    for path in ["/2", "/3"] {
        data.request().await;
        data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(viewer.answer().await.text(), "ok");
        viewer.say(format!("GET {path} HTTP/1.1\r\nHost: web.relay.test\r\n\r\n")).await;
    }
    assert!(data.request().await.starts_with("GET /3"));
    let stopping = tokio::spawn(rig.shutdown());
    deaf(address).await;
    drop(data);
    let answer = Answer::parse(&viewer.rest().await);
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("\"cause\":\"draining\""), "{}", answer.text());
    soon(stopping).await.unwrap();
}

#[tokio::test]
async fn idle_and_silent_connections_do_not_hold_the_relay() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    let mut idle = Viewer::new(&rig).await;
    assert_eq!(idle.get("web", "/").await.status, 200);
    let mut silent = Viewer::new(&rig).await;
    rig.shutdown().await;
    assert_eq!((idle.rest().await, silent.rest().await), (vec![], vec![]));
}

// ---- the program ----

/// A relay with the tunnel `slow`, whose target sends the first half of its answer and the rest when told.
async fn slow_download(home: &std::path::Path) -> (Running, Viewer, tokio::sync::mpsc::Sender<()>, Raw) {
    let relay = Running::start(crate::program::relay(home, &[])).await;
    let address = relay.addresses[0];
    let mut control = relay.control("slow").await;
    let mut viewer = Viewer(soon(TcpStream::connect(address)).await.unwrap());
    viewer.say("GET /t/slow/ HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let told = control.next(TEXT).await.unwrap();
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    let mut data = Raw::data(address, told["id"].as_str().unwrap()).await;
    data.request().await;
    data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
    viewer.head().await;
    viewer.bytes(4).await;
    let (go, mut gone) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        gone.recv().await;
        data.send(BINARY, "half").await;
        // Until the relay closes it.
        while data.frame().await.is_some() {}
    });
    (relay, viewer, go, control)
}

#[tokio::test]
async fn after_sigterm_a_download_ends_whole_and_the_exit_code_is_0() {
    let home = tempfile::tempdir().unwrap();
    let (relay, mut viewer, go, mut control) = slow_download(home.path()).await;
    let address = relay.addresses[0];
    relay.signal("TERM");
    deaf(address).await;
    go.send(()).await.unwrap();
    assert_eq!(viewer.rest().await, b"half");
    assert_eq!(control.close_code().await, Some(1012));
    assert_eq!(relay.end().await.0, Some(0));
}

#[tokio::test]
async fn a_second_sigterm_stops_at_once() {
    let home = tempfile::tempdir().unwrap();
    let (relay, mut viewer, _go, _control) = slow_download(home.path()).await;
    relay.signal("TERM");
    deaf(relay.addresses[0]).await;
    relay.signal("TERM");
    assert_eq!(relay.end().await.0, Some(0));
    assert_eq!(viewer.rest().await, b"", "cut");
}

/// At the end of the drain time, viewers without a response had their connections closed without a word.
#[tokio::test]
async fn whoever_has_no_response_when_the_time_is_over_is_told() {
    let rig = Rig::with(|config| config.limits.drain = Duration::from_millis(300)).await;
    let (address, mut control) = (rig.address, rig.control(ALICE, "web").await);
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let id = soon(control.notified()).await.unwrap();
    let mut data = Raw::data(address, &id).await;
    data.request().await;
    let stopping = stop(rig).await;
    let answer = Answer::parse(&viewer.rest().await);
    assert!(answer.status == 503 && answer.text().contains("draining"), "{}", answer.text());
    soon(stopping).await.unwrap();
}
