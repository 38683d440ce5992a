//! What a request brings along and what of it goes on: hop-by-hop headers, the viewer's address, loops.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use crate::proto::http1::list_contains;

/// Marks a request with the relay it went through, so that a tunnel onto the relay itself ends.
pub const VIA: HeaderName = HeaderName::from_static("adit-via");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Takes out what concerns only the connection the message came on (RFC 9110, section 7.6.1), and everything that
/// `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if let header::Entry::Occupied(named) = headers.entry(header::CONNECTION) {
        let (_, named) = named.remove_entry_mult();
        let named: Vec<HeaderValue> = named.collect();
        for connection in &named {
            strip_named(headers, connection);
        }
    }
    for name in [
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &HTTP2_SETTINGS,
        &header::TE,
        &header::TRANSFER_ENCODING,
        &header::UPGRADE,
        &header::PROXY_AUTHORIZATION,
        &header::PROXY_AUTHENTICATE,
    ] {
        headers.remove(name);
    }
}

/// Takes out of a trailer section what means something only in a head (RFC 9110, section 6.5.1): a receiver that
/// merges the two would take it for framing, routing, a login, or our own word about the viewer.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in [
        &header::HOST,
        &header::CONTENT_LENGTH,
        &header::CONTENT_TYPE,
        &header::CONTENT_ENCODING,
        &header::CONTENT_RANGE,
        &header::TRAILER,
        &header::EXPECT,
        &header::RANGE,
        &header::CACHE_CONTROL,
        &header::AUTHORIZATION,
        &header::WWW_AUTHENTICATE,
        &header::COOKIE,
        &header::SET_COOKIE,
        &header::LOCATION,
        &header::FORWARDED,
        &FORWARDED_FOR,
        &FORWARDED_PROTO,
        &FORWARDED_HOST,
        &FORWARDED_PREFIX,
        &VIA,
    ] {
        trailers.remove(name);
    }
}

fn strip_named(headers: &mut HeaderMap, connection: &HeaderValue) {
    for token in connection.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        // The usual tokens name no header that is still there.
        let usual = [&b"keep-alive"[..], b"close", b"upgrade", b"te"];
        if token.is_empty() || usual.iter().any(|usual| token.eq_ignore_ascii_case(usual)) {
            continue;
        }
        if let Ok(name) = HeaderName::from_bytes(token)
            && name != header::HOST
        {
            headers.remove(name);
        }
    }
}

/// Whether the viewer takes trailers.
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TE) && list_contains(headers, &header::TE, "trailers")
}

/// The protocols an upgrade request asks for; `h2c` alone is no upgrade that a proxy may pass on.
pub fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(header::UPGRADE)?;
    let asked = list_contains(headers, &header::CONNECTION, "upgrade");
    (asked && !list_contains(headers, &header::UPGRADE, "h2c")).then(|| wanted.clone())
}

/// What the relay says of a viewer to the target.
pub struct Viewer<'a> {
    /// Address of the peer, as text.
    pub peer: &'a str,
    /// The host it asked for.
    pub host: &'a HeaderValue,
    /// The path prefix that the target does not see.
    pub prefix: Option<&'a str>,
    /// The peer is one of the trusted proxies: what it says of its own viewer stands.
    pub trusted: bool,
}

/// Writes the forwarding headers. What an untrusted peer claims is replaced, never passed on.
pub fn set_forwarded(headers: &mut HeaderMap, viewer: &Viewer<'_>, via: &HeaderValue) {
    headers.append(VIA, via.clone());
    let text =
        |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
    if viewer.trusted {
        let chain = match joined(headers, &FORWARDED_FOR) {
            Some(before) => text(&format!("{before}, {}", viewer.peer)),
            None => text(viewer.peer),
        };
        headers.insert(FORWARDED_FOR, chain);
        headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
        headers.entry(FORWARDED_HOST).or_insert_with(|| viewer.host.clone());
    } else {
        headers.remove(header::FORWARDED);
        headers.remove("x-real-ip");
        headers.insert(FORWARDED_FOR, text(viewer.peer));
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
        headers.insert(FORWARDED_HOST, viewer.host.clone());
    }
    match viewer.prefix {
        Some(prefix) => drop(headers.insert(FORWARDED_PREFIX, text(prefix))),
        None if !viewer.trusted => drop(headers.remove(FORWARDED_PREFIX)),
        None => {}
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Whether the request has come through the relay `via` before.
pub fn is_loop(headers: &HeaderMap, via: &HeaderValue) -> bool {
    headers.get_all(VIA).iter().any(|seen| seen == via)
}

/// Whether `peer` is one of the trusted proxies.
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted.iter().any(|net| net.contains(&peer))
}

/// Whether these headers belong to a login that is bound to its connection.
pub fn binds_connection(headers: &HeaderMap) -> bool {
    let bound = |name: &HeaderName| {
        // A target may offer several schemes in one line.
        headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(
            |part| {
                let scheme = part.trim_ascii().split(|byte| *byte == b' ').next().unwrap_or_default();
                scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
            },
        )
    };
    bound(&header::AUTHORIZATION) || bound(&header::WWW_AUTHENTICATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn connection_headers_and_what_they_name_stay_here() {
        let mut all = HeaderMap::new();
        for (name, value) in [
            ("connection", "X-Secret, close"),
            ("connection", "x-other, host"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("host", "h"),
            ("te", "gzip"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "x"),
            ("accept", "*/*"),
        ] {
            all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut all);
        let mut left: Vec<&str> = all.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
    }

    #[test]
    fn what_a_stranger_says_of_itself_is_replaced() {
        let (host, via) = (HeaderValue::from_static("web.example"), HeaderValue::from_static("r1"));
        let claims =
            [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1"), ("x-forwarded-prefix", "/x")];
        let mut stranger = headers(&claims);
        let viewer = Viewer { peer: "9.9.9.9", host: &host, prefix: None, trusted: false };
        set_forwarded(&mut stranger, &viewer, &via);
        assert_eq!(stranger["x-forwarded-for"], "9.9.9.9");
        assert!(!stranger.contains_key("forwarded") && !stranger.contains_key("x-forwarded-prefix"));
        let mut proxy = headers(&claims);
        set_forwarded(&mut proxy, &Viewer { trusted: true, ..viewer }, &via);
        assert_eq!(proxy["x-forwarded-for"], "1.1.1.1, 9.9.9.9");
        assert!(is_loop(&proxy, &via) && !is_loop(&proxy, &HeaderValue::from_static("r2")));
    }

    #[test]
    fn h2c_is_not_passed_on() {
        assert!(wanted_upgrade(&headers(&[("connection", "Upgrade"), ("upgrade", "websocket")])).is_some());
        assert!(wanted_upgrade(&headers(&[("connection", "Upgrade"), ("upgrade", "h2c")])).is_none());
        assert!(wanted_upgrade(&headers(&[("upgrade", "websocket")])).is_none());
    }
}
