//! The certificates that the relay shows, by the names in them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Why a certificate cannot be used; the text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {error}", path = path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The operating system's words.
        error: std::io::Error,
    },
    /// There is no certificate, or one that cannot be read.
    #[error(
        "no certificate in PEM is in {place}: it begins with the server's own, and then has those of its authorities"
    )]
    NoCertificate {
        /// Where it was looked for.
        place: String,
    },
    /// There is no private key.
    #[error(
        "no private key in PEM is in {place}; one with a password is to be written without: openssl pkey -in IN -out OUT"
    )]
    NoKey {
        /// Where it was looked for.
        place: String,
    },
    /// Certificate and key are of two pairs, or of a kind that is not known.
    #[error("the certificate in {certificate} and the key in {key} cannot be used together: {error}")]
    Unusable {
        /// Where the certificate is.
        certificate: String,
        /// Where the key is.
        key: String,
        /// The library's words.
        error: String,
    },
}

/// One certificate with its chain and key.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// The names in it, in lower case; `*.` begins a wildcard.
    pub names: Vec<String>,
    /// When it begins and ends to be good.
    pub good: (SystemTime, SystemTime),
}

impl Certificate {
    /// Reads a chain and a key in PEM. The places are for the error.
    pub fn from_pem(chain: &[u8], key: &[u8], places: (&str, &str)) -> Result<Self, CertificateError> {
        let no_certificate = || CertificateError::NoCertificate { place: places.0.to_owned() };
        let no_key = |_| CertificateError::NoKey { place: places.1.to_owned() };
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| no_certificate())?;
        let leaf = chain.first().ok_or_else(no_certificate)?;
        let (names, good) = about(leaf).ok_or_else(no_certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(no_key)?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
            let (certificate, key) = (places.0.to_owned(), places.1.to_owned());
            CertificateError::Unusable { certificate, key, error: error.to_string() }
        })?;
        Ok(Self { key: Arc::new(key), names, good })
    }

    /// How long it is good from now; zero: it is not.
    pub fn left(&self) -> Duration {
        let now = SystemTime::now();
        if now < self.good.0 { Duration::ZERO } else { self.good.1.duration_since(now).unwrap_or_default() }
    }

    /// Whether it is for `name`, which is in lower case (RFC 6125, section 6.4.3).
    pub fn covers(&self, name: &str) -> bool {
        let wildcard = name.split_once('.').map(|(_, rest)| rest);
        self.names
            .iter()
            .any(|known| known == name || known.strip_prefix("*.").is_some_and(|rest| wildcard == Some(rest)))
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).field("good", &self.good).finish()
    }
}

type Good = (SystemTime, SystemTime);

/// The names in a certificate, and when it is good.
fn about(leaf: &CertificateDer<'_>) -> Option<(Vec<String>, Good)> {
    let (_, leaf) = parse_x509_certificate(leaf).ok()?;
    let mut names = Vec::new();
    if let Ok(Some(alternative)) = leaf.subject_alternative_name() {
        names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        }));
    }
    let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let validity = leaf.validity();
    Some((names, (at(validity.not_before.timestamp()), at(validity.not_after.timestamp()))))
}

/// What is shown now. A change is seen by the next handshake and by none that has begun.
pub struct Certificates {
    shown: RwLock<Arc<Shown>>,
}

#[derive(Default, Clone)]
struct Shown {
    files: Vec<Certificate>,
    /// By name, those that were ordered from an authority.
    ordered: HashMap<String, Certificate>,
}

impl Certificates {
    /// Shows `files`, the operator's own.
    pub fn new(files: Vec<Certificate>) -> Self {
        Self { shown: RwLock::new(Arc::new(Shown { files, ..Shown::default() })) }
    }

    fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) {
        let mut place = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut place));
    }

    /// Shows these in the place of the operator's own before.
    pub fn set_files(&self, files: Vec<Certificate>) {
        self.change(|shown| shown.files = files);
    }

    /// Shows `certificate` for `name` from now on.
    pub fn set_ordered(&self, name: String, certificate: Certificate) {
        self.change(|shown| drop(shown.ordered.insert(name, certificate)));
    }

    /// Whether there is one for `name`.
    pub fn has(&self, name: &str) -> bool {
        self.shown().find(name).is_some()
    }

    /// Whether one of the operator's own is for `name`.
    pub fn is_of_file(&self, name: &str) -> bool {
        self.shown().files.iter().any(|certificate| certificate.covers(name))
    }

    /// The one that was ordered for `name`.
    pub fn ordered(&self, name: &str) -> Option<Certificate> {
        self.shown().ordered.get(name).cloned()
    }

    /// When the first of the operator's own ends to be good, and the first of those that were ordered.
    pub fn first_ends(&self) -> (Option<SystemTime>, Option<SystemTime>) {
        let shown = self.shown();
        let end = |certificate: &Certificate| certificate.good.1;
        (shown.files.iter().map(end).min(), shown.ordered.values().map(end).min())
    }

    /// All that were ordered, with what they were ordered for.
    pub fn all_ordered(&self) -> Vec<(String, Certificate)> {
        self.shown().ordered.iter().map(|(name, certificate)| (name.clone(), certificate.clone())).collect()
    }
}

impl Shown {
    /// The operator's own files go first.
    fn find(&self, name: &str) -> Option<&Certificate> {
        let wildcard = || name.split_once('.').and_then(|(_, rest)| self.ordered.get(&format!("*.{rest}")));
        let file = self.files.iter().find(|certificate| certificate.covers(name));
        file.or_else(|| self.ordered.get(name)).or_else(wildcard)
    }

    /// For viewers that name no host, or one for which there is none: they will say so themselves.
    fn any(&self) -> Option<&Certificate> {
        self.files.first().or_else(|| self.ordered.values().next())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.shown();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let found = name.as_deref().and_then(|name| shown.find(name)).or_else(|| shown.any())?;
        Some(Arc::clone(&found.key))
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.shown();
        f.debug_struct("Certificates")
            .field("files", &shown.files.len())
            .field("ordered", &shown.ordered.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str]) -> (Certificate, String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes(), ("c", "k")).unwrap();
        (certificate, chain, key)
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let (certificate, ..) = made(&["Relay.Test", "*.relay.test"]);
        for name in ["relay.test", "web.relay.test"] {
            assert!(certificate.covers(name), "{name}");
        }
        for name in ["a.b.relay.test", "xrelay.test", "test", "", "other.test"] {
            assert!(!certificate.covers(name), "{name}");
        }
        assert!(certificate.left() > Duration::from_secs(3600));
    }

    #[test]
    fn the_operators_own_file_goes_before_an_ordered_one_and_an_exact_name_before_a_wildcard() {
        let ((file, ..), (web, ..), (all, ..)) =
            (made(&["relay.test"]), made(&["web.relay.test"]), made(&["*.relay.test"]));
        let certificates = Certificates::new(vec![file]);
        certificates.set_ordered("web.relay.test".into(), web);
        certificates.set_ordered("*.relay.test".into(), all.clone());
        certificates.set_ordered("relay.test".into(), all);
        let names = |name: &str| certificates.shown().find(name).map(|found| found.names.clone());
        assert_eq!(names("relay.test"), Some(vec!["relay.test".into()]));
        assert_eq!(names("web.relay.test"), Some(vec!["web.relay.test".into()]));
        assert_eq!(names("api.relay.test"), Some(vec!["*.relay.test".into()]));
        assert_eq!(names("other.test"), None);
        assert!(certificates.has("api.relay.test") && !certificates.has("other.test"));
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_place() {
        let ((_, chain, key), (_, _, other)) = (made(&["a.test"]), made(&["b.test"]));
        let error = |chain: &str, key: &str| {
            Certificate::from_pem(chain.as_bytes(), key.as_bytes(), ("cert.pem", "key.pem"))
                .err()
                .unwrap()
                .to_string()
        };
        assert!(error("", &key).contains("no certificate in PEM is in cert.pem"));
        assert!(
            error("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", &key).contains("cert.pem")
        );
        assert!(error(&chain, &chain).contains("no private key in PEM is in key.pem"));
        assert!(error(&chain, &other).contains("cert.pem and the key in key.pem cannot be used together"));
    }
}
