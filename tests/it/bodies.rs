//! Bodies, their framing and their ends: what is complete is kept whole, what is cut short never looks complete.

use futures_util::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::rig::{ALICE, Answer, Rig, read_head, read_request, soon, target};
use crate::wire::{Recorder, Viewer, answering, by_hand, claim, receive, scripted};

#[tokio::test]
async fn responses_without_a_body_leave_the_connection_at_its_next_response() {
    let rig = Rig::start().await;
    let answers = |head: &str| -> Vec<u8> {
        let (method, rest) = head.split_once(" /").unwrap();
        match (method, rest.split(' ').next().unwrap()) {
            (_, "204") => "HTTP/1.1 204 No Content\r\nX-Is: bare\r\n\r\n".into(),
            (_, "304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nX-Is: bare\r\n\r\n".into(),
            (_, "304-chunked") => {
                "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\nX-Is: bare\r\n\r\n".into()
            }
            (_, "empty") => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Is: bare\r\n\r\n".into(),
            ("HEAD", "chunked") => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Is: bare\r\n\r\n".into()
            }
            ("HEAD", _) => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Is: bare\r\n\r\n".into(),
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext".into(),
        }
    };
    let _client = rig.client(ALICE, "web", answering(answers).await).await;
    let mut viewer = Viewer::new(&rig).await;
    for (method, path, length) in [
        ("GET", "/204", None),
        ("GET", "/304", None),
        ("GET", "/304-chunked", None),
        ("GET", "/empty", Some("0")),
        ("HEAD", "/length", Some("5")),
        ("HEAD", "/chunked", None),
    ] {
        viewer.say(format!("{method} {path} HTTP/1.1\r\nHost: web.relay.test\r\n\r\n")).await;
        let head = viewer.head().await;
        assert!(head.contains("x-is: bare\r\n"), "{method} {path}: {head}");
        if let Some(length) = length {
            assert!(head.contains(&format!("content-length: {length}\r\n")), "{method} {path}: {head}");
        }
        assert_eq!(viewer.get("web", "/next").await.text(), "next", "after {method} {path}");
    }
    // The relay's own pages too.
    viewer.say("HEAD / HTTP/1.1\r\nHost: nobody.relay.test\r\n\r\n").await;
    assert!(viewer.head().await.starts_with("http/1.1 404 "));
    assert_eq!(viewer.get("web", "/next").await.text(), "next");
}

#[tokio::test]
async fn interim_responses_are_passed_over() {
    let rig = Rig::start().await;
    let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
                  HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let _client = rig.client(ALICE, "web", scripted(answer).await).await;
    let mut viewer = Viewer::new(&rig).await;
    for _ in 0..2 {
        let answer = viewer.get("web", "/").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
}

#[tokio::test]
async fn trailers_go_both_ways_and_never_pass_for_headers() {
    let rig = Rig::start().await;
    let (address, mut targets) = by_hand().await;
    let _client = rig.client(ALICE, "web", address).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer
        .say(
            "POST / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close, TE\r\nTE: trailers\r\n\
             Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\nContent-Length: 7\r\n\
             Transfer-Encoding: chunked\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\nAuthorization: Basic eDp5\r\n\r\n",
        )
        .await;
    let mut stream = soon(targets.recv()).await.unwrap();
    let request = String::from_utf8(soon(read_request(&mut stream)).await.unwrap()).unwrap();
    assert!(
        request.contains("\r\nTE: trailers\r\n") && request.contains("\r\ntrailer: X-Sum\r\n"),
        "{request}"
    );
    assert!(request.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 9\r\n\r\n"), "{request}");
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Check: 1\r\n\r\n";
    stream.write_all(answer.as_bytes()).await.unwrap();
    let answer = String::from_utf8(viewer.rest().await).unwrap();
    assert!(answer.ends_with("2\r\nok\r\n0\r\nx-check: 1\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_body_keeps_its_framing_on_the_way_in() {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    let mut viewer = Viewer::new(&rig).await;
    for (method, sent, name, value) in [
        ("POST", "Content-Length: 3\r\n\r\nabc", "content-length", Some("3")),
        ("POST", "Content-Length: 0\r\n\r\n", "content-length", Some("0")),
        ("POST", "\r\n", "content-length", Some("0")),
        (
            "POST",
            "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "transfer-encoding",
            Some("chunked"),
        ),
        ("DELETE", "Content-Length: 3\r\n\r\nabc", "content-length", Some("3")),
        ("GET", "\r\n", "content-length", None),
        ("GET", "Content-Length: 3\r\n\r\nabc", "content-length", Some("3")),
        ("WHATEVER", "\r\n", "content-length", None),
    ] {
        viewer.say(format!("{method} / HTTP/1.1\r\nHost: web.relay.test\r\n{sent}")).await;
        assert_eq!(viewer.answer().await.status, 200);
        let seen = recorder.only();
        assert!(seen.is_plain() && seen.line().starts_with(method), "{}", seen.head);
        assert_eq!(seen.all(name).first().copied(), value, "{method} {sent}");
    }
}

#[tokio::test]
async fn the_targets_100_lets_the_body_go() {
    let rig = Rig::start().await;
    let (address, mut targets) = by_hand().await;
    let _client = rig.client(ALICE, "web", address).await;
    const ASKS: &str =
        "PUT / HTTP/1.1\r\nHost: web.relay.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let asked = async |viewer: &mut Viewer, targets: &mut tokio::sync::mpsc::Receiver<_>| {
        viewer.say(ASKS).await;
        let mut stream = soon(targets.recv()).await.unwrap();
        let head = String::from_utf8(soon(read_head(&mut stream)).await.unwrap()).unwrap();
        assert!(head.to_ascii_lowercase().contains("expect: 100-continue"), "{head}");
        stream
    };

    // A target that agrees.
    let mut viewer = Viewer::new(&rig).await;
    let mut stream = asked(&mut viewer, &mut targets).await;
    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
    assert!(viewer.head().await.starts_with("http/1.1 100 "));
    viewer.say("abc").await;
    let mut body = [0; 3];
    soon(stream.read_exact(&mut body)).await.unwrap();
    assert_eq!(&body, b"abc");
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(viewer.answer().await.text(), "ok");

    // One that refuses: there is no 100, and the connection ends with the answer, as the body never came.
    let mut viewer = Viewer::new(&rig).await;
    let mut stream = asked(&mut viewer, &mut targets).await;
    stream.write_all(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
    let answer = Answer::parse(&viewer.rest().await);
    assert_eq!((answer.status, answer.text().as_str()), (417, "no"));

    // One that knows nothing of it just waits for the body.
    let mut viewer = Viewer::new(&rig).await;
    let mut stream = asked(&mut viewer, &mut targets).await;
    assert!(viewer.head().await.starts_with("http/1.1 100 "));
    viewer.say("abc").await;
    soon(stream.read_exact(&mut body)).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    assert_eq!(viewer.answer().await.text(), "ok");
}

#[tokio::test]
async fn an_early_answer_is_read_whole_by_a_viewer_that_is_still_sending() {
    let rig = Rig::start().await;
    // It answers at once and takes what still comes, as well-behaved targets do.
    let early = target(|_, mut stream| async move {
        let head = String::from_utf8(read_head(&mut stream).await.unwrap()).unwrap();
        let last = if head.contains(" /last ") { "Connection: close\r\n" } else { "" };
        let answer = format!("HTTP/1.1 413 Content Too Large\r\n{last}Content-Length: 100000\r\n\r\n");
        stream.write_all(&[answer.as_bytes(), &[b'p'; 100_000]].concat()).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let _client = rig.client(ALICE, "web", early).await;
    let body = vec![b'x'; 10_000_000];
    for (path, framing, first) in [
        ("/", "Content-Length: 10000000", ""),
        ("/", "Transfer-Encoding: chunked", "989680\r\n"),
        ("/", "Content-Length: 99999999", ""),
        ("/last", "Content-Length: 10000000", ""),
        ("/last", "Transfer-Encoding: chunked", "989680\r\n"),
    ] {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(format!("POST {path} HTTP/1.1\r\nHost: web.relay.test\r\n{framing}\r\n\r\n{first}")).await;
        // It reads only when everything is sent, as simple viewers do.
        let _ = soon(viewer.0.write_all(&body)).await;
        let answer = viewer.answer().await;
        assert_eq!(
            (answer.status, answer.body.len(), answer.complete),
            (413, 100_000, true),
            "{path} {framing}"
        );
        // Nothing comes behind it, however the connection goes on.
        drop(viewer.0.shutdown().await);
        assert_eq!(viewer.rest().await, b"", "{framing}");
    }
}

#[tokio::test]
async fn a_body_cut_short_by_the_target_never_looks_complete() {
    let rig = Rig::start().await;
    let cut = target(|_, mut stream| async move {
        let head = String::from_utf8(read_head(&mut stream).await.unwrap()).unwrap();
        let answer = match head.split(' ').nth(1).unwrap() {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
            "/chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
            "/chunks" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "/noise" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
            _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let _client = rig.client(ALICE, "web", cut).await;
    for path in ["/length", "/chunk", "/chunks", "/noise", "/end"] {
        let answer = rig.get("web", path).await;
        assert_eq!((answer.status, answer.complete), (200, false), "{path}: {answer:?}");
        assert_eq!(answer.text(), "abc", "{path}");

        // HTTP/1.0 knows no chunks: only a reset can tell the viewer.
        let mut old = Viewer::new(&rig).await;
        old.say(format!("GET {path} HTTP/1.0\r\nHost: web.relay.test\r\n\r\n")).await;
        let head = old.head().await;
        let mut body = Vec::new();
        let ended = soon(old.0.read_to_end(&mut body)).await;
        assert!(ended.is_err() || head.contains("content-length: 10\r\n"), "{path}: {head}{body:?}");
    }
}

#[tokio::test]
async fn a_response_without_framing_ends_with_the_targets_connection() {
    let rig = Rig::start().await;
    for version in ["1.0", "1.1"] {
        let name = if version == "1.0" { "old" } else { "new" };
        let target = target(move |_, mut stream| async move {
            read_head(&mut stream).await.unwrap();
            let head = format!("HTTP/{version} 200 OK\r\nContent-Type: text/plain\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(b"to the end").await.unwrap();
        })
        .await;
        let _client = rig.client(ALICE, name, target).await;
        let answer = rig.get(name, "/").await;
        assert_eq!((answer.status, answer.text().as_str(), answer.complete), (200, "to the end", true));
        let old = rig.raw(format!("GET / HTTP/1.0\r\nHost: {name}.relay.test\r\n\r\n")).await;
        assert_eq!((old.text().as_str(), old.header("transfer-encoding")), ("to the end", None));
    }
}

#[tokio::test]
async fn an_http_1_0_viewer_gets_what_it_can_read() {
    let rig = Rig::start().await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let _client = rig.client(ALICE, "web", scripted(chunked).await).await;
    let answer = rig.raw("GET / HTTP/1.0\r\nHost: web.relay.test\r\n\r\n").await;
    assert_eq!(
        (answer.text().as_str(), answer.header("transfer-encoding")),
        ("abcde", None),
        "{}",
        answer.head
    );

    let recorder = Recorder::start().await;
    let _other = rig.client(ALICE, "kept", recorder.address).await;
    let mut viewer = Viewer::new(&rig).await;
    for _ in 0..2 {
        viewer.say("GET / HTTP/1.0\r\nHost: kept.relay.test\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(viewer.answer().await.text(), "ok");
    }
    assert!(recorder.take().iter().all(|seen| seen.line() == "GET / HTTP/1.1" && seen.is_plain()));
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_502() {
    let rig = Rig::start().await;
    for (number, answer) in [
        String::new(),
        "SSH-2.0-OpenSSH_9.2\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nContent-Le".into(),
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd".into(),
        "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc".into(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc".into(),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nX-A : b\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nX-A: b\0\r\n\r\n".into(),
        "HTTP/1.1 99 Low\r\n\r\n".into(),
        "HTTP/2.0 200 OK\r\n\r\n".into(),
        format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "b".repeat(300_000)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-A: b\r\n".repeat(200)),
    ]
    .into_iter()
    .enumerate()
    {
        let (name, shown) = (format!("bad{number}"), answer.chars().take(60).collect::<String>());
        let target = target(move |_, mut stream| {
            let answer = answer.clone();
            async move {
                read_head(&mut stream).await.unwrap();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let _client = rig.client(ALICE, &name, target).await;
        let answer = rig.get(&name, "/").await;
        assert_eq!(answer.status, 502, "{shown:?}: {}", answer.head);
        assert!(
            answer.complete && answer.header("content-type") == Some("application/problem+json"),
            "{}",
            answer.head
        );
    }
}

#[tokio::test]
async fn a_response_in_messages_of_one_byte_is_read_like_any_other() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewer = Viewer::new(&rig).await;
    for _ in 0..2 {
        viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: TE\r\nTE: trailers\r\n\r\n").await;
    }
    let mut socket = claim(&rig, &mut control).await;
    for _ in 0..2 {
        assert!(receive(&mut socket).await.unwrap().starts_with(b"GET / "));
        let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                      0003;a=b\r\nabc\r\n2 \r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
        for byte in answer.bytes() {
            socket.send(Message::binary(vec![byte])).await.unwrap();
        }
        let answer = viewer.answer().await;
        assert_eq!((answer.text().as_str(), answer.complete), ("abcde", true), "{answer:?}");
    }
}
