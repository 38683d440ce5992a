//! The machine: the programs we need from it, its limits, and the line under the table.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::Options;
use crate::described;
use crate::process::find_program;

/// Programs that are not ours.
pub struct Tools {
    /// The web server that is both the backend and what adit is compared with.
    pub nginx: PathBuf,
    /// The load generator.
    pub wrk: PathBuf,
    /// Clock ticks per second in `/proc/PID/stat`.
    pub ticks_per_second: f64,
}

impl Tools {
    /// Finds them, or says how to get them.
    pub fn find() -> Result<Self> {
        let find = |name, package| {
            find_program(name).with_context(|| {
                format!("{name} is missing: run `make setup` (it is in the Debian package {package})")
            })
        };
        let ticks =
            std::process::Command::new("getconf").arg("CLK_TCK").output().context("cannot run getconf")?;
        Ok(Self {
            nginx: find("nginx", "nginx-light")?,
            wrk: find("wrk", "wrk")?,
            ticks_per_second: String::from_utf8_lossy(&ticks.stdout).trim().parse().context("odd CLK_TCK")?,
        })
    }
}

/// Raises our soft limit of open files to the hard one, for us and all we start, and returns what holds then.
pub async fn raise_file_limit() -> Result<u64> {
    let hard = file_limit(1)?;
    if file_limit(0)? != hard {
        let limit = format!("--nofile={hard}:{hard}");
        let status =
            Command::new("prlimit").args(["--pid", &std::process::id().to_string(), &limit]).status().await;
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("prlimit (Debian package util-linux) could not raise the limit of open files");
        }
    }
    file_limit(0)
}

/// Our limit of open files: the soft one is column 0, the hard one column 1.
fn file_limit(column: usize) -> Result<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit in /proc")?;
    let value = line.split_ascii_whitespace().nth(column).context("odd /proc/self/limits")?;
    if value == "unlimited" { Ok(u64::MAX) } else { Ok(value.parse()?) }
}

/// Machine, versions, date and the options of this run, in one line.
pub async fn describe(tools: &Tools, options: &Options) -> Result<String> {
    let machine = described::describe().await?;
    let nginx = described::said(Command::new(&tools.nginx).arg("-v")).await?;
    let nginx = nginx.rsplit('/').next().unwrap_or(&nginx);
    let (runs, rounds, seconds) = (options.runs, options.rounds, options.seconds);
    Ok(format!("{machine}, nginx {nginx}; medians of {runs} run(s) of {rounds} round(s) of {seconds} s."))
}
