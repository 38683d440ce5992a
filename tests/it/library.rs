//! The library: tunnels that a program opens, to a port or to a service of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use adit::client::{End, Event, Proxies, Tunnel, TunnelBuilder, TunnelError, Viewer};
use adit::relay::sample;
use adit::store::Sqlite;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::{SinkExt, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tower_service::Service;

use crate::ports::free_address;
use crate::rig::{ALICE, Answer, BOB, Rig, echo_target, soon, until};
use crate::wire;

/// A tunnel of alice on `rig`, named `web`.
fn web(rig: &Rig) -> TunnelBuilder {
    web_at(rig.address)
}

fn web_at(relay: SocketAddr) -> TunnelBuilder {
    Tunnel::to(format!("http://{relay}")).key(ALICE).name("web").proxies(Proxies::none())
}

/// The next event but tries and requests.
async fn event(tunnel: &mut Tunnel) -> Event {
    loop {
        match soon(tunnel.next_event()).await.expect("no more events") {
            Event::Connecting | Event::Request(_) => {}
            event => return event,
        }
    }
}

async fn post_to(rig: &Rig, path: &str, body: &str) -> Answer {
    let (length, end) = (body.len(), "\r\nConnection: close\r\n\r\n");
    let head = format!("POST {path} HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: {length}{end}");
    rig.raw(head + body).await
}

/// A router that counts how often it is cloned: once for each connection, and once for each request.
struct Counted(Router, Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.1.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone(), Arc::clone(&self.1))
    }
}

impl<R> Service<R> for Counted
where
    Router: Service<R, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<R>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<R>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.0.call(request)
    }
}

#[tokio::test]
async fn a_port_is_exposed_and_the_handle_tells_the_url() {
    let rig = Rig::start().await;
    let target = echo_target().await.to_string();
    let tunnel = soon(web(&rig).expose(&target)).await.unwrap();
    assert_eq!(tunnel.url(), format!("http://web.relay.test:{}", rig.address.port()));
    assert_eq!(rig.get("web", "/a").await.status, 200);
    let (_, seen) = rig.api(ALICE, "GET", &format!("/v1/tunnels/{}", tunnel.id()), "").await;
    assert_eq!(seen["slug"], "web");
    assert_eq!(soon(tunnel.shutdown()).await, End::Stopped);
    assert_eq!(rig.get("web", "/a").await.status, 404, "the tunnel is deleted");
}

#[tokio::test]
async fn a_service_answers_many_requests_on_one_data_socket_and_knows_the_viewer() {
    let rig = Rig::start().await;
    let ip = |Extension(viewer): Extension<Viewer>| async move { viewer.ip().to_string() };
    let clones = Arc::new(AtomicUsize::new(0));
    let site = Counted(Router::new().route("/ip", get(ip)), Arc::clone(&clones));
    let mut tunnel = soon(web(&rig).requests_per_second(100).serve(site)).await.unwrap();
    for _ in 0..3 {
        let answer = rig.get("web", "/ip").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "127.0.0.1"));
        let Some(Event::Request(seen)) = soon(tunnel.next_event()).await else { panic!("not told") };
        assert_eq!(
            (seen.path.as_str(), seen.status, seen.bytes_out, seen.whole),
            ("/ip", Some(200), 9, true)
        );
    }
    assert_eq!(clones.load(Ordering::Relaxed), 1 + 3, "one connection and three requests");
}

#[tokio::test]
async fn large_bodies_go_through_a_service_in_both_directions_and_are_seen() {
    let rig = Rig::start().await;
    let site = Router::new().route("/", post(|request: Request| async { request.into_body() }));
    let mut tunnel = soon(web(&rig).requests_per_second(100).serve(site)).await.unwrap();
    let large = "x".repeat(3_000_000);
    let answer = post_to(&rig, "/", &large).await;
    assert!(answer.status == 200 && answer.complete && answer.text() == large);
    let Some(Event::Request(seen)) = soon(tunnel.next_event()).await else { panic!("not told") };
    assert_eq!((seen.method.as_str(), seen.bytes_in, seen.bytes_out), ("POST", 3_000_000, 3_000_000));
}

#[tokio::test]
async fn an_answer_before_the_whole_upload_arrives() {
    let rig = Rig::start().await;
    let site = Router::new().route("/", post(|| async { "enough" }));
    let _tunnel = soon(web(&rig).serve(site)).await.unwrap();
    let answer = post_to(&rig, "/", &"x".repeat(3_000_000)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "enough"));
}

#[tokio::test]
async fn events_and_websockets_go_through_a_service() {
    let rig = Rig::start().await;
    let mut tunnel = soon(web(&rig).requests_per_second(100).serve(sample::site())).await.unwrap();
    let mut viewer = wire::Viewer::new(&rig).await;
    viewer.say("GET /events HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    assert!(viewer.head().await.contains("text/event-stream"));
    let mut text = String::new();
    while !text.contains("data: tick 1\n\n") {
        text.push_str(&String::from_utf8(viewer.bytes(1).await).unwrap());
    }
    drop(viewer);

    let (mut socket, _) = soon(client_async("ws://web.relay.test/echo", rig.viewer().await)).await.unwrap();
    for message in ["hello", "again"] {
        socket.send(Message::text(message)).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::binary(message));
    }
    socket.close(None).await.unwrap();
    assert!(matches!(soon(socket.next()).await, Some(Ok(Message::Close(_)))));
    assert!(soon(socket.next()).await.is_none(), "the end is an end and no error");
    let mut paths = Vec::new();
    while paths.len() < 2 {
        if let Some(Event::Request(seen)) = soon(tunnel.next_event()).await {
            paths.push((seen.path, seen.status));
        }
    }
    paths.sort();
    assert_eq!(paths, [("/echo".to_owned(), Some(101)), ("/events".to_owned(), Some(200))]);
}

#[tokio::test]
async fn a_panic_in_a_service_ends_its_own_connection_only() {
    let rig = Rig::start().await;
    let half = || async {
        let parts = stream::unfold(0, |nth| async move {
            // What was said before goes out meanwhile.
            tokio::task::yield_now().await;
            assert!(nth == 0, "on purpose");
            Some((Ok::<_, Infallible>(Bytes::from("half")), nth + 1))
        });
        Body::from_stream(parts)
    };
    let never = || async {
        if true {
            panic!("on purpose")
        }
    };
    let site = Router::new()
        .route("/", get(|| async { "ok" }))
        .route("/at-once", get(never))
        .route("/half", get(half));
    let _tunnel = soon(web(&rig).serve(site)).await.unwrap();
    let mut other = wire::Viewer::new(&rig).await;
    assert_eq!(other.get("web", "/").await.text(), "ok");
    assert_eq!(rig.get("web", "/at-once").await.status, 502);
    assert!(!rig.get("web", "/half").await.complete, "a body that was cut must not look whole");
    assert_eq!(other.get("web", "/").await.text(), "ok");
}

#[tokio::test]
async fn a_viewer_that_leaves_ends_the_work_of_the_service() {
    let rig = Rig::start().await;
    let (begun, mut beginnings) = mpsc::channel::<mpsc::Sender<()>>(1);
    let work = move || {
        let begun = begun.clone();
        async move {
            let (alive, mut ended) = mpsc::channel(1);
            begun.send(alive).await.unwrap();
            ended.recv().await;
        }
    };
    let _tunnel = soon(web(&rig).serve(Router::new().route("/", get(work)))).await.unwrap();
    let mut viewer = wire::Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let alive = soon(beginnings.recv()).await.unwrap();
    viewer.vanish();
    soon(alive.closed()).await;
}

#[tokio::test]
async fn dropping_the_handle_ends_everything_at_once() {
    let rig = Rig::start().await;
    let tunnel = soon(web(&rig).serve(sample::site())).await.unwrap();
    let (mut socket, _) = soon(client_async("ws://web.relay.test/echo", rig.viewer().await)).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    soon(socket.next()).await.unwrap().unwrap();
    drop(tunnel);
    assert!(!matches!(soon(socket.next()).await, Some(Ok(_))), "an upgraded connection ends too");
}

#[tokio::test]
async fn at_a_shutdown_running_requests_get_their_time() {
    let rig = Rig::start().await;
    let (begun, mut beginnings) = mpsc::channel::<mpsc::Sender<()>>(1);
    let work = move || {
        let begun = begun.clone();
        async move {
            let (go_on, mut told) = mpsc::channel(1);
            begun.send(go_on).await.unwrap();
            told.recv().await;
            "done"
        }
    };
    let mut tunnel = soon(web(&rig).serve(Router::new().route("/", get(work)))).await.unwrap();
    let mut viewer = wire::Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let go_on = soon(beginnings.recv()).await.unwrap();
    tunnel.stop();
    let (answer, end) = tokio::join!(
        async {
            // The relay has heard of the stop.
            let path = format!("/v1/tunnels/{}", tunnel_id(&rig).await);
            until(async || rig.api(ALICE, "GET", &path, "").await.1["connected"] != true).await;
            go_on.send(()).await.unwrap();
            viewer.answer().await
        },
        soon(tunnel.ended()),
    );
    assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    assert_eq!(end, End::Stopped);
    assert_eq!(soon(tunnel.ended()).await, End::Stopped, "it can be asked again");
    assert_eq!(tunnel.next().await, Some(Event::Ended(End::Stopped)));
    assert_eq!(tunnel.next().await, None);
}

async fn tunnel_id(rig: &Rig) -> String {
    rig.api(ALICE, "GET", "/v1/tunnels", "").await.1[0]["id"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test]
async fn a_lost_relay_is_an_event_and_the_url_stays() {
    let rig = Rig::start().await;
    let mut tunnel = soon(web(&rig).serve(sample::site())).await.unwrap();
    let url = tunnel.url().to_owned();
    let (store, address) = (Arc::clone(&rig.store), rig.address);
    rig.shutdown().await;
    assert!(matches!(event(&mut tunnel).await, Event::Offline { .. }));
    let rig = Rig::on(store, address, |_| {}).await;
    loop {
        match event(&mut tunnel).await {
            Event::Online { again, .. } => break assert!(again),
            Event::Offline { reason, .. } => assert!(!reason.contains("--"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(tunnel.url(), url);
    assert_eq!(rig.get("web", "/").await.status, 200);
}

#[tokio::test]
async fn what_keeps_a_tunnel_from_opening_is_an_error_that_says_what_to_do() {
    let rig = Rig::start().await;
    let _bobs = rig.client(BOB, "bobs", echo_target().await).await;
    let open = async |builder: TunnelBuilder| soon(builder.expose_port(1)).await.unwrap_err();
    let wrong = |error: &TunnelError| error.to_string().replace("--", "an option of the command line");
    for (error, kind, part) in [
        (open(web(&rig).key("nbk_wrong")).await, "Unauthorised", "does not accept the key"),
        (open(web(&rig).key("")).await, "Unauthorised", "give one by key()"),
        (open(web(&rig).key("a b")).await, "Key", "check key()"),
        (open(web(&rig).name("bobs")).await, "Refused", "give another by name()"),
        (open(web(&rig).name("a.b")).await, "Name", "a-z"),
        (open(web_at(free_address().await)).await, "Unreachable", "check the relay's URL"),
        (open(Tunnel::to("relay.example")).await, "Relay", "write https://relay.example"),
        (open(web(&rig).ca("nonsense")).await, "Ca", "PEM"),
    ] {
        let text = wrong(&error);
        assert!(format!("{error:?}").starts_with(kind) && text.contains(part), "{error:?}: {text}");
        assert!(!text.contains("option of the command line"), "{text}");
    }
    let target = soon(web(&rig).expose("localhost")).await.unwrap_err();
    assert!(matches!(target, TunnelError::Target(_)), "{target:?}");
    assert_eq!(rig.api(ALICE, "GET", "/v1/tunnels", "").await.1, serde_json::json!([]), "nothing is left");
}

#[tokio::test]
async fn a_relay_that_is_not_there_yet_is_waited_for_where_that_is_wanted() {
    let address = free_address().await;
    let builder = web_at(address).wait_for_relay(true);
    let opening = tokio::spawn(builder.serve(sample::site()));
    let rig = Rig::on(Arc::new(Sqlite::memory().unwrap()), address, |_| {}).await;
    let _tunnel = soon(opening).await.unwrap().unwrap();
    assert_eq!(rig.get("web", "/").await.status, 200);
}
