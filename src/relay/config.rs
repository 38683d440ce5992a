//! The configuration of a relay, resolved and typed: what `relay::serve` is given.

mod syslog;

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::auth::jwt::{MAX_SECRETS, MIN_SECRET};
use crate::auth::{Secret, StaticKey};
use crate::proto::hostname;
use crate::proto::limits::Limits;
use crate::relay::acme::AcmeConfig;
use crate::relay::domains::DomainProof;
use crate::relay::tls::Pair;

pub use syslog::{Facility, SyslogAddress, SyslogConfig, SyslogFormat};

/// How log records are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that an operator can set.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// Where viewers and clients come in; port 0 is any free one.
    pub listen: Vec<SocketAddr>,
    /// The same for those who speak TLS. They may do so at `listen`, too, where plain HTTP is for others.
    pub listen_tls: Vec<SocketAddr>,
    /// Files with certificates, each with its chain, in PEM.
    pub tls_cert: Vec<PathBuf>,
    /// Their private keys, in the same order.
    pub tls_key: Vec<PathBuf>,
    /// How certificates are ordered, if they are.
    pub acme: AcmeConfig,
    /// Whoever comes without TLS to a relay whose public URL is https is led there.
    pub https_redirect: bool,
    /// Where the operator comes in (D4).
    pub admin_listen: SocketAddr,
    /// Tunnels are reached at `NAME.base_domain`; as [`base_domain`] returns it. `None`: by path only.
    pub base_domain: Option<String>,
    /// Where viewers and clients come in on this machine, by path; for a proxy in front.
    pub listen_unix: Vec<PathBuf>,
    /// Permissions of these sockets.
    pub unix_mode: u32,
    /// Ports that tunnels may have for themselves; `None`: there are no TCP tunnels.
    pub tcp_ports: Option<RangeInclusive<u16>>,
    /// Where these ports are listened on; empty: at the addresses of `listen`.
    pub tcp_listen: Vec<IpAddr>,
    /// How the relay is reached from outside, when that is not told by the listen address.
    pub public_url: Option<PublicUrl>,
    /// Holds the database.
    pub data_dir: PathBuf,
    /// How owners prove hosts of their own.
    pub domain_proof: DomainProof,
    /// Who is asked for that; `None`: the system's DNS servers.
    pub dns_server: Option<SocketAddr>,
    /// How log records are written.
    pub log: LogFormat,
    /// A syslog daemon that gets them, too.
    pub syslog: SyslogConfig,
    /// Collector of spans, by the whole URL for traces (OTLP over HTTP); only for builds with the feature `otlp`.
    pub otlp_endpoint: Option<String>,
    /// Peers whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections of these peers begin with a header of the PROXY protocol, which says who the viewer is.
    pub accept_proxy_protocol: bool,
    /// Whether tunnels are also reached at `/t/NAME/` on the relay's own hosts.
    pub path_routing: bool,
    /// One log record per exchange at level info.
    pub log_exchanges: bool,
    /// Keys from the configuration, beside those in the database.
    pub static_keys: Vec<StaticKey>,
    /// Secrets of which tokens are taken, the newest first; none: no tokens. At most [`MAX_SECRETS`], each of at least
    /// 32 bytes.
    pub jwt_secrets: Vec<Secret>,
    /// Limits and deadlines.
    pub limits: Limits,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))],
            listen_tls: Vec::new(),
            tls_cert: Vec::new(),
            tls_key: Vec::new(),
            acme: AcmeConfig::default(),
            https_redirect: true,
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
            base_domain: None,
            listen_unix: Vec::new(),
            unix_mode: 0o660,
            tcp_ports: None,
            tcp_listen: Vec::new(),
            public_url: None,
            data_dir: PathBuf::from("/var/lib/adit"),
            domain_proof: DomainProof::default(),
            dns_server: None,
            log: LogFormat::Text,
            syslog: SyslogConfig::default(),
            otlp_endpoint: None,
            trusted_proxies: Vec::new(),
            accept_proxy_protocol: false,
            path_routing: true,
            log_exchanges: false,
            static_keys: Vec::new(),
            jwt_secrets: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl RelayConfig {
    /// Takes over the addresses of sockets that somebody else has bound, in the place of its own. The last `tls` of the TCP
    /// ones are for TLS alone.
    pub fn adopt_addresses(&mut self, listeners: &super::Listeners, tls: usize) {
        let mut tcp: Vec<_> =
            listeners.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let plain = tcp.len().saturating_sub(tls);
        self.listen_tls = tcp.split_off(plain);
        self.listen = tcp;
        self.listen_unix = listeners.unix.iter().filter_map(super::unix::path_of).collect();
        if let Some(address) = listeners.admin.as_ref().and_then(|admin| admin.local_addr().ok()) {
            self.admin_listen = address;
        }
    }

    /// Whether only this machine can reach the listen addresses: the one case in which a relay may begin
    /// without keys.
    pub fn is_loopback_only(&self) -> bool {
        self.addresses().all(|address| address.ip().is_loopback())
    }

    /// Where viewers and clients come in, with and without TLS.
    pub fn addresses(&self) -> impl Iterator<Item = &SocketAddr> {
        self.listen.iter().chain(&self.listen_tls)
    }

    /// Whether the relay speaks TLS itself.
    pub fn has_tls(&self) -> bool {
        !self.tls_cert.is_empty() || self.acme.is_wanted()
    }

    /// Names of the relay itself that an authority can look for.
    pub fn own_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.public_url.iter().map(|url| url.host.clone()).collect();
        names.extend(self.base_domain.clone());
        names
            .retain(|name| name.contains('.') && !name.starts_with('[') && name.parse::<Ipv4Addr>().is_err());
        names.sort();
        names.dedup();
        names
    }

    /// The certificates with their keys.
    pub fn tls_files(&self) -> Vec<Pair> {
        let pairs = self.tls_cert.iter().cloned().zip(self.tls_key.iter().cloned());
        pairs.map(|(certificate, key)| Pair { certificate, key }).collect()
    }

    /// The addresses at which ports of tunnels are listened on, each once.
    pub fn tcp_addresses(&self) -> Vec<IpAddr> {
        let mut addresses = self.tcp_listen.clone();
        if addresses.is_empty() {
            addresses.extend(self.addresses().map(SocketAddr::ip));
        }
        let mut seen = HashSet::new();
        addresses.retain(|address| seen.insert(*address));
        addresses
    }

    /// What is wrong between values that are good each by itself, as sentences that name the options. Empty:
    /// nothing.
    pub fn validate(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let mut check = |good: bool, error: String| {
            if !good {
                errors.push(error);
            }
        };
        check(
            self.addresses().next().is_some() || !self.listen_unix.is_empty(),
            "listen: no address; give at least one, such as 127.0.0.1:8080".into(),
        );
        let mut seen = HashSet::new();
        let all = self.addresses().chain([&self.admin_listen]);
        for address in all.filter(|address| address.port() != 0) {
            check(
                seen.insert(address),
                format!("listen, listen-tls and admin-listen: {address} is given twice"),
            );
        }
        let mut paths = HashSet::new();
        for path in &self.listen_unix {
            check(paths.insert(path), format!("listen: unix:{} is given twice", path.display()));
        }
        if let Some(ports) = &self.tcp_ports {
            check(
                !self.tcp_addresses().is_empty(),
                "tcp-ports: there is no address to listen at; give tcp-listen".into(),
            );
            check(
                !ports.is_empty() && *ports.start() != 0,
                format!("tcp-ports: {}-{} is no range of ports", ports.start(), ports.end()),
            );
            for address in self.addresses().chain([&self.admin_listen]) {
                check(
                    !ports.contains(&address.port()),
                    format!("tcp-ports: {address} is listened on already; leave its port out of the range"),
                );
            }
        }
        check(
            self.listen_tls.is_empty() || self.has_tls(),
            "listen-tls: there is no certificate; give tls-cert and tls-key, or have one ordered with acme-email".into(),
        );
        let acme = &self.acme;
        check(
            acme.is_wanted() || (acme.ca.is_none() && acme.dns_hook.is_none()),
            "acme-ca and acme-dns-hook do nothing without acme-email or acme-directory; give one of them"
                .into(),
        );
        check(
            !acme.is_wanted() || !self.own_names().is_empty(),
            "acme-email and acme-directory: no name is known to order a certificate for; give base-domain or public-url \
             with a name that is in DNS"
                .into(),
        );
        check(
            acme.dns_hook.is_none() || self.base_domain.is_some(),
            "acme-dns-hook is for the names below base-domain; give that, too".into(),
        );
        let (certificates, keys) = (self.tls_cert.len(), self.tls_key.len());
        check(
            certificates == keys,
            format!(
                "tls-cert is given {certificates} times and tls-key {keys} times; give both for each certificate"
            ),
        );
        // D4: the login of the dashboard must not cross a network in the clear.
        check(
            self.admin_listen.ip().is_loopback() || !self.trusted_proxies.is_empty(),
            format!(
                "admin-listen: {} can be reached from other machines; use a loopback address, or put a proxy \
                 with TLS in front of it and name that in trusted-proxy",
                self.admin_listen
            ),
        );
        check(
            !self.accept_proxy_protocol || !self.trusted_proxies.is_empty(),
            "accept-proxy-protocol is on and no proxy is trusted; name those that send the header in trusted-proxy".into(),
        );
        check(
            self.path_routing || self.base_domain.is_some(),
            "path-routing is off and base-domain is not set, so no tunnel could be reached; set one of them"
                .into(),
        );
        if let Some(domain) = &self.base_domain {
            check(
                base_domain(domain).as_ref() == Ok(domain),
                format!("base-domain: {domain:?} is no host name in lower case without a dot at its end"),
            );
        }
        let mut secrets = HashSet::new();
        for key in &self.static_keys {
            check(
                secrets.insert(key.secret.expose()),
                format!("keys: the secret of {:?} is given twice; each key needs its own", key.name),
            );
        }
        check(
            self.jwt_secrets.len() <= MAX_SECRETS,
            format!("jwt-secret: {} are given; at most {MAX_SECRETS} can be", self.jwt_secrets.len()),
        );
        check(
            self.jwt_secrets.iter().all(|secret| secret.expose().len() >= MIN_SECRET),
            format!("jwt-secret: expected at least {MIN_SECRET} bytes each"),
        );
        let mut secrets = HashSet::new();
        check(
            self.jwt_secrets.iter().all(|secret| secrets.insert(secret.expose())),
            "jwt-secret: the same secret is given twice; once is enough".into(),
        );
        let limits = &self.limits;
        check(
            limits.pong_wait > limits.ping_every,
            format!(
                "pong-wait ({:?}) must be longer than ping-every ({:?}), or every client is taken for dead",
                limits.pong_wait, limits.ping_every
            ),
        );
        check(
            limits.target_bytes < limits.head_bytes,
            format!(
                "target-bytes ({}) must be less than head-bytes ({}), of which the target is a part",
                limits.target_bytes, limits.head_bytes
            ),
        );
        check(
            limits.data_message_bytes <= limits.in_flight_bytes,
            format!(
                "data-message-bytes ({}) must not be more than in-flight-bytes ({})",
                limits.data_message_bytes, limits.in_flight_bytes
            ),
        );
        errors
    }
}

/// Origin of the relay as viewers and clients see it: `http` or `https`, a host and perhaps a port, no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    https: bool,
    host: String,
    port: Option<u16>,
}

impl PublicUrl {
    /// Reads `http(s)://HOST[:PORT]`; one slash at the end is taken off. The error says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let error = || "write http:// or https://, a host and perhaps :PORT, without a path".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| error())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(error()),
        };
        let authority = uri.authority().ok_or_else(error)?;
        // `Uri` keeps no fragment and calls an absent path "/", so both are looked for in the text.
        if authority.as_str().contains('@')
            || uri.query().is_some()
            || uri.path() != "/"
            || text.contains('#')
        {
            return Err(error());
        }
        let host = authority.host();
        let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match literal {
            Some(ip) => format!("[{}]", ip.parse::<Ipv6Addr>().map_err(|_| error())?),
            None if host.parse::<Ipv4Addr>().is_ok() => host.to_owned(),
            None => hostname::parse(host)?,
        };
        // What follows the host is nothing or a port; an empty or too large one would pass for none.
        let port = match &authority.as_str()[authority.host().len()..] {
            "" => None,
            rest => match rest.strip_prefix(':').unwrap_or_default().parse() {
                Ok(0) | Err(_) => {
                    return Err(format!("{rest:?} is no port; write :1 to :65535, or leave it out"));
                }
                Ok(port) => Some(port),
            },
        };
        // The port that goes without saying is not said, as in browsers.
        let port = port.filter(|port| *port != if https { 443 } else { 80 });
        Ok(Self { https, host, port })
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// The host in lower case; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, unless it is the scheme's own.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Checks a base domain; returns it in lower case, without the dot that may stand at its end. The error says
/// what is expected.
pub fn base_domain(text: &str) -> Result<String, String> {
    if text.contains("://") || text.contains('/') {
        return Err("write the host name alone, such as tunnels.example.com".into());
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err("an address has no names below it; write a host name".into());
    }
    if text.contains(':') {
        return Err(
            "write the host name without a port; the port in public URLs is that of public-url".into()
        );
    }
    let name = hostname::parse(text)?;
    // Room for a tunnel's name of 63 characters and a dot, within the 253 of DNS.
    if name.len() > 253 - 64 {
        Err("at most 189 characters, so that names fit before it".into())
    } else {
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_loopback_only() {
        let config = RelayConfig::default();
        assert_eq!(config.validate(), Vec::<String>::new());
        assert!(config.is_loopback_only());
        let open = RelayConfig { listen: vec!["0.0.0.0:80".parse().unwrap()], ..config };
        assert!(!open.is_loopback_only());
    }

    #[test]
    fn a_public_url_is_an_origin() {
        for (text, written) in [
            ("https://Relay.Example.com", "https://relay.example.com"),
            ("https://relay.example.com/", "https://relay.example.com"),
            ("https://relay.example.com:443", "https://relay.example.com"),
            ("http://relay.example.com.:8080", "http://relay.example.com:8080"),
            ("http://127.0.0.1:443", "http://127.0.0.1:443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("https://[0:0::1]", "https://[::1]"),
        ] {
            assert_eq!(PublicUrl::parse(text).map(|url| url.to_string()), Ok(written.into()), "{text}");
        }
        for bad in [
            "",
            "relay.example.com",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://a/?",
            "https://a?b",
            "https://a/#b",
            "https://a#",
            "https://u@a",
            "https://a:",
            "https://a:0",
            "https://a:65536",
            "https://a:80:80",
            "https://[::1",
            "https://[x]",
            "https://a_b",
            "https://a..b",
            "https:// a",
        ] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_base_domain_is_a_host_name_in_lower_case() {
        assert_eq!(base_domain("Tunnels.Example.com."), Ok("tunnels.example.com".into()));
        assert_eq!(base_domain("localhost"), Ok("localhost".into()));
        for bad in
            ["", ".", "a..b", "-a.b", "10.0.0.1", "::1", "a:80", "http://a", "a/b", "*.a", "ä.de", "a b"]
        {
            assert!(base_domain(bad).is_err(), "{bad}");
        }
        assert!(base_domain(&["a".repeat(63), "b".repeat(63), "c".repeat(62)].join(".")).is_err());
    }

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
