//! `make bench`: measures adit beside nginx on this machine and prints, or writes, the table of `docs/speed.md`;
//! `make bench-peers`: beside other relays as well.
//!
//! All systems stand in front of the same nginx backend and are loaded by wrk in turn, in interleaved rounds, so
//! that a slow moment of the machine hits all. The CPU seconds come from `/proc`, and are the steadier figure.
//! Everything runs on loopback, below a temporary directory, in processes that this program starts and ends.

#[path = "compare/adit.rs"]
mod adit;
#[path = "shared/machine.rs"]
mod described;
#[path = "shared/document.rs"]
mod document;
#[path = "compare/handshakes.rs"]
mod handshakes;
#[path = "shared/http.rs"]
mod http;
#[path = "compare/idle.rs"]
mod idle;
#[path = "compare/latency.rs"]
mod latency;
#[path = "compare/line.rs"]
mod line;
#[path = "compare/load.rs"]
mod load;
#[path = "compare/machine.rs"]
mod machine;
#[path = "compare/nginx.rs"]
mod nginx;
#[path = "compare/peers.rs"]
mod peers;
#[path = "shared/process.rs"]
mod process;
#[path = "compare/recovery.rs"]
mod recovery;
#[path = "compare/rounds.rs"]
mod rounds;
#[path = "shared/signals.rs"]
mod signals;
#[path = "compare/table.rs"]
mod table;
#[path = "compare/targets.rs"]
mod targets;
#[path = "compare/viewers.rs"]
mod viewers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use nginx::Buffering;
use rounds::System;
use signals::until_signal;

/// Numbers of simulated idle clients at which the relay's memory is read.
const IDLE_CLIENTS: [usize; 2] = [1_000, 5_000];
/// Viewers that hold a response open when memory per viewer is read.
const OPEN_VIEWERS: usize = 500;
/// Files that the bench and the relay each need: a socket per idle client, and room for everything else.
const FILES_NEEDED: u64 = IDLE_CLIENTS[1] as u64 + 500;

/// Measures adit beside nginx on this machine.
#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Options {
    /// Interleaved rounds; the table shows the medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// One round of one second: shows that everything works, not how fast it is
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Let nginx stream bodies instead of putting large ones into files, which is its default and slow
    #[arg(long)]
    nginx_streams: bool,
    /// Skip the memory figures
    #[arg(long, conflicts_with = "write")]
    no_memory: bool,
    /// Times that all is started afresh and measured
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Measure the other relays that are installed, and only the speed
    #[arg(long, conflicts_with = "no_memory")]
    peers: bool,
    /// Measure TLS alone, and only the speed
    #[arg(long, conflicts_with_all = ["peers", "write"])]
    tls: bool,
    /// Put the table between `<!-- bench:begin -->` and `<!-- bench:end -->` of this file, or those of `peers`
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// What `cargo bench` adds of itself; means nothing here
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// The name of its place in the document.
    fn place(&self) -> &'static str {
        if self.peers { "peers" } else { "bench" }
    }
}

fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.quick {
        (options.rounds, options.seconds) = (1, 1);
    }
    match run_until_signal(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything, unless a signal ends it first.
fn run_until_signal(options: &Options) -> Result<()> {
    // One thread is enough: while wrk measures, this program only waits and swallows uploads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    until_signal(&runtime, run(options))
}

/// Sets everything up, measures, prints the table and writes it if asked to.
async fn run(options: &Options) -> Result<()> {
    if let Some(file) = &options.write {
        // Find out before the measuring, not after it.
        document::check(file, options.place())?;
    }
    let tools = machine::Tools::find()?;
    let files = machine::raise_file_limit().await?;
    if !options.no_memory && !options.peers && files < FILES_NEEDED {
        let words = format!("{files} open files are allowed, {FILES_NEEDED} are needed: raise `ulimit -Hn`");
        ensure!(options.write.is_none(), "the table would lack the figure for idle clients: {words}");
        eprintln!("no figure for idle clients: {words}");
    }
    let buffering = if options.nginx_streams { Buffering::Streaming } else { Buffering::Default };
    let mut speed = Vec::new();
    for _ in 0..options.runs {
        measure_speed(options, &tools, buffering, &mut speed).await?;
    }
    let rest = match options.peers || options.tls {
        true => table::Rest::default(),
        false => measure_rest(options, &tools, buffering, files).await?,
    };

    let table = table::Table { speed, rest, buffering, machine: machine::describe(&tools, options).await? };
    let text = table.to_markdown();
    println!("{text}");
    let problems = table.problems();
    if !problems.is_empty() {
        bail!("{} measurement(s) are invalid: {}", problems.len(), problems.join("; "));
    }
    if let Some(file) = &options.write {
        document::write(file, options.place(), &text)
            .with_context(|| format!("cannot write the table to {}", file.display()))?;
        eprintln!("written to {}", file.display());
    }
    Ok(())
}

/// Starts all systems and adds what is measured of them to `speed`.
async fn measure_speed(
    options: &Options,
    tools: &machine::Tools,
    buffering: Buffering,
    speed: &mut Vec<rounds::Series>,
) -> Result<()> {
    let temp = process::TempDir::new()?;
    let targets = targets::Targets::start().await?;
    let nginx = nginx::Nginx::start(tools, &temp, &targets, buffering).await?;
    let nginx::Certificate { chain, key } = &nginx.proxy.certificate;
    let relay = adit::Relay::start_with(&temp, "speed", &["--tls-cert", chain, "--tls-key", key]).await?;
    let small = relay.expose("bench", nginx.backend).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", small.host);
    let (status, body) = http::Connection::open(relay.address).await?.ask(&request).await?;
    ensure!(status == 200 && body.len() == nginx::SMALL, "adit answers {status} and {} bytes", body.len());
    let upload = relay.expose("upload", targets.sink).await?;
    let adit = adit::Adit { relay, small, upload };
    let peers = match options.peers {
        true => peers::start(&temp, nginx.backend, targets.sink).await?,
        false => Vec::new(),
    };
    let mut loads = Vec::new();
    if !options.tls {
        loads.extend(load::Load::PLAIN);
    }
    if !options.peers {
        loads.extend(load::Load::TLS);
    }
    let bench =
        rounds::Bench { tools, temp: &temp, chain, rounds: options.rounds, seconds: options.seconds, loads };
    let ours: [&dyn System; 2] = [&nginx, &adit];
    let systems: Vec<&dyn System> =
        ours.into_iter().chain(peers.iter().map(|peer| peer as &dyn System)).collect();
    bench.run(&systems, speed).await
}

/// What is measured of adit alone, and its memory beside nginx's.
async fn measure_rest(
    options: &Options,
    tools: &machine::Tools,
    buffering: Buffering,
    files: u64,
) -> Result<table::Rest> {
    let temp = process::TempDir::new()?;
    let targets = targets::Targets::start().await?;
    let nginx = nginx::Nginx::start(tools, &temp, &targets, buffering).await?;
    let mut rest = table::Rest {
        latency: latency::measure(&temp, nginx.backend).await?,
        recovery: Some(recovery::measure(&temp, nginx.backend).await?),
        ..Default::default()
    };
    if !options.no_memory {
        let settle = if options.quick { idle::SETTLE_QUICK } else { idle::SETTLE };
        if files >= FILES_NEEDED {
            rest.idle = idle::measure(tools, &temp, &IDLE_CLIENTS, settle).await?;
        }
        let viewers = OPEN_VIEWERS.min((files / 4) as usize);
        rest.viewer = Some(viewers::measure(tools, &temp, nginx.backend, &targets, viewers).await?);
    }
    Ok(rest)
}
