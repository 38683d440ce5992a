//! What of a target's response changes on its way: hop-by-hop headers, cookies and redirects under a path prefix.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::forward::strip_hop_by_hop;
use super::route::split_host;

/// What speaks for a whole origin, which is not one target's where tunnels are reached by path: who asks there, over what,
/// with which errors, and what a browser keeps of it.
const OF_THE_ORIGIN: [HeaderName; 6] = [
    HeaderName::from_static("clear-site-data"),
    HeaderName::from_static("service-worker-allowed"),
    HeaderName::from_static("nel"),
    HeaderName::from_static("report-to"),
    header::STRICT_TRANSPORT_SECURITY,
    header::ALT_SVC,
];

/// How the viewer reached the tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// The host that the viewer asked for, with its port.
    pub host: &'a str,
    /// The path before the target's own: `/t/name`. Such a tunnel shares its origin with others.
    pub prefix: Option<&'a str>,
    /// The host that the target was told, where it differs.
    pub target_host: Option<&'a str>,
}

/// Makes the headers of a response fit for the viewer.
pub fn response_headers(headers: &mut HeaderMap, address: Address<'_>) {
    strip_hop_by_hop(headers);
    if headers.contains_key(header::SET_COOKIE) {
        rewrite_cookies(headers, address);
    }
    let Some(prefix) = address.prefix else { return };
    for name in &OF_THE_ORIGIN {
        headers.remove(name);
    }
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let moved = headers.get(&name).and_then(|value| value.to_str().ok()).and_then(|text| {
            let path = path_at_target(text, address)?;
            HeaderValue::from_str(&format!("{prefix}{path}")).ok()
        });
        if let Some(moved) = moved {
            headers.insert(name, moved);
        }
    }
}

/// The path of a redirect that stays at the target: an absolute path, or a URL that names the target's host.
fn path_at_target<'a>(location: &'a str, address: Address<'_>) -> Option<&'a str> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(location);
    }
    let rest = location.strip_prefix("http://").or_else(|| location.strip_prefix("https://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let told = address.target_host.unwrap_or(address.host);
    authority.eq_ignore_ascii_case(told).then_some(if path.is_empty() { "/" } else { path })
}

fn rewrite_cookies(headers: &mut HeaderMap, address: Address<'_>) {
    let header::Entry::Occupied(cookies) = headers.entry(header::SET_COOKIE) else { return };
    let (_, cookies) = cookies.remove_entry_mult();
    let cookies: Vec<HeaderValue> = cookies.collect();
    for cookie in cookies {
        // Byte for byte: a value may be anything, and must not keep us from the attributes behind it.
        let text: String = cookie.as_bytes().iter().map(|byte| char::from(*byte)).collect();
        let bytes: Option<Vec<u8>> =
            rewrite_cookie(&text, address).chars().map(|c| u8::try_from(c).ok()).collect();
        if let Some(rewritten) = bytes.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()) {
            headers.append(header::SET_COOKIE, rewritten);
        }
    }
}

/// One cookie: its path gets the prefix, and a domain wider than the tunnel's own host is dropped.
fn rewrite_cookie(cookie: &str, address: Address<'_>) -> String {
    let mut parts = cookie.split(';');
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut has_path = false;
    for part in parts {
        let (name, value) = part.split_once('=').map_or((part, ""), |(name, value)| (name, value));
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("domain") {
            let own = split_host(address.host).map_or(address.host, |(host, _)| host);
            if address.prefix.is_some() || !value.trim_start_matches('.').eq_ignore_ascii_case(own) {
                continue;
            }
        }
        if let (true, Some(prefix)) = (name.eq_ignore_ascii_case("path"), address.prefix) {
            has_path = true;
            let path = if value.starts_with('/') { value } else { "/" };
            out.push_str(&format!("; Path={prefix}{path}"));
            continue;
        }
        out.push(';');
        out.push_str(part);
    }
    if let (false, Some(prefix)) = (has_path, address.prefix) {
        out.push_str(&format!("; Path={prefix}/"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_PATH: Address<'_> = Address { host: "relay.example", prefix: Some("/t/web"), target_host: None };
    const BY_HOST: Address<'_> = Address { host: "web.relay.example:8080", prefix: None, target_host: None };

    #[test]
    fn cookies_stay_with_their_tunnel() {
        for (cookie, by_path, by_host) in [
            ("a=1", "a=1; Path=/t/web/", "a=1"),
            ("a=1; Path=/x; Secure", "a=1; Path=/t/web/x; Secure", "a=1; Path=/x; Secure"),
            ("a=1; Domain=relay.example", "a=1; Path=/t/web/", "a=1"),
            ("a=1; domain=.web.relay.example", "a=1; Path=/t/web/", "a=1; domain=.web.relay.example"),
        ] {
            assert_eq!(rewrite_cookie(cookie, BY_PATH), by_path);
            assert_eq!(rewrite_cookie(cookie, BY_HOST), by_host);
        }
    }

    #[test]
    fn redirects_that_stay_at_the_target_get_the_prefix() {
        for (location, moved) in [
            ("/login", "/t/web/login"),
            ("http://relay.example/a?b", "/t/web/a?b"),
            ("https://relay.example", "/t/web/"),
            ("http://elsewhere.example/", "http://elsewhere.example/"),
            ("//elsewhere.example/", "//elsewhere.example/"),
            ("next", "next"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_static(location));
            response_headers(&mut headers, BY_PATH);
            assert_eq!(headers[header::LOCATION], moved);
        }
    }
}
