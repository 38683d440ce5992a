//! `make bench-parts`: what every request or every portion of a stream goes through, each by itself.

#![allow(clippy::expect_used, reason = "a bench that cannot begin has nothing to tell")]

use std::hint::black_box;
use std::sync::Arc;

use adit::proto::frame::{Decoder, HeaderBytes, Opcode, Role, apply_mask};
use adit::proto::http1::ResponseHead;
use adit::proto::limits::Limits;
use adit::relay::onward::Onward;
use adit::store::Sqlite;
use adit::tunnel::Registry;
use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Tunnels among which one is looked up.
const TUNNELS: usize = 10_000;

/// What a browser sends.
const REQUEST: [(&str, &str); 10] = [
    ("host", "web.example.com"),
    ("connection", "keep-alive"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-US,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://web.example.com/start"),
    ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
];

/// What a web server answers.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/html\r\nContent-Length: 100\r\nLast-Modified: Sat, 21 Nov 2026 11:00:00 GMT\r\n\
    Connection: keep-alive\r\nETag: \"6741a0b0-64\"\r\nAccept-Ranges: bytes\r\n\r\n";

/// A frame of a client, as it comes.
fn frame(payload: usize) -> BytesMut {
    let mask = [1, 2, 3, 4];
    let mut frame = BytesMut::from(HeaderBytes::new(Opcode::Binary, true, payload, Some(mask)).as_ref());
    let start = frame.len();
    frame.resize(start + payload, b'x');
    apply_mask(&mut frame[start..], mask, 0);
    frame
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for (name, size) in [("300 bytes", 300), ("64 KiB", 64 * 1024), ("1 MiB", 1024 * 1024)] {
        let wire = frame(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("read and unmask {name}"), |b| {
            b.iter_batched(
                || wire.clone(),
                |mut wire| Decoder::new(Role::Server).next(black_box(&mut wire)),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    c.bench_function("frame/write a header", |b| {
        b.iter(|| HeaderBytes::new(Opcode::Binary, true, black_box(300), None));
    });
}

fn heads(c: &mut Criterion) {
    let headers: HeaderMap = REQUEST
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect();
    let (host, via) = (HeaderValue::from_static("web.example.com"), HeaderValue::from_static("relay"));
    let onward = Onward { target: "/start?page=2", ..Onward::plain(&host, &via) };
    c.bench_function("head/write a request", |b| b.iter(|| onward.head(black_box(&headers))));
    let wire = Bytes::from_static(RESPONSE);
    c.bench_function("head/read a response", |b| b.iter(|| ResponseHead::parse(black_box(&wire), 65536)));
}

fn registry(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let store = Arc::new(Sqlite::memory().expect("a database"));
    let limits = Limits { tunnels_per_key: None, creations_per_key: None, ..Limits::default() };
    let registry = runtime.block_on(Registry::open(store, &limits)).expect("a registry");
    for number in 0..TUNNELS {
        let request = serde_json::json!({ "local_port": 3000, "name": format!("tunnel-{number}") });
        let request = serde_json::from_value(request).expect("a request");
        let wanted = runtime.block_on(registry.check(&"bench".into(), request)).expect("what is possible");
        runtime.block_on(registry.create(&"bench".into(), wanted)).expect("a tunnel");
    }
    c.bench_function("registry/look up one of 10,000 by name", |b| {
        b.iter(|| registry.by_name(black_box("tunnel-5000")));
    });
}

criterion_group!(parts, frames, heads, registry);
criterion_main!(parts);
