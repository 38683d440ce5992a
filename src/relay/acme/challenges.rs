//! What an authority may ask for now, and its answers: each is there from the order until the end of it, and no longer.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::relay::route::split_host;
use crate::relay::tls::ALPN_CHALLENGE;
use crate::sync::lock;

/// The answers that are prepared.
#[derive(Default)]
pub struct Challenges {
    /// By token: the host, and the text.
    http: Mutex<HashMap<String, (String, String)>>,
    /// By host.
    alpn: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

/// Takes an answer away when it is dropped.
pub enum Prepared {
    /// For HTTP-01, by token.
    Http(Arc<Challenges>, String),
    /// For TLS-ALPN-01, by host.
    Alpn(Arc<Challenges>, String),
}

impl Drop for Prepared {
    fn drop(&mut self) {
        match self {
            Self::Http(challenges, token) => drop(lock(&challenges.http).remove(token)),
            Self::Alpn(challenges, name) => drop(lock(&challenges.alpn).remove(name)),
        }
    }
}

impl Challenges {
    /// From now on `token` at `name` is answered.
    pub fn prepare_http(self: &Arc<Self>, name: &str, token: &str, answer: &str) -> Prepared {
        lock(&self.http).insert(token.to_owned(), (name.to_owned(), answer.to_owned()));
        Prepared::Http(Arc::clone(self), token.to_owned())
    }

    /// From now on a handshake for `name` is shown a certificate that says `digest` (RFC 8737, section 3).
    pub fn prepare_alpn(
        self: &Arc<Self>,
        name: &str,
        digest: &[u8; 32],
    ) -> Result<Prepared, Box<dyn fmt::Display + Send>> {
        let failed =
            |error: &dyn fmt::Display| -> Box<dyn fmt::Display + Send> { Box::new(error.to_string()) };
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|error| failed(&error))?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate().map_err(|error| failed(&error))?;
        let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = provider.key_provider.load_private_key(key).map_err(|error| failed(&error))?;
        // Not checked as others are: its extension is critical, and of no other use.
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate.der().clone()], key));
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| failed(&error))?;
        let mut config = config.with_no_client_auth().with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![ALPN_CHALLENGE.to_vec()];
        lock(&self.alpn).insert(name.to_owned(), Arc::new(config));
        Ok(Prepared::Alpn(Arc::clone(self), name.to_owned()))
    }

    /// The text for `token` at `host`.
    pub fn answer(&self, host: &str, token: &str) -> Option<String> {
        let host = split_host(host).map_or(host, |(host, _)| host);
        let http = lock(&self.http);
        let (name, answer) = http.get(token)?;
        name.eq_ignore_ascii_case(host).then(|| answer.clone())
    }

    /// For a handshake with `name`.
    pub fn config(&self, name: &str) -> Option<Arc<ServerConfig>> {
        lock(&self.alpn).get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_waited_for_is_answered_and_only_as_long() {
        let challenges = Arc::new(Challenges::default());
        let prepared = challenges.prepare_http("web.test", "token", "answer");
        assert_eq!(challenges.answer("Web.Test:80", "token").as_deref(), Some("answer"));
        assert_eq!(challenges.answer("api.test", "token"), None);
        assert_eq!(challenges.answer("web.test", "other"), None);
        drop(prepared);
        assert_eq!(challenges.answer("web.test", "token"), None);
        let prepared = challenges.prepare_alpn("web.test", &[7; 32]).ok().unwrap();
        assert!(challenges.config("web.test").is_some() && challenges.config("api.test").is_none());
        drop(prepared);
        assert!(challenges.config("web.test").is_none());
    }
}
