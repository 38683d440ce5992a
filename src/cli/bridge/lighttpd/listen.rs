//! Where lighttpd listens, its TLS and its files.

use toml::Value as Toml;

use super::parse::{Condition, File};
use super::value::Value;

/// Settings of TLS that have a word here.
pub(super) const KNOWN: &[&str] = &[
    "ssl.engine",
    "ssl.pemfile",
    "ssl.privkey",
    "ssl.ca-file",
    "ssl.verifyclient.activate",
    "ssl.verifyclient.enforce",
    "ssl.verifyclient.ca-file",
];

/// Everything that is no route.
pub(super) fn write(file: &File, notes: &mut Vec<String>) -> String {
    let mut text = String::new();
    let mut set = |key: &str, value: Toml| text += &format!("{key} = {value}\n");
    let get = |block: usize, key: &str| file.get(block, key).map(|(_, value)| value);
    let sockets = sockets(file);
    let tls: Vec<_> =
        sockets.iter().filter(|(block, _)| get(*block, "ssl.engine").is_some_and(Value::is_on)).collect();
    let (paths, ports): (Vec<_>, Vec<_>) =
        sockets.iter().map(|(_, socket)| socket.clone()).partition(|socket| socket.starts_with('/'));
    match &ports[..] {
        [] => {}
        [one] => set("listen", one.as_str().into()),
        all => set("listen", all.to_vec().into()),
    }
    match &paths[..] {
        [] => {}
        [one] => set("unix-listen", one.as_str().into()),
        [one, ..] => {
            set("unix-listen", one.as_str().into());
            notes.push(format!("of the Unix sockets only {one} is listened at"));
        }
    }
    if sockets.len() > 1 {
        notes.push("every route is reached at every listening socket".into());
    }
    if let Some((block, socket)) = tls.first() {
        certificates(&|key| get(*block, key), &mut set, notes);
        if tls.len() == sockets.len() {
            set("ssl-only", true.into());
        } else {
            notes.push("TLS and plain HTTP are told apart by their first byte, so that both are served at every socket".into());
        }
        let pem = |block: usize| get(block, "ssl.pemfile");
        if tls.iter().any(|(other, _)| pem(*other) != pem(*block)) {
            notes.push(format!("there is one certificate, that of {socket}"));
        }
    }
    if let Some(root) = get(0, "server.document-root") {
        set("web", root.shown().into());
        let lists = ["dir-listing.activate", "server.dir-listing"]
            .iter()
            .any(|key| get(0, key).is_some_and(Value::is_on));
        if !lists {
            set("file-only", true.into());
        }
    }
    if let Some(log) = get(0, "server.errorlog") {
        set("log-file", log.shown().into());
    }
    text
}

/// Where lighttpd listens: each socket with the block that is about it.
pub(super) fn sockets(file: &File) -> Vec<(usize, String)> {
    let get = |block: usize, key: &str| file.get(block, key).map(|(_, value)| value);
    let port = get(0, "server.port").map_or_else(|| "80".to_owned(), Value::shown);
    let first = match get(0, "server.bind").map(Value::shown) {
        Some(path) if path.starts_with('/') => path,
        Some(bind) => address(&bind, &port),
        None => port,
    };
    let mut sockets = vec![(0, first)];
    for (at, block) in file.blocks.iter().enumerate() {
        if let [condition] = &block.conditions[..]
            && condition.subject == "$SERVER[\"socket\"]"
            && (condition.sign, condition.negated) == ("==", false)
        {
            let socket = socket(condition).to_owned();
            sockets.retain(|(_, other)| *other != socket);
            sockets.push((at, socket));
        }
    }
    sockets
}

/// The socket that a condition names.
pub(super) fn socket(condition: &Condition) -> &str {
    condition.text.strip_prefix(':').unwrap_or(&condition.text)
}

fn certificates<'a>(
    get: &impl Fn(&str) -> Option<&'a Value>,
    set: &mut impl FnMut(&str, Toml),
    notes: &mut Vec<String>,
) {
    match get("ssl.pemfile") {
        Some(pem) => set("cert", pem.shown().into()),
        None => notes.push("ssl.engine is on without ssl.pemfile; give cert and key".into()),
    }
    if let Some(key) = get("ssl.privkey") {
        set("key", key.shown().into());
    }
    if get("ssl.verifyclient.activate").is_some_and(Value::is_on) {
        set("verify-client", true.into());
        if let Some(authority) = get("ssl.verifyclient.ca-file").or_else(|| get("ssl.ca-file")) {
            set("cafile", authority.shown().into());
        }
        if !get("ssl.verifyclient.enforce").is_none_or(Value::is_on) {
            notes.push("ssl.verifyclient.enforce = \"disable\": with verify-client nobody gets in without a certificate".into());
        }
    }
}

/// An address and a port; of IPv6 in brackets.
fn address(host: &str, port: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
