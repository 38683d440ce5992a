//! TLS configurations that are made once in a process, and what a failed handshake means.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::{CertificateError, ClientConfig};
use tokio_rustls::TlsConnector;

pub(super) use crate::stream::tls::trusting;
use crate::stream::tls::{self, TlsError};

/// Verifies against the certificates of the system, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, read once.
pub(super) fn verified() -> Result<TlsConnector, TlsError> {
    static MADE: OnceLock<TlsConnector> = OnceLock::new();
    once(&MADE, tls::verified)
}

/// Takes any certificate: for loopback addresses, and for whoever asks for it.
pub(super) fn unverified() -> Result<TlsConnector, TlsError> {
    static MADE: OnceLock<TlsConnector> = OnceLock::new();
    once(&MADE, tls::unverified)
}

/// What HTTP/2 is called in ALPN.
pub(super) const HTTP2: &[u8] = b"h2";

/// The same, offering HTTP/2 and nothing else.
pub(super) fn offering_http2(connector: &TlsConnector) -> TlsConnector {
    let mut config = ClientConfig::clone(connector.config());
    config.alpn_protocols = vec![HTTP2.to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn once(
    made: &OnceLock<TlsConnector>,
    make: fn() -> Result<TlsConnector, TlsError>,
) -> Result<TlsConnector, TlsError> {
    match made.get() {
        Some(connector) => Ok(connector.clone()),
        None => make().map(|connector| made.get_or_init(|| connector).clone()),
    }
}

/// The rustls error inside that of a failed handshake.
pub(super) fn error_of(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// What went wrong, in words that help.
pub(super) fn words(error: &io::Error) -> String {
    match error_of(error) {
        // Made by `openssl req -x509` alone; the library's own words name a variant of an enum.
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            "its certificate is an authority's (CA:TRUE): give the relay one that is not, with openssl's -addext \
             basicConstraints=critical,CA:FALSE"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// The other end answered in something that is no TLS, most likely plain HTTP.
pub(super) fn is_not_tls(error: &io::Error) -> bool {
    matches!(error_of(error), Some(rustls::Error::InvalidMessage(_)))
}
