//! The environment of Taskcluster's websocktunnel, in the place of defaults: `adit relay` alone, without a flag or a file,
//! does what that image did (`docs/taskcluster.md`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::merge::{Env, Origin};
use super::values::worker_secret;
use crate::auth::Secret;
use crate::auth::jwt::{Secrets, WorkerTokens};
use crate::auth::unbase64;
use crate::relay::config::{LogFormat, RelayConfig, SyslogAddress};
use crate::relay::public_url::PublicUrl;
use crate::relay::tls::Certificate;

/// The variable without which none of the others is read: containers set `HOSTNAME` by themselves.
const SECRET: &str = "TASKCLUSTER_PROXY_SECRET_A";
/// The secret before that one, or after it.
const OTHER_SECRET: &str = "TASKCLUSTER_PROXY_SECRET_B";
const CERTIFICATE: &str = "TLS_CERTIFICATE";
const KEY: &str = "TLS_KEY";

/// Whether the environment is that of websocktunnel.
pub(super) fn is_meant(env: &Env, errors: &mut Vec<String>) -> bool {
    let is_meant = env.get(SECRET).is_some();
    // It is nobody else's, so its owner expects something of it.
    if !is_meant && env.get(OTHER_SECRET).is_some() {
        errors.push(format!(
            "environment {OTHER_SECRET}: it is the second secret, and there is no first; set {SECRET}, alone or with it"
        ));
    }
    is_meant
}

/// Reads it into whatever was not given by flag, variable of ours, or file.
pub(super) fn read(
    env: &Env,
    config: &mut RelayConfig,
    origins: &mut BTreeMap<&'static str, Origin>,
    errors: &mut Vec<String>,
) {
    let mut reading = Reading { env, config, origins, errors };
    reading.tokens();
    reading.certificate();
    if let Ok(port) = reading.port() {
        // The URL first: it asks whether the addresses are the operator's.
        reading.public_url(port);
        reading.listen(port);
    }
    reading.log();
    if !reading.is_given("https-redirect") {
        // Workers and viewers may come through a proxy where TLS ends, which tells nothing of it.
        reading.config.https_redirect = false;
        reading.came("https-redirect", SECRET);
    }
}

struct Reading<'a> {
    env: &'a Env,
    config: &'a mut RelayConfig,
    origins: &'a mut BTreeMap<&'static str, Origin>,
    errors: &'a mut Vec<String>,
}

impl<'a> Reading<'a> {
    fn is_given(&self, key: &str) -> bool {
        self.origins.get(key).is_some_and(|origin| *origin != Origin::Default)
    }

    fn came(&mut self, key: &'static str, from: impl Into<String>) {
        self.origins.insert(key, Origin::Env(from.into()));
    }

    fn error(&mut self, name: &str, sentence: impl std::fmt::Display) {
        self.errors.push(format!("environment {name}: {sentence}"));
    }

    fn text(&mut self, name: &str) -> Option<&'a str> {
        let value = self.env.get(name)?;
        if value.to_str().is_none() {
            self.error(name, "the value is not UTF-8");
        }
        value.to_str()
    }

    fn tokens(&mut self) {
        if !self.is_given("worker-secret") {
            let mut secrets: Vec<Secret> = Vec::new();
            let mut names = Vec::new();
            for (name, position) in [SECRET, OTHER_SECRET].into_iter().zip(1..) {
                let Some(text) = self.text(name) else { continue };
                match worker_secret(text, position) {
                    // Whoever has only one gives it twice, as both were needed.
                    Ok(secret) if secrets.iter().any(|known| known.expose() == secret.expose()) => {}
                    Ok(secret) => {
                        secrets.push(secret);
                        names.push(name);
                    }
                    Err(error) => self.error(name, error),
                }
            }
            if !secrets.is_empty() {
                self.tokens_of_config().secrets = Secrets::new(secrets);
                self.came("worker-secret", names.join(" and "));
            }
        }
        if !self.is_given("worker-audience")
            && let Some(audience) = self.text("AUDIENCE")
        {
            self.tokens_of_config().audience = Some(audience.to_owned());
            self.came("worker-audience", "AUDIENCE");
        }
    }

    fn tokens_of_config(&mut self) -> &mut WorkerTokens {
        self.config.worker_tokens.get_or_insert_default()
    }

    fn certificate(&mut self) {
        if self.is_given("tls-cert") || self.is_given("tls-key") {
            return;
        }
        let (certificate, key) = match (self.text(CERTIFICATE), self.text(KEY)) {
            (None, None) => return,
            (Some(certificate), Some(key)) => (certificate, key),
            (given, _) => {
                let (given, missing) = if given.is_some() { (CERTIFICATE, KEY) } else { (KEY, CERTIFICATE) };
                let sentence = format!(
                    "{missing} is not set; set both, each as base64 of PEM, or neither for plain HTTP"
                );
                return self.error(given, sentence);
            }
        };
        let (certificate, key) = match (decoded(certificate), decoded(key)) {
            (Some(certificate), Some(key)) => (certificate, key),
            (certificate, key) => {
                let missing = [(CERTIFICATE, certificate.is_none()), (KEY, key.is_none())];
                for (name, _) in missing.into_iter().filter(|(_, missing)| *missing) {
                    self.error(
                        name,
                        "the value is not base64; set it to what `base64 -w0 FILE` prints of a file in PEM",
                    );
                }
                return;
            }
        };
        let places = [CERTIFICATE, KEY].map(|name| format!("environment {name}"));
        match Certificate::from_pem(&certificate, &key, (&places[0], &places[1])) {
            Ok(certificate) => {
                self.config.tls_given = vec![certificate];
                self.came("tls-cert", CERTIFICATE);
                self.came("tls-key", KEY);
            }
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    /// `None`: nobody gave one. An error is told.
    fn port(&mut self) -> Result<Option<u16>, ()> {
        let Some(text) = self.text("PORT") else { return Ok(None) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let port = text.parse().ok().filter(|port| digits && *port != 0);
        port.map(Some).ok_or_else(|| {
            self.error("PORT", format_args!("{text:?}: expected a port from 1 to 65535"));
        })
    }

    fn listen(&mut self, port: Option<u16>) {
        if self.is_given("listen") {
            return;
        }
        let from = if port.is_some() { "PORT" } else { SECRET };
        if self.is_given("listen-tls") {
            self.config.listen.clear();
            return self.came("listen", SECRET);
        }
        let (plain, tls) = (&mut self.config.listen, &mut self.config.listen_tls);
        if self.config.tls_given.is_empty()
            && self.config.tls_cert.is_empty()
            && !self.config.acme.is_wanted()
        {
            *plain = vec![SocketAddr::new(everywhere(), port.unwrap_or(80))];
        } else {
            plain.clear();
            *tls = vec![SocketAddr::new(everywhere(), port.unwrap_or(443))];
            self.came("listen-tls", from);
        }
        self.came("listen", from);
    }

    fn public_url(&mut self, port: Option<u16>) {
        if self.is_given("public-url") {
            return;
        }
        if let Some(text) = self.text("URL_PREFIX") {
            match PublicUrl::parse(text) {
                Ok(url) => {
                    self.config.public_url = Some(url);
                    self.came("public-url", "URL_PREFIX");
                }
                Err(error) => self.error("URL_PREFIX", format_args!("{text:?}: {error}")),
            }
        } else if self.is_given("base-domain") {
            // That says more than the name that a container has got.
        } else if let Some(host) = self.text("HOSTNAME") {
            let (scheme, usual) = if self.config.has_tls() { ("https", 443) } else { ("http", 80) };
            match PublicUrl::parse(&format!("{scheme}://{host}:{}", port.unwrap_or(usual))) {
                Ok(url) => {
                    self.config.public_url = Some(url);
                    self.came("public-url", "HOSTNAME");
                }
                Err(error) => self.error(
                    "HOSTNAME",
                    format_args!(
                        "{host:?} makes no URL of the relay ({error}); set URL_PREFIX, such as \
                         https://tunnel.example.com"
                    ),
                ),
            }
        } else if !self.is_given("listen") && !self.is_given("listen-tls") {
            self.error(
                SECRET,
                "workers could not be told their URL; set URL_PREFIX, such as https://tunnel.example.com, or HOSTNAME",
            );
        }
    }

    fn log(&mut self) {
        if self.text("ENV") != Some("production") {
            return;
        }
        if !self.is_given("log") {
            self.config.log = LogFormat::Json;
            self.came("log", "ENV");
        }
        if !self.is_given("syslog")
            && let Some(text) = self.text("SYSLOG_ADDR")
        {
            match SyslogAddress::parse(text) {
                Ok(address) => {
                    self.config.syslog.address = Some(address);
                    self.came("syslog", "SYSLOG_ADDR");
                }
                Err(error) => self.error("SYSLOG_ADDR", format_args!("{text:?}: {error}")),
            }
        }
    }
}

/// Base64 with or without padding and line ends.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    unbase64(digits.trim_end_matches('='), *b"+/")
}

/// All interfaces: those of IPv6 take IPv4, too, but there are machines without.
fn everywhere() -> IpAddr {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests;
