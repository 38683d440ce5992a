//! Pages of a policy: the owner's own while the client is away, and the one that asks a browser whether to go on.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;

use crate::auth::{hex, sha256};
use crate::proto::limits::policy::{ASKED, PASSED};
use crate::relay::errors::{escaped, request_id, wants_html};
use crate::relay::forward::wanted_upgrade;
use crate::relay::own_cookies::{INTERSTITIAL, cookies};
use crate::tunnel::Tunnel;

/// Programs that ask for HTML pass with this header, whatever its value.
const SKIP: HeaderName = HeaderName::from_static("adit-skip-interstitial");
/// The query parameter with which the button says so.
const PARAMETER: &str = "adit-interstitial";
/// Hexadecimal digits of what is in the cookie.
const DIGITS: usize = 32;

/// The owner's page, as it is. Tunnels by path share an origin with others: in a sandbox it has none.
pub fn offline(status: StatusCode, page: &Bytes, request_id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(page.clone()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    common(headers, request_id);
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

fn common(headers: &mut HeaderMap, request_id: &str) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", id);
    }
}

/// What a browser gets in the place of what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interstitial {
    cookie: HeaderValue,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// The page of the tunnel with this name, whose button leads there.
    Ask { name: String, host: String, action: String },
    /// It has said so, and goes on where it wanted to.
    GoOn(HeaderValue),
}

/// The request that a browser made.
pub struct Asked<'a> {
    pub method: &'a Method,
    /// With the prefix, as the viewer sees it.
    pub target: &'a str,
    /// The path under which the tunnel is, if it was reached by path.
    pub prefix: Option<&'a str>,
    pub host: &'a HeaderValue,
    pub headers: &'a HeaderMap,
    /// The viewer speaks TLS with whoever is in front.
    pub secure: bool,
}

impl Interstitial {
    /// What to answer in the place of the target; `None`: the request goes on.
    pub fn of(tunnel: &Tunnel, asked: &Asked<'_>) -> Option<Box<Self>> {
        let passed = passed(tunnel);
        let cookies: Vec<&[u8]> = cookies(asked.headers, INTERSTITIAL).collect();
        let (path, mut target) = (asked.prefix.unwrap_or("/"), Cow::Borrowed(asked.target));
        let secure = if asked.secure { "; Secure" } else { "" };
        let cookie = |value: &str, age: u64| {
            let text =
                format!("{INTERSTITIAL}={value}; Path={path}; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
            HeaderValue::from_str(&text).ok()
        };
        if *asked.method == Method::POST {
            // Nothing but the button says this.
            let (said, rest) = take_parameter(asked.target).filter(|(said, _)| is_ours(said.as_bytes()))?;
            // Only the page itself knows what stands in the browser's cookie: no other page can press the button.
            let known =
                [passed.as_bytes(), said.as_bytes()].into_iter().any(|value| cookies.contains(&value));
            let same_origin = asked.headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin");
            if known && same_origin {
                let what = What::GoOn(HeaderValue::from_str(&local(&rest)).ok()?);
                return Some(Box::new(Self { cookie: cookie(&passed, PASSED.as_secs())?, what }));
            }
            target = Cow::Owned(rest);
        } else if !is_navigation(asked) || cookies.contains(&passed.as_bytes()) {
            return None;
        }
        // Several pages that wait in one browser share what their buttons say.
        let before = cookies.iter().find(|value| is_ours(value) && **value != passed.as_bytes());
        let before = before.and_then(|value| std::str::from_utf8(value).ok());
        let nonce = before.map_or_else(request_id, str::to_owned);
        let joint = if target.contains('?') { '&' } else { '?' };
        let action = format!("{}{joint}{PARAMETER}={nonce}", local(&target));
        let host = asked.host.to_str().unwrap_or_default().to_owned();
        let what = What::Ask { name: tunnel.name.clone(), host, action };
        Some(Box::new(Self { cookie: cookie(&nonce, ASKED.as_secs())?, what }))
    }

    /// 200 for the page, 303 for the way on.
    pub fn status(&self) -> u16 {
        match self.what {
            What::Ask { .. } => 200,
            What::GoOn(_) => 303,
        }
    }

    /// The answer.
    pub fn answer(&self, request_id: &str) -> Response<Full<Bytes>> {
        let mut response = match &self.what {
            What::Ask { name, host, action } => {
                Response::new(Full::new(Bytes::from(html(name, host, action))))
            }
            What::GoOn(target) => {
                let mut response = Response::new(Full::default());
                response.headers_mut().insert(header::LOCATION, target.clone());
                response
            }
        };
        *response.status_mut() = StatusCode::from_u16(self.status()).unwrap_or_default();
        let headers = response.headers_mut();
        common(headers, request_id);
        headers.insert(header::SET_COOKIE, self.cookie.clone());
        let alone = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(alone));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert("x-robots-tag", HeaderValue::from_static("noindex"));
        response
    }
}

/// What a browser has that has passed: nobody who has not been there can know it, and it outlives the relay.
fn passed(tunnel: &Tunnel) -> String {
    let mut digits = hex(&sha256(&[&b"adit interstitial "[..], tunnel.id.as_bytes()].concat()));
    digits.truncate(DIGITS);
    digits
}

fn is_ours(value: &[u8]) -> bool {
    value.len() == DIGITS && value.iter().all(u8::is_ascii_hexdigit)
}

/// A page that somebody looks at: not a program, a picture, or a script that fetches.
fn is_navigation(asked: &Asked<'_>) -> bool {
    let headers = asked.headers;
    *asked.method == Method::GET
        && wants_html(headers)
        && !headers.contains_key(&SKIP)
        && headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
        && wanted_upgrade(headers).is_none()
}

/// A path that no browser takes for another host, and that leads to the same place.
fn local(target: &str) -> String {
    let dot = if target.starts_with("//") || target.starts_with("/\\") { "/." } else { "" };
    format!("{dot}{target}")
}

/// What the button has said, and the target without it.
fn take_parameter(target: &str) -> Option<(String, String)> {
    let (path, query) = target.split_once('?')?;
    let of = |pair: &&str| pair.strip_prefix(PARAMETER)?.strip_prefix('=').map(str::to_owned);
    let said = query.split('&').rev().find_map(|pair| of(&pair))?;
    let rest: Vec<&str> = query.split('&').filter(|pair| of(pair).is_none()).collect();
    let rest = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
    Some((said, rest))
}

fn html(name: &str, host: &str, action: &str) -> String {
    let (name, host, action) = (escaped(name), escaped(host), escaped(action));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{name} is a tunnel</title>\
         <style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;\
         margin:14vh auto 0;padding:0 1.5rem}}h1{{font-size:1.4rem}}small{{opacity:.65}}\
         button{{font:inherit;padding:.5rem 1.25rem;cursor:pointer}}</style></head>\
         <body><h1>This is the tunnel “{name}”</h1>\
         <p>Behind <b>{host}</b> is a service on somebody's own machine, shared by a tunnel. It is not run by those who \
         run this site. Go on only if you know who gave you this address, and give it no password that belongs \
         elsewhere.</p>\
         <form method=\"post\" action=\"{action}\"><button type=\"submit\">Go on to {name}</button></form>\
         <p><small>You are asked once. Whoever owns the tunnel can leave this page out; programs do so with the header \
         <code>{SKIP}</code>.</small></p></body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_button_leads_back_to_where_the_browser_was_and_nowhere_else() {
        for (target, said, rest) in [
            ("/a?adit-interstitial=1", "1", "/a"),
            ("/a?b=c&adit-interstitial=1", "1", "/a?b=c"),
            ("/a?adit-interstitial=0&b&adit-interstitial=1", "1", "/a?b"),
        ] {
            assert_eq!(take_parameter(target), Some((said.into(), rest.into())), "{target}");
        }
        assert_eq!((take_parameter("/a?b"), take_parameter("/adit-interstitial=1")), (None, None));
        for (target, path) in [
            ("//evil.example/", "/.//evil.example/"),
            ("/\\evil.example", "/./\\evil.example"),
            ("/a//b", "/a//b"),
        ] {
            assert_eq!(local(target), path);
        }
        assert!(!html("x", "<b>", "/\"><script>").contains("<script>"));
    }
}
