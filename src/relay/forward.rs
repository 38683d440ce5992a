//! What a request brings along and what of it goes on: hop-by-hop headers, the viewer's address, loops.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

pub use crate::proto::forwarded::{FORWARDED_FOR, is_trusted, viewer};
use crate::proto::http1::list_contains;

/// Marks a request with the relay it went through, so that a tunnel onto the relay itself ends.
pub const VIA: HeaderName = HeaderName::from_static("adit-via");

/// What the viewer spoke.
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that it asked for.
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The path that the target does not see.
pub(super) const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The headers that concern only the connection their message came on (RFC 9110, section 7.6.1): the usual ones, and those
/// that `Connection` names.
pub struct HopByHop(Vec<HeaderName>);

impl HopByHop {
    /// Those of `headers`.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut here = Vec::new();
        let connection = headers.get_all(header::CONNECTION).iter();
        for name in
            connection.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).filter_map(named)
        {
            // Each once, and only what is there: thousands of words must not be looked through for each header.
            if headers.contains_key(&name) && !here.contains(&name) {
                here.push(name);
            }
        }
        Self(here)
    }

    /// Whether a header of this name stays here.
    pub fn has(&self, name: &HeaderName) -> bool {
        let usual = matches!(
            name.as_str(),
            "connection"
                | "keep-alive"
                | "proxy-connection"
                | "http2-settings"
                | "te"
                | "transfer-encoding"
                | "upgrade"
                | "proxy-authorization"
                | "proxy-authenticate"
        );
        usual || self.0.contains(name)
    }
}

/// What a token of `Connection` names, unless it is one of the usual, which name no other header.
fn named(token: &[u8]) -> Option<HeaderName> {
    let token = token.trim_ascii();
    let usual = [&b"keep-alive"[..], b"close", b"upgrade", b"te"];
    if token.is_empty() || usual.iter().any(|usual| token.eq_ignore_ascii_case(usual)) {
        return None;
    }
    HeaderName::from_bytes(token).ok().filter(|name| *name != header::HOST)
}

/// Takes out what is [`HopByHop`].
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let here = HopByHop::of(headers);
    let names: Vec<HeaderName> = headers.keys().filter(|name| here.has(name)).cloned().collect();
    for name in names {
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

/// Whether the request has come through the relay `via` before.
pub fn is_loop(headers: &HeaderMap, via: &HeaderValue) -> bool {
    headers.get_all(VIA).iter().any(|seen| seen == via)
}

/// Whether `peer` is a trusted proxy that says that its viewer came by https.
pub fn says_https(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> bool {
    let told = headers.get(&FORWARDED_PROTO);
    told.is_some_and(|told| told.as_bytes().eq_ignore_ascii_case(b"https")) && is_trusted(peer, trusted)
}

/// Whether a request asks for a login that is bound to its connection.
pub fn asks_for_connection(headers: &HeaderMap) -> bool {
    binds_connection(headers, &header::AUTHORIZATION)
}

/// Whether a response offers such a login.
pub fn offers_connection(headers: &HeaderMap) -> bool {
    binds_connection(headers, &header::WWW_AUTHENTICATE)
}

fn binds_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    // A target may offer several schemes in one line.
    headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(|part| {
        let scheme = part.trim_ascii().split(|byte| *byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    })
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
    fn what_connection_names_over_and_over_is_looked_for_once() {
        let words = HeaderValue::from_str(&"x-there,x-gone,".repeat(4000)).unwrap();
        let mut all = headers(&[("x-there", "1"), ("accept", "*/*")]);
        all.append(header::CONNECTION, words);
        assert_eq!(HopByHop::of(&all).0, ["x-there"]);
        strip_hop_by_hop(&mut all);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn h2c_is_not_passed_on() {
        assert!(wanted_upgrade(&headers(&[("connection", "Upgrade"), ("upgrade", "websocket")])).is_some());
        assert!(wanted_upgrade(&headers(&[("connection", "Upgrade"), ("upgrade", "h2c")])).is_none());
        assert!(wanted_upgrade(&headers(&[("upgrade", "websocket")])).is_none());
    }
}
