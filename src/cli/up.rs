//! `adit up`: the many tunnels of one TOML file, in one process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use toml::{Table, Value};

use super::http::{self, RelayArgs, ShowArgs, Speaks, usage};
use crate::client::{Options, Target};
use crate::proto::api::Balance;

/// What stands in the file.
pub(super) const FILE_HELP: &str = "The file:\n\n  \
    relay = \"https://relay.example.com\"   # --relay and ADIT_RELAY go before it\n  \
    key = \"nbk_…\"                         # --key and ADIT_KEY go before it\n\n  \
    [[tunnel]]\n  \
    target = \"3000\"                       # as of `adit http`\n  \
    name = \"web\"                          # optional, as all that follows\n  \
    ttl = \"8h\"\n  \
    auth = \"user:password\"\n  \
    host_header = \"rewrite\"\n  \
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
        proxy: args.relay.proxy,
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
            host_header: tunnel.host_header,
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
    tunnels: Vec<Tunnel>,
}

#[derive(Debug, PartialEq, Eq)]
struct Tunnel {
    target: Target,
    name: Option<String>,
    ttl: Option<String>,
    auth: Option<(String, String)>,
    host_header: Option<String>,
    speaks: Speaks,
    replica: Option<Balance>,
}

/// Reads the file; all that is wrong with it at once.
fn read(file: &Path) -> Result<Wanted, Vec<String>> {
    let at = |what: &str| format!("{}: {what}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| vec![at(&error.to_string())])?;
    parse(&text).map_err(|errors| errors.iter().map(|error| at(error)).collect())
}

fn parse(text: &str) -> Result<Wanted, Vec<String>> {
    // The message has lines that show where; they would hide what else is told.
    let file: Table = text.parse().map_err(|error: toml::de::Error| {
        let line =
            error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        vec![format!("line {line}: {}", error.message())]
    })?;
    let mut reader = Reader { errors: Vec::new() };
    let mut wanted = Wanted::default();
    for (key, value) in &file {
        match key.as_str() {
            "relay" => wanted.relay = reader.text("", key, value),
            "key" => wanted.key = reader.text("", key, value),
            "tunnel" => match value {
                Value::Array(tunnels) => {
                    for (at, tunnel) in tunnels.iter().enumerate() {
                        wanted.tunnels.extend(reader.tunnel(at + 1, tunnel));
                    }
                }
                _ => reader.errors.push("tunnel: write [[tunnel]] with two brackets".into()),
            },
            _ => reader.errors.push(format!("{key}: no such key; there are relay, key and [[tunnel]]")),
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

struct Reader {
    errors: Vec<String>,
}

impl Reader {
    fn tunnel(&mut self, number: usize, value: &Value) -> Option<Tunnel> {
        let place = format!("tunnel {number}: ");
        let Value::Table(table) = value else {
            self.errors.push(format!("{place}write [[tunnel]] with keys below it"));
            return None;
        };
        let (mut target, mut name, mut ttl, mut auth, mut host_header) = (None, None, None, None, None);
        let (mut speaks, mut replica, mut balance) = (Some(Speaks::Http1), false, None);
        for (key, value) in table {
            match key.as_str() {
                // A port is the one value that is naturally written as a number.
                "target" => match value {
                    Value::Integer(port) => target = self.check(&place, key, &port.to_string(), http::target),
                    value => {
                        target = self
                            .text(&place, key, value)
                            .and_then(|text| self.check(&place, key, &text, http::target))
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
                "host_header" => host_header = self.text(&place, key, value),
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
                    "{place}{key}: no such key; there are target, name, ttl, auth, host_header, target_proto, replica and \
                     balance"
                )),
            }
        }
        if !table.contains_key("target") {
            self.errors.push(format!("{place}target is missing"));
        }
        if balance.is_some() && !replica {
            self.errors.push(format!("{place}balance: there is none without replica = true"));
        }
        if replica && !table.contains_key("name") {
            self.errors.push(format!("{place}replica: give a name, by which the clients find each other"));
        }
        let replica = replica.then(|| balance.unwrap_or_default());
        let target = target?;
        let host_header = match host_header.map(|text| http::host_header(&text, &target)) {
            Some(Ok(host_header)) => host_header,
            Some(Err(error)) => {
                self.errors.push(format!("{place}{error}"));
                None
            }
            None => None,
        };
        Some(Tunnel { target, name, ttl, auth, host_header, speaks: speaks?, replica })
    }

    fn text(&mut self, place: &str, key: &str, value: &Value) -> Option<String> {
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.errors.push(format!("{place}{key}: write a text in quotes"));
        }
        text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_tunnels_is_read() {
        let wanted = parse(
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
    fn everything_wrong_is_told_at_once() {
        let errors = parse(
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
        assert!(parse("a = 1\nb = [").unwrap_err()[0].starts_with("line 2: "));
        assert!(parse("").unwrap_err()[0].contains("[[tunnel]]"));
        assert!(parse("tunnel = 3").unwrap_err()[0].contains("brackets"));
    }
}
