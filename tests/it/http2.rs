//! Viewers that speak HTTP/2 with prior knowledge; targets see plain HTTP/1.1.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::rig::{ALICE, Rig, echo_target, read_head, read_request, soon, target};
use crate::wire::{Recorder, by_hand, scripted};

pub type Body = BoxBody<Bytes, Infallible>;

pub async fn connect(rig: &Rig) -> SendRequest<Body> {
    let io = TokioIo::new(rig.viewer().await);
    let (sender, connection) = soon(handshake(TokioExecutor::new(), io)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub fn get(path: &str) -> http::request::Builder {
    Request::get(format!("http://web.relay.test{path}"))
}

async fn send(
    sender: &mut SendRequest<Body>,
    request: Request<Body>,
) -> (http::response::Parts, Result<Bytes, hyper::Error>) {
    let (parts, body) = soon(sender.send_request(request)).await.unwrap().into_parts();
    (parts, soon(body.collect()).await.map(|body| body.to_bytes()))
}

pub fn empty() -> Body {
    Empty::new().boxed()
}

/// A body that the test sends piece by piece.
pub fn fed() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1);
    let frames = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|frame| (Ok(frame), receiver))
    });
    (sender, BodyExt::boxed(StreamBody::new(frames)))
}

pub async fn next(body: &mut Incoming) -> Bytes {
    soon(body.frame()).await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn a_request_arrives_as_one_plain_http_1_1_request() {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    let mut sender = connect(&rig).await;
    let request = get("/a%2Fb//c?d=%20")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .header("x-kept", "yes")
        .body(empty())
        .unwrap();
    let (parts, body) = send(&mut sender, request).await;
    assert_eq!((parts.status, &body.unwrap()[..]), (StatusCode::OK, &b"ok"[..]));
    let seen = recorder.only();
    assert!(seen.is_plain(), "{}", seen.head);
    assert_eq!(seen.line(), "GET /a%2Fb//c?d=%20 HTTP/1.1");
    for (name, value) in [
        ("host", "web.relay.test"),
        ("cookie", "a=1; b=2"),
        ("te", "trailers"),
        ("x-kept", "yes"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(seen.all(name), [value], "{name}");
    }
    assert_eq!(seen.all("content-length"), [""; 0]);
}

#[tokio::test]
async fn many_requests_run_at_once_on_one_connection() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    let sender = connect(&rig).await;
    let requests = (0..50).map(|number| {
        let mut sender = sender.clone();
        async move {
            let body = format!("body {number}").into_bytes();
            let request = Request::post(format!("http://web.relay.test/{number}"))
                .body(Full::from(body.clone()).boxed());
            let (parts, answer) = send(&mut sender, request.unwrap()).await;
            let answer = answer.unwrap();
            parts.status == 200
                && answer.starts_with(format!("POST /{number} HTTP/1.1\r\n").as_bytes())
                && answer.ends_with(&body)
        }
    });
    let served: Vec<bool> = stream::iter(requests).buffer_unordered(50).collect().await;
    assert!(served.len() == 50 && served.iter().all(|served| *served));
}

#[tokio::test]
async fn a_body_of_unknown_length_streams_both_ways_with_trailers() {
    let rig = Rig::start().await;
    let (address, mut targets) = by_hand().await;
    let _client = rig.client(ALICE, "web", address).await;
    let mut sender = connect(&rig).await;
    let (feed, body) = fed();
    let request = Request::post("http://web.relay.test/").header("te", "trailers").body(body).unwrap();
    let answering = tokio::spawn(async move { sender.send_request(request).await.unwrap() });

    let mut stream = soon(targets.recv()).await.unwrap();
    let head = String::from_utf8(soon(read_head(&mut stream)).await.unwrap()).unwrap();
    assert!(head.contains("Transfer-Encoding: chunked"), "{head}");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n")
        .await
        .unwrap();
    let mut answer: Response<Incoming> = soon(answering).await.unwrap();
    for word in ["one", "two"] {
        feed.send(Frame::data(word.into())).await.unwrap();
        let mut chunk = [0; 8];
        soon(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut chunk)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&chunk), format!("3\r\n{word}\r\n"));
        stream.write_all(&chunk).await.unwrap();
        assert_eq!(next(answer.body_mut()).await, word);
    }
    let trailers: HeaderMap = [("x-sum".parse().unwrap(), "9".parse().unwrap())].into_iter().collect();
    feed.send(Frame::trailers(trailers)).await.unwrap();
    let mut end = [0; 15];
    soon(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut end)).await.unwrap();
    assert_eq!(&end, b"0\r\nx-sum: 9\r\n\r\n");
    stream.write_all(b"0\r\nX-Check: 1\r\nContent-Length: 7\r\n\r\n").await.unwrap();
    let last = soon(answer.body_mut().frame()).await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!((last.len(), &last["x-check"]), (1, &"1".parse::<http::HeaderValue>().unwrap()));
}

#[tokio::test]
async fn a_body_cut_short_by_the_target_resets_the_stream_and_no_other() {
    let rig = Rig::start().await;
    let cut = target(|_, mut stream| async move {
        let head = String::from_utf8(read_request(&mut stream).await.unwrap()).unwrap();
        let answer = match head.split(' ').nth(1).unwrap() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
            "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let _client = rig.client(ALICE, "web", cut).await;
    let mut sender = connect(&rig).await;
    for path in ["/length", "/chunked"] {
        let (_, body) = send(&mut sender, get(path).body(empty()).unwrap()).await;
        assert!(body.is_err(), "{path}: {body:?}");
        let (_, body) = send(&mut sender, get("/whole").body(empty()).unwrap()).await;
        assert_eq!(body.unwrap(), "ok");
    }
}

#[tokio::test]
async fn what_the_relay_refuses_has_a_status_and_leaves_the_connection_usable() {
    let rig = Rig::with(|config| config.limits.body_bytes = Some(1000)).await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    let mut sender = connect(&rig).await;
    let large = |length: usize| Full::from(vec![b'x'; length]).boxed();
    let post = || Request::post("http://web.relay.test/");
    let mut many = get("/");
    for number in 0..101 {
        many = many.header(format!("x-{number}"), "1");
    }
    for (what, request, status) in [
        ("unknown host", Request::get("http://nobody.relay.test/").body(empty()), 404),
        ("own host", Request::get("http://localhost/health").body(empty()), 200),
        ("large body", post().body(large(100_000)), 413),
        ("body at the limit", post().body(large(1000)), 200),
        ("many headers", many.body(empty()), 431),
        ("long target", get(&format!("/{}", "a".repeat(20_000))).body(empty()), 414),
        ("differing host", get("/").header("host", "nobody.relay.test").body(empty()), 200),
        ("CONNECT", Request::connect("web.relay.test:80").body(empty()), 405),
    ] {
        let (parts, _) = send(&mut sender, request.unwrap()).await;
        assert_eq!(parts.status, status, "{what}");
    }
    // The authority counts, and is what the target is told.
    assert!(recorder.take().iter().all(|seen| seen.is_plain() && seen.all("host") == ["web.relay.test"]));
}

#[tokio::test]
async fn a_stream_that_is_reset_lets_the_target_go() {
    let rig = Rig::start().await;
    let (address, mut targets) = by_hand().await;
    let _client = rig.client(ALICE, "web", address).await;
    let mut sender = connect(&rig).await;
    let waiting = tokio::spawn({
        let mut sender = sender.clone();
        async move { sender.send_request(get("/").body(empty()).unwrap()).await }
    });
    let mut stream = soon(targets.recv()).await.unwrap();
    soon(read_head(&mut stream)).await.unwrap();
    waiting.abort();
    tokio::time::timeout(Duration::from_secs(5), crate::wire::ended(&mut stream)).await.unwrap();
    // The connection goes on.
    let (parts, _) = send(&mut sender, Request::get("http://localhost/health").body(empty()).unwrap()).await;
    assert_eq!(parts.status, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let rig = Rig::with(|config| config.limits.keep_alive = Duration::from_millis(300)).await;
    let _client = rig.client(ALICE, "web", scripted("HTTP/1.1 204 No Content\r\n\r\n").await).await;
    let io = TokioIo::new(rig.viewer().await);
    let (mut sender, connection) = soon(handshake(TokioExecutor::new(), io)).await.unwrap();
    let connection = tokio::spawn(connection);
    let (parts, _) = send(&mut sender, get("/").body(empty()).unwrap()).await;
    assert_eq!(parts.status, 204);
    let _ = soon(connection).await.unwrap();
    assert!(sender.is_closed());
}
