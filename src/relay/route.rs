//! Where a request goes: one of the relay's own hosts, or a tunnel by host or by path.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;

use super::config::RelayConfig;
use crate::proto::api::Proto;
use crate::tunnel::{Domains, Tunnel, WORKER};

/// The path under which tunnels are reached on the relay's own hosts.
pub const PATH_PREFIX: &str = "/t/";

/// Which hosts and paths belong to whom, and what URLs they make.
#[derive(Debug, Clone)]
pub struct Routes {
    base_domain: Option<String>,
    /// Host of the public URL.
    own_host: Option<String>,
    by_path: bool,
    /// `scheme://host[:port]` of the relay itself, without a slash at its end.
    public_url: String,
    /// Hosts of tunnels' owners.
    domains: Domains,
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// The relay answers.
    Own,
    /// The tunnel of that name answers, by host.
    Host(Cow<'a, str>),
    /// The tunnel of that name answers, by path.
    Path(Cow<'a, str>),
    /// Nobody answers: 404.
    Nobody,
}

impl Routes {
    /// The routes of a relay whose first listener, of those with TLS if there are any, is bound to `bound`.
    pub fn new(config: &RelayConfig, bound: Option<SocketAddr>) -> Self {
        let base_domain = config.base_domain.clone();
        let public_url = match (&config.public_url, bound) {
            (Some(url), _) => url.to_string(),
            (None, Some(bound)) => {
                let host = match (&base_domain, bound.ip()) {
                    (Some(base), _) => base.clone(),
                    (None, ip) if ip.is_unspecified() => "localhost".to_owned(),
                    (None, IpAddr::V6(ip)) => format!("[{ip}]"),
                    (None, ip) => ip.to_string(),
                };
                let (scheme, usual) =
                    if config.listen_tls.is_empty() { ("http", 80) } else { ("https", 443) };
                if bound.port() == usual {
                    format!("{scheme}://{host}")
                } else {
                    format!("{scheme}://{host}:{}", bound.port())
                }
            }
            (None, None) => "http://localhost".to_owned(),
        };
        let own_host = config.public_url.as_ref().map(|url| url.host().to_owned());
        let domains = Domains::default();
        Self { base_domain, own_host, by_path: config.path_routing, public_url, domains }
    }

    /// The same with hosts that lead to tunnels of their owners.
    pub fn with_domains(self, domains: Domains) -> Self {
        Self { domains, ..self }
    }

    /// The relay's own URL.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Whether the relay is to be reached by https.
    pub fn is_https(&self) -> bool {
        self.public_url.starts_with("https://")
    }

    /// Where viewers reach the tunnel `name`.
    pub fn url_of(&self, name: &str) -> String {
        if name.starts_with(WORKER) {
            return format!("{}{name}", self.public_url);
        }
        let Some(base) = &self.base_domain else { return format!("{}{PATH_PREFIX}{name}", self.public_url) };
        self.url_at(format_args!("{name}.{base}"))
    }

    /// Where viewers reach a tunnel, whatever they speak.
    pub fn url_of_tunnel(&self, tunnel: &Tunnel) -> String {
        let spec = tunnel.spec();
        match (spec.proto, spec.port) {
            (Proto::Tcp, Some(port)) => self.tcp_url(port),
            (Proto::Tls, _) => self.tls_url(&tunnel.name, spec.domains.first()),
            _ => self.url_of(&tunnel.name),
        }
    }

    /// Whether tunnels have hosts of their own.
    pub fn has_base_domain(&self) -> bool {
        self.base_domain.is_some()
    }

    /// Where viewers reach the tunnel whose port is `port`.
    pub fn tcp_url(&self, port: u16) -> String {
        let (_, host, _) = self.parts();
        format!("tcp://{host}:{port}")
    }

    /// The URL of an owner's own host, if `host` (with or without a port) is one.
    pub fn url_of_domain(&self, host: &str) -> Option<String> {
        let (host, _) = split_host(host)?;
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        self.domains.tunnel_of(&host)?;
        Some(self.url_at(host))
    }

    /// Where viewers reach the tunnel `name` by its name in TLS: without a base domain, by a domain of its own.
    pub fn tls_url(&self, name: &str, domain: Option<&String>) -> String {
        let host = match (&self.base_domain, domain) {
            (Some(base), _) => format!("{name}.{base}"),
            (None, Some(domain)) => domain.clone(),
            (None, None) => name.to_owned(),
        };
        let (scheme, _, port) = self.parts();
        let port = port.unwrap_or(if scheme == "https" { "443" } else { "80" });
        format!("tls://{host}:{port}")
    }

    /// Scheme, host and port of the public URL.
    fn parts(&self) -> (&str, &str, Option<&str>) {
        let (scheme, authority) = self.public_url.split_once("://").unwrap_or(("http", &self.public_url));
        let (host, port) = split_host(authority).unwrap_or(("localhost", None));
        (scheme, host, port)
    }

    /// The public URL with another host.
    fn url_at(&self, host: impl Display) -> String {
        match self.parts() {
            (scheme, _, Some(port)) => format!("{scheme}://{host}:{port}"),
            (scheme, _, None) => format!("{scheme}://{host}"),
        }
    }

    /// Routes by `host` (with or without a port) and then by `path`.
    pub fn route<'a>(&self, host: &'a str, path: &'a str) -> Route<'a> {
        let Some((host, _)) = split_host(host) else { return Route::Nobody };
        let host = host.strip_suffix('.').unwrap_or(host);
        if let Some(base) = &self.base_domain
            && let Some(label) =
                strip_suffix_ignoring_case(host, base).and_then(|label| label.strip_suffix('.'))
        {
            return if label.contains('.') { Route::Nobody } else { Route::Host(lower(label)) };
        }
        if let Some(name) = self.domains.tunnel_of(host) {
            return Route::Host(Cow::Owned(name));
        }
        if !self.is_own(host) {
            return Route::Nobody;
        }
        match path.strip_prefix(PATH_PREFIX).filter(|_| self.by_path) {
            Some(rest) => Route::Path(lower(rest.split(['/', '?']).next().unwrap_or_default())),
            None => Route::Own,
        }
    }

    /// Whether `host` is the relay's, one of this machine, or below its base domain: no owner can have it for a tunnel.
    pub fn is_of_relay(&self, host: &str) -> bool {
        let of = |own: &str| {
            strip_suffix_ignoring_case(host, own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.base_domain.as_deref().is_some_and(of)
            || self.own_host.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(host))
            || is_of_machine(host)
    }

    fn is_own(&self, host: &str) -> bool {
        let same = |own: &Option<String>| own.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(host));
        // Without a base domain there are no hosts of tunnels to keep apart, so every host is ours.
        self.base_domain.is_none() || same(&self.own_host) || same(&self.base_domain) || is_of_machine(host)
    }
}

/// Whether `host` is an address, or the name that every machine has for itself.
fn is_of_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

/// Host and port of an authority; `None` if it is none.
pub fn split_host(authority: &str) -> Option<(&str, Option<&str>)> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(end);
    match rest.strip_prefix(':') {
        _ if host.is_empty() => None,
        None if rest.is_empty() => Some((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((host, Some(port).filter(|port| !port.is_empty())))
        }
        _ => None,
    }
}

/// Whether a Host header's value is a host with an optional port and nothing else (no user, no path).
pub fn is_valid_host(text: &str) -> bool {
    is_host_and_port(text)
        || (!text.contains('@') && text.parse::<Authority>().is_ok() && split_host(text).is_some())
}

/// The same for nearly every host that there is, with less effort.
fn is_host_and_port(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, ""));
    let of_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !host.is_empty() && host.bytes().all(of_host) && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn strip_suffix_ignoring_case<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(suffix.len())?;
    let tail = text.get(at..)?;
    tail.eq_ignore_ascii_case(suffix).then(|| &text[..at])
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.to_ascii_lowercase().into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(base: Option<&str>) -> Routes {
        let config = RelayConfig { base_domain: base.map(str::to_owned), ..RelayConfig::default() };
        Routes::new(&config, Some(([127, 0, 0, 1], 8080).into()))
    }

    #[test]
    fn hosts_are_matched_without_case_port_or_trailing_dot() {
        let routes = routes(Some("relay.example"));
        for host in
            ["web.relay.example", "WEB.Relay.Example:8080", "web.relay.example.", "web.relay.example.:80"]
        {
            assert_eq!(routes.route(host, "/v1/tunnels"), Route::Host("web".into()), "{host}");
        }
        for host in ["relay.example", "localhost:8080", "127.0.0.1", "[::1]:8080", "RELAY.example:1"] {
            assert_eq!(routes.route(host, "/v1/tunnels"), Route::Own, "{host}");
            assert_eq!(routes.route(host, "/t/Web/x?y"), Route::Path("web".into()), "{host}");
            assert_eq!(routes.route(host, "/t/web?y"), Route::Path("web".into()), "{host}");
        }
        for host in
            ["other.example", "a.b.relay.example", "xrelay.example", "", ":80", "[::1", "web.relay.example:x"]
        {
            assert_eq!(routes.route(host, "/t/web"), Route::Nobody, "{host}");
        }
    }

    /// A domain goes before the relay's own hosts: whoever had its address as one got the keys of all who call it by that.
    #[test]
    fn no_owner_can_have_an_address_or_localhost_as_a_domain() {
        for base in [None, Some("relay.example")] {
            for host in ["127.0.0.1", "203.0.113.7", "localhost"] {
                assert!(routes(base).is_of_relay(host), "{host}");
            }
            assert!(!routes(base).is_of_relay("www.example.com"));
        }
    }

    #[test]
    fn without_a_base_domain_every_host_is_the_relays_own() {
        assert_eq!(routes(None).route("anything:80", "/v1/tunnels"), Route::Own);
        assert_eq!(routes(None).url_of("web"), "http://127.0.0.1:8080/t/web");
        assert_eq!(routes(Some("localhost")).url_of("web"), "http://web.localhost:8080");
    }
}
