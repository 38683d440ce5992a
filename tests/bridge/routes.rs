//! Routes: which backend a request gets to, what happens when backends fail, and who may use a route.

use std::sync::Arc;
use std::time::Duration;

use adit::bridge::{Admit, Balance, Balancing, Key, Matcher, Route, Service, Target};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::rig::{Rig, accepted, handshake, nobody, target};

/// A backend that says its name to whoever connects, and then sends everything back.
async fn named(name: &'static str) -> Target {
    let (listener, target) = target().await;
    tokio::spawn(serve(listener, name));
    target
}

async fn serve(listener: TcpListener, name: &'static str) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            stream.write_all(name.as_bytes()).await?;
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await
        });
    }
}

fn matcher(key: &str) -> Matcher {
    Matcher { key: Key::from(key), extensions: Vec::new(), url: Vec::new(), host: Vec::new() }
}

/// A route as a file would have it that says nothing else.
fn route(key: &str, backends: Vec<Target>) -> Route {
    let mut service = Service::default();
    service.connect_first = true;
    Route {
        matcher: matcher(key),
        backends,
        spawned: Vec::new(),
        balancing: Balancing::default(),
        admit: None,
        service,
    }
}

/// A bridge that has nothing but routes.
async fn rig(routes: Vec<Route>) -> Rig {
    Rig::with(nobody().await, |config| {
        config.service.target = None;
        config.routes = routes;
    })
    .await
}

/// The name of the backend that a request for `path` gets to, or the status of its refusal.
async fn reached(rig: &Rig, path: &str, lines: &str) -> String {
    let (head, mut viewer) = rig.ask(&handshake(path, lines)).await;
    match head.strip_prefix("HTTP/1.1 101 ") {
        Some(_) => String::from_utf8(viewer.bytes(1).await).unwrap(),
        None => head["HTTP/1.1 ".len()..][..3].to_owned(),
    }
}

#[tokio::test]
async fn a_path_gets_to_the_backend_of_its_route_and_any_other_to_nobody() {
    let mut suffix = route(".tun", vec![named("b").await]);
    suffix.matcher.extensions = vec![".alias".into()];
    let mut pattern = route("", vec![named("c").await]);
    pattern.matcher.url = vec!["^/(x|y)/".parse().unwrap(), "!secret".parse().unwrap()];
    pattern.matcher.host = vec!["^localhost$".parse().unwrap()];
    let rig = rig(vec![route("/rr", vec![named("a").await]), suffix, pattern]).await;
    for (path, expected) in [
        ("/rr", "a"),
        ("/rrxyz?a=.tun", "a"),
        ("/%72r/", "a"),
        ("/z.tun", "b"),
        ("/rr.alias", "b"),
        ("/x/", "c"),
        ("/y/a", "c"),
        ("/y/secret", "404"),
        ("/", "404"),
    ] {
        assert_eq!(reached(&rig, path, "").await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_backend_that_is_down_costs_no_viewer_its_session() {
    let mut route = route("", vec![nobody().await, named("b").await]);
    route.balancing.balance = Balance::RoundRobin;
    let rig = rig(vec![route]).await;
    for _ in 0..6 {
        assert_eq!(reached(&rig, "/", "").await, "b");
    }
}

#[tokio::test]
async fn without_any_backend_there_is_no_101_and_one_that_comes_back_is_found() {
    let (listener, target) = target().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut route = route("", vec![target]);
    route.balancing.disable_time = Duration::from_millis(300);
    let rig = rig(vec![route]).await;
    assert_eq!(reached(&rig, "/", "").await, "502");
    let (head, _) = rig.ask(&handshake("/", "")).await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 1\r\n"), "{head}");
    tokio::spawn(serve(TcpListener::bind(address).await.unwrap(), "a"));
    crate::rig::soon(async {
        while reached(&rig, "/", "").await != "a" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_busies_a_backend_sends_the_next_one_elsewhere_until_he_leaves() {
    let rig = rig(vec![route("", vec![named("a").await, named("b").await])]).await;
    let mut first = rig.open().await;
    assert_eq!(first.bytes(1).await, b"a");
    assert_eq!(reached(&rig, "/", "").await, "b");
    drop(first);
    crate::rig::soon(async {
        while reached(&rig, "/", "").await != "a" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_route_that_dials_after_the_handshake_tells_its_failure_by_the_close_code() {
    let mut route = route("", vec![nobody().await, nobody().await]);
    route.service.connect_first = false;
    let rig = rig(vec![route]).await;
    for _ in 0..2 {
        assert_eq!(rig.open().await.close().await.0, 1011);
    }
}

#[tokio::test]
async fn each_route_has_its_own_origins_and_addresses() {
    let mut pages = route("/pages", vec![named("a").await]);
    let mut admit = Admit::default();
    admit.plugin("ExpectOrigin", "https://example.org *.example.org").unwrap();
    pages.admit = Some(Arc::new(admit));
    let mut near = route("/near", vec![named("b").await]);
    let mut admit = Admit::default();
    admit.allow(&["192.0.2.0/24"]).unwrap();
    near.admit = Some(Arc::new(admit));
    let rig = rig(vec![pages, near, route("", vec![named("c").await])]).await;
    for (path, lines, expected) in [
        ("/pages", "Origin: https://example.org\r\n", "a"),
        ("/pages", "Origin: https://www.example.org\r\n", "a"),
        ("/pages", "Origin: https://example.com\r\n", "403"),
        ("/pages", "", "403"),
        ("/near", "", "403"),
        ("/%6eear", "", "403"),
        ("/x/../near", "", "403"),
        ("/", "", "c"),
    ] {
        assert_eq!(reached(&rig, path, lines).await, expected, "{path} {lines}");
    }
}

#[tokio::test]
async fn who_says_nothing_for_too_long_is_sent_away_and_a_pong_is_something() {
    let (silent, talking) = (target().await, target().await);
    let mut quiet = route("/quiet", vec![silent.1]);
    quiet.service.read_idle = Some(Duration::from_millis(200));
    let mut pinged = route("/pinged", vec![talking.1]);
    pinged.service.read_idle = Some(Duration::from_millis(400));
    pinged.service.heartbeat = Some(Duration::from_millis(50));
    let rig = rig(vec![quiet, pinged]).await;
    let mut viewer = rig.open_with("/quiet", "").await;
    // What comes from the target does not count.
    let mut stream = accepted(&silent.0).await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(viewer.bytes(1).await, b"x");
    assert_eq!(viewer.close().await.0, 1001);
    // Longer than the limit, by its pongs alone.
    let mut viewer = rig.open_with("/pinged", "").await;
    let _target = accepted(&talking.0).await;
    for _ in 0..20 {
        let (first, payload) = viewer.frame().await.unwrap();
        assert_eq!(first, 0x89, "{payload:?}");
        viewer.send(0x8a, payload).await;
    }
}

#[tokio::test]
async fn who_takes_nothing_for_too_long_is_sent_away() {
    let (listener, target) = target().await;
    let mut route = route("", vec![target]);
    route.service.write_idle = Some(Duration::from_millis(200));
    let rig = rig(vec![route]).await;
    let viewer = rig.open().await;
    let mut stream = accepted(&listener).await;
    // Until the bridge lets go of its target.
    let flood = async { while stream.write_all(&[0; 65536]).await.is_ok() {} };
    crate::rig::soon(flood).await;
    drop(viewer);
}
