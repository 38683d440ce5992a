//! What a viewer sends is one request or none: nothing ambiguous, oversized or slow ever reaches a target.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::rig::{ALICE, Answer, BOB, Client, Rig, soon};
use crate::wire::{Recorder, Seen, Viewer};

/// A relay, a recording target behind the tunnel `web`, and its client.
async fn recorded() -> (Rig, Recorder, Client) {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let client = rig.client(ALICE, "web", recorder.address).await;
    (rig, recorder, client)
}

const HOST: &str = "Host: web.relay.test\r\n";
/// What a smuggler hides behind a request whose end two parsers see in different places.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: web.relay.test\r\n\r\n";

#[tokio::test]
async fn a_malformed_request_is_400_and_never_reaches_the_target() {
    let (rig, recorder, _client) = recorded().await;
    for (what, request) in [
        (
            "differing lengths",
            format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ),
        ("differing lengths in a list", format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 3, 4\r\n\r\nabcd")),
        ("signed length", format!("POST / HTTP/1.1\r\n{HOST}Content-Length: +3\r\n\r\nabc")),
        ("negative length", format!("POST / HTTP/1.1\r\n{HOST}Content-Length: -3\r\n\r\nabc")),
        ("hex length", format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 0x3\r\n\r\nabc")),
        ("empty length", format!("POST / HTTP/1.1\r\n{HOST}Content-Length: \r\n\r\nabc")),
        (
            "length over 2^64",
            format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 18446744073709551617\r\n\r\nabc"),
        ),
        ("unknown coding", format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n")),
        (
            "two codings",
            format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunked twice",
            format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunked in two lines",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "chunked and then not",
            format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ),
        ("misspelt coding", format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        (
            "coding with HTTP/1.0",
            format!("POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        ("space before the colon", format!("GET / HTTP/1.1\r\n{HOST}Content-Length : 3\r\n\r\nabc")),
        ("folded line", format!("GET / HTTP/1.1\r\n{HOST}X-A: b\r\n c\r\n\r\n")),
        ("bare CR in a value", format!("GET / HTTP/1.1\r\n{HOST}X-A: b\rX-B: c\r\n\r\n")),
        ("NUL in a value", format!("GET / HTTP/1.1\r\n{HOST}X-A: b\0c\r\n\r\n")),
        ("NUL in the target", format!("GET /a\0b HTTP/1.1\r\n{HOST}\r\n")),
        ("no colon", format!("GET / HTTP/1.1\r\n{HOST}Nonsense\r\n\r\n")),
        ("two hosts", format!("GET / HTTP/1.1\r\n{HOST}Host: other.relay.test\r\n\r\n")),
        ("the same host twice", format!("GET / HTTP/1.1\r\n{HOST}{HOST}\r\n")),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into()),
        ("empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n".into()),
        ("a list of hosts", "GET / HTTP/1.1\r\nHost: web.relay.test, x\r\n\r\n".into()),
        ("a host with a path", "GET / HTTP/1.1\r\nHost: web.relay.test/x\r\n\r\n".into()),
        ("a host with a user", "GET / HTTP/1.1\r\nHost: a@web.relay.test\r\n\r\n".into()),
        ("an absolute target with a user", format!("GET http://a@web.relay.test/ HTTP/1.1\r\n{HOST}\r\n")),
        ("spaces in the line", format!("GET / / HTTP/1.1\r\n{HOST}\r\n")),
        ("no version", format!("GET /\r\n{HOST}\r\n")),
        ("an unknown version", format!("GET / HTTP/3.7\r\n{HOST}\r\n")),
    ] {
        let answer = rig.raw(format!("{request}{HIDDEN}")).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.head);
        assert_eq!(recorder.take(), [], "{what}");
    }
}

#[tokio::test]
async fn what_two_parsers_could_read_differently_arrives_as_one_plain_request() {
    let (rig, recorder, _client) = recorded().await;
    let hidden = format!("0\r\n\r\n{HIDDEN}");
    for (what, request, body) in [
        (
            "length and chunked: the length is dropped, the connection closed",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}",
                hidden.len()
            ),
            "0\r\n\r\n".to_owned(),
        ),
        (
            "chunked and length, the other way round",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{hidden}"
            ),
            "0\r\n\r\n".to_owned(),
        ),
        (
            "bare LF",
            "POST / HTTP/1.1\nHost: web.relay.test\nContent-Length: 3\nConnection: close\n\nabc".into(),
            "abc".into(),
        ),
        (
            "one length twice",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Content-Length: 3\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
            ),
            "abc".into(),
        ),
        (
            "chunk extensions",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3;a=\"b\"\r\nabc\r\n0\r\n\r\n"
            ),
            "3\r\nabc\r\n0\r\n\r\n".into(),
        ),
        (
            "bare LF at the end: what follows is lost, not served",
            format!(
                "POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\n{HIDDEN}"
            ),
            "0\r\n\r\n".into(),
        ),
        (
            "leading empty lines",
            format!("\r\n\r\nGET / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"),
            String::new(),
        ),
    ] {
        let answer = rig.raw(request).await;
        let seen = recorder.only();
        assert_eq!(answer.status, 200, "{what}: {}", answer.head);
        assert!(seen.is_plain(), "{what}: {}", seen.head);
        assert_eq!(String::from_utf8_lossy(&seen.body), body, "{what}");
    }
}

#[tokio::test]
async fn a_malformed_chunked_body_is_an_error_at_both_ends() {
    let (rig, recorder, _client) = recorded().await;
    for (what, body) in [
        ("sign", "+3\r\nabc\r\n0\r\n\r\n"),
        ("prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("no size", "\r\nabc\r\n0\r\n\r\n"),
        ("size over 2^64", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("bare LF after the size", "3\nabc\r\n0\r\n\r\n"),
        ("bare LF in an extension", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("bare CR after the size", "3\rabc\r\n0\r\n\r\n"),
        ("chunk longer than said", "3\r\nabcd\r\n0\r\n\r\n"),
        ("bare LF after the data", "3\r\nabc\n0\r\n\r\n"),
    ] {
        let request = format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}{HIDDEN}");
        let answer = rig.raw(request).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.head);
        // A request that ended here would have been recorded.
        assert_eq!(recorder.take(), [], "{what}");
    }
}

#[tokio::test]
async fn what_is_too_large_has_a_status_of_its_own() {
    let (rig, recorder, _client) = recorded().await;
    let get = |target: &str, headers: &str| {
        format!("GET {target} HTTP/1.1\r\n{HOST}Connection: close\r\n{headers}\r\n")
    };
    let lines = |count: usize| "X-A: b\r\n".repeat(count);
    let long = |count: usize| format!("X-A: {}\r\n", "b".repeat(count));
    let path = |length: usize| format!("/{}", "a".repeat(length - 1));
    for (what, request, status) in [
        ("100 headers", get("/", &lines(98)), 200),
        ("101 headers", get("/", &lines(99)), 431),
        ("head of 60 KiB", get("/", &long(60 * 1024)), 200),
        ("head of 66 KiB", get("/", &long(66 * 1024)), 431),
        ("head of 1 MiB", get("/", &long(1024 * 1024)), 431),
        ("target of 16 KiB", get(&path(16 * 1024), ""), 200),
        ("target over 16 KiB", get(&path(16 * 1024 + 1), ""), 414),
        ("target of 65 KiB", get(&path(65 * 1024), ""), 431),
        ("CONNECT", format!("CONNECT web.relay.test:80 HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n"), 405),
    ] {
        let answer = rig.raw(request).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.head);
        assert_eq!(recorder.take().len(), usize::from(status == 200), "{what}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_that_names_it() {
    let rig = Rig::with(|config| config.limits.body_bytes = Some(1000)).await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "a".repeat(1001));
    for request in [
        format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 1001\r\n\r\n"),
        format!(
            "POST / HTTP/1.1\r\n{HOST}Connection: close\r\nContent-Length: 1001\r\n\r\n{}",
            "a".repeat(1001)
        ),
        format!("POST / HTTP/1.1\r\n{HOST}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
    ] {
        let answer = rig.raw(request).await;
        assert_eq!(answer.status, 413, "{}", answer.head);
        assert!(answer.text().contains("1000 bytes"), "{}", answer.text());
        assert_eq!(recorder.take(), []);
    }
}

#[tokio::test]
async fn each_wait_of_a_connection_has_its_own_end() {
    let rig = Rig::with(|config| {
        config.limits.first_byte_wait = Duration::from_millis(300);
        config.limits.head_wait = Duration::from_millis(500);
        config.limits.keep_alive = Duration::from_millis(700);
    })
    .await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;

    let mut silent = Viewer::new(&rig).await;
    assert_eq!(silent.rest().await, b"", "closed without an answer");

    for begun in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: web.relay.test\r\nX-A: b"] {
        let mut slow = Viewer::new(&rig).await;
        slow.say(begun).await;
        assert_eq!(slow.answer().await.status, 408, "{begun}");
        assert_eq!(slow.rest().await, b"");
    }

    let mut idle = Viewer::new(&rig).await;
    assert_eq!(idle.get("web", "/").await.status, 200);
    assert_eq!(idle.rest().await, b"", "closed without an answer");

    let mut second = Viewer::new(&rig).await;
    assert_eq!(second.get("web", "/").await.status, 200);
    second.say("GET / HT").await;
    assert_eq!(second.answer().await.status, 408, "also on a connection that has served");
}

#[tokio::test]
async fn a_head_that_trickles_in_is_read() {
    let (rig, recorder, _client) = recorded().await;
    let mut viewer = Viewer::new(&rig).await;
    for byte in format!("POST /slow HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc").bytes() {
        viewer.say([byte]).await;
    }
    assert_eq!(viewer.answer().await.status, 200);
    assert_eq!(recorder.only().body, b"abc");
}

#[tokio::test]
async fn pipelined_requests_are_routed_each_by_itself() {
    let (rig, recorder, _client) = recorded().await;
    let other = Recorder::start().await;
    let _other = rig.client(BOB, "other", other.address).await;
    let mut viewer = Viewer::new(&rig).await;
    let get = |host: &str, path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    viewer
        .say(
            [
                get("web.relay.test", "/1"),
                get("other.relay.test", "/2"),
                get("nobody.relay.test", "/3"),
                get("localhost", "/health"),
                format!("POST /4 HTTP/1.1\r\n{HOST}Content-Length: 2\r\n\r\nhi"),
                get("localhost", "/t/other/5"),
            ]
            .concat(),
        )
        .await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(viewer.answer().await.status);
    }
    assert_eq!(statuses, [200, 200, 404, 200, 200, 200]);
    let lines = |seen: Vec<Seen>| seen.iter().map(|seen| seen.line().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(recorder.take()), ["GET /1 HTTP/1.1", "POST /4 HTTP/1.1"]);
    assert_eq!(lines(other.take()), ["GET /2 HTTP/1.1", "GET /5 HTTP/1.1"]);
}

#[tokio::test]
async fn a_refusal_is_read_whole_by_a_viewer_that_is_still_sending() {
    let (rig, _recorder, _client) = recorded().await;
    for (what, head) in [
        (
            "our 404",
            "POST / HTTP/1.1\r\nHost: nobody.relay.test\r\nContent-Length: 10000000\r\n\r\n".to_owned(),
        ),
        ("our 400", format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, chunked\r\n\r\n")),
        ("hyper's 400", format!("POST / HTTP/1.1\r\n{HOST}Content-Length: nonsense\r\n\r\n")),
    ] {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(&head).await;
        // It reads only when everything is sent, as simple viewers do.
        let _ = soon(viewer.0.write_all(&vec![b'x'; 10_000_000])).await;
        let answer = Answer::parse(&viewer.rest().await);
        assert!((400..500).contains(&answer.status) && answer.complete, "{what}: {}", answer.head);
    }
}
