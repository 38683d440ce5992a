//! The command line.

pub mod key;
pub mod log;
pub mod options;
pub mod relay;

/// Runs.
pub async fn main() -> anyhow::Result<std::process::ExitCode> {
    let matches = clap::Command::new("adit").subcommand(relay::command()).subcommand(key::command()).get_matches();
    match matches.subcommand() {
        Some(("relay", matches)) => relay::run(matches).await,
        Some(("key", matches)) => key::run(matches).await,
        _ => Ok(std::process::ExitCode::from(2)),
    }
}
