//! The operator's own certificates: those in files, read at the start and again whenever they change, and those that were
//! given without files.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::certificates::{Certificate, CertificateError};
use crate::proto::limits::tls::WARN_BEFORE;

/// A file with a certificate and its chain, and one with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and then those of its authorities, in PEM.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// All pairs as they were last read.
pub struct Files {
    pairs: Vec<(Pair, Option<Stamp>, Certificate)>,
    /// Beside them, without files.
    given: Vec<Certificate>,
}

/// What tells a file from the one before, through links.
type Stamp = [(u64, u64, Option<SystemTime>); 2];

impl Files {
    /// Reads all pairs; every one must be good. All certificates are those and `given`.
    pub fn open(pairs: &[Pair], given: &[Certificate]) -> Result<(Self, Vec<Certificate>), CertificateError> {
        let mut read = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let stamp = stamp(pair);
            let certificate = load(pair)?;
            warn_of(pair.certificate.display(), &certificate);
            warn_of_key(pair);
            read.push((pair.clone(), stamp, certificate));
        }
        for certificate in given {
            warn_of("none: it was given as it is (TLS_CERTIFICATE)", certificate);
        }
        let files = Self { pairs: read, given: given.to_vec() };
        let all = files.all();
        Ok((files, all))
    }

    fn all(&self) -> Vec<Certificate> {
        self.pairs.iter().map(|(.., certificate)| certificate).chain(&self.given).cloned().collect()
    }

    /// Reads what has changed: all certificates if one has. A pair that is not good, perhaps as only one of its files has
    /// been written yet, is read again when it changes. `show` gets all of them, and what was read is told after that.
    pub fn look(&mut self, show: impl FnOnce(Vec<Certificate>)) {
        let mut reloaded = Vec::new();
        for (pair, seen, certificate) in &mut self.pairs {
            let stamp = stamp(pair);
            if stamp == *seen {
                continue;
            }
            *seen = stamp;
            match load(pair) {
                Ok(read) => {
                    warn_of(pair.certificate.display(), &read);
                    warn_of_key(pair);
                    reloaded.push((pair.certificate.clone(), read.names.clone()));
                    *certificate = read;
                }
                Err(error) => {
                    tracing::warn!(%error, "a certificate was changed and cannot be used; the one before stays")
                }
            }
        }
        if !reloaded.is_empty() {
            show(self.all());
        }
        for (file, names) in reloaded {
            tracing::info!(file = %file.display(), ?names, "certificate reloaded");
        }
    }
}

fn load(pair: &Pair) -> Result<Certificate, CertificateError> {
    let read =
        |path: &Path| fs::read(path).map_err(|error| CertificateError::File { path: path.to_owned(), error });
    let (chain, key) = (read(&pair.certificate)?, read(&pair.key)?);
    let shown = |path: &Path| path.display().to_string();
    Certificate::from_pem(&chain, &key, (&shown(&pair.certificate), &shown(&pair.key)))
}

fn warn_of(file: impl Display, certificate: &Certificate) {
    match certificate.left() {
        Duration::ZERO => tracing::warn!(%file, "this certificate is not good now: browsers will refuse it"),
        left if left < WARN_BEFORE => {
            tracing::warn!(%file, days = left.as_secs() / 86_400, "this certificate ends soon");
        }
        _ => {}
    }
    if certificate.names.is_empty() {
        tracing::warn!(%file, "this certificate is for no host name: browsers will refuse it");
    }
}

fn warn_of_key(pair: &Pair) {
    if let Ok(metadata) = fs::metadata(&pair.key)
        && metadata.mode() & 0o007 != 0
    {
        let file = pair.key.display();
        tracing::warn!(%file, "every user of this machine can read this private key: chmod 600");
    }
}

fn stamp(pair: &Pair) -> Option<Stamp> {
    let one = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
    };
    Some([one(&pair.certificate)?, one(&pair.key)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(pair: &Pair, name: &str) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        // As tools do it: by renaming, so that the file is another one.
        for (path, text) in
            [(&pair.certificate, made.cert.pem()), (&pair.key, made.signing_key.serialize_pem())]
        {
            let draft = path.with_extension("new");
            fs::write(&draft, text).unwrap();
            fs::rename(draft, path).unwrap();
        }
    }

    fn given(name: &str) -> Certificate {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Certificate::from_pem(chain.as_bytes(), key.as_bytes(), ("c", "k")).unwrap()
    }

    fn names(all: &[Certificate]) -> Vec<&str> {
        all.iter().flat_map(|certificate| &certificate.names).map(String::as_str).collect()
    }

    #[test]
    fn a_pair_that_changes_is_read_again_and_half_a_pair_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pair = |name: &str| Pair {
            certificate: dir.path().join(format!("{name}.crt")),
            key: dir.path().join(format!("{name}.key")),
        };
        let (one, two) = (pair("one"), pair("two"));
        write(&one, "one.test");
        write(&two, "two.test");
        let (mut files, all) = Files::open(&[one.clone(), two.clone()], &[given("given.test")]).unwrap();
        assert_eq!(names(&all), ["one.test", "two.test", "given.test"]);
        let look = |files: &mut Files| {
            let mut shown = None;
            files.look(|all| shown = Some(all));
            shown
        };
        assert!(look(&mut files).is_none());
        // Only the certificate at first.
        let key = fs::read(&two.key).unwrap();
        write(&two, "three.test");
        let new_key = fs::read(&two.key).unwrap();
        fs::write(&two.key, key).unwrap();
        assert!(look(&mut files).is_none());
        fs::write(&two.key, new_key).unwrap();
        fs::remove_file(&one.key).unwrap();
        assert_eq!(names(&look(&mut files).unwrap()), ["one.test", "three.test", "given.test"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.pem");
        let pair = Pair { certificate: missing.clone(), key: missing.clone() };
        let error = Files::open(&[pair], &[]).err().unwrap().to_string();
        assert!(error.contains(&missing.display().to_string()), "{error}");
    }
}
