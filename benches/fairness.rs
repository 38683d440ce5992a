//! `cargo bench --bench fairness`: how long one tenant's requests take while another one abuses the relay.
//!
//! The quiet tenant asks at a fixed rate, open loop. Beside it another one does its worst, in three places: at a relay of
//! its own on the same machine, which costs the same CPU and shares nothing else; at the quiet tenant's relay; and at
//! that relay with quotas for each key. The kinds of abuse come in turn, in interleaved rounds.

#[path = "fairness/abuse.rs"]
mod abuse;
#[path = "shared/document.rs"]
mod document;
#[path = "shared/http.rs"]
#[allow(dead_code, reason = "shared with another bench")]
mod http;
#[path = "fairness/probe.rs"]
mod probe;
#[path = "shared/process.rs"]
#[allow(dead_code, reason = "shared with another bench")]
mod process;
#[path = "fairness/relay.rs"]
mod relay;
#[path = "shared/signals.rs"]
mod signals;
#[path = "fairness/table.rs"]
mod table;
#[path = "fairness/target.rs"]
mod target;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use abuse::{Abuse, Kind};
use probe::Latencies;
use relay::Relay;
use signals::until_signal;

/// From the beginning of an abuse, or from its end, to the measurement.
const SETTLE: Duration = Duration::from_millis(700);

/// What the relay with quotas is given: plenty for a tenant, little of a machine.
pub const QUOTAS: [&str; 8] = [
    "--viewers-per-key",
    "16",
    "--waiting-per-key",
    "16",
    "--creations-per-key",
    "60",
    "--bandwidth-per-key",
    "32MiB",
];

/// Measures one tenant beside another.
#[derive(Debug, Parser)]
#[command(name = "fairness")]
struct Options {
    /// Interleaved rounds; the table shows the medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// One round of one second: shows that everything works
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Only the kinds of abuse whose names contain this
    #[arg(long, value_name = "TEXT", conflicts_with = "write")]
    only: Option<String>,
    /// Put the table between the markers of this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// What `cargo bench` adds of itself; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

/// What was measured of one kind of abuse, a value a round.
#[derive(Default)]
pub struct Row {
    /// The quiet tenant without anybody else, in the same round.
    pub alone: Vec<Latencies>,
    /// The abuse at another relay.
    pub beside: Vec<Latencies>,
    /// At the same relay.
    pub shared: Vec<Latencies>,
    /// At the same relay, with quotas.
    pub quotas: Vec<Latencies>,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.seconds) = (1, 1);
    }
    if let Some(file) = &options.write {
        document::check(file, "fairness")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rows = until_signal(&runtime, measure(&options))?;
    let text = table::to_markdown(&rows, options.rounds, options.seconds)?;
    println!("{text}");
    match &options.write {
        Some(file) => document::write(file, "fairness", &text),
        None => Ok(()),
    }
}

async fn measure(options: &Options) -> Result<Vec<(Kind, Row)>> {
    let temp = process::TempDir::new()?;
    let (quiet, loud) = (target::Target::start()?, target::Target::start()?);
    let plain = Relay::start(&temp, "plain", &[]).await?;
    let limited = Relay::start(&temp, "limited", &QUOTAS).await?;
    let other = Relay::start(&temp, "other", &[]).await?;
    let mut clients = Vec::new();
    for relay in [&plain, &limited] {
        clients.push(relay.expose(relay::QUIET, "quiet", quiet.address).await?);
    }
    for relay in [&plain, &limited, &other] {
        clients.push(relay.expose(relay::LOUD, "loud", loud.address).await?);
    }
    let seconds = Duration::from_secs(options.seconds.into());
    let wanted = |kind: &Kind| options.only.as_ref().is_none_or(|text| kind.title().contains(text.as_str()));
    let mut rows: Vec<(Kind, Row)> =
        Kind::ALL.into_iter().filter(wanted).map(|kind| (kind, Row::default())).collect();
    ensure!(!rows.is_empty(), "no kind of abuse is called that: {:?}", Kind::ALL.map(Kind::title));
    for round in 1..=options.rounds {
        for (kind, row) in &mut rows {
            let alone = probe(&plain, seconds).await?;
            let mut measured = Vec::new();
            for (at, from) in [(&other, &plain), (&plain, &plain), (&limited, &limited)] {
                let abuse = Abuse::start(*kind, at.address)?;
                tokio::time::sleep(SETTLE).await;
                measured.push(probe(from, seconds).await?);
                drop(abuse);
                tokio::time::sleep(SETTLE).await;
            }
            let [beside, shared, quotas] =
                <[Latencies; 3]>::try_from(measured).ok().context("three places")?;
            eprintln!(
                "round {round}, {:16} alone {alone}; beside {beside}; shared {shared}; with quotas {quotas}",
                kind.title()
            );
            row.alone.push(alone);
            row.beside.push(beside);
            row.shared.push(shared);
            row.quotas.push(quotas);
        }
    }
    Ok(rows)
}

async fn probe(relay: &Relay, seconds: Duration) -> Result<Latencies> {
    let address = relay.address;
    tokio::task::spawn_blocking(move || probe::run(address, relay::HOST_QUIET, seconds)).await?
}
