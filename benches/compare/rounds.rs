//! The interleaved rounds, and the medians that come of them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::handshakes;
use crate::load::{self, Load};
use crate::machine::Tools;
use crate::process::{Server, TempDir};

/// Between two measurements, for what the last one left under way.
const PAUSE: Duration = Duration::from_millis(300);

/// Whatever leads from the load to the backend.
pub trait System {
    /// What it is called in the table.
    fn name(&self) -> String;

    /// The way that a load takes.
    fn way(&self, load: Load) -> Way<'_>;
}

/// A way through one system.
pub struct Way<'a> {
    /// Where it begins.
    pub address: SocketAddr,
    /// What viewers send as `Host`.
    pub host: &'a str,
    /// The processes whose CPU counts, by hop.
    pub hops: Vec<&'a Server>,
}

/// What the measuring itself needs.
pub struct Bench<'a> {
    /// wrk, and the clock of `/proc`.
    pub tools: &'a Tools,
    /// For wrk's script.
    pub temp: &'a TempDir,
    /// The certificate that all systems show, in a file.
    pub chain: &'a str,
    /// Rounds, each with every load on every system.
    pub rounds: u32,
    /// Of each measurement.
    pub seconds: u32,
    /// What all systems are loaded with.
    pub loads: Vec<Load>,
}

/// One system under one load in one round. CPU is in seconds per 10,000 requests, or per GB.
#[derive(Clone)]
pub struct Sample {
    rate: f64,
    /// As a part of the first system's in the same round.
    ratio: f64,
    /// Of each hop.
    cpu: Vec<f64>,
    problem: Option<String>,
}

/// All samples of one system under one load.
#[derive(Clone)]
pub struct Series {
    /// The system.
    pub system: String,
    /// The load.
    pub load: Load,
    samples: Vec<Sample>,
}

impl Bench<'_> {
    /// All rounds, added to what `series` holds of earlier ones. In each round every load goes to all systems, one after
    /// the other; who is first goes round. The first of `systems` is what the others are compared with.
    pub async fn run(&self, systems: &[&dyn System], series: &mut Vec<Series>) -> Result<()> {
        eprintln!("warming up");
        for load in self.loads.iter().copied() {
            for system in systems {
                self.sample(load, *system, 1).await?;
            }
        }
        for round in 0..self.rounds as usize {
            for load in self.loads.iter().copied() {
                let mut samples = vec![None; systems.len()];
                for turn in 0..systems.len() {
                    let at = (round + turn) % systems.len();
                    samples[at] = Some(self.sample(load, systems[at], self.seconds).await?);
                }
                let samples: Vec<Sample> = samples.into_iter().flatten().collect();
                let first = samples[0].rate;
                for (system, mut sample) in systems.iter().zip(samples) {
                    sample.ratio = sample.rate / first;
                    progress(round + 1, load, &system.name(), &sample);
                    add(series, system.name(), load, sample);
                }
            }
        }
        Ok(())
    }

    /// Runs the load and takes the CPU of the hops before and after it.
    async fn sample(&self, load: Load, system: &dyn System, seconds: u32) -> Result<Sample> {
        let way = system.way(load);
        tokio::time::sleep(PAUSE).await;
        let clock = || -> Result<Vec<f64>> {
            way.hops.iter().map(|hop| hop.cpu_seconds(self.tools.ticks_per_second)).collect()
        };
        let before = clock()?;
        let outcome = match load {
            Load::TlsHandshake => handshakes::run(way.address, way.host, self.chain, seconds).await?,
            _ => load::run(self.tools, self.temp, load, way.address, way.host, seconds).await?,
        };
        let after = clock()?;
        let unit = if load.is_bulk() { 1.0 } else { 10_000.0 };
        let cpu = before
            .iter()
            .zip(&after)
            .map(|(before, after)| (after - before) / outcome.amount * unit)
            .collect();
        Ok(Sample { rate: outcome.rate(), ratio: 1.0, cpu, problem: outcome.problem })
    }
}

fn add(all: &mut Vec<Series>, system: String, load: Load, sample: Sample) {
    match all.iter_mut().find(|series| series.system == system && series.load == load) {
        Some(series) => series.samples.push(sample),
        None => all.push(Series { system, load, samples: vec![sample] }),
    }
}

/// Tells how far we are.
fn progress(round: usize, load: Load, system: &str, sample: &Sample) {
    let (rate, cpu) = (load.show_rate(sample.rate), sample.cpu.iter().sum::<f64>());
    eprintln!("round {round}, {:16} {system:8} {rate:>12}, {:.2}, CPU {cpu:.3}", load.title(), sample.ratio);
    if let Some(problem) = &sample.problem {
        eprintln!("  INVALID: {problem}");
    }
}

impl Series {
    /// Requests, or GB, per second.
    pub fn rate(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.rate))
    }

    /// The rate as a part of the first system's in the same round.
    pub fn ratio(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.ratio))
    }

    /// CPU seconds per 10,000 requests, or per GB, of each hop.
    pub fn hops(&self) -> Vec<f64> {
        let hops = self.samples.first().map_or(0, |sample| sample.cpu.len());
        (0..hops).map(|hop| median(self.samples.iter().map(|sample| sample.cpu[hop]))).collect()
    }

    /// The same of all hops together: the median of sums, not the sum of medians.
    pub fn cpu(&self) -> f64 {
        median(self.samples.iter().map(|sample| sample.cpu.iter().sum()))
    }

    /// What went wrong; the figures are then worth nothing.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let problems = self.samples.iter().filter_map(|sample| sample.problem.as_ref());
        problems.map(|problem| format!("{}, {}: {problem}", self.system, self.load.title()))
    }
}

/// The middle value, or the mean of the two in the middle; not a number if there are none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
