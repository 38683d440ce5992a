//! Many streams in one WebSocket over real sockets: HTTP on each of them, and ends that another library carries.

use std::convert::Infallible;
use std::io::ErrorKind;

use adit::stream::handshake;
use adit::wsmux::{Driver, Ended, Role, Session, Settings};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::rig::soon;

/// The session of a client that has asked for a WebSocket at `address`.
async fn client(address: std::net::SocketAddr) -> (Session, Driver<TcpStream>) {
    let io = TcpStream::connect(address).await.unwrap();
    let uri = format!("http://{address}/").parse().unwrap();
    let opened = handshake::connect(io, &uri, HeaderMap::new()).await.unwrap();
    Session::with_already(opened.io, Role::Client, opened.already, Settings::default())
}

/// Answers one handshake, with hyper, and gives the session.
async fn server(listener: &TcpListener) -> (Session, Driver<TcpStream>) {
    let (io, _) = listener.accept().await.unwrap();
    let (upgrades, mut upgraded) = mpsc::channel(1);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let accept = handshake::check(&request).unwrap();
        upgrades.try_send(hyper::upgrade::on(&mut request)).unwrap();
        async { Ok::<_, Infallible>(handshake::switching::<Empty<Bytes>>(accept)) }
    });
    let connection = hyper::server::conn::http1::Builder::new();
    connection.serve_connection(TokioIo::new(io), service).with_upgrades().await.unwrap();
    let parts = upgraded.recv().await.unwrap().await.unwrap().downcast::<TokioIo<TcpStream>>().unwrap();
    let already = handshake::left_over(&parts.read_buf);
    Session::with_already(parts.io.into_inner(), Role::Server, already, Settings::default())
}

/// Serves HTTP on each stream that the other end opens: the body comes back, but for those who ask for nothing.
async fn serve_http(session: Session) {
    let mut streams = JoinSet::new();
    while let Some(stream) = session.accept().await {
        let service = service_fn(async |request: Request<Incoming>| {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        streams.spawn(async move {
            let _ = connection.await;
        });
    }
}

async fn post(session: Session, body: Vec<u8>) {
    let stream = session.open().await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut connecting = JoinSet::new();
    connecting.spawn(connection);
    for _ in 0..2 {
        let request =
            Request::post("/").header("host", "web.test").body(Full::new(Bytes::from(body.clone())));
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert!(response.into_body().collect().await.unwrap().to_bytes() == body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_is_spoken_on_a_hundred_streams_of_one_websocket_whichever_end_opens_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(client(listener.local_addr().unwrap()), server(&listener));
    let mut driving = JoinSet::new();
    driving.spawn(near.1.run());
    driving.spawn(far.1.run());
    let (near, far) = (near.0, far.0);
    let mut serving = JoinSet::new();
    serving.spawn(serve_http(near.clone()));
    serving.spawn(serve_http(far.clone()));
    for session in [&far, &near] {
        // One asks, and reads nothing of its answer.
        let mut stalled = session.open().await.unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 3000000\r\n\r\n";
        stalled.write_all(head).await.unwrap();
        stalled.write_all(&vec![b'x'; 3_000_000]).await.unwrap();
        let mut posting = JoinSet::new();
        for at in 0..100 {
            posting.spawn(post(session.clone(), vec![at; 30_000]));
        }
        while let Some(posted) = soon(posting.join_next()).await {
            posted.unwrap();
        }
        let mut answer = vec![0; 12];
        soon(stalled.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 200");
    }
    assert_eq!(soon(near.close(1001, "going")).await, Ended::ByUs(1001, "going"));
    assert_eq!(soon(far.over()).await, Ended::ByPeer(Some(1001)));
    // Both of them have closed the connection.
    while let Some(ended) = soon(driving.join_next()).await {
        assert!(matches!(ended.unwrap(), Ended::ByUs(..) | Ended::ByPeer(_)));
    }
}

/// Fragments, pings and the close frame as somebody else writes and reads them.
#[tokio::test]
async fn a_websocket_of_another_library_carries_a_session() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let theirs = async {
        let (io, _) = listener.accept().await.unwrap();
        tokio_tungstenite::accept_async(io).await.unwrap()
    };
    let ((session, driver), mut theirs) = tokio::join!(client(address), theirs);
    let driving = tokio::spawn(driver.run());
    theirs.send(Message::binary(&b"\x01\0\0\0\0"[..])).await.unwrap();
    let mut stream = soon(session.accept()).await.unwrap();
    let mut said = Vec::new();
    while said.len() < 2 {
        said.push(soon(theirs.next()).await.unwrap().unwrap());
    }
    assert!(said.contains(&Message::Ping(Bytes::new())), "{said:?}");
    assert!(said.contains(&Message::binary(&b"\x02\0\0\0\0\0\0\x40\0"[..])), "{said:?}");
    for (part, opcode, last) in [
        (&b"\0\0\0"[..], OpCode::Data(Data::Binary), false),
        (b"\0", OpCode::Data(Data::Continue), false),
        (b"\0hel", OpCode::Data(Data::Continue), false),
        (b"lo", OpCode::Data(Data::Continue), true),
    ] {
        theirs.send(Message::Frame(Frame::message(part, opcode, last))).await.unwrap();
        theirs.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    }
    let mut hello = [0; 5];
    soon(stream.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"hello");
    stream.write_all(b"yes").await.unwrap();
    drop(stream);
    let mut messages = Vec::new();
    while messages.last() != Some(&Bytes::from_static(b"\x03\0\0\0\0")) {
        match soon(theirs.next()).await.unwrap().unwrap() {
            Message::Binary(message) => messages.push(message),
            Message::Pong(payload) => assert_eq!(&payload[..], b"there?"),
            other => panic!("{other:?}"),
        }
    }
    assert!(messages.contains(&Bytes::from_static(b"\0\0\0\0\0yes")));
    theirs.send(Message::text("hello")).await.unwrap();
    let Message::Close(Some(close)) = soon(theirs.next()).await.unwrap().unwrap() else { panic!("no close") };
    assert_eq!(
        (u16::from(close.code), close.reason.as_str()),
        (1008, "unexpected non-binary websocket message")
    );
    // It answers, and the connection is closed from both ends.
    while soon(theirs.next()).await.is_some() {}
    assert!(matches!(soon(driving).await.unwrap(), Ended::Breach(_)));
}

#[tokio::test]
async fn a_connection_that_is_reset_is_an_error_for_all_of_its_streams_and_for_no_other_session() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut driving = JoinSet::new();
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let (near, far) = tokio::join!(client(address), server(&listener));
        let near_driving = driving.spawn(near.1.run());
        driving.spawn(far.1.run());
        let (opened, accepted) = tokio::join!(near.0.open(), far.0.accept());
        sessions.push((near.0, far.0, near_driving, opened.unwrap(), accepted.unwrap()));
    }
    let (_, far, near_driving, _opened, mut accepted) = sessions.remove(0);
    // The socket goes with its driver, in the middle of everything.
    near_driving.abort();
    let error = soon(accepted.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert!(matches!(soon(far.over()).await, Ended::Broken(_)));
    let (_near, _far, _, mut opened, mut accepted) = sessions.remove(0);
    opened.write_all(b"x").await.unwrap();
    assert_eq!(soon(accepted.read_u8()).await.unwrap(), b'x');
}
