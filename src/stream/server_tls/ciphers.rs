//! Which of the ciphers that a viewer offers it likes best.

use rustls::CipherSuite;

/// Whether the first that is known here is AES (RFC 8446, section 4.1.2: in the order of the viewer's preference).
/// Viewers without instructions for AES put ChaCha20 first.
pub fn prefers_aes(offered: &[CipherSuite]) -> bool {
    offered.iter().find_map(|suite| is_aes(*suite)).unwrap_or(false)
}

/// With 128 bits, and so with SHA-256.
pub fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// `None`: none of those that are spoken here.
fn is_aes(suite: CipherSuite) -> Option<bool> {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(true),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(false),
        _ => is_aes_128(suite).then_some(true),
    }
}
