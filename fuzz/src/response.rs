//! Headers of targets as viewers get them: nothing of the hop, nothing that reaches over the tunnel.

use adit::proto::http1::ResponseHead;
use adit::relay::rewrite::{Address, response_headers};
use bytes::Bytes;
use http::{HeaderMap, header};

const HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "http2-settings",
];

/// The attributes of a cookie with this name.
fn attributes<'a>(cookie: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    cookie.split(|byte| *byte == b';').skip(1).filter_map(move |part| {
        let at = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        let value = part.get(at + 1..).unwrap_or_default();
        part[..at].trim_ascii().eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

fn rewritten(mut headers: HeaderMap, address: Address<'_>) -> HeaderMap {
    response_headers(&mut headers, address);
    for name in HOP {
        assert!(!headers.contains_key(name), "{name}");
    }
    headers
}

/// See the top.
pub fn check(data: &[u8]) {
    let Ok(Some((head, _))) = ResponseHead::parse(&Bytes::copy_from_slice(data), 64 * 1024) else { return };
    let cookies = head.headers.get_all(header::SET_COOKIE).iter().count();
    let by_path = Address { host: "relay.example", prefix: Some("/t/web"), target_host: Some("app") };
    let headers = rewritten(head.headers.clone(), by_path);
    assert!(!headers.contains_key("clear-site-data") && !headers.contains_key("service-worker-allowed"));
    let named_away = head.headers.get_all(header::CONNECTION).iter().next().is_some();
    if !named_away {
        assert_eq!(headers.get_all(header::SET_COOKIE).iter().count(), cookies);
    }
    for cookie in headers.get_all(header::SET_COOKIE) {
        assert_eq!(attributes(cookie.as_bytes(), "domain").count(), 0);
        let mut paths = attributes(cookie.as_bytes(), "path").peekable();
        assert!(paths.peek().is_some() && paths.all(|path| path.starts_with(b"/t/web/")));
    }
    if let Some(location) = headers.get(header::LOCATION) {
        let location = location.as_bytes();
        assert!(
            !location.starts_with(b"/") || location.starts_with(b"//") || location.starts_with(b"/t/web/")
        );
    }
    let by_host = Address { host: "web.relay.example", prefix: None, target_host: None };
    for cookie in rewritten(head.headers, by_host).get_all(header::SET_COOKIE) {
        for domain in attributes(cookie.as_bytes(), "domain") {
            assert!(domain.to_ascii_lowercase().ends_with(b"web.relay.example"));
        }
    }
}
