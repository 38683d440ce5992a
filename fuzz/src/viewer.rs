//! Whatever a viewer sends, each request that is let through is written so that nothing in it is ambiguous.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use adit::proto::http1::RequestBody;
use adit::proto::limits::Limits;
use adit::relay::config::RelayConfig;
use adit::relay::onward::{Onward, split_target};
use adit::relay::route::{Route, Routes};
use adit::relay::{check as check_head, http1, wanted_upgrade};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::pieces::{Script, cuts};

/// Headers that a target never gets from a viewer, or only as the relay writes them.
const NEVER: [&str; 5] =
    ["keep-alive", "proxy-connection", "http2-settings", "proxy-authorization", "forwarded"];

/// What went on to a target: the head, and the body as far as it came.
type Sent = (Vec<u8>, Vec<u8>);

fn written(routes: &Routes, request: &mut Request<Incoming>) -> Option<Vec<u8>> {
    let host = check_head(request, &Limits::default()).ok()?;
    let uri = request.uri().clone();
    let by_path = match routes.route(host.to_str().expect("a valid host is text"), uri.path()) {
        Route::Own | Route::Nobody => return None,
        Route::Host(name) => {
            assert!(!name.contains(['.', ':', '/']) && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
            None
        }
        Route::Path(name) => Some(name.len()),
    };
    let original = uri.path_and_query().map_or("/", |target| target.as_str());
    let (prefix, target) = split_target(original, by_path);
    if original.starts_with('/') {
        // A slash is all that may be added.
        let rest = original.strip_prefix(prefix.unwrap_or_default()).expect("the prefix is its beginning");
        assert!(*target == *rest || target.strip_prefix('/') == Some(rest));
    }
    let via = HeaderValue::from_static("fuzz");
    let upgrade = wanted_upgrade(request.headers());
    let body = match request.body().size_hint().exact() {
        _ if request.body().is_end_stream() => RequestBody::None,
        Some(length) => RequestBody::Length(length),
        None => RequestBody::Chunked,
    };
    let onward = Onward {
        method: request.method(),
        target: &target,
        prefix,
        guarded: true,
        body,
        upgrade: upgrade.as_ref(),
        ..Onward::plain(&host, &via)
    };
    let head = onward.head(request.headers());
    unambiguous(&head, &onward, request.headers());
    Some(head.to_vec())
}

/// Whether `Connection` names this header; some of its words are no headers.
fn names(came: &HeaderMap, header: &str) -> bool {
    let words =
        came.get_all("connection").iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    !["keep-alive", "close", "upgrade", "te", "host"].contains(&header)
        && words.map(<[u8]>::trim_ascii).any(|word| word.eq_ignore_ascii_case(header.as_bytes()))
}

fn unambiguous(head: &[u8], onward: &Onward<'_>, came: &HeaderMap) {
    let mut lines = [httparse::EMPTY_HEADER; 200];
    let mut parsed = httparse::Request::new(&mut lines);
    let size = parsed.parse(head).expect("what we write can be read");
    assert_eq!(size, httparse::Status::Complete(head.len()), "one head and nothing else");
    assert_eq!((parsed.method, parsed.path), (Some(onward.method.as_str()), Some(onward.target)));
    let of = |name: &str| {
        let lines = parsed.headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| line.value.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(of("host"), [onward.host.as_bytes()]);
    let framing = [of("content-length"), of("transfer-encoding")].concat();
    match onward.body {
        RequestBody::None => assert!(framing.is_empty()),
        RequestBody::Length(length) => assert_eq!(framing, [length.to_string().into_bytes()]),
        RequestBody::Chunked => assert_eq!(framing, [b"chunked"]),
    }
    assert!(NEVER.iter().all(|name| of(name).is_empty()));
    assert!(of("authorization").is_empty() && of("cookie").len() <= 1);
    assert_eq!(of("x-forwarded-for"), [b"192.0.2.1"]);
    assert_eq!(of("adit-via").last().map(Vec::as_slice), Some(&b"fuzz"[..]));
    assert_eq!(of("upgrade").len(), usize::from(onward.upgrade.is_some()));
    assert!(of("te").iter().all(|value| value == b"trailers"));
    // Each header that goes on is one line as it came, and there are no others but ours.
    let ours = [
        "host",
        "connection",
        "upgrade",
        "te",
        "content-length",
        "transfer-encoding",
        "cookie",
        "adit-via",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-prefix",
    ];
    let is_ours = |name: &str| ours.contains(&&*name.to_ascii_lowercase());
    let stays = |name: &str| {
        NEVER.contains(&name) || ["authorization", "x-real-ip"].contains(&name) || names(came, name)
    };
    let others: Vec<_> = parsed.headers.iter().filter(|line| !is_ours(line.name)).collect();
    assert_eq!(
        others.len(),
        came.keys()
            .filter(|name| !is_ours(name.as_str()) && !stays(name.as_str()))
            .map(|name| came.get_all(name).iter().count())
            .sum::<usize>()
    );
    for line in others {
        assert!(came.get_all(line.name).iter().any(|value| value.as_bytes().trim_ascii() == line.value));
    }
    let vias = if names(came, "adit-via") { 0 } else { came.get_all("adit-via").iter().count() };
    assert_eq!(of("adit-via").len(), vias + 1);
    assert_eq!((of("x-forwarded-proto").len(), of("x-forwarded-host").len()), (1, 1));
    assert_eq!(of("x-forwarded-prefix").len(), usize::from(onward.prefix.is_some()));
    assert_eq!(memchr::memchr_iter(b'\n', head).count(), parsed.headers.len() + 2);
}

async fn serve(routes: &Routes, pieces: &[&[u8]]) -> Vec<Sent> {
    let sent = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|mut request: Request<Incoming>| {
        let (head, sent) = (written(routes, &mut request), Rc::clone(&sent));
        async move {
            let (mut content, mut body) = (Vec::new(), request.into_body());
            while let Some(Ok(frame)) = body.frame().await {
                content.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            }
            sent.borrow_mut().extend(head.map(|head| (head, content)));
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let io = TokioIo::new(Script::new(pieces, usize::MAX));
    let _ = http1(&Limits::default()).serve_connection(io, service).await;
    sent.take()
}

/// See the top.
pub fn check(data: &[u8]) {
    let config = RelayConfig { base_domain: Some("x.io".to_owned()), ..RelayConfig::default() };
    let routes = Routes::new(&config, None);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let [whole, bytes, uneven] = cuts(data).map(|pieces| runtime.block_on(serve(&routes, &pieces)));
    assert_eq!(whole, bytes);
    assert_eq!(whole, uneven);
}
