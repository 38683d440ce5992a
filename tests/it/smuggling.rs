//! What a request of HTTP/2 can hide that HTTP/1 would read as something else: nothing of it reaches a target.

use tokio::io::AsyncWriteExt;

use crate::h2_frames::{
    BAD_REQUEST, DATA, END_HEADERS, END_STREAM, End, HEADERS, Http2, NOT_FOUND, OK, PROTOCOL_ERROR, block,
    frame,
};
use crate::rig::{ALICE, Rig};
use crate::wire::Recorder;

/// One stream on a connection of its own: its header block, then its data.
async fn ask(rig: &Rig, headers: &[(&str, &str)], data: Option<&[&[u8]]>) -> End {
    let mut viewer = Http2::open(rig.address, &[]).await;
    let flags = END_HEADERS | if data.is_none() { END_STREAM } else { 0 };
    let mut bytes = frame(HEADERS, flags, 1, &block(headers));
    let parts = data.unwrap_or_default();
    for (at, part) in parts.iter().enumerate() {
        bytes.extend(frame(DATA, u8::from(at + 1 == parts.len()), 1, part));
    }
    viewer.0.write_all(&bytes).await.unwrap();
    viewer.end().await
}

#[tokio::test]
async fn nothing_hidden_in_an_http_2_request_reaches_the_target() {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    let (get, http) = ((":method", "GET"), (":scheme", "http"));
    let (host, root) = ((":authority", "web.relay.test"), (":path", "/"));
    let with = |extra: (&'static str, &'static str)| vec![get, http, host, root, extra];
    let path = |path: &'static str| vec![get, http, host, (":path", path)];
    let authority = |host: &'static str| vec![get, http, (":authority", host), root];
    let method = |method: &'static str| vec![(":method", method), http, host, root];
    let hidden = "x HTTP/1.1\r\nHost: web.relay.test\r\n\r\nGET /hidden";
    let cases = vec![
        ("a space in the path", path("/a b")),
        ("a line in the path", path("/ HTTP/1.1\r\nX-Evil: 1")),
        ("a bare LF in the path", path("/\nX-Evil: 1")),
        ("NUL in the path", path("/\0")),
        ("a path without a slash", path("hidden")),
        ("an empty path", path("")),
        ("a path that is a URL", path("http://other.relay.test/")),
        ("a fragment", path("/a b#c")),
        ("a space in the method", method("GET /hidden")),
        ("a request in the method", method("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET")),
        ("an empty method", method("")),
        ("a line in the authority", authority("web.relay.test\r\nX-Evil: 1")),
        ("a space in the authority", authority("web.relay.test x")),
        ("a user in the authority", authority("a@web.relay.test")),
        ("a path in the authority", authority("web.relay.test/x")),
        ("a list in the authority", authority("web.relay.test,other")),
        ("no authority and no host", vec![get, http, root]),
        ("two authorities", vec![get, http, host, (":authority", "other.relay.test"), root]),
        ("two paths", vec![get, http, host, root, (":path", "/hidden")]),
        ("two hosts", vec![get, http, root, ("host", "web.relay.test"), ("host", "other.relay.test")]),
        ("a path behind a header", vec![get, http, host, ("x-a", "b"), root]),
        ("an unknown pseudo-header", with((":hidden", "x"))),
        ("a status in a request", with((":status", "200"))),
        ("a protocol that was not offered", with((":protocol", "websocket"))),
        ("a name in upper case", with(("X-Upper", "x"))),
        ("a space in a name", with(("x a", "x"))),
        ("a colon in a name", with(("x:a", "x"))),
        ("a line in a name", with(("x\r\nx-evil", "1"))),
        ("NUL in a name", with(("x\0", "1"))),
        ("an empty name", with(("", "1"))),
        ("a line in a value", with(("x-a", "b\r\nx-evil: 1"))),
        ("a request in a value", with(("x-a", hidden))),
        ("a bare LF in a value", with(("x-a", "b\nx-evil: 1"))),
        ("a bare CR in a value", with(("x-a", "b\rc"))),
        ("NUL in a value", with(("x-a", "b\0c"))),
        ("connection", with(("connection", "close"))),
        ("keep-alive", with(("keep-alive", "timeout=9"))),
        ("proxy-connection", with(("proxy-connection", "keep-alive"))),
        ("transfer-encoding", with(("transfer-encoding", "chunked"))),
        ("upgrade", with(("upgrade", "websocket"))),
        ("te", with(("te", "gzip, chunked"))),
        ("a signed length", with(("content-length", "+0"))),
        ("a length that is a list", with(("content-length", "0, 1"))),
        ("two lengths", [with(("content-length", "0")), vec![("content-length", "1")]].concat()),
        ("a length without data", with(("content-length", "5"))),
    ];
    for (what, headers) in cases {
        let end = ask(&rig, &headers, None).await;
        let refused = [BAD_REQUEST, NOT_FOUND].contains(&end);
        assert!(refused || matches!(end, End::Reset(_) | End::GoAway(_)), "{what}: {end:?}");
        assert_eq!(recorder.take(), [], "{what}");
    }

    let post = |length: &'static str| vec![(":method", "POST"), http, host, root, ("content-length", length)];
    let hidden = b"GET /hidden HTTP/1.1\r\nHost: web.relay.test\r\n\r\n";
    for (what, headers, data) in [
        ("less data than said", post("10"), &[&b"abc"[..]][..]),
        ("no data though some was said", post("10"), &[b""]),
        ("more data than said", post("3"), &[b"abc", hidden]),
        ("more data than said, at once", post("3"), &[&[b"abc", &hidden[..]].concat()]),
        ("data though none was said", post("0"), &[hidden]),
    ] {
        let end = ask(&rig, &headers, Some(data)).await;
        assert!(matches!(end, End::Reset(PROTOCOL_ERROR)) || end == BAD_REQUEST, "{what}: {end:?}");
        let seen = recorder.take();
        assert!(!seen.iter().any(|seen| seen.line().contains("hidden")), "{what}: {seen:?}");
    }
    recorder.take();

    for (what, headers) in [
        ("a host instead of an authority", vec![get, http, root, ("host", "web.relay.test")]),
        ("the authority goes before the host", with(("host", "other.relay.test"))),
        ("a target as raw as it came", path("/%0d%0aX-Evil:%20x//%2F?")),
        ("one crumb that looks like two headers", with(("cookie", "a=b; x-evil: 1"))),
        ("another scheme", vec![get, (":scheme", "gopher"), host, root]),
    ] {
        assert_eq!(ask(&rig, &headers, None).await, OK, "{what}");
        let seen = recorder.only();
        assert!(seen.is_plain() && seen.all("host") == ["web.relay.test"], "{what}: {}", seen.head);
        assert_eq!(seen.all("x-evil"), [""; 0], "{what}");
    }
}
