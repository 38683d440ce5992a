//! The map of the house (CONTRIBUTING.md) as a test: which module may know which, and which crate belongs where.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod sources;

use std::fs;
use std::path::{Path, PathBuf};

use sources::rust_files;

/// A module, and those below it that it may use: proto ← stream ← link ← tunnel ← (relay, client, bridge) ← conform ←
/// cli, with store and auth beside tunnel.
const MAY_USE: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("sync", &[]),
    ("random", &[]),
    ("rate", &["sync", "proto"]),
    ("tally", &[]),
    ("stream", &["sync", "proto"]),
    ("link", &["sync", "tally", "proto", "stream"]),
    ("store", &["sync", "tally", "proto"]),
    ("auth", &["sync", "proto", "store"]),
    ("tunnel", &["sync", "rate", "tally", "proto", "stream", "link", "store", "auth"]),
    ("relay", &["sync", "rate", "tally", "random", "proto", "stream", "link", "store", "auth", "tunnel"]),
    ("client", &["sync", "random", "proto", "stream", "auth"]),
    ("bridge", &["sync", "rate", "tally", "random", "proto", "stream", "link", "store", "auth", "tunnel"]),
    ("conform", &["sync", "proto", "stream", "link", "store", "auth", "tunnel", "relay", "client", "bridge"]),
    (
        "cli",
        &[
            "sync", "proto", "stream", "link", "store", "auth", "tunnel", "relay", "client", "bridge",
            "conform",
        ],
    ),
];

/// A crate, and the files and directories that may name it: to replace it, only these are touched.
const BELONGS_IN: &[(&str, &[&str])] = &[
    ("axum", &["relay/", "bridge/"]),
    ("hyper", &["relay/", "bridge/", "client/", "conform/", "stream/", "cli/"]),
    ("h2", &["relay/multiplex/"]),
    ("tokio_tungstenite", &["stream/"]),
    ("rusqlite", &["store/"]),
    (
        "rustix",
        &[
            "stream/courier.rs",
            "stream/descriptors.rs",
            "relay/observe/process.rs",
            "cli/log/syslog.rs",
            "cli/bridge/",
            "bridge/spawn/process.rs",
            "bridge/wrap/program.rs",
            "conform/client/process.rs",
        ],
    ),
    ("regex", &["bridge/routes.rs", "cli/bridge/lighttpd/"]),
    ("toml", &["cli/"]),
    ("async_nats", &["store/"]),
    ("opentelemetry", &["relay/spans/"]),
    ("opentelemetry_http", &["relay/spans/"]),
    ("opentelemetry_otlp", &["relay/spans/"]),
    ("opentelemetry_sdk", &["relay/spans/"]),
    ("jsonwebtoken", &["auth/"]),
    ("clap", &["cli/"]),
    ("crossterm", &["cli/top/"]),
    ("ratatui", &["cli/top/"]),
    ("prometheus_client", &["relay/observe/metrics/", "bridge/metrics.rs"]),
    ("anyhow", &["cli/", "main.rs"]),
    (
        "dashmap",
        &["link/sockets/pending.rs", "tunnel/registry.rs", "tunnel/registry/workers.rs", "tunnel/domains.rs"],
    ),
    (
        "tokio",
        &[
            "rate.rs", "stream/", "link/", "store/", "auth/", "tunnel/", "relay/", "client/", "bridge/",
            "conform/", "cli/", "main.rs",
        ],
    ),
];

/// One source file without its tests.
struct Source {
    /// Below `src/`, with `/`.
    path: String,
    lines: Vec<(usize, String)>,
}

impl Source {
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or_default()
    }

    /// Complaints about the lines for which `complain` has one.
    fn complaints(&self, complain: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let at = |(number, line): &(usize, String)| {
            complain(line).map(|what| format!("src/{}:{number}: {what}", self.path))
        };
        self.lines.iter().filter_map(at).collect()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = rust_files(&root);
    let test_only: Vec<PathBuf> = found.iter().flat_map(|path| test_modules(path)).collect();
    found.retain(|path| !test_only.contains(path));
    found.iter().map(|path| source(&root, path)).collect()
}

/// Files of the modules that `path` declares for tests only.
fn test_modules(path: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(path).unwrap();
    let names = text.split("#[cfg(test)]").skip(1).filter_map(|rest| {
        let (_, name) = rest.lines().nth(1)?.split_once("mod ")?;
        name.strip_suffix(';')
    });
    let dir = match path.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") => path.parent().unwrap().to_owned(),
        _ => path.with_extension(""),
    };
    names.flat_map(|name| [dir.join(format!("{name}.rs")), dir.join(name).join("mod.rs")]).collect()
}

/// The lines up to the tests, which are last in a file, without comments.
fn source(root: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let inline = |at: &usize| {
        lines[*at] == "#[cfg(test)]" && lines.get(at + 1).is_some_and(|next| next.ends_with('{'))
    };
    let end = (0..lines.len()).find(inline).unwrap_or(lines.len());
    let code = lines[..end].iter().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let path = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
    Source { path, lines: code.map(|(at, line)| (at + 1, (*line).to_owned())).collect() }
}

/// The names that follow `crate::` in a line, in braces too.
fn used_modules(line: &str) -> Vec<&str> {
    let word = |text: &'static str| move |c: char| !c.is_alphanumeric() && !text.contains(c);
    let mut used = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        // `crate::{a::x, b}`: only what stands at the first level of the braces is a module.
        let Some(group) = rest.strip_prefix('{') else {
            used.extend(rest.split(word("_")).next());
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && c.is_alphabetic() => {
                    used.extend(group[at..].split(word("_")).next());
                    begins = false;
                }
                _ => {}
            }
        }
    }
    used
}

/// Whether the line names the crate `name` in code: `name::` or `use name`, as a whole word.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let whole = before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-' | ':' | '"' | '`'));
        whole && line[at + name.len()..].starts_with("::")
    })
}

fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn imports_point_down_only() {
    let mut complaints = Vec::new();
    for source in sources() {
        let module = source.module();
        if matches!(module, "lib" | "main") {
            continue;
        }
        let Some((_, below)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            complaints.push(format!("src/{}: a module that this test does not know", source.path));
            continue;
        };
        complaints.extend(source.complaints(|line| {
            let up = used_modules(line).into_iter().find(|used| *used != module && !below.contains(used))?;
            Some(format!("{module} must not use {up}"))
        }));
    }
    assert_none(complaints);
}

#[test]
fn each_crate_stays_where_it_belongs() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (name, places) in BELONGS_IN {
            if !places.iter().any(|place| source.path.starts_with(place)) {
                let complain = |line: &str| {
                    names(line, name).then(|| format!("{name} belongs in {}", places.join(", ")))
                };
                complaints.extend(source.complaints(complain));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn nothing_outside_tests_panics_by_unwrap_or_expect() {
    let complain = |line: &str| {
        let found = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("]
            .into_iter()
            .find(|call| line.contains(call));
        found.map(|call| format!("{call} outside a test"))
    };
    assert_none(sources().iter().flat_map(|source| source.complaints(complain)).collect());
}

#[test]
fn every_file_says_in_its_first_line_what_it_is_for() {
    let mute = sources().into_iter().filter(|source| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&source.path);
        !fs::read_to_string(path).unwrap().starts_with("//! ")
    });
    assert_none(mute.map(|source| format!("src/{}: the first line says nothing", source.path)).collect());
}

/// Keys that every record in JSON has already.
const KEYS_OF_RECORDS: [&str; 6] = ["timestamp", "level", "target", "message", "span", "spans"];

/// Names of the fields that the records of `code` have.
fn fields(code: &str) -> Vec<&str> {
    let records = code.split("tracing::").skip(1);
    let arguments =
        records.filter_map(|record| record.split_once("!(").filter(|(level, _)| !level.contains(' ')));
    arguments
        .flat_map(|(_, rest)| {
            // The text that ends a record is the only thing in it that begins its line, or its part, with a quote.
            let parts = rest.split(',').map(str::trim).take_while(|part| !part.starts_with('"'));
            parts.map(|part| part.split('=').next().unwrap().trim().trim_start_matches(['%', '?']))
        })
        .collect()
}

#[test]
fn no_record_of_the_log_has_a_key_twice() {
    let mut complaints = Vec::new();
    for source in sources() {
        let code: Vec<_> = source.lines.iter().map(|(_, line)| line.as_str()).collect();
        for field in fields(&code.join("\n")) {
            if KEYS_OF_RECORDS.contains(&field) {
                complaints.push(format!(
                    "src/{}: a record has a field {field}, which is a key of each",
                    source.path
                ));
            }
        }
    }
    assert_none(complaints);
    let code = "tracing::info!(target: \"x\", a, %b, c = 1, target, \"said\"); tracing::warn!(level = d(1), \"said\")";
    assert_eq!(fields(code), ["target: \"x\"", "a", "b", "c", "target", "level"]);
}

#[test]
fn the_reading_of_imports_is_right() {
    assert_eq!(used_modules("use crate::proto::close;"), ["proto"]);
    assert_eq!(used_modules("use crate::{proto::{a, b}, stream::Duplex};"), ["proto", "stream"]);
    assert_eq!(used_modules("    let x = crate::auth_x::y(crate::store::z);"), ["auth_x", "store"]);
    assert!(names("use clap::Arg;", "clap") && names("    clap::Arg", "clap"));
    assert!(
        !names("use my_clap::Arg;", "clap")
            && !names("x.clap()", "clap")
            && !names("tower::hyper::x", "hyper")
    );
    assert!(!names("use hyper_util::rt;", "hyper"));
}
