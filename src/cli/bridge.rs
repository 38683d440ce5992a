//! `adit bridge`: a WebSocket server in front of a TCP service, with the options of websockify.

mod file;
mod lighttpd;

use std::process::ExitCode;

use crate::bridge::Target;

/// What is typed behind `adit bridge`.
#[derive(Debug, clap::Args)]
pub(super) struct BridgeArgs {
    /// Where to listen: [ADDRESS:]PORT
    source: String,
    /// Where WebSockets lead to: HOST:PORT
    target: Option<Target>,
}

/// Serves until it is told to end.
pub(super) async fn run(args: BridgeArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("{} to {:?} is not bridged yet", args.source, args.target)
}
