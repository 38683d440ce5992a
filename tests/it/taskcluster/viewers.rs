//! Viewers of workers: the relay's one front, with what workers know of websocktunnel.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{accept_hdr_async, client_async};

use super::{Worker, get, rig, rig_with};
use crate::rig::{Answer, echo_target, read_all, read_head, read_request, soon, target};
use crate::wire::{Recorder, ended, scripted};

#[tokio::test]
async fn paths_arrive_as_they_were_written_without_the_id() {
    let rig = rig().await;
    let recorder = Recorder::start().await;
    let _worker = Worker::start(rig.address, "Worker", recorder.address).await;
    for (path, target, original) in [
        ("/Worker/hello?a=b", "/hello?a=b", "/Worker/hello"),
        ("/Worker", "/", "/Worker"),
        ("/Worker/", "/", "/Worker/"),
        ("/Worker?x=1", "/?x=1", "/Worker"),
        ("/Worker/a%20b//c%2Fd/", "/a%20b//c%2Fd/", "/Worker/a%20b//c%2Fd/"),
    ] {
        let forged = "X-Websocktunnel-Original-Path: /forged\r\n";
        assert_eq!(get(&rig, path, forged).await.status, 200, "{path}");
        let seen = recorder.only();
        assert_eq!(seen.line(), format!("GET {target} HTTP/1.1"), "{path}");
        assert_eq!(seen.all("x-websocktunnel-original-path"), [original], "{path}");
        assert_eq!(seen.all("host"), ["relay.test"], "{path}");
    }
    // Registration is at the root alone.
    let viewed = get(&rig, "/Worker/", "x-websocktunnel-id: Worker\r\n").await;
    assert_eq!(viewed.status, 200);
}

#[tokio::test]
async fn each_request_has_a_stream_of_its_own_where_that_is_wanted() {
    let rig = rig_with(|config| config.worker_reuse = false).await;
    // A target that would keep its connections, and what each of them brought.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _worker = Worker::start(rig.address, "worker", listener.local_addr().unwrap()).await;
    let (ended, mut brought) = mpsc::channel(1);
    let mut target = JoinSet::new();
    target.spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            let mut requests = 0;
            while read_head(&mut io).await.is_some() {
                requests += 1;
                io.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
            ended.send(requests).await.unwrap();
        }
    });
    for _ in 0..3 {
        assert_eq!(get(&rig, "/worker/", "").await.status, 200);
        assert_eq!(soon(brought.recv()).await, Some(1));
    }
}

#[tokio::test]
async fn where_no_worker_is_the_answer_is_always_the_same() {
    let rig = rig_with(|config| config.limits.reconnect_wait = Duration::from_secs(60)).await;
    let upgrade =
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let nobody = async |path: &str, lines: &str| {
        let answer = get(&rig, path, lines).await;
        assert_eq!(answer.status, 404, "{path} {lines}");
        assert_eq!(answer.text(), "No client is connected with that id\n");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    };
    for lines in ["", "Accept: text/html\r\n", "Accept: application/json\r\n", upgrade] {
        nobody("/worker/", lines).await;
    }
    nobody("/index.html", "").await;
    let worker = Worker::start(rig.address, "worker", echo_target().await).await;
    assert_eq!(get(&rig, "/worker/", "").await.status, 200);
    nobody("/Worker/", "").await;
    worker.session.close(1000, "").await;
    // At once: nobody waits for a worker that has gone, which is known for a while.
    soon(async { while get(&rig, "/worker/", "").await.status != 404 {} }).await;
    nobody("/worker/", "").await;
}

#[tokio::test]
async fn with_a_base_domain_ids_are_hosts_too() {
    let rig = rig_with(|config| config.base_domain = Some("relay.test".to_owned())).await;
    let recorder = Recorder::start().await;
    let _worker = Worker::start(rig.address, "worker-1", recorder.address).await;
    assert_eq!(rig.get("worker-1", "/a/b?c").await.status, 200);
    let seen = recorder.only();
    assert_eq!(seen.line(), "GET /a/b?c HTTP/1.1");
    assert_eq!(seen.all("x-websocktunnel-original-path"), ["/worker-1/a/b"]);
    assert_eq!(get(&rig, "/worker-1/x", "").await.status, 200);
    assert_eq!(rig.get("worker-2", "/").await.text(), "No client is connected with that id\n");
}

#[tokio::test]
async fn one_stream_carries_request_after_request() {
    let rig = rig().await;
    let _worker = Worker::start(rig.address, "worker", echo_target().await).await;
    let mut on = Vec::new();
    for _ in 0..3 {
        on.push(get(&rig, "/worker/", "").await.header("x-connection").unwrap().to_owned());
    }
    assert_eq!(on, ["0.0", "0.1", "0.2"]);
}

fn sum_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

#[tokio::test]
async fn megabytes_arrive_whole_in_both_directions() {
    let rig = rig().await;
    let bytes: Vec<u8> = (0..48 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sum = sum_of(&bytes).to_string();
    let body = bytes.clone();
    let target = target(move |_, mut stream| {
        let body = body.clone();
        async move {
            let request = read_request(&mut stream).await.unwrap();
            let end = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            let sum = sum_of(&request[end..]);
            let head = format!(
                "HTTP/1.1 200 OK\r\nX-Sum: {sum}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
            let _ = stream.shutdown().await;
            read_all(&mut stream).await;
        }
    });
    let _worker = Worker::start(rig.address, "worker", target.await).await;
    let mut viewer = rig.viewer().await;
    let head = format!(
        "PUT /worker/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    soon(viewer.write_all(&[head.as_bytes(), &bytes].concat())).await.unwrap();
    let answer = Answer::parse(&soon(read_all(&mut viewer)).await);
    assert_eq!(answer.header("x-sum"), Some(sum.as_str()));
    assert!(answer.body == bytes, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn an_answer_streams_while_its_handler_runs_and_may_come_before_the_request_ends() {
    let rig = rig().await;
    let worker = Worker::of(rig.address, "worker").await;
    let mut viewer = rig.viewer().await;
    viewer.write_all(b"GET /worker/ HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut stream = worker.stream().await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n").await.unwrap();
    read_head(&mut viewer).await.unwrap();
    let mut first = [0; 10];
    soon(viewer.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"5\r\nHello\r\n");
    drop(viewer);
    // The worker learns that its viewer has left.
    soon(async { while stream.read_u8().await.is_ok() {} }).await;

    let mut viewer = rig.viewer().await;
    let head = b"POST /worker/ HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n";
    viewer.write_all(head).await.unwrap();
    let mut stream = worker.stream().await;
    let refused = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(refused).await.unwrap();
    let head = soon(read_head(&mut viewer)).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 413"));
}

#[tokio::test]
async fn interim_answers_trailers_and_truncation_are_what_they_are() {
    let rig = rig().await;
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n";
    let _worker = Worker::start(rig.address, "whole", scripted(format!("{interim}{whole}")).await).await;
    let answer = get(&rig, "/whole/", "").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));

    let cut = target(|_, mut stream| async move {
        let _ = read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHe").await;
    });
    let _cut = Worker::start(rig.address, "cut", cut.await).await;
    let answer = get(&rig, "/cut/", "").await;
    assert!(answer.status == 200 && !answer.complete, "{answer:?}");

    // A session that is lost in the middle of an answer.
    let worker = Worker::of(rig.address, "lost").await;
    let mut viewer = rig.viewer().await;
    viewer.write_all(b"GET /lost/ HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut stream = worker.stream().await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n").await.unwrap();
    read_head(&mut viewer).await.unwrap();
    drop((stream, worker));
    assert!(!soon(read_all(&mut viewer)).await.ends_with(b"0\r\n\r\n"));
}

#[tokio::test]
async fn a_worker_without_its_target_is_502_and_one_that_accepts_nothing_504() {
    let rig = rig_with(|config| config.limits.claim_wait = Duration::from_millis(300)).await;
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let _worker = Worker::start(rig.address, "down", nowhere).await;
    for _ in 0..3 {
        assert_eq!(get(&rig, "/down/", "").await.status, 502);
    }
    let deaf = Worker::of(rig.address, "deaf").await;
    assert_eq!(get(&rig, "/deaf/", "").await.status, 504);
    // What is accepted too late is ended.
    let mut late = deaf.stream().await;
    assert_eq!(soon(late.read(&mut [0; 9])).await.unwrap(), 0);
}

#[tokio::test]
async fn websockets_keep_their_subprotocol_their_messages_and_their_close() {
    let rig = rig().await;
    #[expect(clippy::result_large_err, reason = "the callback of the library")]
    let target = target(|_, stream| async move {
        let choose = |request: &Request, mut response: Response| {
            assert_eq!(request.uri(), "/ws?q=1");
            response.headers_mut().insert("sec-websocket-protocol", "b".parse().unwrap());
            Ok(response)
        };
        let Ok(mut socket) = accept_hdr_async(stream, choose).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && message.to_text().unwrap() == "bye" {
                let frame = CloseFrame { code: CloseCode::from(4321), reason: "enough".into() };
                let _ = socket.close(Some(frame)).await;
                while let Some(Ok(_)) = socket.next().await {}
                return;
            }
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let _worker = Worker::start(rig.address, "worker", target.await).await;
    let mut request = format!("ws://{}/worker/ws?q=1", rig.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "a, b".parse().unwrap());
    let (mut socket, response) =
        soon(client_async(request, TcpStream::connect(rig.address).await.unwrap())).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "b");
    let large = Message::binary(vec![7; 1 << 20]);
    socket.send(large.clone()).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), large);
    socket.send(Message::Ping("x".into())).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::Pong("x".into()));
    socket.send(Message::text("bye")).await.unwrap();
    let Message::Close(Some(close)) = soon(socket.next()).await.unwrap().unwrap() else { panic!("no close") };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4321, "enough"));

    // What the target refuses is refused in its own words.
    let _no = Worker::start(
        rig.address,
        "no",
        scripted("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await,
    )
    .await;
    let request = format!("ws://{}/no/", rig.address).into_client_request().unwrap();
    let refused = soon(client_async(request, TcpStream::connect(rig.address).await.unwrap())).await;
    let Err(tokio_tungstenite::tungstenite::Error::Http(response)) = refused else { panic!("let in") };
    assert_eq!(response.status(), 403);
}

#[tokio::test]
async fn a_hundred_at_once_are_served_beside_viewers_that_take_nothing() {
    let rig = rig().await;
    let target = target(|_, mut stream| async move {
        while let Some(request) = read_request(&mut stream).await {
            let large = request.starts_with(b"GET /large");
            let body = vec![b'x'; if large { 16 << 20 } else { 1000 }];
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
                return;
            }
        }
    });
    let _worker = Worker::start(rig.address, "worker", target.await).await;
    let mut stalled = Vec::new();
    for _ in 0..3 {
        let mut viewer = rig.viewer().await;
        viewer.write_all(b"GET /worker/large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_head(&mut viewer).await.unwrap();
        stalled.push(viewer);
    }
    let mut viewers = JoinSet::new();
    let address = rig.address;
    for _ in 0..100 {
        viewers.spawn(async move {
            let mut viewer = TcpStream::connect(address).await.unwrap();
            viewer.write_all(b"GET /worker/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
            Answer::parse(&soon(read_all(&mut viewer)).await)
        });
    }
    while let Some(answer) = viewers.join_next().await {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 1000));
    }
    // And they get theirs when they take it.
    for mut viewer in stalled {
        let mut body = vec![0; 16 << 20];
        soon(viewer.read_exact(&mut body)).await.unwrap();
        drop(viewer);
    }
}

/// What made all of the original stand still.
#[tokio::test]
async fn echoes_of_megabytes_in_both_directions_at_once_come_to_an_end() {
    let rig = rig().await;
    let target = target(|_, stream| async move {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let _worker = Worker::start(rig.address, "worker", target.await).await;
    let mut viewers = JoinSet::new();
    for _ in 0..8 {
        let address = rig.address;
        viewers.spawn(async move {
            let request = format!("ws://{address}/worker/").into_client_request().unwrap();
            let tcp = TcpStream::connect(address).await.unwrap();
            let (socket, _) = client_async(request, tcp).await.unwrap();
            let (mut send, mut receive) = socket.split();
            let sending = async {
                for number in 0..20_u8 {
                    send.send(Message::binary(vec![number; 1 << 20])).await.unwrap();
                }
            };
            let receiving = async {
                for number in 0..20_u8 {
                    let message = soon(receive.next()).await.unwrap().unwrap();
                    assert_eq!((message.len(), message.into_data()[0]), (1 << 20, number));
                }
            };
            tokio::join!(sending, receiving);
        });
    }
    while let Some(done) = viewers.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_redirect_of_a_target_that_knows_its_prefix_is_left_alone() {
    let rig = rig().await;
    for (location, seen) in [
        ("/worker/next", "/worker/next"),
        ("/worker", "/worker"),
        ("/next", "/worker/next"),
        ("/worker2", "/worker/worker2"),
    ] {
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let _worker = Worker::start(rig.address, "worker", scripted(answer).await).await;
        assert_eq!(get(&rig, "/worker/", "").await.header("location"), Some(seen), "{location}");
    }
    let mut gone = rig.viewer().await;
    gone.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    ended(&mut gone).await;
}

#[tokio::test]
async fn pings_and_pushes_go_both_ways_and_a_viewer_that_breaks_off_is_one_for_the_target() {
    let rig = rig().await;
    let (tell, mut told) = mpsc::channel(8);
    let target = target(move |_, stream| {
        let tell = tell.clone();
        async move {
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
            socket.send(Message::Ping("from the target".into())).await.unwrap();
            socket.send(Message::text("pushed")).await.unwrap();
            while let Some(message) = socket.next().await {
                let last = message.is_err();
                tell.send(message.ok()).await.unwrap();
                if last {
                    return;
                }
            }
        }
    });
    let _worker = Worker::start(rig.address, "worker", target.await).await;
    let request = format!("ws://{}/worker/", rig.address).into_client_request().unwrap();
    let tcp = TcpStream::connect(rig.address).await.unwrap();
    let (mut socket, _) = soon(client_async(request, tcp)).await.unwrap();
    for expected in [Message::Ping("from the target".into()), Message::text("pushed")] {
        assert_eq!(soon(socket.next()).await.unwrap().unwrap(), expected);
    }
    socket.send(Message::Ping("from the viewer".into())).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::Pong("from the viewer".into()));
    let mut at_target = vec![soon(told.recv()).await.unwrap(), soon(told.recv()).await.unwrap()];
    at_target.sort_by_key(|message| message.as_ref().is_some_and(Message::is_ping));
    let pong = Message::Pong("from the target".into());
    assert_eq!(at_target, [Some(pong), Some(Message::Ping("from the viewer".into()))]);
    drop(socket);
    assert_eq!(soon(told.recv()).await.unwrap(), None, "an end without a close frame");
}

#[tokio::test]
async fn two_hundred_slow_requests_wait_side_by_side() {
    let rig = rig().await;
    let all_here = std::sync::Arc::new(tokio::sync::Barrier::new(200));
    let target = target(move |_, mut stream| {
        let all_here = std::sync::Arc::clone(&all_here);
        async move {
            let _ = read_request(&mut stream).await;
            // Nobody is answered before all have asked.
            all_here.wait().await;
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let _worker = Worker::start(rig.address, "worker", target.await).await;
    let viewers: Vec<_> = (0..200).map(|_| get(&rig, "/worker/", "")).collect();
    for answer in futures_util::future::join_all(viewers).await {
        assert_eq!(answer.status, 200);
    }
}
