//! `adit bridge --config FILE`: the flags of the command line as keys of a TOML file, and routes, which only a file has.

mod reader;
mod route;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{ArgAction, Command, FromArgMatches};
use toml::de::DeTable;

pub(super) use route::RouteFile;

use super::flags::{FileWords, Flags};
use reader::Reader;

/// What stands in the file, for `--help`.
pub(super) const HELP: &str = "The file:\n\n  \
    listen = \"6080\"                       # or a list; every flag is a key: cert, web, heartbeat, ...\n  \
    web = \"/usr/share/novnc\"\n\n  \
    [[route]]                             # any number; the first that fits takes a request\n  \
    path = \"/websockify\"                  # begins so; \".vnc\" ends so; \"\" any\n  \
    target = \"127.0.0.1:5900\"             # or targets = [\"a:5900\", \"unix_socket:/run/b.sock\"]\n  \
    balance = \"fair\"                      # optional, as all that follows; round-robin, hash, sticky\n  \
    extensions = [\".alias\"]               # paths that end so come here too\n  \
    url = [\"^/(a|b)/\", \"!x$\"]             # patterns that the path must fit; behind ! must not\n  \
    host = [\"^vnc\\\\.example\\\\.org\"]       # the same of the host\n  \
    allow = [\"10.0.0.0/8\"]                # deny = [...]: addresses of viewers\n  \
    origins = [\"https://example.org\", \"*.example.org\"]\n  \
    frame-type = \"text\"                   # how the target's bytes are sent: binary\n  \
    text = \"pass\"                         # text messages of viewers: refuse\n  \
    ping-interval = \"30s\"\n  \
    connect-timeout = \"8s\"              # for all backends together; each has an equal part of what is left\n  \
    disable-time = \"1s\"                   # a backend that failed is left alone for so long\n  \
    idle-timeout = \"1h\"                   # also read-timeout and write-timeout: of the viewer\n  \
    connect-first = false                 # the handshake before the target is dialled: 1011 instead of 502\n  \
    debug = 4                             # 1 errors, 2 warnings, 3 ends of sessions, 4 their beginnings\n\n  \
    [[route.spawn]]                       # a backend that the bridge runs, with its socket as fd 0\n  \
    command = [\"/usr/bin/server\", \"-v\"]\n  \
    socket = \"/run/server.sock\"           # or listen = \"127.0.0.1:7000\"\n  \
    min-procs = 1                         # max-procs, listen-backlog, kill-signal = 15\n  \
    environment = { LANG = \"C\" }          # copy-environment = [\"PATH\"]: nothing else is inherited";

/// Flags that say what to do with a file.
const NOT_KEYS: &[&str] = &["config", "check", "from-lighttpd", "daemon-of", "help", "version"];

/// A file that was read.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Where to listen.
    pub(super) listen: Vec<String>,
    /// Where WebSockets lead to that no route takes.
    pub(super) target: Option<String>,
    /// All other keys as flags, to be read before those that were typed.
    pub(super) flags: Vec<OsString>,
    pub(super) routes: Vec<RouteFile>,
}

/// The command line with what the file at `path` says before it, and the routes.
pub(super) fn settings(path: &Path) -> Result<(Flags, Vec<RouteFile>), Vec<String>> {
    let File { listen, target, flags, routes } = read(path, &super::command())?;
    // Behind the subcommand; of a flag that is given twice the second counts.
    let typed = std::env::args_os().skip(2);
    let arguments = std::iter::once("bridge".into()).chain(flags).chain(typed);
    let matches = super::command().try_get_matches_from(arguments);
    let flags = matches.and_then(|matches| Flags::from_arg_matches(&matches));
    let mut flags = flags.map_err(|error| vec![format!("{}: {}", path.display(), sentence(&error))])?;
    flags.file = Some(FileWords { listen, target, has_routes: !routes.is_empty() });
    Ok((flags, routes))
}

/// What clap says, without its headings.
fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

/// Reads the file at `path`, whose keys are the flags of `command`. All that is wrong with it is told at once, each with its line.
fn read(path: &Path, command: &Command) -> Result<File, Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| vec![format!("{}: {error}", path.display())])?;
    parse(&text, command)
        .map_err(|errors| errors.iter().map(|error| format!("{} {error}", path.display())).collect())
}

/// The same of a text; errors begin with the line.
fn parse(text: &str, command: &Command) -> Result<File, Vec<String>> {
    let mut reader = Reader::new(text);
    match DeTable::parse(text) {
        Ok(document) => {
            let file = keys(&mut reader, document.get_ref(), command);
            reader.done(file)
        }
        Err(error) => {
            // The error's own text quotes the line, on which a secret may stand.
            let line = error.span().map_or(1, |span| reader.line_at(span.start));
            Err(vec![format!("line {line}: {}", error.message().replace('\n', " "))])
        }
    }
}

/// Keys that say the same thing, so that one of them would count for nothing.
const EITHER: [(&str, &str); 3] = [("listen", "inetd"), ("listen", "through"), ("target", "unix-target")];

fn keys<'a>(reader: &mut Reader<'a>, table: &'a DeTable<'a>, command: &Command) -> File {
    let mut file = File::default();
    for entry in reader.entries(table) {
        let other = EITHER.iter().find(|(_, second)| *second == entry.key).map(|(first, _)| *first);
        if let Some(other) = other.filter(|other| table.contains_key(*other) && !entry.is_false()) {
            reader.wrong(entry.line, format!("{} is in the place of {other}: write one of them", entry.key));
        }
        match entry.key {
            "listen" => file.listen = reader.texts(&entry).unwrap_or_default(),
            "target" => file.target = reader.text(&entry),
            "route" => {
                for (line, entries) in reader.tables(&entry) {
                    file.routes.push(route::read(reader, line, entries));
                }
            }
            key => match command
                .get_arguments()
                .find(|arg| arg.get_long() == Some(key) && !NOT_KEYS.contains(&key))
            {
                Some(arg) => {
                    let before = file.flags.len();
                    let flag = |value| OsString::from(format!("--{key}={value}"));
                    match arg.get_action() {
                        ArgAction::SetTrue => {
                            if reader.truth(&entry) == Some(true) {
                                file.flags.push(format!("--{key}").into());
                            }
                        }
                        ArgAction::Append => {
                            file.flags.extend(reader.texts(&entry).unwrap_or_default().into_iter().map(flag));
                        }
                        _ => file.flags.extend(reader.text(&entry).map(flag)),
                    }
                    // Only what is wrong with the value itself: a flag that it needs may stand elsewhere.
                    let alone = std::iter::once("bridge".into()).chain(file.flags[before..].iter().cloned());
                    if let Err(error) = command.clone().try_get_matches_from(alone)
                        && matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation)
                    {
                        reader.wrong(entry.line, sentence(&error));
                    }
                }
                None => {
                    let flags = command.get_arguments().filter_map(|arg| arg.get_long());
                    let flags = flags.filter(|flag| !NOT_KEYS.contains(flag));
                    let known: Vec<_> = flags.chain(["listen", "target", "route"]).collect();
                    reader.unknown(&entry, known, "`adit bridge --help` lists them");
                }
            },
        }
    }
    file
}
