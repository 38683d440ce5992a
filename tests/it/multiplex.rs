//! Targets that speak HTTP/2: what is shared, what is retried, and what of either side the other one sees.

mod rules;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use h2::Reason;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::counts::settle;
use crate::grpc::{client, tunnel};
use crate::http2::{Body, connect, empty, fed, get, next};
use crate::rig::{ALICE, Rig, soon, target};
use crate::wire::scripted;

pub type Call = (Request<h2::RecvStream>, SendResponse<Bytes>);

/// A target that speaks HTTP/2 as `settings` say and hands each request to `serve`, with the number of its connection.
async fn speaking<F, T>(settings: fn(&mut Builder), serve: F) -> SocketAddr
where
    F: Fn(usize, Call) -> T + Clone + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    target(move |number, stream| {
        let serve = serve.clone();
        async move {
            let mut builder = Builder::new();
            settings(&mut builder);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
            while let Some(Ok(call)) = connection.accept().await {
                tokio::spawn(serve(number, call));
            }
        }
    })
    .await
}

/// The same, in the hands of the test.
pub async fn by_hand(settings: fn(&mut Builder)) -> (SocketAddr, mpsc::Receiver<(usize, Call)>) {
    let (send, calls) = mpsc::channel(256);
    let address = speaking(settings, move |number, call| {
        let send = send.clone();
        async move { drop(send.send((number, call)).await) }
    })
    .await;
    (address, calls)
}

fn head(status: u16) -> Response<()> {
    Response::builder().status(status).body(()).unwrap()
}

pub fn say(answer: &mut SendResponse<Bytes>, body: impl Into<Bytes>) {
    answer.send_response(head(200), false).unwrap().send_data(body.into(), true).unwrap();
}

async fn read(body: &mut h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    all
}

/// Answers with the body that came.
async fn echo(_: usize, (request, mut answer): Call) {
    let body = read(&mut request.into_body()).await;
    say(&mut answer, body);
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    Request::post(format!("http://web.relay.test{path}")).body(Full::new(body.into()).boxed()).unwrap()
}

async fn ask(viewer: &SendRequest<Body>, request: Request<Body>) -> (u16, Result<Bytes, hyper::Error>) {
    let (parts, body) = soon(viewer.clone().send_request(request)).await.unwrap().into_parts();
    (parts.status.as_u16(), soon(body.collect()).await.map(|body| body.to_bytes()))
}

#[tokio::test]
async fn the_target_gets_the_request_as_it_is_and_what_the_relay_adds() {
    let rig = Rig::start().await;
    let (address, mut calls) = by_hand(|_| {}).await;
    let _client = client(&rig, address).await;
    let viewer = connect(&rig).await;
    let request = get("/a%2Fb//c?d=%20")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .header("x-kept", "yes")
        .header("x-forwarded-for", "203.0.113.9")
        .body(empty())
        .unwrap();
    let asking = tokio::spawn(async move { ask(&viewer, request).await });
    let (_, (request, mut answer)) = soon(calls.recv()).await.unwrap();
    assert_eq!(
        (request.method(), request.uri().to_string().as_str()),
        (&Method::GET, "http://web.relay.test/a%2Fb//c?d=%20")
    );
    assert!(request.body().is_end_stream());
    let all = |name: &str| {
        request.headers().get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
    };
    for (name, values) in [
        ("te", &["trailers"][..]),
        ("x-kept", &["yes"]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-host", &["web.relay.test"]),
        ("x-forwarded-proto", &["http"]),
        ("host", &[]),
    ] {
        assert_eq!(all(name), values, "{name}");
    }
    assert_eq!(all("cookie").join("; "), "a=1; b=2");
    say(&mut answer, "ok");
    assert_eq!(soon(asking).await.unwrap().1.unwrap(), "ok");
}

#[tokio::test]
async fn viewers_of_http_1_1_are_served_with_lengths_chunks_and_trailers() {
    let rig = Rig::start().await;
    let grpc = |_: usize, (request, mut answer): Call| async move {
        let path = request.uri().path().to_owned();
        let body = read(&mut request.into_body()).await;
        let mut response = head(200);
        if path == "/length" {
            response.headers_mut().insert("content-length", body.len().into());
            return answer.send_response(response, false).unwrap().send_data(body.into(), true).unwrap();
        }
        if path == "/empty" {
            answer.send_response(head(204), true).unwrap();
            return;
        }
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let mut stream = answer.send_response(response, false).unwrap();
        stream.send_data(body.into(), false).unwrap();
        let trailers = [("grpc-status", "0"), ("content-length", "7")];
        let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        stream.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
    };
    let _client = client(&rig, speaking(|_| {}, grpc).await).await;
    let head = "Host: web.relay.test\r\nConnection: close, TE\r\nTE: trailers\r\n";
    let answer = rig.raw(format!("POST /length HTTP/1.1\r\n{head}Content-Length: 5\r\n\r\nhello")).await;
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.header("content-length")),
        (200, "hello", Some("5"))
    );
    let answer = rig.raw(format!("GET /empty HTTP/1.1\r\n{head}\r\n")).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let mut viewer = rig.viewer().await;
    let request = format!(
        "POST / HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    );
    viewer.write_all(request.as_bytes()).await.unwrap();
    let text = String::from_utf8(crate::rig::read_all(&mut viewer).await).unwrap().to_ascii_lowercase();
    assert!(text.contains("transfer-encoding: chunked\r\n") && text.contains("5\r\nhello\r\n"), "{text}");
    assert!(text.ends_with("0\r\ngrpc-status: 0\r\n\r\n"), "{text}");
    let answer = rig.raw("POST / HTTP/1.0\r\nHost: web.relay.test\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

#[tokio::test]
async fn streams_share_a_connection_and_the_next_is_opened_when_it_is_full() {
    let rig = Rig::start().await;
    let (address, mut calls) = by_hand(|builder| _ = builder.max_concurrent_streams(4)).await;
    let _client = client(&rig, address).await;
    let viewer = connect(&rig).await;
    let asking: Vec<_> = (0..10)
        .map(|number| {
            let viewer = viewer.clone();
            tokio::spawn(async move { ask(&viewer, post(&format!("/{number}"), "x")).await })
        })
        .collect();
    let mut running = Vec::new();
    for _ in 0..10 {
        running.push(soon(calls.recv()).await.unwrap());
    }
    let mut connections: Vec<_> = running.iter().map(|(number, _)| *number).collect();
    connections.sort_unstable();
    assert_eq!(connections, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
    settle(rig.admin, &json!({"data_sockets_in_use": 3})).await;
    running.iter_mut().for_each(|(_, (_, answer))| say(answer, "ok"));
    for asked in asking {
        assert_eq!(soon(asked).await.unwrap().0, 200);
    }
    drop(running);
    // Room again on the first.
    let asking = tokio::spawn({
        let viewer = viewer.clone();
        async move { ask(&viewer, get("/").body(empty()).unwrap()).await }
    });
    let (number, (_, mut answer)) = soon(calls.recv()).await.unwrap();
    assert_eq!(number, 0);
    say(&mut answer, "ok");
    soon(asking).await.unwrap().1.unwrap();
}

#[tokio::test]
async fn a_request_that_was_not_processed_goes_out_again_with_its_body() {
    let rig = Rig::start().await;
    let refusals = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refusals);
    let refusing = speaking(
        |_| {},
        move |_, (request, mut answer)| {
            let refused = count.fetch_add(1, Ordering::Relaxed);
            async move {
                let always = request.uri().path() == "/always";
                let body = read_some(request.into_body()).await;
                if always || refused == 0 {
                    return answer.send_reset(Reason::REFUSED_STREAM);
                }
                say(&mut answer, body);
            }
        },
    )
    .await;
    let _client = client(&rig, refusing).await;
    let viewer = connect(&rig).await;
    let (status, body) = ask(&viewer, post("/", "the body of a call")).await;
    assert_eq!((status, body.unwrap()), (200, "the body of a call".into()));
    assert_eq!(refusals.swap(0, Ordering::Relaxed), 2);
    // Not for ever.
    let (status, body) = ask(&viewer, post("/always", "x")).await;
    assert!(status == 502 && String::from_utf8_lossy(&body.unwrap()).contains("target_reset"));
    assert_eq!(refusals.load(Ordering::Relaxed), 3);
}

async fn read_some(mut body: h2::RecvStream) -> Bytes {
    body.data().await.map(Result::unwrap).unwrap_or_default()
}

#[tokio::test]
async fn a_connection_that_is_going_away_ends_what_runs_and_gets_nothing_more() {
    let rig = Rig::start().await;
    let (send, mut calls) = mpsc::channel(16);
    let leaving = target(move |number, stream| {
        let send = send.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let call = connection.accept().await.unwrap().unwrap();
            if number == 0 {
                connection.graceful_shutdown();
            }
            send.send((number, call)).await.unwrap();
            while let Some(Ok(call)) = connection.accept().await {
                send.send((number, call)).await.unwrap();
            }
        }
    })
    .await;
    let _client = client(&rig, leaving).await;
    let viewer = connect(&rig).await;
    let slow = tokio::spawn({
        let viewer = viewer.clone();
        async move { ask(&viewer, get("/slow").body(empty()).unwrap()).await }
    });
    let (number, (_, mut late)) = soon(calls.recv()).await.unwrap();
    assert_eq!(number, 0);
    for round in 0..3 {
        let asking = tokio::spawn({
            let viewer = viewer.clone();
            async move { ask(&viewer, post("/", "x")).await }
        });
        let (number, (_, mut answer)) = soon(calls.recv()).await.unwrap();
        // The first of them may come before the goodbye is heard.
        assert!(number == 1 || (round == 0 && number == 0), "{number}");
        say(&mut answer, "ok");
        assert_eq!(soon(asking).await.unwrap().1.unwrap(), "ok");
    }
    say(&mut late, "late");
    assert_eq!(soon(slow).await.unwrap().1.unwrap(), "late");
    settle(rig.admin, &json!({"data_sockets_in_use": 1})).await;
}

/// The code by which a viewer's stream was reset.
fn code(error: &(dyn std::error::Error + 'static)) -> Option<Reason> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason();
        }
        source = error.source();
    }
    None
}

#[tokio::test]
async fn resets_pass_in_both_directions_with_their_code() {
    let rig = Rig::start().await;
    let (address, mut calls) = by_hand(|_| {}).await;
    let _client = client(&rig, address).await;
    let viewer = connect(&rig).await;
    for reason in [Reason::CANCEL, Reason::ENHANCE_YOUR_CALM, Reason::INTERNAL_ERROR, Reason::NO_ERROR] {
        let asking = soon(viewer.clone().send_request(get("/").body(empty()).unwrap()));
        let (answer, mut stream) = tokio::join!(asking, async {
            let (_, (_, mut answer)) = soon(calls.recv()).await.unwrap();
            let mut stream = answer.send_response(head(200), false).unwrap();
            stream.send_data("begun".into(), false).unwrap();
            stream
        });
        let mut body = answer.unwrap().into_body();
        assert_eq!(next(&mut body).await, "begun");
        stream.send_reset(reason);
        let error = soon(body.frame()).await.unwrap().unwrap_err();
        // An error without one would be none.
        let seen = if reason == Reason::NO_ERROR { Reason::INTERNAL_ERROR } else { reason };
        assert_eq!(code(&error), Some(seen), "{reason:?}");
    }
    // The viewer goes: before the response, and within it.
    for answers in [false, true] {
        let (feed, body) = fed();
        let request = Request::post("http://web.relay.test/").body(body).unwrap();
        let mut sender = viewer.clone();
        let asking = tokio::spawn(async move {
            let answer = sender.send_request(request).await.unwrap();
            // Held until the task is ended.
            std::future::pending::<()>().await;
            drop(answer);
        });
        let (_, (request, mut answer)) = soon(calls.recv()).await.unwrap();
        feed.send(hyper::body::Frame::data("some".into())).await.unwrap();
        let mut body = request.into_body();
        assert_eq!(soon(body.data()).await.unwrap().unwrap(), "some");
        let stream = answers.then(|| answer.send_response(head(200), false).unwrap());
        asking.abort();
        drop(feed);
        let ended = soon(body.data()).await;
        assert!(matches!(&ended, Some(Err(error)) if error.is_reset()) || ended.is_none(), "{ended:?}");
        drop((stream, answer));
        settle(rig.admin, &json!({"exchanges": 0})).await;
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_is_read_and_ends_it() {
    let rig = Rig::start().await;
    let (address, mut calls) = by_hand(|_| {}).await;
    let _client = client(&rig, address).await;
    let viewer = connect(&rig).await;
    // One that does not want the rest, and one that takes it behind its answer.
    for takes in [false, true] {
        let (feed, body) = fed();
        let request = Request::post("http://web.relay.test/").body(body).unwrap();
        let mut sender = viewer.clone();
        let asking = tokio::spawn(async move { sender.send_request(request).await.unwrap() });
        let (_, (request, mut answer)) = soon(calls.recv()).await.unwrap();
        feed.send(hyper::body::Frame::data("one".into())).await.unwrap();
        let mut upload = request.into_body();
        assert_eq!(soon(upload.data()).await.unwrap().unwrap(), "one");
        say(&mut answer, "enough");
        let upload = takes.then_some((upload, answer));
        let answered = soon(asking).await.unwrap();
        assert_eq!(soon(answered.into_body().collect()).await.unwrap().to_bytes(), "enough");
        if let Some((mut upload, _answer)) = upload {
            feed.send(hyper::body::Frame::data("two".into())).await.unwrap();
            drop(feed);
            assert_eq!(soon(upload.data()).await.unwrap().unwrap(), "two");
            assert_eq!(soon(read(&mut upload)).await, b"");
            assert!(upload.is_end_stream(), "it ended in order");
        } else {
            soon(feed.closed()).await;
        }
    }
}

#[tokio::test]
async fn viewers_that_do_not_read_hold_up_nobody() {
    let rig = Rig::start().await;
    let endless = speaking(
        |_| {},
        |_, (request, mut answer)| async move {
            if request.uri().path() == "/" {
                return say(&mut answer, "ok");
            }
            let mut stream = answer.send_response(head(200), false).unwrap();
            loop {
                stream.reserve_capacity(64 * 1024);
                let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
                let Some(Ok(room)) = room else { return };
                if stream.send_data(vec![b'x'; room].into(), false).is_err() {
                    return;
                }
            }
        },
    )
    .await;
    let _client = client(&rig, endless).await;
    let viewer = connect(&rig).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let connection = connect(&rig).await;
        slow.push(
            soon(connection.clone().send_request(get("/endless").body(empty()).unwrap())).await.unwrap(),
        );
    }
    for _ in 0..50 {
        assert_eq!(ask(&viewer, get("/").body(empty()).unwrap()).await.1.unwrap(), "ok");
    }
    drop(slow);
    settle(rig.admin, &json!({"exchanges": 0, "data_sockets_in_use": 1})).await;
}

#[tokio::test]
async fn a_viewer_may_send_all_before_it_reads() {
    let rig = Rig::start().await;
    let both = speaking(
        |_| {},
        |_, (request, mut answer)| async move {
            let mut stream = answer.send_response(head(200), false).unwrap();
            // More than all windows and buffers hold.
            tokio::spawn(async move {
                let mut left = 4 << 20;
                while left > 0 {
                    stream.reserve_capacity(64 * 1024);
                    let room = poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap().min(left);
                    left -= room;
                    stream.send_data(vec![b'x'; room].into(), left == 0).unwrap();
                }
            });
            assert_eq!(read(&mut request.into_body()).await.len(), 4 << 20);
        },
    )
    .await;
    let _client = client(&rig, both).await;
    let viewer = connect(&rig).await;
    let (feed, body) = fed();
    let request = Request::post("http://web.relay.test/").body(body).unwrap();
    let answer = soon(viewer.clone().send_request(request)).await.unwrap();
    for _ in 0..64 {
        soon(feed.send(hyper::body::Frame::data(vec![b'y'; 64 << 10].into()))).await.unwrap();
    }
    drop(feed);
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes().len(), 4 << 20);
}

#[tokio::test]
async fn a_target_that_speaks_something_else_is_told_apart() {
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_secs(1)).await;
    let plain = scripted("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let hangs_up = target(|_, mut stream| async move { _ = stream.read_u8().await }).await;
    let silent = target(|_, mut stream| async move { while stream.read_u8().await.is_ok() {} }).await;
    for (target, status, cause) in
        [(plain, 502, "not_http2"), (hangs_up, 502, "target_closed"), (silent, 504, "target_silent")]
    {
        let tunnel = tunnel(&rig, &target.to_string()).await;
        let answer = rig.get("web", "/").await;
        assert_eq!(answer.status, status, "{cause}: {}", answer.text());
        assert!(answer.text().contains(cause), "{cause}: {}", answer.text());
        soon(tunnel.shutdown()).await;
    }
}

#[tokio::test]
async fn https_targets_are_offered_http_2_and_nothing_else() {
    let rig = Rig::start().await;
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let acceptor = |protocols: &[&[u8]]| {
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    };
    for (protocols, status) in [(&[&b"h2"[..], b"http/1.1"][..], 200), (&[b"http/1.1"], 502), (&[], 502)] {
        let acceptor = acceptor(protocols);
        let secure = target(move |_, stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok(call)) = connection.accept().await {
                    tokio::spawn(echo(0, call));
                }
            }
        })
        .await;
        let tunnel = tunnel(&rig, &format!("https://localhost:{}", secure.port())).await;
        let answer = rig.get("web", "/").await;
        assert_eq!(answer.status, status, "{protocols:?}: {}", answer.text());
        assert!(status == 200 || answer.text().contains("HTTP/2"), "{}", answer.text());
        soon(tunnel.shutdown()).await;
    }
}

/// A WebSocket server over HTTP/2, on one stream.
async fn websocket(_: usize, (request, mut answer): Call) {
    let protocol =
        request.extensions().get::<h2::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
    if protocol.as_deref() != Some("websocket") || request.uri().path() == "/forbidden" {
        answer.send_response(head(403), true).unwrap();
        return;
    }
    assert!(
        !request.headers().contains_key("sec-websocket-key") && !request.headers().contains_key("upgrade")
    );
    let mut send = answer.send_response(head(200), false).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut up, mut down) = tokio::io::split(near);
    let mut body = request.into_body();
    tokio::spawn(async move {
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            down.write_all(&data).await.unwrap();
        }
        let _ = down.shutdown().await;
    });
    tokio::spawn(async move {
        let mut some = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = up.read(&mut some).await {
            if send.send_data(some[..count].to_vec().into(), false).is_err() {
                return;
            }
        }
        let _ = send.send_data(Bytes::new(), true);
    });
    let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
    let mut socket = WebSocketStream::from_raw_socket(far, role, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await.unwrap();
        }
    }
}

#[tokio::test]
async fn websockets_are_streams_where_the_target_takes_them() {
    let rig = Rig::start().await;
    let takes = speaking(|builder| _ = builder.enable_connect_protocol(), websocket).await;
    let first = client(&rig, takes).await;
    let (mut socket, _) = soon(client_async("ws://web.relay.test/socket", rig.viewer().await)).await.unwrap();
    for message in [Message::text("hello"), Message::binary(vec![7; 300_000])] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), message);
    }
    settle(rig.admin, &json!({"upgraded": 1})).await;
    socket.close(None).await.unwrap();
    assert!(soon(socket.next()).await.unwrap().unwrap().is_close());
    drop(socket);
    // HTTP/2 on both sides.
    let viewer = connect(&rig).await;
    let ask_for = |path: &str| {
        Request::connect(format!("http://web.relay.test{path}"))
            .extension(hyper::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(empty())
            .unwrap()
    };
    let answer = soon(viewer.clone().send_request(ask_for("/"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let upgraded = hyper_util::rt::TokioIo::new(soon(hyper::upgrade::on(answer)).await.unwrap());
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let mut socket = WebSocketStream::from_raw_socket(upgraded, role, None).await;
    socket.send(Message::text("through")).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::text("through"));
    drop(socket);
    settle(rig.admin, &json!({"upgraded": 0})).await;
    assert_eq!(ask(&viewer, ask_for("/forbidden")).await.0, 403);
    drop(first);
    // One that takes none.
    let _second = {
        let plain = speaking(|_| {}, echo).await;
        let (_, tunnel) = rig
            .api(ALICE, "POST", "/v1/tunnels", r#"{"local_port":1,"name":"web","target_proto":"h2"}"#)
            .await;
        let control = rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
        rig.serve(control, plain).await
    };
    let refused = "GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let answer = rig.raw(refused).await;
    assert!(answer.status == 501 && answer.text().contains("no_websocket"), "{}", answer.text());
    assert_eq!(ask(&viewer, ask_for("/")).await.0, 501);
    // Another upgrade is no more than an offer.
    assert_eq!(rig.raw(refused.replace("websocket\r\n", "chat\r\n")).await.status, 200);
}
