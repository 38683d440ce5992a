//! HTTP/1 at its edges, beside what `framing`, `headers` and `bodies` hold: two parsers must never see two requests, nor
//! two responses.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::{ALICE, Answer, Client, Rig, read_head, soon, target};
use crate::wire::{Recorder, Viewer, by_hand, scripted};

const HOST: &str = "Host: web.relay.test\r\n";
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n\r\n";

async fn recorded() -> (Rig, Recorder, Client) {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let client = rig.client(ALICE, "web", recorder.address).await;
    (rig, recorder, client)
}

#[tokio::test]
async fn a_request_that_is_wrong_in_a_rare_way_is_refused_and_never_reaches_the_target() {
    let (rig, recorder, _client) = recorded().await;
    let get = |header: &str| format!("GET / HTTP/1.1\r\n{HOST}{header}\r\n\r\n");
    let post = |coding: &str| format!("POST / HTTP/1.1\r\n{HOST}{coding}\r\n\r\n0\r\n\r\n");
    let line = |line: &str| format!("{line}\r\n{HOST}\r\n");
    let host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let cases = [
        ("space before the colon of a coding", post("Transfer-Encoding : chunked")),
        ("tab before the colon of a coding", post("Transfer-Encoding\t: chunked")),
        ("coding with a parameter", post("Transfer-Encoding: chunked;q=1")),
        ("coding in quotes", post("Transfer-Encoding: \"chunked\"")),
        ("coding behind a control character", post("Transfer-Encoding: \x0bchunked")),
        ("coding behind a comma", post("Transfer-Encoding: ,chunked")),
        ("coding on a folded line", post("Transfer-Encoding:\r\n chunked")),
        ("identity", post("Transfer-Encoding: identity")),
        ("empty coding", post("Transfer-Encoding:")),
        (
            "coding in two lines, one of them unknown",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
        ),
        ("length with a semicolon", get("Content-Length: 3;")),
        ("length with a space inside", get("Content-Length: 1 2")),
        ("length with a point", get("Content-Length: 3.0")),
        ("length in other digits", get("Content-Length: \u{0663}")),
        (
            "lengths in two lines that differ by a zero only in the second",
            get("Content-Length: 0\r\nContent-Length: 00x"),
        ),
        ("NUL in a name", get("X\0A: b")),
        ("bare CR in a name", get("X\rA: b")),
        ("space in a name", get("X A: b")),
        ("empty name", get(": b")),
        ("name in quotes", get("\"X\": b")),
        ("first header folded", format!("GET / HTTP/1.1\r\n {HOST}\r\n")),
        ("fold by a tab", get("X-A: b\r\n\tc")),
        ("DEL in a value", get("X-A: b\x7fc")),
        ("ESC in a value", get("X-A: b\x1b[2Jc")),
        ("two spaces behind the method", line("GET  / HTTP/1.1")),
        ("two spaces before the version", line("GET /  HTTP/1.1")),
        ("tab in the line", line("GET\t/\tHTTP/1.1")),
        ("space before the method", line(" GET / HTTP/1.1")),
        ("bare CR in the line", line("GET /\rX HTTP/1.1")),
        ("something behind the version", line("GET / HTTP/1.1 x")),
        ("version in lower case", line("GET / http/1.1")),
        ("HTTP/1.2", line("GET / HTTP/1.2")),
        ("HTTP/2.0 in a line of HTTP/1", line("GET / HTTP/2.0")),
        ("HTTP/0.9", "GET /\r\n\r\n".into()),
        ("method with a colon", line("GE:T / HTTP/1.1")),
        ("no method", line("/ HTTP/1.1")),
        ("path without a slash", line("GET hidden HTTP/1.1")),
        ("authority for a GET", line("GET web.relay.test:80 HTTP/1.1")),
        ("only a scheme", line("GET http:// HTTP/1.1")),
        ("port that is no number", host("web.relay.test:x")),
        ("two ports", host("web.relay.test:80:90")),
        ("open bracket", host("[::1")),
        ("host with a tab", host("web.relay.test\tx")),
        ("host with an escape", host("%77eb.relay.test")),
        ("host with a backslash", host("web.relay.test\\x")),
        ("host with a question mark", host("web.relay.test?x")),
        ("dot before the host", host(".web.relay.test")),
        ("two dots at the end", host("web.relay.test..")),
        (
            "host and header of the same name in small letters",
            format!("GET / HTTP/1.1\r\n{HOST}host: other.relay.test\r\n\r\n"),
        ),
        ("host behind a folded line", format!("GET / HTTP/1.1\r\nX: y\r\n {HOST}\r\n")),
    ];
    for (what, request) in cases {
        let answer = rig.raw(format!("{request}{HIDDEN}")).await;
        // A host that is well formed but nobody's is 404; what follows is then a request of its own, and served.
        let nobody = answer.status == 404;
        assert!(answer.status == 400 || nobody || answer.status == 0, "{what}: {}", answer.head);
        assert!(answer.status == 0 || answer.head.starts_with("http/1.1 4"), "{what}: {}", answer.head);
        assert!(recorder.take().iter().all(|seen| nobody && seen.line() == "GET /hidden HTTP/1.1"), "{what}");
    }
}

/// It was served as a GET of `/`.
#[tokio::test]
async fn a_get_of_an_authority_is_400() {
    let (rig, recorder, _client) = recorded().await;
    for target in ["web.relay.test:80", "web.relay.test", "localhost:80"] {
        let answer = rig.raw(format!("GET {target} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n")).await;
        assert_eq!(answer.status, 400, "{target}: {}", answer.head);
        assert_eq!(recorder.take(), [], "{target}");
    }
}

#[tokio::test]
async fn what_is_rare_and_right_arrives_as_one_plain_request() {
    let (rig, recorder, _client) = recorded().await;
    let name = "x".repeat(30_000);
    let request = |line: &str, headers: &str| format!("{line}\r\n{HOST}{headers}Connection: close\r\n\r\n");
    for (what, request, line, body) in [
        ("a method of its own", request("get / HTTP/1.1", ""), "get / HTTP/1.1", ""),
        (
            "a name of 30,000 letters",
            request("GET / HTTP/1.1", &format!("{name}: b\r\n")),
            "GET / HTTP/1.1",
            "",
        ),
        ("a value of nothing", request("GET / HTTP/1.1", "X-A:\r\n"), "GET / HTTP/1.1", ""),
        ("bytes over 127 in a value", request("GET / HTTP/1.1", "X-A: \u{fc}\r\n"), "GET / HTTP/1.1", ""),
        (
            "HTTP/1.0 with a length",
            request("POST / HTTP/1.0", "Content-Length: 3\r\n") + "abc",
            "POST / HTTP/1.1",
            "abc",
        ),
        (
            "a length with spaces around",
            request("POST / HTTP/1.1", "Content-Length:  3 \r\n") + "abc",
            "POST / HTTP/1.1",
            "abc",
        ),
        (
            "a length with zeros before",
            request("POST / HTTP/1.1", "Content-Length: 003\r\n") + "abc",
            "POST / HTTP/1.1",
            "abc",
        ),
        (
            "what looks like a length",
            request("POST / HTTP/1.1", "Content_Length: 9\r\nContent-Length: 3\r\n") + "abc",
            "POST / HTTP/1.1",
            "abc",
        ),
        (
            "framing that Connection names",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Connection: close, content-length, host, adit-via\r\nContent-Length: 3\r\n\r\nabc"
            ),
            "POST / HTTP/1.1",
            "abc",
        ),
        (
            "a coding that Connection names",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Connection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
            "POST / HTTP/1.1",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "a length in zeros",
            request("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n") + "0003\r\nabc\r\n000\r\n\r\n",
            "POST / HTTP/1.1",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
        (
            "an expectation of something else",
            request("GET / HTTP/1.1", "Expect: miracles\r\n"),
            "GET / HTTP/1.1",
            "",
        ),
        (
            "an upgrade to HTTP/2",
            request("GET / HTTP/1.1", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
            "GET / HTTP/1.1",
            "",
        ),
    ] {
        let answer = rig.raw(request).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{what}: {}", answer.head);
        let seen = recorder.only();
        assert_eq!((seen.line(), String::from_utf8_lossy(&seen.body).as_ref()), (line, body), "{what}");
        assert!(
            seen.all("upgrade").is_empty() && seen.all("host") == ["web.relay.test"],
            "{what}: {}",
            seen.head
        );
        assert!(seen.is_plain() || what.contains("looks like"), "{what}: {}", seen.head);
    }
}

#[tokio::test]
async fn garbage_behind_a_request_costs_that_request_nothing() {
    let (rig, recorder, _client) = recorded().await;
    for garbage in
        ["\0\0\0\r\n\r\n", "GARBAGE\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(format!("GET /first HTTP/1.1\r\n{HOST}\r\n{garbage}{HIDDEN}")).await;
        assert_eq!(viewer.answer().await.status, 200, "{garbage:?}");
        let refused = Answer::parse(&viewer.rest().await);
        assert!(matches!(refused.status, 0 | 400), "{garbage:?}: {}", refused.head);
        assert_eq!(recorder.only().line(), "GET /first HTTP/1.1", "{garbage:?}");
    }
}

#[tokio::test]
async fn a_length_of_exabytes_is_no_allocation() {
    let rig = Rig::start().await;
    let (address, mut targets) = by_hand().await;
    let _client = rig.client(ALICE, "web", address).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(format!("PUT / HTTP/1.1\r\n{HOST}Content-Length: 9223372036854775807\r\n\r\nabc")).await;
    let mut stream = soon(targets.recv()).await.unwrap();
    let head = String::from_utf8(soon(read_head(&mut stream)).await.unwrap()).unwrap();
    assert!(head.contains("9223372036854775807"), "{head}");
    let mut body = [0; 3];
    soon(stream.read_exact(&mut body)).await.unwrap();
    assert_eq!(&body, b"abc");
    // The same of a chunk.
    let mut viewer = Viewer::new(&rig).await;
    viewer
        .say(format!("PUT / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nabc"))
        .await;
    let mut stream = soon(targets.recv()).await.unwrap();
    soon(read_head(&mut stream)).await.unwrap();
    let mut chunk = [0; 6];
    soon(stream.read_exact(&mut chunk)).await.unwrap();
    assert_eq!(&chunk, b"3\r\nabc");
}

// ---- the target's side ----

#[tokio::test]
async fn a_response_that_could_be_read_in_two_ways_is_502() {
    let rig = Rig::start().await;
    for (number, answer) in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-A: b\rX-Evil: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        " HTTP/1.1 200 OK\r\n\r\n",
        // An interim response has no body: what follows is no response.
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("bad{number}");
        let _client = rig.client(ALICE, &name, scripted(format!("{answer}\r\n\r\n")).await).await;
        let got = rig.get(&name, "/").await;
        assert_eq!(got.status, 502, "{answer:?}: {} {}", got.head, got.text());
        assert!(!got.head.contains("evil"), "{}", got.head);
    }
}

#[tokio::test]
async fn a_response_with_length_and_chunks_is_passed_on_by_its_chunks_alone() {
    let rig = Rig::start().await;
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (number, headers) in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 500\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("both{number}");
        let answer = format!("HTTP/1.1 200 OK\r\n{headers}\r\n2\r\nok\r\n0\r\n\r\n{evil}");
        let _client = rig.client(ALICE, &name, scripted(answer).await).await;
        for _ in 0..2 {
            let got = rig.get(&name, "/").await;
            assert_eq!(
                (got.status, got.text().as_str(), got.complete),
                (200, "ok", true),
                "{headers}: {}",
                got.head
            );
            assert_eq!(got.header("content-length"), None, "{}", got.head);
        }
    }
}

/// Each interim response is a sign of life, but a target may not go on with them for ever.
#[tokio::test]
async fn interim_responses_without_an_end_are_504_and_hold_up_nobody() {
    let rig = Rig::with(|config| config.limits.idle_exchange = Duration::from_millis(500)).await;
    let endless = target(|_, mut stream| async move {
        read_head(&mut stream).await;
        while stream.write_all(&b"HTTP/1.1 102 Processing\r\n\r\n".repeat(1000)).await.is_ok() {}
    })
    .await;
    let _client = rig.client(ALICE, "web", endless).await;
    let recorder = Recorder::start().await;
    let _other = rig.client(ALICE, "other", recorder.address).await;
    let (endless, other) = tokio::join!(rig.get("web", "/"), rig.get("other", "/"));
    assert_eq!((endless.status, other.status), (504, 200), "{}", endless.head);
}
