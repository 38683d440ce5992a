//! TLS of viewers and clients: the relay's certificates, and handshakes with whoever comes in.

pub use crate::stream::server_tls::{
    ALPN_CHALLENGE, ALPN_H2, Certificate, CertificateError, Certificates, Hello, Pair,
};

use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tokio::time::sleep;

use crate::proto::limits::tls::LOOK_EVERY;
use crate::relay::config::RelayConfig;
use crate::stream::server_tls::{ALPN_HTTP1, Files, ciphers};
use crate::sync::lock;

/// Why a relay cannot speak TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file of the configuration.
    #[error("tls-cert, tls-key: {0}")]
    Certificate(#[from] CertificateError),
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// All that handshakes need.
pub struct Tls {
    /// What is shown to viewers.
    pub certificates: Arc<Certificates>,
    files: Mutex<Files>,
    /// Versions 1.2 and 1.3, tickets, ALPN; the viewer's order of ciphers holds.
    config: Arc<ServerConfig>,
    /// The same, but AES with 128 bits goes before AES with 256.
    aes_128_first: Arc<ServerConfig>,
}

impl Tls {
    /// What `config` says; `None`: the relay speaks no TLS.
    pub fn open(config: &RelayConfig) -> Result<Option<Self>, TlsError> {
        if !config.has_tls() {
            return Ok(None);
        }
        let (files, loaded) = Files::open(&config.tls_files(), &config.tls_given)?;
        let certificates = Arc::new(Certificates::new(loaded));
        let mut provider = aws_lc_rs::default_provider();
        // The sort is stable: versions stay as they were among each other.
        provider.cipher_suites.sort_by_key(|suite| !ciphers::is_aes_128(suite.suite()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as _);
        config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
        // Without state of ours: a viewer that comes back needs no full handshake, however many there are.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        let mut aes_128_first = config.clone();
        aes_128_first.ignore_client_order = true;
        Ok(Some(Self {
            certificates,
            files: Mutex::new(files),
            config: Arc::new(config),
            aes_128_first: Arc::new(aes_128_first),
        }))
    }

    /// For the viewer that has said `hello`.
    ///
    /// One that puts AES first, as those with instructions for it do, gets AES with 128 bits if it has that: with it goes
    /// SHA-256, which has instructions as well. SHA-384 has none, and is two fifths of what a handshake costs with it.
    pub fn config(&self, hello: &Hello) -> Arc<ServerConfig> {
        Arc::clone(if hello.prefers_aes { &self.aes_128_first } else { &self.config })
    }

    /// Takes up what has changed in the files. What cannot be used is told in the log, and the one before stays.
    pub fn reload(&self) {
        lock(&self.files).look(|loaded| self.certificates.set_files(loaded));
    }

    /// The same now and then, until it is dropped.
    pub async fn reload_now_and_then(self: Arc<Self>) {
        loop {
            sleep(LOOK_EVERY).await;
            self.reload();
        }
    }
}
