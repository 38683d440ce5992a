//! Where a WebSocket leads to: a TCP port or a Unix socket.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A place that WebSockets are connected to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A port of a host; all of its addresses are tried.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a text names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It has no port, no host, or no path.
    #[error("a target is HOST:PORT, [IPV6]:PORT or unix_socket:PATH, and not {0:?}")]
    Form(String),
    /// What stands behind the last colon is no port.
    #[error("{0:?} is no port: a number from 1 to 65535 stands behind the last colon")]
    Port(String),
}

impl FromStr for Target {
    type Err = TargetError;

    /// `host:port`, `[::1]:5900`, `::1:5900` (the last colon counts) or `unix_socket:PATH`.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let form = || TargetError::Form(text.to_owned());
        if let Some(path) = text.strip_prefix("unix_socket:") {
            return if path.is_empty() { Err(form()) } else { Ok(Self::Unix(path.into())) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(form());
        }
        // A sign is taken by the number, and none of ours.
        let number = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if number && port != 0 => Ok(Self::Tcp { host: host.to_owned(), port }),
            _ => Err(TargetError::Port(port.to_owned())),
        }
    }
}

impl fmt::Display for Target {
    /// As it may be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix_socket:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_websockify_is_read_and_shown_again() {
        for (text, shown) in [
            ("localhost:5900", "localhost:5900"),
            ("[::1]:5900", "[::1]:5900"),
            ("::1:5900", "[::1]:5900"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("unix_socket:/run/x y.sock", "unix_socket:/run/x y.sock"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), shown);
            assert_eq!(shown.parse(), Ok(target));
        }
        for text in ["", "5900", ":5900", "a b:1", "unix_socket:", "http://x:80", "[]:1"] {
            assert!(matches!(text.parse::<Target>(), Err(TargetError::Form(_))), "{text}");
        }
        for text in ["x:", "x:0", "x:65536", "x:+1", "x:http"] {
            assert!(matches!(text.parse::<Target>(), Err(TargetError::Port(_))), "{text}");
        }
    }
}
