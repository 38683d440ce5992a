//! `adit up`: the many tunnels of one TOML file, in one process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use toml::{Table, Value};

use super::http::{self, RelayArgs, ShowArgs, Speaks, WayArgs, usage};
use super::policy;
use super::tcp;
use crate::client::{Options, Proto, ProxyProtocol, Target};
use crate::proto::api::Balance;
use crate::proto::policy::Policy;
use crate::tunnel::policy::{Given, Scope, complaints};

/// What stands in the file.
pub(super) const FILE_HELP: &str = "The file:\n\n  \
    relay = \"https://relay.example.com\"   # --relay and ADIT_RELAY go before it\n  \
    key = \"nbk_…\"                         # --key and ADIT_KEY go before it\n  \
    relay_ca = \"ca.pem\"                  # optional: the authority of the relay's certificate\n\n  \
    [[tunnel]]\n  \
    target = \"3000\"                       # as of `adit http`\n  \
    name = \"web\"                          # optional, as all that follows\n  \
    ttl = \"8h\"\n  \
    auth = \"user:password\"\n  \
    host_header = \"rewrite\"\n  \
    proxy_protocol = \"v2\"                # the service learns who the viewer is\n  \
    domains = [\"www.example.com\"]       # of your own, each proven by a TXT entry: `adit http --help`\n  \
    [tunnel.policy]                       # rules for viewers of this tunnel, as the flags of `adit http`\n  \
    auth = [\"ann:password\", \"bob:word\"]\n  \
    allow = [\"10.0.0.0/8\"]\n  \
    rate_limit = \"100/s,burst=200\"\n  \
    verify = \"github:SECRET\"\n  \
    request_headers = [\"X-Name: value\", \"-X-Other\"]\n  \
    max_body = \"1MB\"\n  \
    offline_page_file = \"away.html\"\n\n  \
    [[tunnel]]\n  \
    proto = \"tcp\"                        # as `adit tcp`, \"tls\" as `adit tls`; \"http\" without it\n  \
    target = \"5432\"\n  \
    remote_port = 20001                  # optional\n\n  \
    [[tunnel]]\n  \
    target = \"50051\"\n  \
    name = \"calls\"\n  \
    target_proto = \"h2\"                   # for gRPC\n  \
    replica = true                        # beside other clients\n  \
    balance = \"sticky\"\n\n\
    The exit code is the highest of all tunnels', as `adit help` lists them.";

/// `adit up`.
#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// The file
    #[arg(default_value = "adit.toml")]
    file: PathBuf,
    #[command(flatten)]
    relay: RelayArgs,
    /// End with code 69 when the relay is not reached or lost, instead of trying again
    #[arg(long)]
    exit_on_disconnect: bool,
    #[command(flatten)]
    show: ShowArgs,
}

/// Opens all tunnels of the file and keeps them open.
pub(super) async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    let wanted = match read(&args.file) {
        Ok(wanted) => wanted,
        Err(errors) => return Ok(usage("up", &errors)),
    };
    let relay = RelayArgs {
        relay: args.relay.relay.or(wanted.relay),
        key: args.relay.key.filter(|key| !key.is_empty()).or(wanted.key),
        way: WayArgs { relay_ca: args.relay.way.relay_ca.or(wanted.relay_ca), ..args.relay.way },
    };
    let connector = match relay.connector() {
        Ok(connector) => connector,
        Err(sentence) => return Ok(usage("up", &[sentence])),
    };
    let style = args.show.style();
    let sessions = wanted.tunnels.into_iter().map(|tunnel| {
        let label = tunnel.name.clone().unwrap_or_else(|| tunnel.target.authority());
        let options = Options {
            name: tunnel.name,
            ttl: tunnel.ttl,
            auth: tunnel.auth,
            policy: tunnel.policy,
            host_header: tunnel.host_header,
            domains: tunnel.domains,
            proto: tunnel.proto,
            remote_port: tunnel.remote_port,
            proxy_protocol: tunnel.proxy_protocol,
            replica: tunnel.replica,
            http2: tunnel.speaks == Speaks::Http2,
            exit_on_disconnect: args.exit_on_disconnect,
            ..http::options(connector.clone(), tunnel.target, style)
        };
        (Some(label), options)
    });
    http::keep_open(sessions.collect(), style).await
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    relay: Option<String>,
    key: Option<String>,
    relay_ca: Option<PathBuf>,
    tunnels: Vec<Tunnel>,
}

#[derive(Debug, PartialEq, Eq)]
struct Tunnel {
    target: Target,
    name: Option<String>,
    ttl: Option<String>,
    auth: Option<(String, String)>,
    policy: Option<Policy>,
    host_header: Option<String>,
    domains: Vec<String>,
    proto: Proto,
    remote_port: Option<u16>,
    proxy_protocol: Option<ProxyProtocol>,
    speaks: Speaks,
    replica: Option<Balance>,
}

/// Reads the file; all that is wrong with it at once.
fn read(file: &Path) -> Result<Wanted, Vec<String>> {
    let at = |what: &str| format!("{}: {what}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| vec![at(&error.to_string())])?;
    let dir = file.parent().unwrap_or(Path::new("."));
    parse(&text, dir).map_err(|errors| errors.iter().map(|error| at(error)).collect())
}

fn parse(text: &str, dir: &Path) -> Result<Wanted, Vec<String>> {
    // The message has lines that show where; they would hide what else is told.
    let file: Table = text.parse().map_err(|error: toml::de::Error| {
        let line =
            error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        vec![format!("line {line}: {}", error.message())]
    })?;
    let mut reader = Reader { dir, errors: Vec::new() };
    let mut wanted = Wanted::default();
    for (key, value) in &file {
        match key.as_str() {
            "relay" => wanted.relay = reader.text("", key, value),
            "key" => wanted.key = reader.text("", key, value),
            "relay_ca" => wanted.relay_ca = reader.text("", key, value).map(Into::into),
            "tunnel" => match value {
                Value::Array(tunnels) => {
                    for (at, tunnel) in tunnels.iter().enumerate() {
                        wanted.tunnels.extend(reader.tunnel(at + 1, tunnel));
                    }
                }
                _ => reader.errors.push("tunnel: write [[tunnel]] with two brackets".into()),
            },
            _ => reader
                .errors
                .push(format!("{key}: no such key; there are relay, relay_ca, key and [[tunnel]]")),
        }
    }
    let mut names: Vec<_> = wanted.tunnels.iter().filter_map(|tunnel| tunnel.name.as_deref()).collect();
    names.sort_unstable();
    for pair in names.windows(2).filter(|pair| pair[0] == pair[1]) {
        reader.errors.push(format!("the name {:?} is given to two tunnels", pair[0]));
    }
    if !file.contains_key("tunnel") {
        reader.errors.push("there is no [[tunnel]]; write one for each service".into());
    }
    if reader.errors.is_empty() { Ok(wanted) } else { Err(reader.errors) }
}

struct Reader<'a> {
    /// Of the file, from which its names of files count.
    dir: &'a Path,
    errors: Vec<String>,
}

impl Reader<'_> {
    fn tunnel(&mut self, number: usize, value: &Value) -> Option<Tunnel> {
        let place = format!("tunnel {number}: ");
        let Value::Table(table) = value else {
            self.errors.push(format!("{place}write [[tunnel]] with keys below it"));
            return None;
        };
        let (mut target, mut name, mut ttl, mut auth, mut host_header) = (None, None, None, None, None);
        let mut domains = Vec::new();
        let mut policy = None;
        let (mut remote_port, mut proxy_protocol) = (None, None);
        // First, as it says how the others are read.
        let proto = table.get("proto").and_then(|value| self.text(&place, "proto", value));
        let proto = proto.and_then(|text| self.check(&place, "proto", &text, proto_of)).unwrap_or_default();
        let read_target: fn(&str) -> _ = if proto.is_raw() { tcp::target } else { http::target };
        let (mut speaks, mut replica, mut balance) = (Some(Speaks::Http1), false, None);
        for (key, value) in table {
            match key.as_str() {
                // A port is the one value that is naturally written as a number.
                "target" => match value {
                    Value::Integer(port) => target = self.check(&place, key, &port.to_string(), read_target),
                    value => {
                        target = self
                            .text(&place, key, value)
                            .and_then(|text| self.check(&place, key, &text, read_target))
                    }
                },
                "name" => {
                    name = self
                        .text(&place, key, value)
                        .and_then(|text| self.check(&place, key, &text, http::name))
                }
                "ttl" => {
                    ttl = self
                        .text(&place, key, value)
                        .and_then(|text| self.check(&place, key, &text, http::ttl))
                }
                "auth" => {
                    auth = self
                        .text(&place, key, value)
                        .and_then(|text| self.check(&place, key, &text, http::auth))
                }
                "policy" => policy = self.policy(&place, value, table.contains_key("auth"), proto),
                "host_header" => host_header = self.text(&place, key, value),
                "domains" => domains = self.texts(&place, key, value),
                "proto" => {}
                "remote_port" => match value.as_integer().and_then(|port| u16::try_from(port).ok()) {
                    Some(port) if port != 0 => remote_port = Some(port),
                    _ => self.errors.push(format!("{place}{key}: write a number from 1 to 65535")),
                },
                "proxy_protocol" => {
                    proxy_protocol = self
                        .text(&place, key, value)
                        .and_then(|text| self.check(&place, key, &text, http::proxy_protocol))
                }
                "replica" => match value {
                    Value::Boolean(value) => replica = *value,
                    _ => self.errors.push(format!("{place}{key}: write true or false")),
                },
                "balance" => {
                    balance = self
                        .text(&place, key, value)
                        .and_then(|text| self.check(&place, key, &text, http::balance))
                }
                "target_proto" => {
                    speaks = self
                        .text(&place, key, value)
                        .and_then(|text| self.check(&place, key, &text, http::target_proto))
                }
                _ => self.errors.push(format!(
                    "{place}{key}: no such key; there are proto, target, name, ttl, auth, host_header, target_proto, \
                     remote_port, proxy_protocol, replica, balance, domains and policy"
                )),
            }
        }
        if !table.contains_key("target") {
            self.errors.push(format!("{place}target is missing"));
        }
        let only_http = [
            ("auth", auth.is_some()),
            ("host_header", host_header.is_some()),
            ("target_proto", speaks == Some(Speaks::Http2)),
        ];
        for (key, given) in only_http {
            if given && proto.is_raw() {
                self.errors.push(format!("{place}{key}: bytes of proto {proto} are not read; leave it out"));
            }
        }
        if remote_port.is_some() && proto != Proto::Tcp {
            self.errors.push(format!("{place}remote_port: it is for proto = \"tcp\""));
        }
        if balance.is_some() && !replica {
            self.errors.push(format!("{place}balance: there is none without replica = true"));
        }
        if replica && !table.contains_key("name") {
            self.errors.push(format!("{place}replica: give a name, by which the clients find each other"));
        }
        let replica = replica.then(|| balance.unwrap_or_default());
        let target = target?;
        if let Err(error) = target.check_proxy_protocol(proxy_protocol) {
            self.errors.push(format!("{place}proxy_protocol: {error}"));
        }
        let host_header = match host_header.map(|text| http::host_header(&text, &target)) {
            Some(Ok(host_header)) => host_header,
            Some(Err(error)) => {
                self.errors.push(format!("{place}{error}"));
                None
            }
            None => None,
        };
        Some(Tunnel {
            target,
            name,
            ttl,
            auth,
            policy,
            host_header,
            domains,
            proto,
            remote_port,
            proxy_protocol,
            speaks: speaks?,
            replica,
        })
    }

    fn policy(&mut self, place: &str, value: &Value, has_auth: bool, proto: Proto) -> Option<Policy> {
        let Value::Table(table) = value else {
            self.errors.push(format!("{place}policy: write [tunnel.policy] with rules below it"));
            return None;
        };
        let read = policy::of_table(table.clone(), self.dir).map_err(|error| vec![error]);
        let read = read.and_then(|policy| {
            let wrong = complaints(&policy, &Given { has_auth, scope: Scope::of(proto), ..Given::default() });
            if wrong.is_empty() { Ok(policy) } else { Err(wrong) }
        });
        let said =
            |wrong: Vec<String>| wrong.into_iter().map(|wrong| format!("{place}policy: {wrong}")).collect();
        let policy = read.map_err(|wrong| self.errors.extend::<Vec<_>>(said(wrong))).ok()?;
        Some(policy).filter(|policy| !policy.is_empty())
    }

    fn text(&mut self, place: &str, key: &str, value: &Value) -> Option<String> {
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.errors.push(format!("{place}{key}: write a text in quotes"));
        }
        text
    }

    fn texts(&mut self, place: &str, key: &str, value: &Value) -> Vec<String> {
        let texts: Option<Vec<String>> =
            value.as_array().and_then(|all| all.iter().map(|one| one.as_str().map(str::to_owned)).collect());
        if texts.is_none() {
            self.errors.push(format!("{place}{key}: write a list of texts, such as [\"www.example.com\"]"));
        }
        texts.unwrap_or_default()
    }

    fn check<T>(
        &mut self,
        place: &str,
        key: &str,
        text: &str,
        read: fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        read(text).map_err(|error| self.errors.push(format!("{place}{key}: {error}"))).ok()
    }
}

fn proto_of(text: &str) -> Result<Proto, String> {
    text.parse::<Proto>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_here(text: &str) -> Result<Wanted, Vec<String>> {
        parse(text, Path::new("."))
    }

    #[test]
    fn a_file_of_tunnels_is_read() {
        let wanted = parse_here(
            "relay = 'https://relay.example.com'\nkey = 'k'\n[[tunnel]]\ntarget = 3000\nname = 'web'\nttl = '8h'\n\
             auth = 'u:p:q'\nhost_header = 'rewrite'\n[[tunnel]]\ntarget = 'unix:/run/app.sock'\n",
        )
        .unwrap();
        assert_eq!(wanted.relay.as_deref(), Some("https://relay.example.com"));
        let [web, app] = &wanted.tunnels[..] else { panic!("{wanted:?}") };
        assert_eq!((web.name.as_deref(), web.host_header.as_deref()), (Some("web"), Some("localhost:3000")));
        assert_eq!(web.auth, Some(("u".into(), "p:q".into())));
        assert_eq!(app.target.to_string(), "unix:/run/app.sock");
    }

    #[test]
    fn a_tunnel_of_bytes_has_a_port_and_nothing_of_http() {
        let wanted = parse_here(
            "[[tunnel]]\nproto = 'tcp'\ntarget = 5432\nremote_port = 20001\nproxy_protocol = 'v2'\nname = 'db'\n",
        );
        let tunnel = wanted.unwrap().tunnels.remove(0);
        assert_eq!((tunnel.proto, tunnel.remote_port), (Proto::Tcp, Some(20001)));
        assert_eq!(
            (tunnel.proxy_protocol, tunnel.target.to_string().as_str()),
            (Some(ProxyProtocol::V2), "tcp://localhost:5432")
        );
        let errors = parse_here(
            "[[tunnel]]\nproto = 'tcp'\ntarget = 'http://a'\nauth = 'u:p'\nremote_port = 0\n[[tunnel]]\ntarget = 1\n\
             remote_port = 1\nproxy_protocol = 'v3'\n[[tunnel]]\nproto = 'udp'\ntarget = 1\n",
        )
        .unwrap_err();
        for part in [
            "tunnel 1: target: \"http://a\"",
            "tunnel 1: auth: bytes",
            "tunnel 1: remote_port: write a number",
            "tunnel 2: remote_port: it is for",
            "tunnel 2: proxy_protocol: write v1 or v2",
            "tunnel 3: proto: write http, tcp or tls",
        ] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part} in {errors:#?}");
        }
        assert_eq!(errors.len(), 6, "{errors:#?}");
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let errors = parse_here(
            "relais = 'x'\nkey = 3\n[[tunnel]]\ntarget = 70000\nname = 'a.b'\nport = 1\n[[tunnel]]\nttl = 'soon'\n\
             auth = 'secret'\n[[tunnel]]\ntarget = 1\nname = 'web'\n[[tunnel]]\ntarget = 2\nname = 'WEB'\nhost_header = 'a b'\n",
        )
        .unwrap_err();
        for part in [
            "relais: no such key",
            "key: write a text",
            "tunnel 1: target: \"70000\"",
            "tunnel 1: name:",
            "tunnel 1: port: no such key",
            "tunnel 2: ttl:",
            "tunnel 2: auth: write USER:PASSWORD",
            "tunnel 2: target is missing",
            "tunnel 4: host-header:",
            "\"web\" is given to two",
        ] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part} in {errors:#?}");
        }
        assert_eq!(errors.len(), 10, "{errors:#?}");
        assert!(!errors.iter().any(|error| error.contains("secret")), "{errors:#?}");
        assert!(parse_here("a = 1\nb = [").unwrap_err()[0].starts_with("line 2: "));
        assert!(parse_here("").unwrap_err()[0].contains("[[tunnel]]"));
        let errors = parse_here(
            "[[tunnel]]\ntarget = 1\nauth = 'u:s3cret'\n[tunnel.policy]\nauth = 'v:s3cret'\nallow = ['x']\nalow = 1\n\
             [[tunnel]]\ntarget = 2\npolicy = 3\n[[tunnel]]\ntarget = 3\npolicy = { offline_page_file = '/nowhere' }\n",
        )
        .unwrap_err();
        for part in [
            "tunnel 1: policy: alow: no such rule",
            "tunnel 1: policy: auth: the tunnel asks",
            "tunnel 1: policy: allow: \"x\"",
            "tunnel 2: policy: write [tunnel.policy]",
            "tunnel 3: policy: offline_page: /nowhere",
        ] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part} in {errors:#?}");
        }
        assert!(errors.len() == 5 && !errors.concat().contains("s3cret"), "{errors:#?}");
        assert!(parse_here("tunnel = 3").unwrap_err()[0].contains("brackets"));
    }
}
