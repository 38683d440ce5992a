//! How users write a target.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::{At, Speaks, Target};
use crate::proto::api::{Proto, ProxyProtocol};

/// Why a target as written was refused; the text says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseTargetError {
    /// Nothing was written.
    #[error("a target is missing: write a port such as 3000, host:port, http://host:port or unix:/path")]
    Empty,
    /// No port from 1 to 65535.
    #[error("{0:?} is no port: write a number from 1 to 65535")]
    Port(String),
    /// A host alone.
    #[error("the target {0:?} has no port: write {0}:3000, or http://{0} for port 80")]
    NoPort(String),
    /// The same where no port goes without saying.
    #[error("the target {0:?} has no port: write {0}:5432, for example")]
    NoRawPort(String),
    /// An IPv6 address without brackets.
    #[error("write IPv6 addresses in brackets, such as [::1]:3000")]
    Brackets,
    /// Another scheme.
    #[error("a target cannot begin with {0}://: write http://, https:// or unix:/path")]
    Scheme(String),
    /// A scheme where bytes are passed on as they are.
    #[error(
        "{0:?}: a tunnel of bytes leads to HOST:PORT, a port or unix:/path; for http:// there is `adit http`"
    )]
    NoScheme(String),
    /// A path or query.
    #[error(
        "a target has no path or query, but {0:?} does: the whole server is exposed, and viewers add the path to the \
         public URL"
    )]
    Path(String),
    /// `user:password@`.
    #[error("a target has no user or password in it: viewers send their own")]
    User,
    /// A Unix socket by a relative path.
    #[error("write the whole path of the Unix socket, such as unix:/run/app.sock")]
    RelativePath,
    /// TLS would begin before the header.
    #[error(
        "a PROXY header cannot be sent to an https:// target: it would come inside TLS; expose it with `adit tcp`"
    )]
    HeaderInTls,
    /// Not readable.
    #[error("{0:?} is no host name or address")]
    Host(String),
}

impl Target {
    /// Reads `3000`, `host:port`, `[::1]:3000`, `http://host[:port]`, `https://host[:port]`, `unix:/path` or the
    /// absolute path of a Unix socket.
    pub fn parse(text: &str) -> Result<Self, ParseTargetError> {
        Self::read(text, false)
    }

    /// The same for tunnels of this kind. Where bytes are passed on as they are, there is no `http://` and no `https://`.
    pub fn parse_for(proto: Proto, text: &str) -> Result<Self, ParseTargetError> {
        Self::read(text, proto.is_raw())
    }

    fn read(text: &str, raw: bool) -> Result<Self, ParseTargetError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ParseTargetError::Empty);
        }
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            if !path.starts_with('/') {
                return Err(ParseTargetError::RelativePath);
            }
            let path = format!("/{}", path.trim_start_matches('/'));
            let speaks = if raw { Speaks::Bytes } else { Speaks::Http };
            return Ok(Self { speaks, http2: false, at: At::Unix(PathBuf::from(path)) });
        }
        let (speaks, usual, rest) = match text.split_once("://") {
            None if raw => (Speaks::Bytes, None, text),
            None => (Speaks::Http, None, text),
            Some(_) if raw => return Err(ParseTargetError::NoScheme(text.to_owned())),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Speaks::Http, Some(80), rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Speaks::Https, Some(443), rest),
            Some((scheme, _)) => return Err(ParseTargetError::Scheme(scheme.to_owned())),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(ParseTargetError::Path(text.to_owned()));
        }
        if authority.contains('@') {
            return Err(ParseTargetError::User);
        }
        let (host, port) = split(authority)?;
        let port = match (port, usual) {
            (Some(port), _) => match port.parse() {
                Ok(number) if number != 0 => number,
                _ => return Err(ParseTargetError::Port(port.to_owned())),
            },
            (None, Some(usual)) => usual,
            (None, None) if raw => return Err(ParseTargetError::NoRawPort(authority.to_owned())),
            (None, None) => return Err(ParseTargetError::NoPort(authority.to_owned())),
        };
        Ok(Self { speaks, http2: false, at: At::Tcp { host, port } })
    }
}

impl Target {
    /// Whether a connection to it may begin with a PROXY header; the error says why not.
    pub fn check_proxy_protocol(&self, version: Option<ProxyProtocol>) -> Result<(), ParseTargetError> {
        if version.is_some() && self.speaks == Speaks::Https {
            return Err(ParseTargetError::HeaderInTls);
        }
        Ok(())
    }
}

/// Host without brackets, and port.
fn split(authority: &str) -> Result<(String, Option<&str>), ParseTargetError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(ParseTargetError::Brackets)?;
        let host: Ipv6Addr = host.parse().map_err(|_| ParseTargetError::Host(host.to_owned()))?;
        let port = after.strip_prefix(':');
        if port.is_none() && !after.is_empty() {
            return Err(ParseTargetError::Brackets);
        }
        return Ok((host.to_string(), port));
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(ParseTargetError::Brackets);
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None if !authority.is_empty() && authority.bytes().all(|byte| byte.is_ascii_digit()) => {
            ("", Some(authority))
        }
        None => (authority, None),
    };
    let host = if host.is_empty() && port.is_some() { "localhost" } else { host };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    // Digits alone would be shown as `http://30`, which is port 30; who writes `30:80` means something else.
    if !host.bytes().all(plain) || host.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseTargetError::Host(host.to_owned()));
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_target() {
        for (text, shown, authority) in [
            ("3000", "http://localhost:3000", "localhost:3000"),
            (":3000", "http://localhost:3000", "localhost:3000"),
            ("my-host_1.lan:80", "http://my-host_1.lan", "my-host_1.lan"),
            ("[::1]:3000", "http://[::1]:3000", "[::1]:3000"),
            ("http://app", "http://app", "app"),
            ("HTTP://app:8080/", "http://app:8080", "app:8080"),
            ("https://app", "https://app", "app"),
            ("https://[::1]:80", "https://[::1]:80", "[::1]:80"),
            ("unix:/run/app.sock", "unix:/run/app.sock", "localhost"),
            ("unix:///run/app.sock", "unix:/run/app.sock", "localhost"),
            ("/run/app.sock", "unix:/run/app.sock", "localhost"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.to_string(), target.authority()), (shown.into(), authority.into()), "{text}");
        }
    }

    #[test]
    fn a_target_of_bytes_has_a_port_and_no_scheme() {
        for (text, shown) in
            [("5432", "tcp://localhost:5432"), ("db:80", "tcp://db:80"), ("unix:/run/x", "unix:/run/x")]
        {
            assert_eq!(Target::parse_for(Proto::Tcp, text).unwrap().to_string(), shown);
        }
        for (text, part) in
            [("http://db", "adit http"), ("tcp://db:1", "HOST:PORT"), ("db", "db:5432"), ("0", "1 to 65535")]
        {
            let error = Target::parse_for(Proto::Tls, text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused_with_the_right_sentence() {
        for (text, part) in [
            ("", "missing"),
            ("0", "1 to 65535"),
            ("70000", "1 to 65535"),
            ("app:http", "1 to 65535"),
            ("localhost", "localhost:3000"),
            ("::1", "brackets"),
            ("::1:3000", "brackets"),
            ("[::1", "brackets"),
            ("[::1]x", "brackets"),
            ("[app]:1", "host name"),
            ("ftp://app", "ftp://"),
            ("http://app/path", "no path"),
            ("app:80/?q=1", "no path"),
            ("http://u:p@app", "password"),
            ("unix:app.sock", "whole path"),
            ("a b:80", "host name"),
            ("30:80", "host name"),
            ("http://", "host name"),
        ] {
            let error = Target::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
