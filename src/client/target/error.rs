//! Why a target could not be reached, and what most likely helps.

use std::io::{self, ErrorKind};

use super::Target;

/// What kept us from the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The name has no address.
    Unresolved,
    /// The operating system does not let us.
    Denied,
    /// There is no such Unix socket.
    NoSocket,
    /// The target does not speak TLS, though it was written as `https`.
    NotTls,
    /// The target speaks TLS, though it was not written as `https`.
    NotPlain,
    /// The target speaks TLS, but not HTTP/2, which it was said to speak.
    NotHttp2,
    /// The target's certificate was not accepted.
    Certificate,
    /// TLS failed otherwise.
    Tls,
    /// Anything else.
    Other,
}

/// Why the target could not be used: address, error and, by [`TargetError::fix`], the likely remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot reach {target}: {error}")]
#[non_exhaustive]
pub struct TargetError {
    /// The target as it is shown to users.
    pub target: String,
    /// What kind of trouble it is.
    pub fault: Fault,
    /// The operating system's or TLS library's words.
    pub error: String,
}

impl TargetError {
    pub(in crate::client) fn new(target: &Target, fault: Fault, error: String) -> Self {
        Self { target: target.to_string(), fault, error }
    }

    pub(super) fn from_io(target: &Target, error: &io::Error) -> Self {
        let fault = match error.kind() {
            ErrorKind::ConnectionRefused => Fault::Refused,
            ErrorKind::TimedOut => Fault::TimedOut,
            ErrorKind::PermissionDenied => Fault::Denied,
            ErrorKind::NotFound => Fault::NoSocket,
            _ => Fault::Other,
        };
        Self::new(target, fault, error.to_string())
    }

    /// The same error with the addresses that were tried.
    pub(super) fn at(self, addresses: &str) -> Self {
        Self { error: format!("{}, at {addresses}", self.error), ..self }
    }

    /// What most likely helps, as a sentence.
    pub fn fix(&self) -> &'static str {
        match self.fault {
            Fault::Refused => "Nothing listens there: start your server, or check the port.",
            Fault::TimedOut => "The machine does not answer: check the address, and firewalls on the way.",
            Fault::Unresolved => "That host name was not found: check its spelling, or use an address.",
            Fault::Denied => "You may not open that socket: check its permissions.",
            Fault::NoSocket => "There is no such socket: start your server, or check the path.",
            Fault::NotTls => "The server speaks plain HTTP: write http:// instead of https://.",
            Fault::NotPlain => "The server speaks TLS: write https:// before the target.",
            Fault::NotHttp2 => "The server does not speak HTTP/2: leave out --target-proto h2.",
            Fault::Certificate => {
                "The server's certificate is not trusted here: set SSL_CERT_FILE to that of its authority."
            }
            Fault::Tls => "TLS with the server failed: check that it is meant to be reached by https://.",
            Fault::Other => "Check that your server runs and can be reached from this machine.",
        }
    }

    /// A short name for programs.
    pub fn code(&self) -> &'static str {
        match self.fault {
            Fault::Refused => "refused",
            Fault::TimedOut => "timed_out",
            Fault::Unresolved => "host_not_found",
            Fault::Denied => "permission_denied",
            Fault::NoSocket => "no_socket",
            Fault::NotTls => "not_tls",
            Fault::NotPlain => "not_plain",
            Fault::NotHttp2 => "not_http2",
            Fault::Certificate => "certificate",
            Fault::Tls => "tls",
            Fault::Other => "other",
        }
    }
}
