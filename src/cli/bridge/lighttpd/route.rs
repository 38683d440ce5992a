//! One KEY of `wstunnel.server` as a `[[route]]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use toml::Value as Toml;

use super::condition::Asked;
use super::parse::File;
use super::value::Value;

/// Settings of a backend that say the same of each, or nothing to a tunnel.
const WITHOUT_MEANING: [&str; 3] = ["check-local", "tcp-fin-propagate", "mode"];

/// Writes the route of `key`, whose backends are `hosts`.
pub(super) fn write(
    file: &File,
    block: usize,
    (key, hosts): (&str, &Value),
    mut asked: Asked,
    notes: &mut Vec<String>,
) -> String {
    let line = file.get(block, "wstunnel.server").map_or(1, |(line, _)| *line);
    let mut note = |what: String| notes.push(format!("line {line}: {what}"));
    let mut route = String::from("\n[[route]]\n");
    let mut set = |key: &str, value: Toml| route += &format!("{key} = {value}\n");
    let path = asked.settle(key);
    set("path", path.into());
    for (key, list) in
        [("url", asked.url), ("host", asked.host), ("allow", asked.allow), ("deny", asked.deny)]
    {
        if !list.is_empty() {
            set(key, list.into());
        }
    }
    // Which of the paths that fit an ending is one of these is the same question as which KEY they are mapped to.
    if let Some((_, map)) = file.get(block, "wstunnel.map-extensions") {
        let ends = map.list().iter().filter(|(_, to)| to.shown() == key).filter_map(|(end, _)| end.clone());
        let ends: Vec<_> = ends.collect();
        if !ends.is_empty() {
            set("extensions", ends.into());
        }
    }
    let (spawned, there): (Vec<_>, Vec<_>) =
        hosts.list().iter().map(|(_, host)| host).partition(|host| host.get("bin-path").is_some());
    let targets: Vec<_> = there.into_iter().map(target).collect();
    match &targets[..] {
        [] => {}
        [one] => set("target", one.as_str().into()),
        all => set("targets", all.to_vec().into()),
    }
    settings(file, block, &mut set, &mut note);
    timeouts(hosts, &mut set, &mut note);
    for (name, host) in hosts.list() {
        for (setting, value) in host.list() {
            let setting = setting.as_deref().unwrap_or_default();
            if !KNOWN.contains(&setting) && !WITHOUT_MEANING.contains(&setting) {
                let host = name.as_deref().map(|name| format!(" of {name:?}")).unwrap_or_default();
                note(format!("{setting} = {:?}{host}: a tunnel has no use for it", value.shown()));
            }
        }
    }
    for host in spawned {
        route += &spawn(host, &mut note);
    }
    route
}

/// What is read of a backend.
const KNOWN: [&str; 14] = [
    "host",
    "port",
    "socket",
    "bin-path",
    "min-procs",
    "max-procs",
    "bin-environment",
    "bin-copy-environment",
    "kill-signal",
    "listen-backlog",
    "connect-timeout",
    "read-timeout",
    "write-timeout",
    "disable-time",
];

/// `wstunnel.*` that holds in the block.
fn settings(file: &File, block: usize, set: &mut impl FnMut(&str, Toml), note: &mut impl FnMut(String)) {
    let get = |key: &str| file.get(block, key).map(|(_, value)| value);
    let binary = get("wstunnel.frame-type").is_some_and(|value| value.shown().eq_ignore_ascii_case("binary"));
    set("frame-type", if binary { "binary" } else { "text" }.into());
    set("text", "pass".into());
    match get("wstunnel.balance").map(Value::shown).as_deref() {
        None | Some("fair" | "least-connection") => {}
        Some(known @ ("round-robin" | "hash" | "sticky")) => set("balance", known.into()),
        Some(other) => {
            note(format!("wstunnel.balance = {other:?} is unknown to lighttpd too; it is least-connection"))
        }
    }
    if let Some(origins) = get("wstunnel.origins").map(Value::texts).filter(|origins| !origins.is_empty()) {
        let mut ours = Vec::new();
        for origin in origins {
            if origin.contains("://") {
                ours.push(origin);
            } else {
                note(format!(
                    "the origin {origin:?} lets pages of hosts below it in, such as https://www.{origin}, and not of {origin} itself, \
                     as with lighttpd; add \"https://{origin}\" if they are meant"
                ));
                ours.push(format!("*.{origin}"));
            }
        }
        set("origins", ours.into());
    }
    if let Some(seconds) =
        get("wstunnel.ping-interval").and_then(Value::number).filter(|seconds| *seconds > 0)
    {
        set("ping-interval", format!("{seconds}s").into());
    }
    if let Some(level) = get("wstunnel.debug").and_then(Value::number).filter(|level| *level > 0) {
        set("debug", level.min(4).into());
    }
    for (theirs, ours) in
        [("server.max-read-idle", "read-timeout"), ("server.max-write-idle", "write-timeout")]
    {
        if let Some(seconds) = get(theirs).and_then(Value::number).filter(|seconds| *seconds > 0) {
            set(ours, format!("{seconds}s").into());
        }
    }
}

/// Deadlines, which backends of lighttpd have each for itself, and here a route for all of its own.
fn timeouts(hosts: &Value, set: &mut impl FnMut(&str, Toml), note: &mut impl FnMut(String)) {
    for key in ["connect-timeout", "disable-time"] {
        let values: Vec<_> =
            hosts.list().iter().map(|(_, host)| host.get(key).and_then(Value::number)).collect();
        let Some(first) = values.iter().flatten().next() else { continue };
        if values.iter().any(|value| value.is_some_and(|value| value != *first)) {
            note(format!("{key} differs between backends; the first, {first} s, is for all"));
        }
        set(key, format!("{}s", first.max(&0)).into());
    }
    for key in ["read-timeout", "write-timeout"] {
        if hosts
            .list()
            .iter()
            .any(|(_, host)| host.get(key).and_then(Value::number).is_some_and(|seconds| seconds > 0))
        {
            note(format!(
                "{key} of a backend: one that is silent ends no session; idle-timeout of the route ends those in which nothing moves"
            ));
        }
    }
}

fn target(host: &Value) -> String {
    if let Some(path) = host.get("socket") {
        return format!("unix_socket:{}", path.shown());
    }
    let name = host.get("host").map_or_else(|| "127.0.0.1".to_owned(), Value::shown);
    let port = host.get("port").and_then(Value::number).unwrap_or(80);
    if name.contains(':') && !name.starts_with('[') {
        format!("[{name}]:{port}")
    } else {
        format!("{name}:{port}")
    }
}

fn spawn(host: &Value, note: &mut impl FnMut(String)) -> String {
    let mut text = String::from("[[route.spawn]]\n");
    let mut set = |key: &str, value: Toml| text += &format!("{key} = {value}\n");
    let get = |key: &str| host.get(key).map(Value::shown);
    let command = get("bin-path").unwrap_or_default();
    set("command", command.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into());
    match get("socket") {
        Some(path) => set("socket", path.into()),
        None => {
            let name = get("host").unwrap_or_else(|| "localhost".into());
            let address = name.trim_matches(['[', ']']).parse().unwrap_or_else(|_| {
                if name != "localhost" {
                    note(format!(
                        "host = {name:?} of {command:?}: it listens at 127.0.0.1, as names are not looked up; write the address that is meant"
                    ));
                }
                IpAddr::from(Ipv4Addr::LOCALHOST)
            });
            let port = host.get("port").and_then(Value::number).and_then(|port| u16::try_from(port).ok());
            set("listen", SocketAddr::new(address, port.unwrap_or(80)).to_string().into());
        }
    }
    // Four is what lighttpd takes where nothing is said.
    let procs = |key: &str| host.get(key).and_then(Value::number).unwrap_or(4).max(1);
    set("min-procs", procs("min-procs").min(procs("max-procs")).into());
    set("max-procs", procs("max-procs").into());
    for key in ["kill-signal", "listen-backlog"] {
        if let Some(number) = host.get(key).and_then(Value::number) {
            set(key, number.into());
        }
    }
    if let Some(names) = host.get("bin-copy-environment") {
        set("copy-environment", names.texts().into());
    }
    if let Some(variables) = host.get("bin-environment") {
        let one = |(name, value): &(Option<String>, Value)| Some((name.clone()?, Toml::from(value.shown())));
        set("environment", Toml::Table(variables.list().iter().filter_map(one).collect()));
    }
    text
}
