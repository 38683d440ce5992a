//! `adit wst`: a worker of Taskcluster's websocktunnel, with tokens from the command line or line by line from stdin.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::http::{self, Kept, WayArgs, keep, usage};
use crate::client::report::{Report, Style};
use crate::client::{Connector, End, Event, RelayUrl, Target, Worker, WorkerId, WorkerOptions, WorkerToken};
use crate::proto::limits::worker::LINE;

/// Connections told in a second where they are told at all.
const CONNECTIONS_PER_SECOND: u32 = 1000;

/// Stands behind the options.
pub(super) const HELP: &str = "Tokens:\n  \
    Without --token each line of stdin is a token from the moment it is there. A session goes on when another comes, which \
    is used when the worker registers again; a token that has expired is not used any more: the worker waits for the \
    next line.\n\n\
    Exit codes:\n  \
    0   stopped by Ctrl-C or SIGTERM, or ended by the relay for good\n  \
    1   the relay refuses the id, or is none\n  \
    2   wrong usage\n  \
    77  the relay does not accept the token, or there is none that is good any more";

/// `adit wst`.
#[derive(Debug, Args)]
pub(super) struct WstArgs {
    /// The relay: https://HOST, or http://, ws:// and wss://, without a path
    server: String,
    /// Id under which the worker registers, which its token is for
    #[arg(value_parser = id)]
    id: WorkerId,
    /// Service that viewers reach: 3000, HOST:PORT or unix:/PATH
    #[arg(value_name = "PORT", value_parser = http::target)]
    target: Target,
    /// Token for the id. Others on this machine see command lines: ADIT_WST_TOKEN and stdin keep it to yourself
    #[arg(long, env = "ADIT_WST_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Write the URL at which viewers reach the worker to this file, without a line end, whenever it is another
    #[arg(long, value_name = "FILE")]
    out_file: Option<PathBuf>,
    /// One JSON object a line on stdout for everything that happens
    #[arg(long)]
    json: bool,
    /// Tell of every connection, and of tokens
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    way: WayArgs,
}

fn id(text: &str) -> Result<WorkerId, String> {
    WorkerId::parse(text).map_err(|error| error.to_string())
}

impl Kept for Worker {
    fn stop(&self) {
        self.stop();
    }

    async fn ended(&mut self) -> End {
        self.ended().await
    }

    fn take_omitted(&self) -> u64 {
        self.take_omitted()
    }
}

/// Registers the worker and keeps it registered.
pub(super) async fn run(args: WstArgs) -> anyhow::Result<ExitCode> {
    let (connector, tokens, out_file) = match (connector(&args), tokens(&args), out_file(&args)) {
        (Ok(connector), Ok(tokens), Ok(out_file)) => (connector, tokens, out_file),
        (connector, tokens, out_file) => {
            let errors = [connector.err(), tokens.err(), out_file.err()];
            return Ok(usage("wst", &errors.into_iter().flatten().collect::<Vec<_>>()));
        }
    };
    let style = Style { json: args.json, quiet: false, colour: Style::colour_wanted() };
    let report = Report::new(style, None, args.target.clone());
    let told = args.json || args.verbose;
    let (worker, events) = Worker::start(WorkerOptions {
        connector,
        id: args.id,
        target: args.target,
        tokens,
        connections_per_second: if told { CONNECTIONS_PER_SECOND } else { 0 },
    });
    let mut written = None;
    let note = |event: &Event| match (&out_file, event) {
        (Some(file), Event::Online { url, .. }) if written.as_ref() != Some(url) => {
            written = Some(url.clone());
            write_whole(file, url).with_context(|| format!("out-file: {}", file.display()))
        }
        _ => Ok(()),
    };
    keep(vec![(worker, report, events)], style, note).await
}

/// The error is a sentence about what was typed.
fn connector(args: &WstArgs) -> Result<std::sync::Arc<Connector>, String> {
    let server = RelayUrl::parse(&args.server);
    let server =
        server.map_err(|error| error.to_string().replace("key as ADIT_KEY or --key", "token by --token"))?;
    Connector::new(args.way.dialer(server)?.naming("SERVER"), None).map_err(|error| error.to_string())
}

/// The token that was given, or those that come on stdin.
fn tokens(args: &WstArgs) -> Result<watch::Receiver<Option<WorkerToken>>, String> {
    if let Some(token) = args.token.as_deref().filter(|token| !token.trim().is_empty()) {
        let token = WorkerToken::new(token).map_err(|_| {
            "the token has characters that no token has: check --token for quotes and spaces".to_owned()
        })?;
        return Ok(watch::channel(Some(token)).1);
    }
    let (give, tokens) = watch::channel(None);
    // A thread that nobody waits for, as nothing wakes one that reads from a terminal or pipe.
    let reading = std::thread::Builder::new().name("tokens".into()).spawn(move || {
        let mut stdin = io::stdin().lock();
        while let Some(line) = next_line(&mut stdin) {
            match WorkerToken::new(&line) {
                Ok(token) => drop(give.send_replace(Some(token))),
                Err(_) if line.trim().is_empty() => {}
                // Whatever it is, it may be half a token.
                Err(_) => eprintln!("adit wst: a line of stdin is no token: write each on a line of its own"),
            }
        }
    });
    reading.map(|_| tokens).map_err(|error| format!("stdin cannot be read: {error}"))
}

/// A line, cut where it is longer than any token; `None` at the end.
fn next_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let count = input.by_ref().take(LINE as u64).read_until(b'\n', &mut line).ok()?;
    if count == LINE && !line.ends_with(b"\n") {
        // What is left of it is no token of its own.
        loop {
            let buffered = input.fill_buf().ok()?;
            let end = buffered.iter().position(|byte| *byte == b'\n');
            let count = end.map_or(buffered.len(), |at| at + 1);
            input.consume(count);
            if end.is_some() || count == 0 {
                break;
            }
        }
        return Some("too long".to_owned());
    }
    (count > 0).then(|| String::from_utf8_lossy(&line).into_owned())
}

/// Where the URL is to be written; a link stays one. The error is a sentence.
fn out_file(args: &WstArgs) -> Result<Option<PathBuf>, String> {
    let Some(file) = &args.out_file else { return Ok(None) };
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.clone());
    let at = |what: &str| format!("out-file: {}: {what}", file.display());
    if file.is_dir() || file.file_name().is_none() {
        return Err(at("this is no file: give the name of one"));
    }
    if !directory(&file).is_dir() {
        return Err(at("there is no such directory: make it first"));
    }
    Ok(Some(file))
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whoever reads the file sees all of `text` or what was there before.
fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    let there = fs::metadata(file);
    if there.as_ref().is_ok_and(|there| there.file_type().is_fifo()) {
        // One that nobody reads is an error, and not waited for.
        let pipe = pipe::OpenOptions::new().open_sender(file)?;
        return pipe.try_write(text.as_bytes()).map(drop);
    }
    if there.is_ok_and(|there| !there.is_file()) {
        return fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes());
    }
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let draft = directory(file).join(name);
    // Left there by another of that number; what is not ours is never written to.
    let _ = fs::remove_file(&draft);
    let made = fs::OpenOptions::new().write(true).create_new(true).open(&draft);
    let written = made.and_then(|mut made| made.write_all(text.as_bytes()));
    let written = written.and_then(|()| fs::rename(&draft, file));
    written.inspect_err(|_| drop(fs::remove_file(&draft)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    fn error_of(line: &str) -> String {
        command().try_get_matches_from(line.split(' ')).unwrap_err().to_string()
    }

    #[test]
    fn what_is_typed_wrong_is_told_with_what_to_type() {
        for (line, part) in [
            ("adit wst", "<SERVER>"),
            ("adit wst https://a", "<ID>"),
            ("adit wst https://a a/b 3000", "letters, digits"),
            ("adit wst https://a id", "<PORT>"),
            ("adit wst https://a id 70000", "no port"),
        ] {
            let error = error_of(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn lines_are_read_one_by_one_and_a_long_one_is_none() {
        let long = "x".repeat(3 * LINE);
        let text = format!("a.b.c\r\n\n{long}\nd.e.f");
        let mut input = io::BufReader::with_capacity(100, text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input) {
            lines.push(line);
        }
        assert_eq!(lines, ["a.b.c\r\n", "\n", "too long", "d.e.f"]);
        assert!(WorkerToken::new("too long").is_err() && WorkerToken::new("a.b.c\r\n").is_ok());
    }

    #[test]
    fn the_url_is_written_at_one_go_and_nothing_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("url"), dir.path().join("link"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for text in ["https://a/long", "http://b"] {
            write_whole(&fs::canonicalize(&link).unwrap_or(file.clone()), text).unwrap();
            assert_eq!(fs::read_to_string(&link).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(write_whole(&dir.path().join("none/url"), "x").is_err());
    }
}
