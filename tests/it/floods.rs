//! Attacks on the HTTP/2 side, as raw frames: memory stays flat, others are served, nothing smuggled reaches a target.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::outsiders::Relay;
use crate::rig::{ALICE, Rig, read_head, soon, target};
use crate::wire::Recorder;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What memory may grow by under an attack, in bytes: less than any of them would cost if it were kept.
const FLAT: u64 = 48 << 20;

// ---- frames and header blocks ----

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// An integer of HPACK (RFC 7541, section 5.1) behind the bits of `first`.
fn integer(first: u8, prefix: u32, mut value: usize, block: &mut Vec<u8>) {
    let most = (1 << prefix) - 1;
    if value < most {
        return block.push(first | value as u8);
    }
    block.push(first | most as u8);
    value -= most;
    while value >= 128 {
        block.push(value as u8 | 0x80);
        value >>= 7;
    }
    block.push(value as u8);
}

/// A literal with a name of its own; `first` says whether it goes into the table (`0x40`) or not (`0`).
fn literal(first: u8, name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    block.push(first);
    for text in [name, value] {
        integer(0, 7, text.len(), block);
        block.extend_from_slice(text);
    }
}

fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    headers.iter().for_each(|(name, value)| literal(0, name.as_bytes(), value.as_bytes(), &mut block));
    block
}

fn request(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "http"), (":authority", "web.relay.test"), (":path", path)])
}

// ---- a connection ----

struct Http2(TcpStream);

/// What a stream, or its connection, came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The first byte of the response's header block: `0x88` is 200, `0x8c` is 400.
    Answer(u8),
    Reset(u32),
    GoAway(u32),
    Closed,
}

const OK: End = End::Answer(0x88);
const BAD_REQUEST: End = End::Answer(0x8c);
const NOT_FOUND: End = End::Answer(0x8d);

impl Http2 {
    /// After the preface, with these settings.
    async fn open(relay: std::net::SocketAddr, settings: &[u8]) -> Self {
        let mut stream = soon(TcpStream::connect(relay)).await.unwrap();
        let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, settings)].concat();
        stream.write_all(&hello).await.unwrap();
        Self(stream)
    }

    /// Kind, flags, stream and payload of the next frame.
    async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some((head[3], head[4], stream, payload))
    }

    /// Reads up to the end of the first stream.
    async fn end(&mut self) -> End {
        soon(async {
            while let Some((kind, _, stream, payload)) = self.next().await {
                let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
                match kind {
                    HEADERS if stream == 1 => return End::Answer(payload[0]),
                    RST_STREAM if stream == 1 => return End::Reset(code(0)),
                    GOAWAY if code(4) != 0 => return End::GoAway(code(4)),
                    _ => {}
                }
            }
            End::Closed
        })
        .await
    }
}

/// Whoever has taken nothing for this long holds a flood back.
const STUCK: Duration = Duration::from_secs(1);

/// How a flood ended.
#[derive(Debug, PartialEq, Eq)]
enum Flooded {
    /// The relay closed, with this code if it gave one.
    Closed(Option<u32>),
    /// The relay took no more, and nothing moved for a while.
    Held,
    /// All of it was taken.
    Taken,
}

/// Sends what `round` makes, `rounds` times; reads what comes back only if `reads`.
async fn flood(
    relay: std::net::SocketAddr,
    rounds: u32,
    reads: bool,
    mut round: impl FnMut(u32) -> Vec<u8>,
) -> Flooded {
    let (mut read, mut write) = Http2::open(relay, &[]).await.0.into_split();
    let writing = async {
        for number in 0..rounds {
            match timeout(STUCK, write.write_all(&round(number))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Flooded::Closed(None),
                Err(_) => return Flooded::Held,
            }
        }
        // It was taken, or is only on its way to a relay that closes.
        let closed = async {
            while write.write_all(&frame(PING, 0, 0, &[9; 8])).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(STUCK, closed).await {
            Ok(()) => Flooded::Closed(None),
            Err(_) => Flooded::Taken,
        }
    };
    if !reads {
        return writing.await;
    }
    let mut last = Vec::new();
    let reading = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            last.extend_from_slice(&buffer[..count]);
            // GOAWAY is the last frame, and short.
            last.drain(..last.len().saturating_sub(100));
        }
    };
    let flooded = tokio::select! {
        flooded = writing => flooded,
        () = reading => Flooded::Closed(None),
    };
    let mut buffer = vec![0; 64 * 1024];
    if matches!(flooded, Flooded::Closed(_)) {
        while let Ok(Ok(count @ 1..)) = timeout(Duration::from_secs(1), read.read(&mut buffer)).await {
            last.extend_from_slice(&buffer[..count]);
        }
        // Length 8 or more, kind, no flags, stream 0, last stream, code.
        let goaway = last.windows(17).rev().find(|bytes| bytes[3..9] == [GOAWAY, 0, 0, 0, 0, 0]);
        return Flooded::Closed(goaway.map(|bytes| u32::from_be_bytes(bytes[13..].try_into().unwrap())));
    }
    flooded
}

// ---- floods ----

/// Floods `relay` on four connections, while another viewer is served; then memory is as before.
async fn withstands(
    what: &str,
    relay: &Relay,
    rounds: u32,
    reads: bool,
    round: fn(u32) -> Vec<u8>,
) -> Vec<Flooded> {
    let before = relay.resident();
    let mut floods = JoinSet::new();
    for _ in 0..4 {
        floods.spawn(flood(relay.address, rounds, reads, round));
    }
    let (mut ended, mut most) = (Vec::new(), 0);
    while ended.len() < 4 {
        // Each within the patience of a test.
        assert_eq!(relay.get("/health").await.status, 200, "{what}");
        most = relay.resident().max(most);
        while let Some(flooded) = floods.try_join_next() {
            ended.push(flooded.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let grown = most.saturating_sub(before);
    println!("{what}: {ended:?}, grown by {} KiB", grown >> 10);
    assert!(grown < FLAT, "{what}: grown by {grown} bytes");
    ended
}

fn stream(number: u32) -> u32 {
    2 * number + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_streams_and_headers_end_their_connection() {
    let relay = Relay::start(&[]).await;
    type Round = fn(u32) -> Vec<u8>;
    let rapid: Round = |round| {
        let numbers = (0..100).map(|at| stream(round * 100 + at));
        let flood = numbers.flat_map(|number| {
            let begun = frame(HEADERS, END_HEADERS | END_STREAM, number, &request("GET", "/"));
            [begun, frame(RST_STREAM, 0, number, &8u32.to_be_bytes())].concat()
        });
        flood.collect()
    };
    let endless: Round = |round| match round {
        0 => frame(HEADERS, END_STREAM, 1, &request("GET", "/")),
        _ => {
            frame(CONTINUATION, 0, 1, &block(&[("x-long", &"x".repeat(8000)), ("x-more", &"y".repeat(8000))]))
        }
    };
    let nothing: Round = |round| match round {
        0 => frame(HEADERS, END_STREAM, 1, &request("GET", "/")),
        _ => frame(CONTINUATION, 0, 1, &[]).repeat(100),
    };
    let empty: Round = |round| match round {
        0 => frame(HEADERS, END_HEADERS, 1, &request("POST", "/")),
        _ => frame(DATA, 0, 1, &[]).repeat(100),
    };
    let refused: Round = |round| {
        // The end comes without what was promised, so the relay resets each.
        let mut bad = request("POST", "/");
        literal(0, b"content-length", b"5", &mut bad);
        let numbers = (0..100).map(|at| stream(round * 100 + at));
        numbers.flat_map(|number| frame(HEADERS, END_HEADERS | END_STREAM, number, &bad)).collect()
    };
    for (what, rounds, round) in [
        ("100,000 streams opened and reset", 1000, rapid),
        ("a header block without an end", 4000, endless),
        ("empty continuations", 4000, nothing),
        ("empty data", 4000, empty),
        ("streams that must be refused", 1000, refused),
    ] {
        for flooded in withstands(what, &relay, rounds, true, round).await {
            // The code may be lost in a reset.
            let expected = [None, Some(ENHANCE_YOUR_CALM)].map(Flooded::Closed);
            assert!(expected.contains(&flooded), "{what}: {flooded:?}");
        }
    }
    assert_eq!(relay.get("/").await.text(), "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_control_frames_are_read_or_held_back_and_kept_nowhere() {
    let relay = Relay::start(&[]).await;
    type Round = fn(u32) -> Vec<u8>;
    let pings: Round = |_| frame(PING, 0, 0, &[7; 8]).repeat(1000);
    let settings: Round = |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(1000);
    let acks: Round = |_| frame(SETTINGS, ACK, 0, &[]).repeat(1000);
    let windows: Round = |_| frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).repeat(1000);
    let priorities: Round = |round| {
        let numbers = (0..1000).map(|at| stream(round * 1000 + at));
        numbers.flat_map(|number| frame(PRIORITY, 0, number, &[0, 0, 0, 0, 1])).collect()
    };
    let unknown: Round = |_| frame(0xbe, 0xff, 0, &[0; 100]).repeat(1000);
    for (what, round) in [
        ("pings", pings),
        ("settings", settings),
        ("acknowledgements of nothing", acks),
        ("window updates", windows),
        ("priorities", priorities),
        ("unknown frames", unknown),
    ] {
        // With everything read that comes back, and with nothing.
        for reads in [true, false] {
            withstands(what, &relay, 200, reads, round).await;
        }
    }
    assert_eq!(relay.get("/").await.text(), "ok");
}

/// 4 KiB in the table, asked for four thousand times in each block: 16 MiB of headers in each frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_block_that_unfolds_to_megabytes_is_refused_and_kept_nowhere() {
    let relay = Relay::start(&[]).await;
    let ended = withstands("header bombs", &relay, 200, true, |round| {
        let mut headers = request("GET", "/");
        if round == 0 {
            literal(0x40, b"x-bomb", &[b'x'; 3900], &mut headers);
        } else {
            // The newest entry of the dynamic table.
            headers.extend([0xbe; 4000]);
        }
        frame(HEADERS, END_HEADERS | END_STREAM, stream(round), &headers)
    });
    ended.await;
    assert_eq!(relay.get("/").await.text(), "ok");
}

/// Streams that open no window: all that waits for them is bounded for each stream, and given back with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_without_a_window_hold_a_bounded_part_of_their_response() {
    const STREAMS: u32 = 100;
    /// What a stream may hold that waits for its viewer.
    const EACH: u64 = 256 << 10;
    let endless = target(|_, mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
    })
    .await;
    let relay = Relay::before(endless, &[]).await;
    let before = relay.resident();
    let mut viewer = Http2::open(relay.address, &[0, 4, 0, 0, 0, 0]).await;
    for number in 0..STREAMS {
        let begun = frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &request("GET", "/"));
        soon(viewer.0.write_all(&begun)).await.unwrap();
    }
    let mut answered = 0;
    while answered < STREAMS {
        let (kind, ..) = soon(viewer.next()).await.unwrap();
        answered += u32::from(kind == HEADERS);
    }
    let mut last = 0;
    // Until nothing grows any more.
    while relay.resident() > last + (1 << 20) {
        last = relay.resident();
        assert_eq!(relay.get("/health").await.status, 200);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let grown = relay.resident().saturating_sub(before);
    println!("{STREAMS} streams without a window: grown by {} KiB", grown >> 10);
    assert!(grown < u64::from(STREAMS) * EACH, "grown by {grown} bytes");
}

/// Uploads that nobody reads: what a connection may send ahead is bounded, however many streams it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_nobody_reads_stop_at_the_window_of_their_connection() {
    const CONNECTIONS: u64 = 10;
    let deaf = target(|_, mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let relay = Relay::before(deaf, &[]).await;
    let before = relay.resident();
    let mut viewers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut viewer = Http2::open(relay.address, &[]).await;
        // All that its 64 streams may send before any window is opened, and more.
        for number in 0..64 {
            let begun = frame(HEADERS, END_HEADERS, stream(number), &request("POST", "/"));
            soon(viewer.0.write_all(&begun)).await.unwrap();
        }
        viewers.push(viewer);
    }
    for viewer in &mut viewers {
        for number in 0..64 {
            let body = frame(DATA, 0, stream(number), &[b'x'; 16 * 1024]);
            soon(viewer.0.write_all(&body)).await.unwrap();
        }
    }
    for _ in 0..10 {
        assert_eq!(relay.get("/health").await.status, 200);
    }
    let grown = relay.resident().saturating_sub(before);
    println!("{CONNECTIONS} connections of 64 uploads: grown by {} KiB", grown >> 10);
    assert!(grown < CONNECTIONS * (4 << 20), "grown by {grown} bytes");
}

// ---- smuggling ----

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
