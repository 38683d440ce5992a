//! `adit conform client`: somebody's client against a scripted relay.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::{KitArgs, NOTHING, Subject};
use crate::client::text::visible;
use crate::conform::client::{Launch, Settings, all, probe, stage};
use crate::conform::trace::Trace;
use crate::proto::policy::size;

pub(super) const HELP: &str = "COMMAND is started once for each case, in a process group of its own. In its words {relay}, \
    {key} and {port} are filled in; the environment has ADIT_RELAY, ADIT_KEY and ADIT_TARGET (127.0.0.1:PORT).\n\n\
    Example: adit conform client -- ./my-client --relay {relay} --key {key} --port {port}\n\n\
    Exit codes:\n  \
    0   all required cases passed\n  \
    1   a required case failed\n  \
    2   wrong usage\n  \
    69  the client cannot be started, or shows nothing within 15 seconds";

/// `adit conform client`.
#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    #[command(flatten)]
    kit: KitArgs,
    /// Bytes that go each way in the cases `bulk` and `two-bulk`
    #[arg(long, value_name = "SIZE", default_value = "100MB", value_parser = bytes)]
    bulk: u64,
    /// Ask the cases that take most of a minute, too
    #[arg(long)]
    slow: bool,
    /// The client with a policy for its tunnel, as a line for the shell: for the cases about that
    #[arg(long, value_name = "LINE")]
    policy_command: Option<String>,
    /// The client with a tunnel for TCP, as a line for the shell: for the cases about that
    #[arg(long, value_name = "LINE")]
    tcp_command: Option<String>,
    /// What starts the client, behind `--`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn bytes(text: &str) -> Result<u64, String> {
    size(text).filter(|size| *size > 0).ok_or_else(|| "write a size such as 100MB, 64MiB or 1000000".into())
}

pub(super) async fn run(args: ClientArgs) -> anyhow::Result<ExitCode> {
    let cases = match args.kit.chosen("client", all()) {
        Ok(cases) => cases,
        Err(code) => return Ok(code),
    };
    if args.command.is_empty() {
        let sentence =
            "say behind -- what starts the client, such as: -- ./my-client --relay {relay}".to_owned();
        return Ok(crate::cli::http::usage("conform client", &[sentence]));
    }
    let line = |line: String| Launch::Command(vec!["sh".into(), "-c".into(), line]);
    let mut settings = Settings {
        bulk: args.bulk,
        slow: args.slow,
        policy: args.policy_command.map(line),
        tcp: args.tcp_command.map(line),
        ..Settings::new(Launch::Command(args.command.clone()))
    };
    settings.facts = match probe(&Arc::new(settings.clone())).await {
        Ok(facts) => facts,
        Err(nothing) => {
            for line in nothing.0.lines() {
                eprintln!("adit conform client: {}", visible(line));
            }
            return Ok(ExitCode::from(NOTHING));
        }
    };
    let (settings, name) = (Arc::new(settings), args.command.join(" "));
    let subject = Subject { side: "client", name: &name };
    args.kit.run(&subject, &cases, |case| -> (_, Trace) { stage(&settings, case) }).await
}
