//! Tokens that others signed (JSON Web Signature, RFC 7515), checked with the one key of a file: what a bridge is told
//! its target by.

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use serde_json::{Map, Value};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::unbase64;

/// Longest token, in bytes: with all claims it has some 300, and with the signature of a large RSA key 1,000.
pub const MAX_TOKEN: usize = 8 * 1024;

/// How long a clock may be wrong, in seconds, as for the tokens of a relay.
const LEEWAY: i64 = 60;

/// Why a file is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is nothing in it.
    #[error("there is no key in it: write a secret, or a public key in PEM")]
    Empty,
    /// It is PEM, of a private key.
    #[error(
        "it is a private key, which only the maker of the tokens needs: write the public one (openssl pkey -in KEY -pubout)"
    )]
    Private,
    /// It is PEM, of something else.
    #[error("it is no PEM of a public key or a certificate")]
    Pem,
    /// Keys of that kind are not taken.
    #[error(
        "its kind of key is not taken: use RSA of at least 2048 bits, or an elliptic curve P-256, P-384 or Ed25519"
    )]
    Kind,
}

/// Why a token does not count; nothing of the token is in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token is longer than 8 KiB")]
    TooLong,
    /// It has five parts (RFC 7516).
    #[error(
        "the token is encrypted (JWE): only signed ones (JWS) are read here, so sign it without encrypting it, and keep it secret by TLS"
    )]
    Encrypted,
    /// Not three parts of base64url of which the first two are JSON objects.
    #[error("the token is no JSON Web Token")]
    Unreadable,
    /// The header names an algorithm that is not one of the key's.
    #[error("the token is signed with an algorithm that does not go with the key")]
    Algorithm,
    /// The header has `crit`, of which nothing is understood (RFC 7515, section 4.1.11).
    #[error("the token's header has \"crit\", of which nothing is understood here")]
    Critical,
    /// The key did not make the signature.
    #[error("the token's signature is not one of the key's")]
    Signature,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not yet valid")]
    NotYetValid,
    /// `exp` or `nbf` is no number.
    #[error("the token's \"exp\" and \"nbf\" must be numbers, seconds since 1970")]
    Time,
}

/// What a signature is checked with. Which algorithms there are is the key's business alone: if a token's header could
/// choose, it would choose a hash with our public key as the secret.
pub struct Key {
    keys: Vec<DecodingKey>,
    algorithms: &'static [(&'static str, Algorithm)],
}

const HASHES: &[(&str, Algorithm)] =
    &[("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)];
const RSA: &[(&str, Algorithm)] = &[
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
];
const P256: &[(&str, Algorithm)] = &[("ES256", Algorithm::ES256)];
const P384: &[(&str, Algorithm)] = &[("ES384", Algorithm::ES384)];
const ED25519: &[(&str, Algorithm)] = &[("EdDSA", Algorithm::EdDSA)];

impl Key {
    /// Reads a file: a public key or a certificate in PEM, or a secret. A secret counts as it stands, without the end of its
    /// line, and as the bytes that it is base64url of, which is how websockify reads it.
    pub fn read(file: &[u8]) -> Result<Self, KeyError> {
        if file.windows(11).any(|part| part == b"-----BEGIN ") {
            return Self::public(file);
        }
        let secret = file.trim_ascii();
        if secret.is_empty() {
            return Err(KeyError::Empty);
        }
        let mut keys = vec![DecodingKey::from_secret(secret)];
        let decoded = std::str::from_utf8(secret).ok().map(|text| text.trim_end_matches('='));
        let decoded = decoded.and_then(|text| unbase64(text, *b"-_")).filter(|bytes| !bytes.is_empty());
        keys.extend(decoded.map(|bytes| DecodingKey::from_secret(&bytes)));
        Ok(Self { keys, algorithms: HASHES })
    }

    fn public(pem: &[u8]) -> Result<Self, KeyError> {
        if pem.windows(12).any(|part| part == b"PRIVATE KEY-") {
            return Err(KeyError::Private);
        }
        if let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(pem) {
            let (_, info) = SubjectPublicKeyInfo::from_der(&key).map_err(|_| KeyError::Pem)?;
            return Self::of(&info);
        }
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| KeyError::Pem)?;
        let (_, certificate) =
            x509_parser::parse_x509_certificate(&certificate).map_err(|_| KeyError::Pem)?;
        Self::of(certificate.public_key())
    }

    fn of(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, KeyError> {
        let curve = || {
            let parameters = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
            Some(parameters.to_id_string())
        };
        let bytes: &[u8] = &info.subject_public_key.data;
        let (key, algorithms) = match info.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => (DecodingKey::from_rsa_der(bytes), RSA),
            "1.2.840.10045.2.1" => match curve().as_deref() {
                Some("1.2.840.10045.3.1.7") => (DecodingKey::from_ec_der(bytes), P256),
                Some("1.3.132.0.34") => (DecodingKey::from_ec_der(bytes), P384),
                _ => return Err(KeyError::Kind),
            },
            "1.3.101.112" => (DecodingKey::from_ed_der(bytes), ED25519),
            _ => return Err(KeyError::Kind),
        };
        Ok(Self { keys: vec![key], algorithms })
    }

    /// The claims of a token that is valid at `now` (seconds since 1970). They are read only when the signature is right.
    pub fn claims(&self, token: &str, now: i64) -> Result<Map<String, Value>, SignedError> {
        if token.len() > MAX_TOKEN {
            return Err(SignedError::TooLong);
        }
        let parts: Vec<&str> = token.split('.').collect();
        let &[header, claims, signature] = &parts[..] else {
            return Err(if parts.len() == 5 { SignedError::Encrypted } else { SignedError::Unreadable });
        };
        let header = object(header)?;
        let named = header.get("alg").and_then(Value::as_str);
        let algorithm = self.algorithms.iter().find(|(name, _)| Some(*name) == named);
        let (_, algorithm) = algorithm.ok_or(SignedError::Algorithm)?;
        if header.contains_key("crit") {
            return Err(SignedError::Critical);
        }
        let signed = &token.as_bytes()[..token.len() - signature.len() - 1];
        let fits = |key: &DecodingKey| crypto::verify(signature, signed, key, *algorithm).unwrap_or(false);
        if !self.keys.iter().any(fits) {
            return Err(SignedError::Signature);
        }
        let claims = object(claims)?;
        let time = |name: &str| match claims.get(name) {
            None | Some(Value::Null) => Ok(None),
            // A token of a fraction of a second is not worth a claim of its own.
            Some(value) => value.as_f64().map(|seconds| Some(seconds as i64)).ok_or(SignedError::Time),
        };
        if time("exp")?.is_some_and(|exp| now.saturating_sub(LEEWAY) >= exp) {
            return Err(SignedError::Expired);
        }
        if time("nbf")?.is_some_and(|nbf| now.saturating_add(LEEWAY) < nbf) {
            return Err(SignedError::NotYetValid);
        }
        Ok(claims)
    }
}

fn object(part: &str) -> Result<Map<String, Value>, SignedError> {
    let json = unbase64(part, *b"-_").ok_or(SignedError::Unreadable)?;
    serde_json::from_slice(&json).map_err(|_| SignedError::Unreadable)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn token(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
        encode(&Header::new(algorithm), claims, key).unwrap()
    }

    fn secret(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
        token(algorithm, &EncodingKey::from_secret(secret), claims)
    }

    #[test]
    fn a_secret_counts_as_it_stands_and_as_what_it_is_base64_of() {
        let key = Key::read(b"c2VjcmV0LXNlY3JldA\n").unwrap();
        for bytes in [&b"c2VjcmV0LXNlY3JldA"[..], b"secret-secret"] {
            let token = secret(Algorithm::HS512, bytes, &json!({"host": "h"}));
            assert_eq!(key.claims(&token, NOW).unwrap()["host"], "h");
        }
        let wrong = secret(Algorithm::HS256, b"other", &json!({}));
        assert_eq!(key.claims(&wrong, NOW), Err(SignedError::Signature));
        assert_eq!(Key::read(b" \n").err(), Some(KeyError::Empty));
    }

    #[test]
    fn every_kind_of_public_key_checks_its_own_and_is_never_a_secret() {
        let kinds: [(&rcgen::SignatureAlgorithm, Algorithm); 3] = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
            (&rcgen::PKCS_ED25519, Algorithm::EdDSA),
        ];
        let claims = json!({"host": "h", "port": 1});
        for (kind, algorithm) in kinds {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let pem = pair.public_key_pem();
            let key = Key::read(pem.as_bytes()).unwrap();
            let der = pair.serialize_der();
            let made = match algorithm {
                Algorithm::EdDSA => EncodingKey::from_ed_der(&der),
                _ => EncodingKey::from_ec_der(&der),
            };
            assert_eq!(key.claims(&token(algorithm, &made, &claims), NOW).unwrap()["port"], 1);
            // The public key is known to everybody.
            let forged = secret(Algorithm::HS256, pem.as_bytes(), &claims);
            assert_eq!(key.claims(&forged, NOW), Err(SignedError::Algorithm));
            let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap().pem();
            let key = Key::read(certificate.as_bytes()).unwrap();
            assert!(key.claims(&token(algorithm, &made, &claims), NOW).is_ok());
            assert_eq!(Key::read(pair.serialize_pem().as_bytes()).err(), Some(KeyError::Private));
        }
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let key = Key::read(pair.public_key_pem().as_bytes()).unwrap();
        assert_eq!(key.claims("e30.e30.", NOW), Err(SignedError::Algorithm));
        assert_eq!(
            Key::read(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----").err(),
            Some(KeyError::Pem)
        );
    }

    #[test]
    fn what_is_signed_counts_only_in_its_time() {
        let key = Key::read(b"secret").unwrap();
        for (claims, said) in [
            (json!({"exp": NOW - 3600}), Some(SignedError::Expired)),
            (json!({"exp": NOW as f64 + 3600.5}), None),
            (json!({"nbf": NOW + 3600}), Some(SignedError::NotYetValid)),
            (json!({"nbf": NOW - 3600}), None),
            (json!({"exp": "soon"}), Some(SignedError::Time)),
            (json!({}), None),
        ] {
            let token = secret(Algorithm::HS256, b"secret", &claims);
            assert_eq!(key.claims(&token, NOW).err(), said, "{claims}");
        }
    }

    #[test]
    fn what_is_no_token_or_asks_for_what_is_not_there_is_told_so() {
        let key = Key::read(b"secret").unwrap();
        for (token, said) in [
            ("a.b.c.d.e", SignedError::Encrypted),
            ("", SignedError::Unreadable),
            ("e30.e30", SignedError::Unreadable),
            // {"alg":"none"}
            ("eyJhbGciOiJub25lIn0.e30.", SignedError::Algorithm),
            // {"alg":"HS256","crit":[]}
            ("eyJhbGciOiJIUzI1NiIsImNyaXQiOltdfQ.e30.AA", SignedError::Critical),
        ] {
            assert_eq!(key.claims(token, NOW), Err(said), "{token}");
        }
        assert_eq!(key.claims(&"a".repeat(MAX_TOKEN + 1), NOW), Err(SignedError::TooLong));
    }
}
