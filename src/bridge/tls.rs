//! TLS of viewers: the certificate, looked at again as handshakes come, and what is asked of theirs.

use std::io;
use std::sync::{Arc, Mutex};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::config::{Authorities, ServerTls};
use crate::proto::limits::bridge::CERTIFICATE_LOOK_EVERY;
use crate::stream::server_tls::{ALPN_H2, ALPN_HTTP1, CertificateError, Certificates, Files, Hello};
use crate::sync::lock;

/// Why a bridge cannot speak TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate or its key.
    #[error("cert, key: {0}")]
    Certificate(#[from] CertificateError),
    /// A suite of TLS that is not known here.
    #[error(
        "ssl-ciphers: {name:?} is no suite of TLS that is spoken here, and no expression of OpenSSL is read: name suites \
         one by one, out of {known}"
    )]
    Suite {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The file with authorities for viewers.
    #[error("cafile: {path} has no certificates of authorities: {error}")]
    Authorities {
        /// The file.
        path: String,
        /// What is wrong with it.
        error: String,
    },
    /// The library refuses.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
    /// The library refuses the authorities.
    #[error("cafile: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// All that handshakes need.
pub(super) struct Tls {
    certificates: Arc<Certificates>,
    files: Mutex<(Files, Instant)>,
    server: Arc<ServerConfig>,
    /// Whoever comes without is closed.
    pub(super) only: bool,
}

impl Tls {
    pub(super) fn new(config: &ServerTls) -> Result<Self, TlsError> {
        let (files, loaded) = Files::open(std::slice::from_ref(&config.pair), &[])?;
        let certificates = Arc::new(Certificates::new(loaded));
        let provider = Arc::new(provider(&config.suites)?);
        let versions = if config.only_tls13 { &[&TLS13][..] } else { &[&TLS13, &TLS12] };
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
        let builder = match &config.verify {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let roots = Arc::new(roots(authorities)?);
                builder.with_client_cert_verifier(
                    WebPkiClientVerifier::builder_with_provider(roots, provider).build()?,
                )
            }
        };
        let mut server = builder.with_cert_resolver(Arc::clone(&certificates) as _);
        server.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
        server.ticketer = aws_lc_rs::Ticketer::new()?;
        let only = config.only || config.verify.is_some();
        Ok(Self { certificates, files: Mutex::new((files, Instant::now())), server: Arc::new(server), only })
    }

    /// A handshake with the certificate as its files have it now.
    pub(super) async fn shake(&self, hello: Hello) -> io::Result<TlsStream<TcpStream>> {
        self.look();
        hello.shake(Arc::clone(&self.server)).await
    }

    fn look(&self) {
        let mut files = lock(&self.files);
        if files.1.elapsed() >= CERTIFICATE_LOOK_EVERY {
            files.1 = Instant::now();
            files.0.look(|loaded| self.certificates.set_files(loaded));
        }
    }
}

/// What a log says of a handshake that failed; what to do is added where the library's words do not tell.
pub(super) fn told(error: &io::Error) -> String {
    let said = error.to_string();
    match said.contains("UnsupportedCertVersion") {
        true => format!(
            "{said}: the viewer's certificate is of version 1, and only version 3 is taken: make it anew, with extensions \
             (openssl x509 -req -extfile FILE …)"
        ),
        false => said,
    }
}

/// With all suites, or with those that are named. Names of TLS 1.2 alone say nothing of TLS 1.3, as for OpenSSL: its suites stay.
fn provider(names: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let all = std::mem::take(&mut provider.cipher_suites);
    for name in names {
        let same =
            |suite: &&rustls::SupportedCipherSuite| plain(&format!("{:?}", suite.suite())) == plain(name);
        let Some(found) = all.iter().find(same) else {
            let known: Vec<_> = all.iter().map(|suite| format!("{:?}", suite.suite())).collect();
            return Err(TlsError::Suite { name: name.clone(), known: known.join(", ") });
        };
        provider.cipher_suites.push(*found);
    }
    let is_tls13 = |suite: &rustls::SupportedCipherSuite| suite.version().version == TLS13.version;
    if !provider.cipher_suites.iter().any(is_tls13) {
        provider.cipher_suites.extend(all.into_iter().filter(is_tls13));
    }
    Ok(provider)
}

/// What the names of a suite have in common: `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is `ECDHE-RSA-AES128-GCM-SHA256` in
/// OpenSSL, and `TLS13_AES_128_GCM_SHA256` has no 13 in IANA's registry.
fn plain(name: &str) -> String {
    let name = name.to_ascii_uppercase().replace("TLS13_", "TLS_").replace("_WITH_", "_");
    let name = name.strip_prefix("TLS_").unwrap_or(&name).replace(['_', '-'], "");
    // OpenSSL leaves out the hash that ChaCha20 always has in TLS 1.2.
    if name.starts_with("ECDHE") { name.replace("POLY1305SHA256", "POLY1305") } else { name }
}

fn roots(authorities: &Authorities) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Authorities::System => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Authorities::File(path) => {
            let failed = |error: String| TlsError::Authorities { path: path.display().to_string(), error };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
        }
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_the_names_of_iana_and_of_openssl_and_no_expressions() {
        // With those of TLS 1.2 come the three of TLS 1.3.
        for (name, suites) in [
            ("TLS_AES_128_GCM_SHA256", 1),
            ("TLS13_AES_128_GCM_SHA256", 1),
            ("ECDHE-RSA-AES128-GCM-SHA256", 4),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 4),
            ("ECDHE-ECDSA-CHACHA20-POLY1305", 4),
            ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 4),
        ] {
            assert_eq!(provider(&[name.into()]).unwrap().cipher_suites.len(), suites, "{name}");
        }
        for name in ["HIGH", "!aNULL", "AES128-SHA", "ALL"] {
            let error = provider(&[name.into()]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("ECDHE_RSA_WITH_AES_128"), "{error}");
        }
    }
}
