//! Who may ask what of the admin listener: under which name, from which page, and with or without a login.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Admin;
use super::problem::Problem;
use super::sessions::Session;
use crate::relay::forward::{says_https, viewer};
use crate::relay::route::split_host;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Nothing but what this listener serves, and nobody around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Who asks.
#[derive(Clone)]
pub struct Caller {
    /// The operator's address, also behind a trusted proxy.
    pub address: IpAddr,
    /// By TLS, as far as a trusted proxy says so.
    pub secure: bool,
    /// Is logged in.
    pub session: Option<Arc<Session>>,
}

/// Lets a request through, or says why not; and what is common to all answers.
pub async fn guard(State(admin): State<Arc<Admin>>, mut request: Request, next: Next) -> Response {
    let mut response = match enter(&admin, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Not `no-referrer`: with it browsers send the login form with `Origin: null`, as if it came from anywhere.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn enter(admin: &Admin, request: &Request) -> Result<Caller, Problem> {
    let (path, headers) = (request.uri().path(), request.headers());
    let caller = caller(admin, request);
    // Probes say nothing that is worth it, and come under any name.
    if matches!(path, "/healthz" | "/readyz") {
        return Ok(caller);
    }
    if !is_own(request, &admin.shared.config.admin_hosts) {
        return Err(Problem::host());
    }
    let (in_api, changes) = (path.starts_with("/api/"), !request.method().is_safe());
    if (in_api || changes) && !is_of_own_page(headers, caller.secure) {
        return Err(Problem::origin());
    }
    let is_open = path == "/counts" && caller.address.is_loopback();
    if (in_api || path == "/counts") && !is_open && caller.session.is_none() {
        return Err(Problem::login());
    }
    // No form of another page can send it, and no script unless it is let.
    if in_api && changes && !is_json(headers) {
        return Err(Problem::content_type());
    }
    Ok(caller)
}

fn caller(admin: &Admin, request: &Request) -> Caller {
    let (headers, trusted) = (request.headers(), &admin.shared.config.trusted_proxies);
    let peer = request.extensions().get().map_or(IpAddr::from([0; 4]), |Peer(peer)| *peer);
    let secure = says_https(peer, headers, trusted);
    let session = admin.shared.door.session(headers, secure);
    Caller { address: viewer(peer, headers, trusted), secure, session }
}

/// A page in the operator's browser may let its own name lead to this address, and would then read what is here: only
/// addresses and `localhost` can be nobody else's names, and those that the operator gives.
fn is_own(request: &Request, names: &[String]) -> bool {
    let named = request.headers().get_all(header::HOST).iter().map(HeaderValue::to_str);
    let mut asked =
        request.uri().authority().map(|authority| Ok(authority.as_str())).into_iter().chain(named);
    asked.all(|host| {
        host.ok().and_then(split_host).is_some_and(|(host, _)| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = host.strip_suffix('.').unwrap_or(host);
            name.eq_ignore_ascii_case("localhost")
                || names.iter().any(|own| own.eq_ignore_ascii_case(name))
                || host.parse::<IpAddr>().is_ok()
        })
    })
}

/// Whether it is this listener's own page that asks, or no page at all. What a browser does not say is not held against it.
fn is_of_own_page(headers: &HeaderMap, secure: bool) -> bool {
    let from_here = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    headers.get_all(FETCH_SITE).iter().all(from_here)
        && headers.get_all(header::ORIGIN).iter().all(|origin| {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let Some(((scheme, from), asked)) = origin.zip(asked) else { return false };
            // A proxy that speaks TLS need not tell; one that tells is believed.
            let speaks = scheme == "https" || (scheme == "http" && !secure);
            speaks && is_same(from, asked, if scheme == "https" { 443 } else { 80 })
        })
}

/// Whether two authorities are one, where a port is not written if it is the `usual` one.
fn is_same(one: &str, other: &str, usual: u16) -> bool {
    let (Ok(one), Ok(other)) = (one.parse::<Authority>(), other.parse::<Authority>()) else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(usual);
    one.host().eq_ignore_ascii_case(other.host()) && port(&one) == port(&other)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_page_is_ours_when_scheme_name_and_port_are() {
        for (host, origin, secure, ours) in [
            ("127.0.0.1:9090", "http://127.0.0.1:9090", false, true),
            ("127.0.0.1:9090", "http://127.0.0.1:3000", false, false),
            ("127.0.0.1:9090", "http://localhost:9090", false, false),
            ("LocalHost:9090", "http://localhost:9090", false, true),
            ("dash.example", "https://dash.example", true, true),
            ("dash.example:443", "https://dash.example", true, true),
            ("dash.example", "http://dash.example", true, false),
            ("dash.example", "https://dash.example", false, true),
            ("dash.example", "https://dash.example.evil.example", true, false),
            ("dash.example", "https://x@dash.example", true, true),
            ("[::1]:9090", "http://[::1]:9090", false, true),
            ("127.0.0.1:9090", "null", false, false),
            ("127.0.0.1:9090", "", false, false),
            ("127.0.0.1:9090", "ftp://127.0.0.1:9090", false, false),
        ] {
            let headers = headers(&[("host", host), ("origin", origin)]);
            assert_eq!(is_of_own_page(&headers, secure), ours, "{host} {origin}");
        }
        assert!(!is_of_own_page(&headers(&[("origin", "http://127.0.0.1")]), false), "without a Host");
        assert!(is_of_own_page(&headers(&[("host", "127.0.0.1")]), false), "without an Origin");
    }

    #[test]
    fn what_a_browser_says_of_the_page_counts() {
        for (site, ours) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false), ("", false)]
        {
            assert_eq!(is_of_own_page(&headers(&[("sec-fetch-site", site)]), false), ours, "{site}");
        }
        let two = headers(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]);
        assert!(!is_of_own_page(&two, false));
    }

    #[test]
    fn json_is_known_by_its_type_alone() {
        for (kind, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("text/plain; application/json", false),
        ] {
            assert_eq!(is_json(&headers(&[("content-type", kind)])), json, "{kind}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
