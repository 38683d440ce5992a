//! What is wrong between values of a configuration that are good each by itself.

use std::collections::HashSet;

use super::RelayConfig;
use crate::auth::jwt::{MAX_SECRETS, MIN_SECRET, WorkerTokens};
use crate::relay::public_url::base_domain;

/// Sentences that name the options.
#[derive(Default)]
struct Errors(Vec<String>);

impl Errors {
    fn unless(&mut self, good: bool, error: String) {
        if !good {
            self.0.push(error);
        }
    }
}

impl RelayConfig {
    /// What is wrong between values that are good each by itself, as sentences that name the options. Empty:
    /// nothing.
    pub fn validate(&self) -> Vec<String> {
        let mut errors = Errors::default();
        self.check_listeners(&mut errors);
        self.check_tcp_ports(&mut errors);
        self.check_tls(&mut errors);
        self.check_acme(&mut errors);
        self.check_proxies(&mut errors);
        self.check_routing(&mut errors);
        self.check_secrets(&mut errors);
        self.check_limits(&mut errors);
        errors.0
    }

    /// Addresses and paths that are listened on.
    fn check_listeners(&self, errors: &mut Errors) {
        errors.unless(
            self.addresses().next().is_some() || !self.listen_unix.is_empty(),
            "listen: no address; give at least one, such as 127.0.0.1:8080".into(),
        );
        let mut seen = HashSet::new();
        let all = self.addresses().chain([&self.admin_listen]).chain(&self.metrics_listen);
        for address in all.filter(|address| address.port() != 0) {
            errors.unless(
                seen.insert(address),
                format!("listen, listen-tls, admin-listen and metrics-listen: {address} is given twice"),
            );
        }
        let mut paths = HashSet::new();
        for path in &self.listen_unix {
            errors.unless(paths.insert(path), format!("listen: unix:{} is given twice", path.display()));
        }
    }

    /// Ports of tunnels.
    fn check_tcp_ports(&self, errors: &mut Errors) {
        let Some(ports) = &self.tcp_ports else { return };
        errors.unless(
            !self.tcp_addresses().is_empty(),
            "tcp-ports: there is no address to listen at; give tcp-listen".into(),
        );
        errors.unless(
            !ports.is_empty() && *ports.start() != 0,
            format!("tcp-ports: {}-{} is no range of ports", ports.start(), ports.end()),
        );
        for address in self.addresses().chain([&self.admin_listen]).chain(&self.metrics_listen) {
            errors.unless(
                !ports.contains(&address.port()),
                format!("tcp-ports: {address} is listened on already; leave its port out of the range"),
            );
        }
    }

    /// Certificates in files.
    fn check_tls(&self, errors: &mut Errors) {
        errors.unless(
            self.listen_tls.is_empty() || self.has_tls(),
            "listen-tls: there is no certificate; give tls-cert and tls-key, or have one ordered with acme-email".into(),
        );
        let (certificates, keys) = (self.tls_cert.len(), self.tls_key.len());
        errors.unless(
            certificates == keys,
            format!(
                "tls-cert is given {certificates} times and tls-key {keys} times; give both for each certificate"
            ),
        );
    }

    /// Certificates that are ordered.
    fn check_acme(&self, errors: &mut Errors) {
        let acme = &self.acme;
        errors.unless(
            acme.is_wanted() || (acme.ca.is_none() && acme.dns_hook.is_none()),
            "acme-ca and acme-dns-hook do nothing without acme-email or acme-directory; give one of them"
                .into(),
        );
        errors.unless(
            !acme.is_wanted() || !self.own_names().is_empty(),
            "acme-email and acme-directory: no name is known to order a certificate for; give base-domain or public-url \
             with a name that is in DNS"
                .into(),
        );
        errors.unless(
            acme.dns_hook.is_none() || self.base_domain.is_some(),
            "acme-dns-hook is for the names below base-domain; give that, too".into(),
        );
    }

    /// The admin listener, and proxies in front.
    fn check_proxies(&self, errors: &mut Errors) {
        // D4: the login of the dashboard must not cross a network in the clear.
        errors.unless(
            self.admin_listen.ip().is_loopback() || !self.trusted_proxies.is_empty(),
            format!(
                "admin-listen: {} can be reached from other machines; use a loopback address, or put a proxy \
                 with TLS in front of it and name that in trusted-proxy",
                self.admin_listen
            ),
        );
        errors.unless(
            self.admin_password.is_none() || self.admin_password_hash.is_none(),
            "admin-password and admin-password-hash are both given; leave one of them out".into(),
        );
        errors.unless(
            !self.accept_proxy_protocol || !self.trusted_proxies.is_empty(),
            "accept-proxy-protocol is on and no proxy is trusted; name those that send the header in trusted-proxy".into(),
        );
    }

    /// How tunnels are reached.
    fn check_routing(&self, errors: &mut Errors) {
        errors.unless(
            // Workers are reached by their ids.
            self.path_routing || self.base_domain.is_some() || self.worker_tokens.is_some(),
            "path-routing is off and base-domain is not set, so no tunnel could be reached; set one of them"
                .into(),
        );
        if let Some(domain) = &self.base_domain {
            errors.unless(
                base_domain(domain).as_ref() == Ok(domain),
                format!("base-domain: {domain:?} is no host name in lower case without a dot at its end"),
            );
        }
    }

    /// Keys and secrets of tokens.
    fn check_secrets(&self, errors: &mut Errors) {
        let mut secrets = HashSet::new();
        for key in &self.static_keys {
            errors.unless(
                secrets.insert(key.secret.expose()),
                format!("keys: the secret of {:?} is given twice; each key needs its own", key.name),
            );
        }
        errors.unless(
            self.jwt_secrets.len() <= MAX_SECRETS,
            format!("jwt-secret: {} are given; at most {MAX_SECRETS} can be", self.jwt_secrets.len()),
        );
        errors.unless(
            self.jwt_secrets.iter().all(|secret| secret.expose().len() >= MIN_SECRET),
            format!("jwt-secret: expected at least {MIN_SECRET} bytes each"),
        );
        let mut secrets = HashSet::new();
        errors.unless(
            self.jwt_secrets.iter().all(|secret| secrets.insert(secret.expose())),
            "jwt-secret: the same secret is given twice; once is enough".into(),
        );
        match &self.worker_tokens {
            Some(tokens) => self.check_workers(tokens, errors),
            None => errors.unless(
                self.worker_reuse,
                "worker-reuse does nothing without worker-secret; give that, too".into(),
            ),
        }
    }

    /// The tokens of workers.
    fn check_workers(&self, tokens: &WorkerTokens, errors: &mut Errors) {
        let secrets = &tokens.secrets;
        errors.unless(
            !secrets.is_empty(),
            "worker-audience does nothing without worker-secret; give that, too".into(),
        );
        errors.unless(
            secrets.iter().len() <= MAX_SECRETS,
            format!("worker-secret: {} are given; at most {MAX_SECRETS} can be", secrets.iter().len()),
        );
        let mut seen = HashSet::new();
        errors.unless(
            secrets.iter().all(|secret| seen.insert(secret.expose())),
            "worker-secret: the same secret is given twice; once is enough".into(),
        );
        // Whoever makes tokens for workers could open tunnels in anybody's name.
        errors.unless(
            !self.jwt_secrets.iter().any(|secret| seen.contains(secret.expose())),
            "jwt-secret and worker-secret have a secret in common, so that a worker's token would open tunnels; give each its \
             own"
                .into(),
        );
    }

    /// Limits that hang together.
    fn check_limits(&self, errors: &mut Errors) {
        let limits = &self.limits;
        errors.unless(
            limits.pong_wait > limits.ping_every,
            format!(
                "pong-wait ({:?}) must be longer than ping-every ({:?}), or every client is taken for dead",
                limits.pong_wait, limits.ping_every
            ),
        );
        errors.unless(
            limits.target_bytes < limits.head_bytes,
            format!(
                "target-bytes ({}) must be less than head-bytes ({}), of which the target is a part",
                limits.target_bytes, limits.head_bytes
            ),
        );
        errors.unless(
            limits.data_message_bytes <= limits.in_flight_bytes,
            format!(
                "data-message-bytes ({}) must not be more than in-flight-bytes ({})",
                limits.data_message_bytes, limits.in_flight_bytes
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::jwt::Secrets;
    use crate::auth::{Secret, StaticKey};
    use crate::relay::public_url::PublicUrl;

    #[test]
    fn all_contradictions_are_named_together() {
        let mut config = RelayConfig {
            listen: vec!["127.0.0.1:80".parse().unwrap(), "127.0.0.1:80".parse().unwrap()],
            admin_listen: "0.0.0.0:9090".parse().unwrap(),
            path_routing: false,
            static_keys: ["a", "b"]
                .map(|name| StaticKey { name: name.into(), secret: Secret::new("same") })
                .into(),
            ..RelayConfig::default()
        };
        config.limits.pong_wait = config.limits.ping_every;
        config.limits.target_bytes = config.limits.head_bytes;
        config.limits.data_message_bytes = config.limits.in_flight_bytes + 1;
        let errors = config.validate();
        let named =
            ["twice", "admin-listen: 0.0", "path-routing", "\"b\"", "pong-wait", "target-", "data-message"];
        assert_eq!(errors.len(), named.len(), "{errors:#?}");
        for (error, named) in errors.iter().zip(named) {
            assert!(error.contains(named), "{error} should name {named}");
            assert!(!error.contains("same"), "a secret is shown");
        }
        let secrets = |texts: &[&str]| RelayConfig {
            jwt_secrets: texts.iter().map(|text| Secret::new(text.repeat(32))).collect(),
            ..RelayConfig::default()
        };
        assert_eq!(secrets(&["a", "b"]).validate(), Vec::<String>::new());
        for (texts, named) in
            [(&["a", "a"][..], "twice"), (&["a", "b", "c"], "at most 2"), (&[""], "32 bytes")]
        {
            let errors = secrets(texts).validate();
            assert!(errors.len() == 1 && errors[0].contains(named), "{errors:?} should name {named}");
        }
        let workers = |texts: &[&str]| RelayConfig {
            worker_tokens: Some(WorkerTokens {
                secrets: Secrets::new(texts.iter().map(|text| Secret::new(*text)).collect()),
                audience: None,
            }),
            jwt_secrets: vec![Secret::new("j".repeat(32))],
            path_routing: false,
            ..RelayConfig::default()
        };
        assert_eq!(workers(&["a", "b"]).validate(), Vec::<String>::new());
        let shared = "j".repeat(32);
        for (texts, named) in [
            (&["a", "a"][..], "twice"),
            (&["a", "b", "c"], "at most 2"),
            (&[], "worker-audience"),
            (&[shared.as_str()], "in common"),
        ] {
            let errors = workers(texts).validate();
            assert!(errors.len() == 1 && errors[0].contains(named), "{errors:?} should name {named}");
        }
        let no_workers = RelayConfig { worker_reuse: false, ..RelayConfig::default() };
        assert!(no_workers.validate().concat().contains("worker-reuse"));
        let listen_none = RelayConfig { listen: vec![], ..RelayConfig::default() };
        assert_eq!(listen_none.validate().len(), 1);
    }

    #[test]
    fn a_public_url_beside_the_base_domain_is_allowed() {
        let config = RelayConfig {
            base_domain: Some("tunnels.example.org".into()),
            public_url: Some(PublicUrl::parse("https://relay.example.com").unwrap()),
            ..RelayConfig::default()
        };
        assert_eq!(config.validate(), Vec::<String>::new());
    }
}
