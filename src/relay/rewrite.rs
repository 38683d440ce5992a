//! What of a target's response changes on its way: hop-by-hop headers, cookies and redirects under a path prefix.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::forward::strip_hop_by_hop;
use super::own_cookies;
use super::route::split_host;
use crate::tunnel::Spec;

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

/// The head of a target's response on its way through a tunnel that was reached by `host`, and by path under `prefix`:
/// changed as its owner wants, and fit for the viewer.
pub(super) fn response(headers: &mut HeaderMap, spec: &Spec, host: &HeaderValue, prefix: Option<&str>) {
    if let Some(policy) = &spec.policy {
        // Before the rest: what an owner sets speaks for its own tunnel alone, too.
        policy.response.apply(headers);
    }
    let address = Address {
        host: host.to_str().unwrap_or_default(),
        prefix,
        target_host: spec.host_header.as_ref().and_then(|host| host.to_str().ok()),
    };
    response_headers(headers, address);
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
        let moved = headers.get(&name).and_then(|value| {
            let path = path_at_target(value.as_bytes(), address)?;
            if is_below(path, prefix) {
                // The target knows where it is, by X-Forwarded-Prefix.
                return None;
            }
            // Without its slash, relative links would lead out of the tunnel.
            let slash: &[u8] = if path.starts_with(b"/") { b"" } else { b"/" };
            HeaderValue::from_bytes(&[prefix.as_bytes(), slash, path].concat()).ok()
        });
        if let Some(moved) = moved {
            headers.insert(name, moved);
        }
    }
}

/// Whether the path begins with the prefix as a whole.
fn is_below(path: &[u8], prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix.as_bytes());
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/' | b'?' | b'#')))
}

/// The path of a redirect that stays at the target: an absolute path, or a URL that names the target's host. Targets
/// write letters of any language into it, so it is bytes.
fn path_at_target<'a>(location: &'a [u8], address: Address<'_>) -> Option<&'a [u8]> {
    if location.starts_with(b"/") && !location.starts_with(b"//") {
        return Some(location);
    }
    let rest = [&b"http://"[..], b"https://"].into_iter().find_map(|scheme| {
        let (start, rest) = location.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let told = address.target_host.unwrap_or(address.host);
    authority.eq_ignore_ascii_case(told.as_bytes()).then_some(path)
}

fn rewrite_cookies(headers: &mut HeaderMap, address: Address<'_>) {
    let header::Entry::Occupied(cookies) = headers.entry(header::SET_COOKIE) else { return };
    let (_, cookies) = cookies.remove_entry_mult();
    // The dashboard's own are for nobody else to set.
    let cookies: Vec<HeaderValue> =
        cookies.filter(|cookie| !own_cookies::is_one(cookie.as_bytes())).collect();
    for cookie in cookies {
        let rewritten = HeaderValue::from_bytes(&rewrite_cookie(cookie.as_bytes(), address));
        headers.append(header::SET_COOKIE, rewritten.unwrap_or(cookie));
    }
}

/// One cookie: its path gets the prefix, and a domain wider than the tunnel's own host is dropped. Its value may be any
/// bytes, which browsers take as well.
fn rewrite_cookie(cookie: &[u8], address: Address<'_>) -> Vec<u8> {
    let mut parts = cookie.split(|byte| *byte == b';');
    let mut out = parts.next().unwrap_or_default().to_vec();
    let mut has_path = false;
    for part in parts {
        let at = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        let (name, value) = (part[..at].trim_ascii(), part.get(at + 1..).unwrap_or_default().trim_ascii());
        if name.eq_ignore_ascii_case(b"domain") {
            let own = split_host(address.host).map_or(address.host, |(host, _)| host);
            let value = value.strip_prefix(b".").unwrap_or(value);
            if address.prefix.is_some() || !value.eq_ignore_ascii_case(own.as_bytes()) {
                continue;
            }
        }
        if let (true, Some(prefix)) = (name.eq_ignore_ascii_case(b"path"), address.prefix) {
            has_path = true;
            let path: &[u8] = if value.starts_with(b"/") { value } else { b"/" };
            let prefix = if is_below(path, prefix) { "" } else { prefix };
            out.extend([b"; Path=", prefix.as_bytes(), path].concat());
            continue;
        }
        out.push(b';');
        out.extend(part);
    }
    if let (false, Some(prefix)) = (has_path, address.prefix) {
        out.extend([b"; Path=", prefix.as_bytes(), b"/"].concat());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            assert_eq!(rewrite_cookie(cookie.as_bytes(), BY_PATH), by_path.as_bytes());
            assert_eq!(rewrite_cookie(cookie.as_bytes(), BY_HOST), by_host.as_bytes());
        }
    }

    #[test]
    fn a_target_sets_no_cookie_of_the_dashboard() {
        let mut headers = HeaderMap::new();
        for cookie in
            ["a=1", "adit_session=1; Path=/", "=adit_session=1", "__Host-adit_session=1; Secure; Path=/"]
        {
            headers.append(header::SET_COOKIE, HeaderValue::from_static(cookie));
        }
        response_headers(&mut headers, BY_HOST);
        assert_eq!(headers.get_all(header::SET_COOKIE).iter().collect::<Vec<_>>(), ["a=1"]);
    }

    #[test]
    fn a_letter_outside_of_ascii_frees_no_cookie_or_redirect_from_its_tunnel() {
        let mut headers = HeaderMap::new();
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        headers.append(header::SET_COOKIE, value("a=é; Path=/; Domain=relay.example"));
        headers.append(header::LOCATION, value("/café"));
        let mut by_host = headers.clone();
        response_headers(&mut headers, BY_PATH);
        assert_eq!(headers[header::SET_COOKIE], value("a=é; Path=/t/web/"));
        assert_eq!(headers[header::LOCATION], value("/t/web/café"));
        response_headers(&mut by_host, BY_HOST);
        assert_eq!(by_host[header::SET_COOKIE], value("a=é; Path=/"));
    }

    #[test]
    fn redirects_that_stay_at_the_target_get_the_prefix() {
        for (location, moved) in [
            ("/login", "/t/web/login"),
            ("http://relay.example/a?b", "/t/web/a?b"),
            ("https://relay.example", "/t/web/"),
            ("HTTP://Relay.Example/a", "/t/web/a"),
            ("http://relay.example?a", "/t/web/?a"),
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

    /// The attributes of a cookie, as a browser reads them (RFC 6265, section 5.2).
    fn attributes<'a>(cookie: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        cookie.split(|byte| *byte == b';').skip(1).filter_map(move |part| {
            let at = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
            let value = part.get(at + 1..).unwrap_or_default();
            part[..at].trim_ascii().eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
        })
    }

    fn cookies() -> impl Strategy<Value = Vec<u8>> {
        let attribute =
            "[ \t]?(path|Path|DOMAIN|domain|Secure|x|)[ ]?=?[ \t]?(/|/a|\\.?(web\\.)?relay\\.example|b|é|=|)";
        (prop::collection::vec(any::<u8>(), 0..9), prop::collection::vec(attribute, 0..5)).prop_map(
            |(value, attributes)| {
                let value = value.into_iter().filter(|byte| *byte != b';');
                [
                    &b"a="[..],
                    &value.collect::<Vec<_>>(),
                    attributes.iter().map(|one| format!(";{one}")).collect::<String>().as_bytes(),
                ]
                .concat()
            },
        )
    }

    proptest! {
        #[test]
        fn no_cookie_reaches_over_its_tunnel(cookie in cookies()) {
            let by_path = rewrite_cookie(&cookie, BY_PATH);
            prop_assert_eq!(attributes(&by_path, "domain").count(), 0);
            let paths: Vec<_> = attributes(&by_path, "path").collect();
            prop_assert!(!paths.is_empty() && paths.iter().all(|path| path.starts_with(b"/t/web/")));
            let by_host = rewrite_cookie(&cookie, BY_HOST);
            for domain in attributes(&by_host, "domain") {
                prop_assert!(domain.to_ascii_lowercase().ends_with(b"web.relay.example"));
            }
            // The value itself is as it was.
            let value = |cookie: &[u8]| cookie.split(|byte| *byte == b';').next().map(<[u8]>::to_vec);
            prop_assert_eq!(value(&by_path), value(&cookie));
        }

        #[test]
        fn a_path_in_a_redirect_gets_the_prefix_once_and_other_hosts_stay(
            path in "[a-z0-9%.]{0,5}[a-z0-9%./?#é]{0,10}",
            host in "(relay|Relay|elsewhere)\\.(example|EXAMPLE)(:81|\\.evil)?",
            scheme in "(http|https|HTTPS)",
        ) {
            let moved = |location: String| {
                let mut headers = HeaderMap::new();
                headers.insert(header::LOCATION, HeaderValue::from_bytes(location.as_bytes()).unwrap());
                response_headers(&mut headers, BY_PATH);
                String::from_utf8(headers[header::LOCATION].as_bytes().to_vec()).unwrap()
            };
            if !path.starts_with('/') {
                prop_assert_eq!(moved(format!("/{path}")), format!("/t/web/{path}"));
            }
            let url = format!("{scheme}://{host}/{path}");
            let ours = host.eq_ignore_ascii_case("relay.example");
            prop_assert_eq!(moved(url.clone()), if ours { format!("/t/web/{path}") } else { url });
        }
    }
}
