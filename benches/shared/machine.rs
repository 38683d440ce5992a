//! The line that describes the machine under a table.

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// Cores, kernel, date and our version, such as `2 cores (AMD EPYC), Linux 6.1, 2026-11-22; adit 0.1.0`.
pub async fn describe() -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let model = model.map_or("unknown", |(_, name)| name.trim());
    let date = said(Command::new("date").args(["-u", "+%F"])).await?;
    Ok(format!(
        "{cores} cores ({model}), Linux {}, {date}; adit {}",
        kernel.trim(),
        env!("CARGO_PKG_VERSION")
    ))
}

/// The first line that a command prints, on whichever output.
pub async fn said(command: &mut Command) -> Result<String> {
    let output =
        command.output().await.with_context(|| format!("cannot run {:?}", command.as_std().get_program()))?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let line = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned();
    ensure!(output.status.success(), "{:?} failed: {line}", command.as_std().get_program());
    Ok(line)
}
