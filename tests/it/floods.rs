//! Floods on the HTTP/2 side, as raw frames: memory stays flat, and others are served.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::h2_frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, Http2, PING,
    PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, literal, request,
};
use crate::outsiders::Relay;
use crate::rig::{read_head, soon, target};

/// What memory may grow by under an attack, in bytes: less than any of them would cost if it were kept.
const FLAT: u64 = 48 << 20;

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
    relay: SocketAddr,
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
        // Until the relay has opened the window of the connection, 64 KiB are all that it takes (RFC 9113, section 6.9.2).
        while !matches!(soon(viewer.next()).await, Some((WINDOW_UPDATE, _, 0, _))) {}
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
