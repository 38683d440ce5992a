//! `make soak`: eight hours of mixed life, compressed into ten minutes, after which the relay holds what it held before.
//!
//! A real relay with real clients lives through what viewers, clients and operators do; beside it, another one that is
//! left alone carries bodies of gigabytes and thousands of idle clients. Every byte is compared; no request of a
//! healthy tunnel may fail but while the relay is killed. Everything runs on loopback, in processes that this program
//! starts and ends.

#[path = "soak/calm.rs"]
mod calm;
#[path = "soak/crowd.rs"]
mod crowd;
#[path = "shared/document.rs"]
#[allow(dead_code, reason = "shared with other benches")]
mod document;
#[path = "soak/house.rs"]
mod house;
#[path = "soak/http.rs"]
mod http;
#[path = "soak/life.rs"]
mod life;
#[path = "soak/pattern.rs"]
mod pattern;
#[path = "soak/report.rs"]
mod report;
#[path = "shared/signals.rs"]
mod signals;
#[path = "soak/tally.rs"]
mod tally;
#[path = "soak/target.rs"]
mod target;
#[path = "soak/viewers.rs"]
mod viewers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::task::JoinSet;
use tokio::time::Instant;

use calm::Scale;
use signals::until_signal;
use tally::Tally;

/// Failures that are told at the end.
const TOLD: usize = 20;

/// Soaks a relay in mixed life.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Options {
    /// Seconds of mixed life; below 600, what stands beside it is scaled down
    #[arg(long, default_value_t = calm::WHOLE, value_parser = clap::value_parser!(u64).range(20..=86_400))]
    seconds: u64,
    /// Put the report between the markers of this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// What `cargo bench` adds of itself; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run_until_signal(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything, unless a signal ends it first; `false`: something failed.
fn run_until_signal(options: &Options) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    until_signal(&runtime, run(options))
}

async fn run(options: &Options) -> Result<bool> {
    let files = files()?;
    let scale = Scale::of(options.seconds, files);
    let temp = tempfile::Builder::new().prefix("adit-soak-").tempdir()?;
    let mut tasks = JoinSet::new();
    let target = target::start(&mut tasks).await?;
    let begun = Instant::now();
    // What is announced for one relay excuses nothing at the other.
    let (mixed, still) = (Arc::new(Tally::default()), Tally::default());
    let end = begun + Duration::from_secs(options.seconds);
    let (life, calm) = tokio::join!(
        life::live(temp.path(), target, end, &mixed),
        calm::live(temp.path(), target, &scale, &still)
    );
    let (calm, told) = calm.context("the calm relay")?;
    let figures = [life.context("the relay in mixed life")?, calm];
    let head = format!(
        "The last run of {} s (`make soak SOAK_SECONDS={}`{}): {} idle clients of 10,000, as {files} descriptors a process \
         and the time allow; {}.",
        begun.elapsed().as_secs(),
        options.seconds,
        if cfg!(debug_assertions) { ", but not optimised, so no measure of speed" } else { "" },
        scale.crowd,
        if scale.sleeps { "with the sleep of 90 s" } else { "too short for the sleep of 90 s" },
    );
    let text = report::markdown(&head, &figures, &told, [&mixed, &still]);
    println!("{text}");
    let failures = [mixed.failures(), still.failures()].concat();
    if !failures.is_empty() {
        eprintln!("{} failures:", failures.len());
        failures.iter().take(TOLD).for_each(|failure| eprintln!("  {failure}"));
        return Ok(false);
    }
    if let Some(file) = &options.write {
        document::write(file, "soak", &text)?;
    }
    Ok(true)
}

/// Descriptors that a process may have.
fn files() -> Result<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no limit of files")?;
    line.split_ascii_whitespace().nth(3).context("no soft limit")?.parse().context("the limit is no number")
}
