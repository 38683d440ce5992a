//! The address of a relay as users write it: `https://relay.example.com`, `http://127.0.0.1:8080`, `wss://…`.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

/// Why a relay's address was refused; the text says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelayUrlError {
    /// No `http://`, `https://`, `ws://` or `wss://` in front.
    #[error("the relay {0:?} needs a scheme: write https://{0}, or http://{0} for one without TLS")]
    NoScheme(String),
    /// Another scheme.
    #[error("the relay's address begins with {0}://, which Adit does not speak: write https:// or http://")]
    Scheme(String),
    /// A path, a query or a fragment.
    #[error(
        "the relay's address has a path ({0}): relays live at the root of their host, so write only \
         https://HOST[:PORT]"
    )]
    Path(String),
    /// `user:password@`.
    #[error("the relay's address must hold no user or password: give the key as ADIT_KEY or --key")]
    User,
    /// Not readable as a URL at all.
    #[error("the relay's address {0:?} is malformed: write for example https://relay.example.com")]
    Malformed(String),
}

/// Origin of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayUrl {
    tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// As it stands in `Host`.
    authority: String,
}

impl RelayUrl {
    /// Reads `http`, `https`, `ws` or `wss` URLs; a slash at the end is tolerated.
    pub fn parse(text: &str) -> Result<Self, RelayUrlError> {
        let text = text.trim();
        let malformed = || RelayUrlError::Malformed(text.to_owned());
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(if text.is_empty() { malformed() } else { RelayUrlError::NoScheme(text.to_owned()) });
        };
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" | "wss" => true,
            "http" | "ws" => false,
            _ => return Err(RelayUrlError::Scheme(scheme.to_owned())),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if !path.bytes().all(|byte| byte == b'/') {
            return Err(RelayUrlError::Path(path.to_owned()));
        }
        if authority.contains('@') {
            return Err(RelayUrlError::User);
        }
        let authority: http::uri::Authority = authority.parse().map_err(|_| malformed())?;
        let host = authority.host();
        if host.is_empty() {
            return Err(malformed());
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let usual = if tls { 443 } else { 80 };
        let port = match &authority.as_str()[authority.host().len()..] {
            "" => usual,
            port => port[1..].parse().ok().filter(|port| *port != 0).ok_or_else(malformed)?,
        };
        let shown = if port == usual { authority.host() } else { authority.as_str() };
        Ok(Self { tls, host: host.to_ascii_lowercase(), port, authority: shown.to_ascii_lowercase() })
    }

    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Name or address, the latter without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and, where it is not the usual one, port: the value of `Host`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether the relay is on this machine.
    pub fn is_loopback(&self) -> bool {
        is_local_name(&self.host) || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The URL of `path_and_query`, which begins with a slash; `None` if that is malformed.
    pub fn uri(&self, path_and_query: &str) -> Option<Uri> {
        let scheme = if self.tls { "https" } else { "http" };
        let builder = Uri::builder().scheme(scheme).authority(self.authority.as_str());
        builder.path_and_query(path_and_query).build().ok()
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

/// `localhost` and names below it: this machine, whatever a resolver thinks (RFC 6761, section 6.3).
pub fn is_local_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let tail = host.len().checked_sub("localhost".len());
    tail.is_some_and(|at| {
        host.is_char_boundary(at)
            && host[at..].eq_ignore_ascii_case("localhost")
            && (at == 0 || host[..at].ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_in_any_of_the_four_schemes() {
        for (text, shown, host, port) in [
            ("https://Relay.example.com/", "https://relay.example.com", "relay.example.com", 443),
            ("wss://relay.example.com:443", "https://relay.example.com", "relay.example.com", 443),
            ("ws://127.0.0.1:8080//", "http://127.0.0.1:8080", "127.0.0.1", 8080),
            (" http://[::1]:8080 ", "http://[::1]:8080", "::1", 8080),
            ("http://[::1]", "http://[::1]", "::1", 80),
        ] {
            let url = RelayUrl::parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.host(), url.port()), (shown, host, port), "{text}");
        }
        let uri = RelayUrl::parse("wss://a:81/").unwrap().uri("/ws/data?id=x").unwrap();
        assert_eq!(uri.to_string(), "https://a:81/ws/data?id=x");
    }

    #[test]
    fn what_is_no_origin_is_refused_with_the_right_sentence() {
        for (text, part) in [
            ("relay.example.com", "write https://relay.example.com"),
            ("localhost:8080", "http://localhost:8080 for one without TLS"),
            ("ftp://a", "ftp://"),
            ("https://a/adit", "has a path (/adit)"),
            ("https://a/?x=1", "has a path"),
            ("https://u:p@a", "ADIT_KEY"),
            ("https://", "malformed"),
            ("http://:80", "malformed"),
            ("https://a:0", "malformed"),
            ("https://a:b", "malformed"),
            ("https://a b", "malformed"),
            ("", "malformed"),
        ] {
            let error = RelayUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn loopback_is_recognised() {
        for (host, loopback) in [
            ("localhost", true),
            ("a.localhost", true),
            ("notlocalhost", false),
            ("127.9.9.9", true),
            ("[::1]", true),
        ] {
            assert_eq!(RelayUrl::parse(&format!("http://{host}")).unwrap().is_loopback(), loopback, "{host}");
        }
    }
}
