//! `adit conform`: the conformance kit from the command line; what its two sides have in common.

mod client;
mod relay;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{ArgMatches, Args, Command, ValueEnum};
use tokio::time::Instant;

use super::signals::Signals;
use super::{args, with};
use crate::conform::Case;
use crate::conform::report::{Format, Run};
use crate::conform::run::{self, Progress, Summary};
use crate::conform::trace::Trace;
use crate::proto::policy::size;

/// Exit code when there is nothing to test.
const NOTHING: u8 = 69;
/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

const EXIT_CODES: &str = "Exit codes:\n  \
    0   all required cases passed\n  \
    1   a required case failed\n  \
    2   wrong usage\n  \
    69  there is nothing to test: the client shows nothing, or the URL is no relay";

/// The subcommand with its two sides.
pub(super) fn command() -> Command {
    Command::new("conform")
        .about("Tests a client, or a relay, that somebody wrote from protocol.md")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(EXIT_CODES)
        .subcommand(
            with::<client::ClientArgs>("client", "Tests a client: adit conform client -- COMMAND…")
                .after_help(client::HELP),
        )
        .subcommand(
            with::<relay::RelayArgs>("relay", "Tests a relay: adit conform relay URL --key KEY")
                .after_help(relay::HELP),
        )
}

/// Does what was asked.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("client", matches)) => client::run(args(matches)?).await,
        Some(("relay", matches)) => relay::run(args(matches)?).await,
        _ => Ok(ExitCode::from(super::USAGE)),
    }
}

/// What both sides take.
#[derive(Debug, Clone, Args)]
struct KitArgs {
    /// Only these cases; NAME* means all that begin so
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// List the cases, with the requirements of protocol.md that they test, and do nothing
    #[arg(long)]
    list: bool,
    /// How the results are told
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Shown::Table)]
    format: Shown,
    /// Cases at the same time [default: 8 of a client, 32 of a relay]
    #[arg(long, short, value_name = "N")]
    jobs: Option<usize>,
}

/// [`Format`], as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shown {
    Table,
    Tap,
    Json,
    Junit,
}

/// What is tested.
struct Subject<'a> {
    /// `client` or `relay`.
    side: &'a str,
    /// The command or URL, without secrets.
    name: &'a str,
    /// Cases at the same time, where nothing else was asked for.
    jobs: usize,
}

impl KitArgs {
    /// Those of `cases` that are asked for; what was typed wrong, or the list, is told here, with its exit code.
    fn chosen<W>(&self, side: &str, cases: Vec<&'static Case<W>>) -> Result<Vec<&'static Case<W>>, ExitCode> {
        let cases = match run::select(cases, &self.only) {
            Ok(cases) => cases,
            Err(sentence) => return Err(super::http::usage(&format!("conform {side}"), &[sentence])),
        };
        if self.list {
            list(&cases);
            return Err(ExitCode::SUCCESS);
        }
        Ok(cases)
    }

    /// Runs `cases` and tells how they ended.
    async fn run<W: Send + 'static>(
        &self,
        subject: &Subject<'_>,
        cases: &[&'static Case<W>],
        world: impl Fn(&'static Case<W>) -> (W, Trace),
    ) -> anyhow::Result<ExitCode> {
        let (mut signals, began) = (Signals::new()?, Instant::now());
        let shown = std::io::stderr().is_terminal();
        let outcomes = tokio::select! {
            outcomes = run::run(cases, self.jobs.unwrap_or(subject.jobs), world, |progress| if shown { redraw(progress) }) => outcomes,
            () = signals.next() => return Ok(ExitCode::from(INTERRUPTED)),
        };
        let Subject { side, name, .. } = *subject;
        let told = Run { side, subject: name, outcomes: &outcomes, took: began.elapsed() };
        let (format, colour) = match self.format {
            Shown::Table => (Format::Table, colour_wanted()),
            Shown::Tap => (Format::Tap, false),
            Shown::Json => (Format::Json, false),
            Shown::Junit => (Format::Junit, false),
        };
        std::io::stdout().write_all(told.render(format, colour).as_bytes())?;
        Ok(if Summary::of(&outcomes).is_pass() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A size as it is typed.
fn bytes(text: &str) -> Result<u64, String> {
    size(text).filter(|size| *size > 0).ok_or_else(|| "write a size such as 100MB, 64MiB or 1000000".into())
}

/// Whether stdout is to have colours: a terminal, and no `NO_COLOR` (<https://no-color.org>).
fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stdout().is_terminal()
}

/// One line on the terminal, which is gone at the end.
fn redraw(progress: Progress<'_>) {
    let Progress { done, total, last } = progress;
    let name = last.map_or("", |outcome| outcome.name);
    let line = if done == total { String::new() } else { format!("{done} of {total}  {name}") };
    // A terminal that has gone is no reason to stop.
    let _ = write!(std::io::stderr(), "\r\u{1b}[K{line}");
}

fn list<W>(cases: &[&'static Case<W>]) {
    let width = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for case in cases {
        let Case { name, about, level, weight, requirements, .. } = case;
        let (level, weight, ids) = (level.as_str(), weight.as_str(), requirements.join(" "));
        if writeln!(out, "{name:width$}  {level:4}  {weight:8}  {ids:16}  {about}").is_err() {
            return; // A reader that has seen enough.
        }
    }
}
