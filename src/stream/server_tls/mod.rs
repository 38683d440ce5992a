//! TLS of connections that come in: certificates as they stand in files, and how a handshake begins.

mod certificates;
pub mod ciphers;
mod files;
mod hello;

pub use certificates::{Certificate, CertificateError, Certificates};
pub use files::{Files, Pair};
pub use hello::Hello;

/// HTTP/2 in ALPN (RFC 9113, section 3.2).
pub const ALPN_H2: &[u8] = b"h2";
/// HTTP/1.1 in ALPN (RFC 7301, section 6).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
/// TLS-ALPN-01 in ALPN (RFC 8737, section 3).
pub const ALPN_CHALLENGE: &[u8] = b"acme-tls/1";
