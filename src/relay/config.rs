//! The configuration of a relay, resolved and typed: what `relay::serve` is given.

mod contradictions;
mod syslog;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::auth::jwt::WorkerTokens;
use crate::auth::{Secret, StaticKey};
use crate::proto::limits::Limits;
use crate::relay::acme::AcmeConfig;
use crate::relay::domains::DomainProof;
use crate::relay::public_url::PublicUrl;
use crate::relay::tls::{Certificate, Pair};

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
    /// Certificates with their keys beside those in files, for where there are none. They are never read again.
    pub tls_given: Vec<Certificate>,
    /// How certificates are ordered, if they are.
    pub acme: AcmeConfig,
    /// Whoever comes without TLS to a relay whose public URL is https is led there.
    pub https_redirect: bool,
    /// Where the operator comes in (D4).
    pub admin_listen: SocketAddr,
    /// Where metrics and probes are read without the rest of the admin listener (D4), by whoever reaches it.
    pub metrics_listen: Option<SocketAddr>,
    /// Host names under which the dashboard may be asked, in lower case; by address, and as localhost, it always may.
    pub admin_hosts: Vec<String>,
    /// Password of the dashboard. Without it and a hash, links let the operator in.
    pub admin_password: Option<Secret>,
    /// The same, hashed.
    pub admin_password_hash: Option<Secret>,
    /// Tunnels are reached at `NAME.base_domain`; as [`base_domain`](super::public_url::base_domain) returns it.
    /// `None`: by path only.
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
    /// Secrets of which tokens are taken, the newest first; none: no tokens. At most
    /// [`MAX_SECRETS`](crate::auth::jwt::MAX_SECRETS), each of at least 32 bytes.
    pub jwt_secrets: Vec<Secret>,
    /// Whom workers of Taskcluster are let in by; `None`: none are.
    pub worker_tokens: Option<WorkerTokens>,
    /// Whether a worker's stream, and with it its connection to the target, serves several requests, one behind the other.
    pub worker_reuse: bool,
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
            tls_given: Vec::new(),
            acme: AcmeConfig::default(),
            https_redirect: true,
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)),
            metrics_listen: None,
            admin_hosts: Vec::new(),
            admin_password: None,
            admin_password_hash: None,
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
            worker_tokens: None,
            worker_reuse: true,
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
        if let Some(address) = listeners.metrics.as_ref().and_then(|metrics| metrics.local_addr().ok()) {
            self.metrics_listen = Some(address);
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
        !self.tls_cert.is_empty() || !self.tls_given.is_empty() || self.acme.is_wanted()
    }

    /// Names of the relay itself that an authority can look for.
    pub fn own_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.public_url.iter().map(|url| url.host().to_owned()).collect();
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
}
