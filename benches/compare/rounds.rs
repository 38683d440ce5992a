//! The interleaved rounds, and the medians that come of them.

use std::time::Duration;

use anyhow::Result;

use crate::adit::{Relay, Tunnel};
use crate::load::{self, Load, Outcome};
use crate::machine::Tools;
use crate::nginx::Nginx;
use crate::process::{Server, TempDir};

/// Between two measurements, for what the last one left under way.
const PAUSE: Duration = Duration::from_millis(300);

/// Everything that runs while the speed is measured.
pub struct Bench<'a> {
    /// wrk, and the clock of `/proc`.
    pub tools: &'a Tools,
    /// For wrk's script.
    pub temp: &'a TempDir,
    /// The other side.
    pub nginx: &'a Nginx,
    /// Our relay.
    pub relay: &'a Relay,
    /// The tunnel to the backend.
    pub small: Tunnel,
    /// The tunnel to the target that swallows uploads.
    pub upload: Tunnel,
}

/// One system under one load in one round. CPU is in seconds per 10,000 requests, or per GB.
struct Sample {
    rate: f64,
    /// Of each hop: nginx has one, adit two (relay, client).
    cpu: Vec<f64>,
    problem: Option<String>,
}

/// Medians of one load.
pub struct Figures {
    /// Which one.
    pub load: Load,
    /// Of nginx.
    pub nginx: Medians,
    /// Of adit.
    pub adit: Medians,
    /// adit's rate as a part of nginx's in the same round.
    pub ratio: f64,
    /// What went wrong, of either; these figures are then worth nothing.
    pub problems: Vec<String>,
}

/// Medians of one system under one load.
pub struct Medians {
    /// Requests, or GB, per second.
    pub rate: f64,
    /// CPU seconds per 10,000 requests, or per GB, of each hop.
    pub hops: Vec<f64>,
    /// The same of all hops together: the median of sums, not the sum of medians.
    pub cpu: f64,
}

impl Bench<'_> {
    /// All rounds. In each, every load goes to both systems, one after the other; who is first alternates.
    pub async fn run(&self, rounds: u32, seconds: u32) -> Result<Vec<Figures>> {
        eprintln!("warming up");
        for load in Load::ALL {
            self.nginx(load, 1).await?;
            self.adit(load, 1).await?;
        }
        let mut pairs: [Vec<(Sample, Sample)>; Load::ALL.len()] = Default::default();
        for round in 1..=rounds {
            for (load, pairs) in Load::ALL.into_iter().zip(&mut pairs) {
                let pair = if round % 2 == 1 {
                    let nginx = self.nginx(load, seconds).await?;
                    (nginx, self.adit(load, seconds).await?)
                } else {
                    let adit = self.adit(load, seconds).await?;
                    (self.nginx(load, seconds).await?, adit)
                };
                progress(round, load, &pair.0, &pair.1);
                pairs.push(pair);
            }
        }
        Ok(Load::ALL.into_iter().zip(pairs).map(|(load, pairs)| Figures::new(load, &pairs)).collect())
    }

    async fn nginx(&self, load: Load, seconds: u32) -> Result<Sample> {
        let address = self.nginx.address;
        let run = load::run(self.tools, self.temp, load, address, "localhost", seconds);
        self.sample(load, &[&self.nginx.proxy], run).await
    }

    async fn adit(&self, load: Load, seconds: u32) -> Result<Sample> {
        let tunnel = if load == Load::Up { &self.upload } else { &self.small };
        let run = load::run(self.tools, self.temp, load, self.relay.address, &tunnel.host, seconds);
        self.sample(load, &[&self.relay.server, &tunnel.client], run).await
    }

    /// Runs the load and takes the CPU of the hops before and after it.
    async fn sample(
        &self,
        load: Load,
        hops: &[&Server],
        run: impl Future<Output = Result<Outcome>>,
    ) -> Result<Sample> {
        tokio::time::sleep(PAUSE).await;
        let clock = || -> Result<Vec<f64>> {
            hops.iter().map(|hop| hop.cpu_seconds(self.tools.ticks_per_second)).collect()
        };
        let before = clock()?;
        let outcome = run.await?;
        let after = clock()?;
        let unit = if load.is_bulk() { 1.0 } else { 10_000.0 };
        let cpu = before
            .iter()
            .zip(&after)
            .map(|(before, after)| (after - before) / outcome.amount * unit)
            .collect();
        Ok(Sample { rate: outcome.rate(), cpu, problem: outcome.problem })
    }
}

/// Tells how far we are.
fn progress(round: u32, load: Load, nginx: &Sample, adit: &Sample) {
    let ratio = adit.rate / nginx.rate;
    eprintln!(
        "round {round}, {:14} nginx {:>9}, CPU {:.3}; adit {:>9}, CPU {:.3}; ratio {ratio:.2}",
        load.title(),
        load.show_rate(nginx.rate),
        nginx.cpu.iter().sum::<f64>(),
        load.show_rate(adit.rate),
        adit.cpu.iter().sum::<f64>(),
    );
    for (name, sample) in [("nginx", nginx), ("adit", adit)] {
        if let Some(problem) = &sample.problem {
            eprintln!("  INVALID: {name}: {problem}");
        }
    }
}

impl Figures {
    fn new(load: Load, pairs: &[(Sample, Sample)]) -> Self {
        let (nginx, adit): (Vec<_>, Vec<_>) = pairs.iter().map(|(nginx, adit)| (nginx, adit)).unzip();
        let mut problems = Vec::new();
        for (name, samples) in [("nginx", &nginx), ("adit", &adit)] {
            for problem in samples.iter().filter_map(|sample| sample.problem.as_ref()) {
                problems.push(format!("{name}, {}: {problem}", load.title()));
            }
        }
        let ratio = median(pairs.iter().map(|(nginx, adit)| adit.rate / nginx.rate));
        Self { load, nginx: Medians::new(&nginx), adit: Medians::new(&adit), ratio, problems }
    }
}

impl Medians {
    fn new(samples: &[&Sample]) -> Self {
        let hops = samples.first().map_or(0, |sample| sample.cpu.len());
        Self {
            rate: median(samples.iter().map(|sample| sample.rate)),
            hops: (0..hops).map(|hop| median(samples.iter().map(|sample| sample.cpu[hop]))).collect(),
            cpu: median(samples.iter().map(|sample| sample.cpu.iter().sum())),
        }
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
