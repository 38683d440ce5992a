//! How the relay is called from outside: its public URL, and the domain below which tunnels are.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::proto::hostname;

/// Origin of the relay as viewers and clients see it: `http` or `https`, a host and perhaps a port, no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    https: bool,
    host: String,
    port: Option<u16>,
}

impl PublicUrl {
    /// Reads `http(s)://HOST[:PORT]`; one slash at the end is taken off. The error says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let error = || "write http:// or https://, a host and perhaps :PORT, without a path".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| error())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(error()),
        };
        let authority = uri.authority().ok_or_else(error)?;
        // `Uri` keeps no fragment and calls an absent path "/", so both are looked for in the text.
        if authority.as_str().contains('@')
            || uri.query().is_some()
            || uri.path() != "/"
            || text.contains('#')
        {
            return Err(error());
        }
        let host = authority.host();
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match literal {
            Some(ip) => format!("[{}]", ip.parse::<Ipv6Addr>().map_err(|_| error())?),
            None if host.parse::<Ipv4Addr>().is_ok() => host.to_owned(),
            None => hostname::parse(host)?,
        };
        // What follows the host is nothing or a port; an empty or too large one would pass for none.
        let port = match &authority.as_str()[authority.host().len()..] {
            "" => None,
            rest => match rest.strip_prefix(':').unwrap_or_default().parse() {
                Ok(0) | Err(_) => {
                    return Err(format!("{rest:?} is no port; write :1 to :65535, or leave it out"));
                }
                Ok(port) => Some(port),
            },
        };
        // The port that goes without saying is not said, as in browsers.
        let port = port.filter(|port| *port != if https { 443 } else { 80 });
        Ok(Self { https, host, port })
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// The host in lower case; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, unless it is the scheme's own.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Checks a base domain; returns it in lower case, without the dot that may stand at its end. The error says
/// what is expected.
pub fn base_domain(text: &str) -> Result<String, String> {
    if text.contains("://") || text.contains('/') {
        return Err("write the host name alone, such as tunnels.example.com".into());
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err("an address has no names below it; write a host name".into());
    }
    if text.contains(':') {
        return Err(
            "write the host name without a port; the port in public URLs is that of public-url".into()
        );
    }
    let name = hostname::parse(text)?;
    // Room for a tunnel's name of 63 characters and a dot, within the 253 of DNS.
    if name.len() > 253 - 64 {
        Err("at most 189 characters, so that names fit before it".into())
    } else {
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_an_origin() {
        for (text, written) in [
            ("https://Relay.Example.com", "https://relay.example.com"),
            ("https://relay.example.com/", "https://relay.example.com"),
            ("https://relay.example.com:443", "https://relay.example.com"),
            ("http://relay.example.com.:8080", "http://relay.example.com:8080"),
            ("http://127.0.0.1:443", "http://127.0.0.1:443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("https://[0:0::1]", "https://[::1]"),
        ] {
            assert_eq!(PublicUrl::parse(text).map(|url| url.to_string()), Ok(written.into()), "{text}");
        }
        for bad in [
            "",
            "relay.example.com",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://a/?",
            "https://a?b",
            "https://a/#b",
            "https://a#",
            "https://u@a",
            "https://a:",
            "https://a:0",
            "https://a:65536",
            "https://a:80:80",
            "https://[::1",
            "https://[x]",
            "https://a_b",
            "https://a..b",
            "https:// a",
        ] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_base_domain_is_a_host_name_in_lower_case() {
        assert_eq!(base_domain("Tunnels.Example.com."), Ok("tunnels.example.com".into()));
        assert_eq!(base_domain("localhost"), Ok("localhost".into()));
        for bad in
            ["", ".", "a..b", "-a.b", "10.0.0.1", "::1", "a:80", "http://a", "a/b", "*.a", "ä.de", "a b"]
        {
            assert!(base_domain(bad).is_err(), "{bad}");
        }
        assert!(base_domain(&["a".repeat(63), "b".repeat(63), "c".repeat(62)].join(".")).is_err());
    }
}
