//! `--from-lighttpd FILE`: the configuration of mod_wstunnel as one of the bridge, and what could not be brought over.

mod closed;
mod condition;
mod lex;
mod listen;
mod parse;
mod route;
#[cfg(test)]
mod tests;
mod value;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow};

use condition::{Asked, shown};
use parse::{Block, Condition, File};

/// Writes the translation of the file at `path` to stdout, and what it does not have to stderr.
pub(super) fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let Translation { toml, notes } =
        translate(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    print!("{toml}");
    for note in notes {
        eprintln!("{}: {note}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// A configuration of the bridge.
#[derive(Debug)]
struct Translation {
    /// The file, for `adit bridge --config`.
    toml: String,
    /// What it does not have, and why; by line.
    notes: Vec<String>,
}

/// Settings that are dealt with elsewhere, or that make no difference to the bridge.
const QUIET: &[&str] = &[
    "mimetype.assign",
    "server.bind",
    "server.document-root",
    "server.errorlog",
    "server.event-handler",
    "server.modules",
    "server.network-backend",
    "server.port",
    "server.stream-request-body",
    "server.stream-response-body",
    "server.use-ipv6",
    "dir-listing.activate",
    "server.dir-listing",
];

/// Why settings that begin so have no place here.
const REASONS: &[(&str, &str)] = &[
    ("accesslog.", "each session is a record in the log"),
    ("auth.", "nobody is asked for a password until you give auth-plugin and auth-source"),
    ("url.access-", "nothing is denied until you give allow or deny to a route"),
    ("url.", "paths are not rewritten or redirected"),
    ("alias.", "files come from one directory, web"),
    ("fastcgi.", "the bridge serves files and WebSockets"),
    ("scgi.", "the bridge serves files and WebSockets"),
    ("cgi.", "the bridge serves files and WebSockets"),
    ("proxy.", "the bridge serves files and WebSockets"),
    ("server.username", "start the bridge as that user, for example by User= of its unit"),
    ("server.groupname", "start the bridge as that group, for example by Group= of its unit"),
    ("server.chroot", "start the bridge there, for example by RootDirectory= of its unit"),
    ("server.pid-file", "the bridge writes none; a service manager knows its process"),
    ("wstunnel.", "it stands where no wstunnel.server is; give it to the routes that it is meant for"),
];

/// Translates `text`. An error says what cannot be read, or that there is nothing to translate.
fn translate(text: &str) -> Result<Translation, String> {
    let file = parse::parse(text)?;
    let mut notes: Vec<_> = file.passed.iter().map(|(line, what)| format!("line {line}: {what}")).collect();
    let serves = |block: &Block| block.settings.contains_key("wstunnel.server");
    if !file.blocks.iter().any(serves) {
        let elsewhere = if file.is_whole { "" } else { parse::ELSEWHERE };
        return Err(format!("there is no wstunnel.server, so that there is nothing to bridge{elsewhere}"));
    }
    let mut toml = String::from("# What lighttpd's mod_wstunnel was told, for `adit bridge --config`.\n");
    toml += &listen::write(&file, &mut notes);
    // The last block whose conditions hold decides.
    let mut blocks: Vec<_> = (0..file.blocks.len()).filter(|at| serves(&file.blocks[*at])).collect();
    blocks.reverse();
    for (at, block) in blocks.iter().enumerate() {
        toml += &routes(&file, *block, at + 1 < blocks.len(), &mut notes);
    }
    rest(&file, &mut notes);
    notes.sort_by_key(|note| line_of(note));
    notes.dedup();
    Ok(Translation { toml, notes })
}

fn line_of(note: &str) -> usize {
    let digits = note.strip_prefix("line ").and_then(|rest| rest.split(':').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The routes of one block.
fn routes(file: &File, block: usize, others_follow: bool, notes: &mut Vec<String>) -> String {
    let Some((line, server)) = file.get(block, "wstunnel.server") else { return String::new() };
    let mut note = |what: String| notes.push(format!("line {line}: {what}"));
    let conditions = &file.blocks[block].conditions;
    if let Err(why) = Asked::of(conditions) {
        // Without the condition the backends would be open to more people.
        note(format!("wstunnel.server is left out: {why}"));
        return String::new();
    }
    let sockets = listen::sockets(file);
    let of_socket = |condition: &&Condition| condition.subject == "$SERVER[\"socket\"]";
    if let Some(condition) = conditions
        .iter()
        .filter(of_socket)
        .find(|condition| !matches!(&sockets[..], [(_, only)] if only.as_str() == listen::socket(condition)))
    {
        note(format!(
            "wstunnel.server is left out: {}: every route is reached at every listening socket; give it a bridge of its own",
            shown(condition)
        ));
        return String::new();
    }
    if conditions.iter().any(|condition| condition.subject.starts_with("$HTTP[\"remote")) {
        note(
            "another address gets 403, and not what lighttpd would have shown it instead of the tunnel"
                .into(),
        );
    }
    let keys: Vec<_> = server.list().iter().map(|(key, _)| key.as_deref().unwrap_or_default()).collect();
    if others_follow && !keys.contains(&"") {
        note("a path that fits none of its keys is looked for in the wstunnel.server further up, too".into());
    }
    let mut toml = String::new();
    for (key, hosts) in server.list() {
        let Some(key) = key else {
            notes.push(format!(
                "line {line}: a list of backends without a path is left out: write \"\" => ( … )"
            ));
            continue;
        };
        if hosts.list().is_empty() || hosts.list().iter().any(|(_, host)| host.list().is_empty()) {
            notes.push(format!(
                "line {line}: {key:?} is left out: its backends are written ( ( \"host\" => …, \"port\" => … ) ), with two brackets"
            ));
            continue;
        }
        let asked = Asked::of(conditions).unwrap_or_default();
        if let Some(why) = closed::why(file, block, &asked.clone().settle(key)) {
            notes.push(format!("line {line}: {key:?} is left out: {why}"));
            continue;
        }
        toml += &route::write(file, block, (key, hosts), asked, notes);
    }
    toml
}

/// What nothing was made of.
fn rest(file: &File, notes: &mut Vec<String>) {
    for (at, block) in file.blocks.iter().enumerate() {
        let serves = file.get(at, "wstunnel.server").is_some();
        let own = block.settings.contains_key("wstunnel.server") || at == 0;
        let place: Vec<_> = block.conditions.iter().map(shown).collect();
        let place = if place.is_empty() { String::new() } else { format!(" in {}", place.join(", ")) };
        for (key, (line, value)) in &block.settings {
            let handled = match key.as_str() {
                "index-file.names" | "server.indexfiles" => {
                    value.texts().iter().any(|name| name == "index.html")
                }
                "server.max-read-idle" | "server.max-write-idle" => own,
                "server.document-root" | "dir-listing.activate" | "server.dir-listing" => at == 0,
                key if key.starts_with("ssl.") => listen::KNOWN.contains(&key),
                key if key.starts_with("wstunnel.") => own,
                key => QUIET.contains(&key),
            };
            if handled {
                continue;
            }
            let reason =
                REASONS.iter().find(|(prefix, _)| key.starts_with(prefix)).map(|(_, reason)| *reason);
            let reason = match key.as_str() {
                "index-file.names" | "server.indexfiles" => Some("the page of a directory is index.html"),
                "server.document-root" => {
                    Some("files come from one directory, that of the outermost server.document-root")
                }
                key if key.starts_with("wstunnel.") && serves => {
                    Some("it holds for some requests of a route only; give it a [[route]] of its own")
                }
                _ => reason,
            };
            notes.push(format!(
                "line {line}: {key}{place}: {}",
                reason.unwrap_or("the bridge has nothing like it")
            ));
        }
    }
}
