//! A viewer's request as its target gets it: what is taken out, set and written, in one place and without a socket.

use std::borrow::Cow;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::forward::{
    FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PREFIX, FORWARDED_PROTO, HopByHop, VIA, takes_trailers,
};
use super::own_cookies;
use crate::proto::http1::{RequestBody, RequestHead, cookie_line, head_end, header_line, request_head};
use crate::tunnel::policy::Policy;

/// The path as the viewer wrote it, as websocktunnel tells it.
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-websocktunnel-original-path");

/// What the relay knows of a request beside its headers.
pub struct Onward<'a> {
    /// As it came.
    pub method: &'a Method,
    /// What the target sees, see [`split_target`].
    pub target: &'a str,
    /// The path prefix that the target does not see.
    pub prefix: Option<&'a str>,
    /// The host that the viewer asked for.
    pub host: &'a HeaderValue,
    /// The host that the target is told instead, if its owner wants so.
    pub told: Option<&'a HeaderValue>,
    /// Address of the peer, as text.
    pub peer: &'a str,
    /// The peer is one of the trusted proxies.
    pub trusted: bool,
    /// The viewer came by TLS.
    pub secure: bool,
    /// Names this relay.
    pub via: &'a HeaderValue,
    /// `Authorization` was for the relay.
    pub guarded: bool,
    /// Framing of the body.
    pub body: RequestBody,
    /// The protocols asked for by an upgrade.
    pub upgrade: Option<&'a HeaderValue>,
    /// What the tunnel's owner wants changed.
    pub policy: Option<&'a Policy>,
    /// The path as it came, for a worker of Taskcluster.
    pub original_path: Option<&'a str>,
}

impl<'a> Onward<'a> {
    /// A GET of `/` at `host`, of whom nothing is known: what tests, benches and fuzz targets begin with.
    pub fn plain(host: &'a HeaderValue, via: &'a HeaderValue) -> Self {
        Self {
            method: &Method::GET,
            target: "/",
            prefix: None,
            host,
            told: None,
            peer: "192.0.2.1",
            trusted: false,
            secure: false,
            via,
            guarded: false,
            body: RequestBody::None,
            upgrade: None,
            policy: None,
            original_path: None,
        }
    }

    /// The head with its empty line, for a request that came with `headers`.
    pub fn head(&self, headers: &HeaderMap) -> BytesMut {
        let mut head = BytesMut::with_capacity(512 + self.target.len());
        request_head(
            &mut head,
            &RequestHead {
                method: self.method,
                target: self.target,
                host: Some(self.told.unwrap_or(self.host).as_bytes()),
                body: self.body,
                upgrade: self.upgrade,
                te_trailers: takes_trailers(headers),
            },
        );
        let here = HopByHop::of(headers);
        if !here.has(&header::COOKIE) {
            match self.cookies(headers) {
                Cookies::All => cookie_line(&mut head, headers),
                Cookies::Some(rest) => header_line(&mut head, &header::COOKIE, &rest),
                Cookies::None => {}
            }
        }
        for (name, value) in headers {
            if !self.replaces(name) && !here.has(name) {
                header_line(&mut head, name, value.as_bytes());
            }
        }
        if let Some(policy) = self.policy {
            policy.request.written().for_each(|(name, value)| header_line(&mut head, name, value.as_bytes()));
        }
        self.forwarding(headers, &here, |name, value| header_line(&mut head, name, value));
        head_end(&mut head);
        head
    }

    /// The fields of the same request in HTTP/2, which says method, target and host otherwise, and of an upgrade nothing.
    pub fn fields(&self, headers: &HeaderMap) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(headers.len() + 6);
        if takes_trailers(headers) {
            fields.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let RequestBody::Length(length) = self.body {
            fields.insert(header::CONTENT_LENGTH, length.into());
        }
        let here = HopByHop::of(headers);
        let cookies = self.cookies(headers);
        for (name, value) in headers {
            let cookie = *name == header::COOKIE && matches!(cookies, Cookies::All);
            // The body follows at once: the window of a stream says how much of it is wanted.
            if (cookie || !self.replaces(name)) && !here.has(name) && *name != header::EXPECT {
                fields.append(name, value.clone());
            }
        }
        if let Cookies::Some(rest) = cookies
            && !here.has(&header::COOKIE)
            && let Ok(rest) = HeaderValue::from_bytes(&rest)
        {
            fields.insert(header::COOKIE, rest);
        }
        if let Some(policy) = self.policy {
            for (name, value) in policy.request.written() {
                fields.append(name, value.clone());
            }
        }
        self.forwarding(headers, &here, |name, value| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                fields.append(name, value);
            }
        });
        fields
    }

    /// What goes on of the viewer's cookies: not the relay's own, and none where the owner wants so.
    fn cookies(&self, headers: &HeaderMap) -> Cookies {
        if self.policy.is_some_and(|policy| policy.request.removes(&header::COOKIE)) {
            return Cookies::None;
        }
        let asks = self.policy.is_some_and(|policy| policy.interstitial);
        if !asks && !own_cookies::are_in(headers) {
            return Cookies::All;
        }
        let is_own = |pair: &[u8]| own_cookies::is_one(pair) || (asks && own_cookies::is_interstitial(pair));
        own_cookies::without(headers, is_own).map_or(Cookies::None, Cookies::Some)
    }

    /// Whether a header of this name is written otherwise, or not at all. What an untrusted peer claims of its own viewer
    /// never goes on; what a trusted one says stands.
    fn replaces(&self, name: &HeaderName) -> bool {
        match name.as_str() {
            "host" | "content-length" | "cookie" | "x-forwarded-for" => true,
            "authorization" if self.guarded => true,
            "x-websocktunnel-original-path" => self.original_path.is_some(),
            "x-forwarded-prefix" => !self.trusted || self.prefix.is_some(),
            "forwarded" | "x-real-ip" | "x-forwarded-proto" | "x-forwarded-host" => !self.trusted,
            _ => self.policy.is_some_and(|policy| policy.request.removes(name)),
        }
    }

    /// Gives the forwarding headers to `line`, behind those of `headers` that stand; these are not `here`.
    fn forwarding(&self, headers: &HeaderMap, here: &HopByHop, mut line: impl FnMut(&HeaderName, &[u8])) {
        line(&VIA, self.via.as_bytes());
        let stands = |name: &HeaderName| self.trusted && headers.contains_key(name) && !here.has(name);
        match stands(&FORWARDED_FOR).then(|| joined(headers, &FORWARDED_FOR)).flatten() {
            Some(before) => line(&FORWARDED_FOR, format!("{before}, {}", self.peer).as_bytes()),
            None => line(&FORWARDED_FOR, self.peer.as_bytes()),
        }
        if !stands(&FORWARDED_PROTO) {
            line(&FORWARDED_PROTO, if self.secure { b"https" } else { b"http" });
        }
        if !stands(&FORWARDED_HOST) {
            line(&FORWARDED_HOST, self.host.as_bytes());
        }
        if let Some(prefix) = self.prefix {
            line(&FORWARDED_PREFIX, prefix.as_bytes());
        }
        if let Some(path) = self.original_path {
            line(&ORIGINAL_PATH, path.as_bytes());
        }
    }
}

/// What goes on of cookies.
enum Cookies {
    /// As they came.
    All,
    /// These, in one line.
    Some(Vec<u8>),
    /// None.
    None,
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// The path prefix that the target does not see, and what it sees: as raw as it came, nothing in it is decoded.
/// `by_path`: the request came by path, and the prefix is this long.
pub fn split_target(target: &str, by_path: Option<usize>) -> (Option<&str>, Cow<'_, str>) {
    let (prefix, rest) = match by_path {
        Some(length) => {
            let (prefix, rest) = target.split_at(length);
            (Some(prefix), rest)
        }
        None => (None, target),
    };
    // A path may be empty after its prefix, and in an absolute form (`http://host?query`).
    match rest.as_bytes().first() {
        Some(b'/' | b'*') => (prefix, Cow::Borrowed(rest)),
        _ => (prefix, Cow::Owned(format!("/{rest}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::config::RelayConfig;
    use super::super::route::{PATH_PREFIX, Route, Routes, is_valid_host};
    use super::*;

    fn routes(base: Option<&str>) -> Routes {
        Routes::new(&RelayConfig { base_domain: base.map(str::to_owned), ..RelayConfig::default() }, None)
    }

    /// Anything, and what is nearly a host.
    fn hosts() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[a-zA-Z0-9.:@\\[\\]%-]{0,30}",
            "(web|WEB|a\\.b|)\\.?(x\\.io|X\\.Io|localhost|127\\.0\\.0\\.1|\\[::1\\])\\.?(:[0-9]{0,6})?",
        ]
    }

    fn targets() -> impl Strategy<Value = String> {
        "/(t/)?[A-Za-z0-9._~%/-]{0,20}(\\?[a-z=&/%]{0,10})?"
    }

    /// Headers with any bytes that a header may have.
    fn headers() -> impl Strategy<Value = HeaderMap> {
        let names = prop_oneof![
            "[a-z][a-z0-9-]{0,12}",
            "(connection|te|upgrade|keep-alive|transfer-encoding|content-length|host|cookie|forwarded|authorization)",
            "(x-forwarded-for|x-forwarded-prefix|x-real-ip|adit-via|proxy-connection|http2-settings|proxy-authorization)",
        ];
        let values = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..30),
            "(close|cookie, host|x-forwarded-for|adit-via|trailers|chunked|5)".prop_map(String::into_bytes),
        ];
        prop::collection::vec((names, values), 0..12).prop_map(|lines| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
                    headers.append(name, value);
                }
            }
            headers
        })
    }

    fn bodies() -> impl Strategy<Value = RequestBody> {
        prop_oneof![
            Just(RequestBody::None),
            any::<u64>().prop_map(RequestBody::Length),
            Just(RequestBody::Chunked)
        ]
    }

    #[test]
    fn what_a_stranger_says_of_itself_is_replaced_and_what_a_trusted_proxy_says_stands() {
        let (host, via) = (HeaderValue::from_static("web.example"), HeaderValue::from_static("r1"));
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/x"),
            ("x-real-ip", "1.1.1.1"),
            ("forwarded", "for=1.1.1.1"),
            ("adit-via", "r0"),
            ("connection", "cookie, X-Forwarded-Host"),
            ("cookie", "a=b"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let stranger = Onward { peer: "9.9.9.9", ..Onward::plain(&host, &via) };
        let text = |onward: &Onward<'_>| String::from_utf8(onward.head(&headers).to_vec()).unwrap();
        let begin = "GET / HTTP/1.1\r\nHost: web.example\r\n";
        assert_eq!(
            text(&stranger),
            format!(
                "{begin}adit-via: r0\r\nadit-via: r1\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: http\r\n\
                 X-Forwarded-Host: web.example\r\n\r\n"
            )
        );
        assert_eq!(
            text(&Onward { trusted: true, ..stranger }),
            format!(
                "{begin}X-Forwarded-Proto: https\r\nx-forwarded-prefix: /x\r\nx-real-ip: 1.1.1.1\r\n\
                 forwarded: for=1.1.1.1\r\nadit-via: r0\r\nadit-via: r1\r\n\
                 X-Forwarded-For: 1.1.1.1, 2.2.2.2, 9.9.9.9\r\nX-Forwarded-Host: web.example\r\n\r\n"
            )
        );
    }

    #[test]
    fn cookies_of_the_dashboard_stay_here_whatever_the_target_speaks() {
        let (host, via) = (HeaderValue::from_static("web.example"), HeaderValue::from_static("r1"));
        let onward = Onward { peer: "9.9.9.9", ..Onward::plain(&host, &via) };
        for (lines, rest) in [
            (&["a=1; adit_session=x", "__Host-adit_session=y; b=2"][..], &["a=1; b=2"][..]),
            (&["adit_session=x"], &[]),
            (&["a=1", "b=adit_session"], &["a=1; b=adit_session"]),
            (&[], &[]),
        ] {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|line| _ = headers.append(header::COOKIE, HeaderValue::from_static(line)));
            let head =
                String::from_utf8(onward.head(&headers).to_vec()).unwrap().replace("Cookie: ", "cookie: ");
            let sent: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("cookie: ")).collect();
            assert_eq!(sent, rest);
            let fields = onward.fields(&headers);
            assert_eq!(fields.get_all(header::COOKIE).iter().collect::<Vec<_>>(), rest, "{lines:?}");
        }
        // As they came.
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1"));
        headers.append(header::COOKIE, HeaderValue::from_static("b=2"));
        assert_eq!(onward.fields(&headers).get_all(header::COOKIE).iter().count(), 2);
    }

    proptest! {
        #[test]
        fn a_host_leads_to_one_tunnel_however_it_is_written(host in hosts(), path in targets(), port in any::<u16>()) {
            for routes in [routes(None), routes(Some("x.io"))] {
                let route = routes.route(&host, &path);
                if let Route::Host(name) | Route::Path(name) = &route {
                    prop_assert!(!name.contains('/') && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
                }
                if !is_valid_host(&host) || host.contains(':') || host.ends_with('.') {
                    continue;
                }
                for same in [
                    host.to_ascii_uppercase(),
                    host.to_ascii_lowercase(),
                    format!("{host}:{port}"),
                    format!("{host}."),
                    format!("{host}.:{port}"),
                ] {
                    prop_assert_eq!(&routes.route(&same, &path), &route, "{}", same);
                }
            }
        }

        #[test]
        fn the_tunnels_of_two_names_are_never_one(one in "[a-z0-9]{2,8}", other in "[a-z0-9]{2,8}", path in targets()) {
            let routes = routes(Some("x.io"));
            let (by_one, by_other) = (format!("{one}.x.io"), format!("{other}.x.io"));
            prop_assert_eq!(routes.route(&by_one, &path) == routes.route(&by_other, &path), one == other);
            let (by_one, by_other) = (format!("/t/{one}{path}"), format!("/t/{other}{path}"));
            prop_assert_eq!(routes.route("x.io", &by_one) == routes.route("x.io", &by_other), one == other);
        }

        #[test]
        fn a_prefix_is_taken_off_and_nothing_else_is_changed(name in "[A-Za-z0-9-]{2,10}", rest in "(|/|\\?|/[ -~&&[^ #]]{0,20}|\\?[a-z/=]{0,9})") {
            let target = format!("/t/{name}{rest}");
            let Route::Path(routed) = routes(None).route("anything", &target) else { panic!("{target}") };
            prop_assert_eq!(&routed, &name.to_ascii_lowercase());
            let (prefix, seen) = split_target(&target, Some(PATH_PREFIX.len() + routed.len()));
            prop_assert_eq!(prefix, Some(&*format!("/t/{name}")));
            prop_assert_eq!(seen, if rest.starts_with('/') { rest } else { format!("/{rest}") });
        }

        #[test]
        fn nothing_that_a_header_says_makes_another_line_or_a_second_framing(
            headers in headers(),
            method in "(GET|POST|DELETE|PROPFIND)",
            target in targets(),
            body in bodies(),
            upgrade in any::<bool>(),
            by_path in any::<bool>(),
        ) {
            let (host, via) = (HeaderValue::from_static("x.io:80"), HeaderValue::from_static("us"));
            let (method, upgrade) = (Method::from_bytes(method.as_bytes()).unwrap(), upgrade.then(|| HeaderValue::from_static("websocket")));
            let onward = Onward {
                method: &method,
                target: &target,
                prefix: by_path.then_some("/t/web"),
                guarded: true,
                body,
                upgrade: upgrade.as_ref(),
                ..Onward::plain(&host, &via)
            };
            let head = onward.head(&headers);
            let mut lines = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut lines);
            prop_assert_eq!(parsed.parse(&head), Ok(httparse::Status::Complete(head.len())));
            prop_assert_eq!((parsed.method, parsed.path), (Some(method.as_str()), Some(&*target)));
            let of = |name: &str| parsed.headers.iter().filter(|line| line.name.eq_ignore_ascii_case(name))
                .map(|line| line.value.to_vec()).collect::<Vec<_>>();
            prop_assert_eq!(of("host"), [b"x.io:80"]);
            let framing = match body {
                RequestBody::None => vec![],
                RequestBody::Length(length) => vec![length.to_string().into_bytes()],
                RequestBody::Chunked => vec![b"chunked".to_vec()],
            };
            prop_assert_eq!([of("content-length"), of("transfer-encoding")].concat(), framing);
            prop_assert_eq!(of("x-forwarded-for"), [b"192.0.2.1"]);
            prop_assert_eq!(of("x-forwarded-prefix").len(), usize::from(by_path));
            for name in ["keep-alive", "proxy-connection", "http2-settings", "proxy-authorization", "forwarded", "authorization", "x-real-ip"] {
                prop_assert!(of(name).is_empty(), "{}", name);
            }
            // Whatever else goes on is what came, value by value.
            for line in parsed.headers.iter().filter(|line| line.name.starts_with("x-") && !line.name.starts_with("x-forwarded")) {
                let came: Vec<_> = headers.get_all(line.name).iter().map(|value| value.as_bytes().trim_ascii()).collect();
                prop_assert!(came.contains(&line.value), "{}", line.name);
            }
            prop_assert_eq!(memchr::memchr_iter(b'\n', &head).count(), parsed.headers.len() + 2);
        }
    }
}
