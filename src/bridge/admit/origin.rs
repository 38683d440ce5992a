//! From which pages a browser may come (`ExpectOrigin`; the `Origin` header, RFC 6454). It keeps other people's pages out,
//! and not programs, which write what they like.

use http::uri::Authority;
use http::{HeaderMap, header};

use super::{Refusal, forbidden};

/// The list of those that may.
pub(super) struct Origins(Vec<Entry>);

/// One entry: `[SCHEME://]HOST[:PORT]`. The host is `*` for any, or `*.` and the end of a name; without a scheme it is any;
/// without a port it is the scheme's own, and `*` is any.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    scheme: Option<String>,
    host: String,
    port: Port,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    Usual,
    Any,
    Number(u16),
}

impl Origins {
    pub(super) fn new(source: &str) -> Result<Self, String> {
        let entry = |text| {
            Entry::read(text).ok_or_else(|| {
                format!("{text:?} is no origin: write https://example.com, https://example.com:8443, *.example.com or localhost:*")
            })
        };
        let entries: Vec<Entry> = source.split_whitespace().map(entry).collect::<Result<_, _>>()?;
        if entries.is_empty() {
            return Err("write the origins that are let in, with spaces between them".to_owned());
        }
        Ok(Self(entries))
    }

    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut given = headers.get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (given.next(), given.next()) else {
            return Err(forbidden(
                "a browser says which page it comes from (Origin), and this request does not",
            ));
        };
        let read = origin.to_str().ok().and_then(Origin::read);
        if read.is_some_and(|origin| self.0.iter().any(|entry| entry.fits(&origin))) {
            return Ok(());
        }
        Err(forbidden("the page that this request comes from is not among those that are let in"))
    }
}

/// What a browser says.
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let authority: Authority = rest.parse().ok()?;
        if authority.as_str().contains('@') || scheme.is_empty() {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        // A port that is none is no port of the scheme.
        let port =
            if authority.as_str() == authority.host() { usual(&scheme) } else { Some(authority.port_u16()?) };
        Some(Self { scheme, host: authority.host().to_ascii_lowercase(), port })
    }
}

fn usual(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl Entry {
    fn read(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_owned()), rest),
            None => (None, text.as_str()),
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, "*")) => (host, Port::Any),
            Some((host, port)) if !port.ends_with(']') => (host, Port::Number(port.parse().ok()?)),
            _ => (rest, Port::Usual),
        };
        let name = host.strip_prefix("*.").unwrap_or(host);
        let good = name == "*" || name.parse::<Authority>().is_ok_and(|authority| authority.host() == name);
        let good = good && !name.is_empty() && (host == "*" || !name.contains('*'));
        good.then(|| Self { scheme, host: host.to_owned(), port })
    }

    fn fits(&self, origin: &Origin) -> bool {
        let scheme = self.scheme.as_ref().is_none_or(|scheme| *scheme == origin.scheme);
        let host = match self.host.strip_prefix('*') {
            Some("") => true,
            Some(end) => origin.host.len() > end.len() && origin.host.ends_with(end),
            None => origin.host == self.host,
        };
        let port = match self.port {
            Port::Any => true,
            Port::Usual => origin.port == usual(&origin.scheme),
            Port::Number(port) => origin.port == Some(port),
        };
        scheme && host && port
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn admitted(list: &str, origin: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        Origins::new(list).unwrap().check(&headers).is_ok()
    }

    #[test]
    fn an_origin_is_whole_or_a_name_below_one() {
        for (list, origin, good) in [
            ("https://a.test", "https://a.test", true),
            ("https://a.test", "HTTPS://A.test", true),
            ("https://a.test", "https://a.test:443", true),
            ("https://a.test:443", "https://a.test", true),
            ("https://a.test", "http://a.test", false),
            ("https://a.test", "https://a.test:8443", false),
            ("https://a.test:8443", "https://a.test:8443", true),
            ("https://a.test", "https://evil-a.test", false),
            ("https://a.test", "https://a.test.evil.test", false),
            ("https://a.test", "https://a.test@evil.test", false),
            ("https://a.test", "null", false),
            ("x.test https://a.test", "https://a.test", true),
            ("a.test", "http://a.test", true),
            ("a.test", "https://a.test:8443", false),
            ("a.test:*", "https://a.test:8443", true),
            ("*.a.test", "https://b.a.test", true),
            ("*.a.test", "https://c.b.a.test", true),
            ("*.a.test", "https://a.test", false),
            ("*.a.test", "https://ba.test", false),
            ("https://*.a.test:*", "https://b.a.test:1", true),
            ("https://*", "https://any.test", true),
            ("https://*", "http://any.test", false),
            ("*", "moz-extension://5", true),
            ("*:*", "https://any.test:5", true),
            ("http://[::1]:80", "http://[::1]", true),
            ("http://[::1]", "http://[::1]:81", false),
        ] {
            assert_eq!(admitted(list, origin), good, "{list} {origin}");
        }
    }

    #[test]
    fn no_origin_and_two_are_refused() {
        let origins = Origins::new("*:*").unwrap();
        let mut headers = HeaderMap::new();
        assert!(origins.check(&headers).is_err());
        headers.append(header::ORIGIN, HeaderValue::from_static("https://a.test"));
        assert!(origins.check(&headers).is_ok());
        headers.append(header::ORIGIN, HeaderValue::from_static("https://b.test"));
        assert!(origins.check(&headers).is_err());
    }

    #[test]
    fn what_is_no_origin_is_told_at_the_start() {
        for bad in [
            "",
            "https://",
            "https://a.test/path",
            "a.*.test",
            "**.test",
            "https://a.test:x",
            "u@a.test",
            "*a.test",
        ] {
            assert!(Origins::new(bad).is_err(), "{bad}");
        }
    }
}
