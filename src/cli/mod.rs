//! The command line: one definition of all subcommands, from which help, completions and man pages are made.

mod bridge;
mod conform;
mod dev;
mod r#gen;
mod http;
pub mod key;
pub mod log;
mod nearest;
pub mod options;
mod policy;
pub mod relay;
mod signals;
mod status;
mod systemd;
mod tcp;
mod token;
mod top;
mod tunnels;
mod up;
mod wst;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::relay::config::{LogFormat, SyslogConfig};
use crate::stream::descriptors;

/// Exit code for what was typed wrong, as clap has it.
const USAGE: u8 = 2;

const EXIT_CODES: &str = "Exit codes:\n  \
    0   done, or stopped by Ctrl-C or SIGTERM with the tunnel closed\n  \
    1   failed or refused, for example because the name is taken\n  \
    2   wrong usage or configuration\n  \
    69  the relay cannot be reached (of tunnels only with --exit-on-disconnect), or there is none to take over from\n  \
    77  the key is missing, wrong or not allowed";

/// All subcommands.
pub fn command() -> Command {
    Command::new("adit")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Lets anyone on the network reach a service that only one machine can reach")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(EXIT_CODES)
        .subcommands([
            with::<http::HttpArgs>("http", "Exposes a service of this machine: adit http 3000")
                .after_help(EXIT_CODES),
            with::<tcp::TcpArgs>(
                "tcp",
                "Exposes a service that speaks anything over TCP, at a port of the relay: adit tcp 5432",
            )
            .after_help(EXIT_CODES),
            with::<tcp::TlsArgs>(
                "tls",
                "Exposes a service that has its own certificate; the relay reads nothing: adit tls 443 --name web",
            )
            .after_help(EXIT_CODES),
            with::<up::UpArgs>("up", "Exposes the services that a file lists").after_help(up::FILE_HELP),
            with::<tunnels::ListArgs>("ls", "Lists your tunnels"),
            with::<tunnels::CloseArgs>("close", "Closes a tunnel for good; its client stops"),
            with::<tunnels::ExtendArgs>("extend", "Lets a tunnel end so long from now"),
            with::<status::StatusArgs>(
                "status",
                "Shows whether the relay answers, and your tunnels; for its operator, what it does",
            )
            .after_help(status::EXIT_CODES),
            with::<top::TopArgs>("top", "Shows a relay's clients, tunnels and events live, for its operator")
                .after_help(top::HELP),
            with::<wst::WstArgs>(
                "wst",
                "Registers a worker at a relay that speaks Taskcluster's websocktunnel: adit wst SERVER ID 3000",
            )
            .after_help(wst::HELP),
            with::<dev::DevArgs>(
                "dev",
                "Tries it out: relay and client in one process, on this machine only",
            ),
        ])
        .subcommand(bridge::command())
        .subcommand(conform::command())
        .subcommand(relay::command())
        .subcommand(key::command())
        .subcommand(token::command())
        .subcommand(r#gen::command())
}

/// A subcommand with derived arguments; what their type says of itself is for readers of the code.
fn with<T: Args>(name: &'static str, about: &'static str) -> Command {
    T::augment_args(Command::new(name)).about(about).long_about(None)
}

/// Does what the command line asks.
pub async fn main() -> ExitCode {
    descriptors::raise();
    let matches = command().try_get_matches().unwrap_or_else(|error| without_tip(error).exit());
    match run(&matches).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("adit: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Without clap's tip to write `-- --flag` for what is no flag: no word of ours begins so, and behind `adit bridge --` a command
/// stands.
fn without_tip(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::StyledStrs(mut tips)) = error.remove(ContextKind::Suggested) {
        tips.retain(|tip| !tip.to_string().contains("as a value, use"));
        if !tips.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    error
}

async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some((name, matches)) = matches.subcommand() else { return Ok(ExitCode::from(USAGE)) };
    match name {
        "relay" => return relay::run(matches).await,
        "key" => return key::run(matches).await,
        "token" => return token::run(matches),
        "gen" => return r#gen::run(matches),
        "bridge" => return bridge::run(matches).await,
        _ => {}
    }
    // The terminal belongs to the tunnels; log records are for who asks for them.
    let _log = match std::env::var_os(log::FILTER) {
        Some(_) => Some(log::init(log::Out::Stderr, LogFormat::Text, &SyslogConfig::default())?),
        None => None,
    };
    match name {
        "http" => http::run(args(matches)?).await,
        "tcp" => tcp::run(args(matches)?).await,
        "tls" => tcp::run_tls(args(matches)?).await,
        "up" => up::run(args(matches)?).await,
        "ls" => tunnels::list(args(matches)?).await,
        "close" => tunnels::close(args(matches)?).await,
        "extend" => tunnels::extend(args(matches)?).await,
        "status" => status::run(args(matches)?).await,
        "top" => top::run(args(matches)?).await,
        "wst" => wst::run(args(matches)?).await,
        "conform" => conform::run(matches).await,
        "dev" => dev::run(args(matches)?).await,
        _ => Ok(ExitCode::from(USAGE)),
    }
}

fn args<T: FromArgMatches>(matches: &ArgMatches) -> anyhow::Result<T> {
    Ok(T::from_arg_matches(matches)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_sound_and_tell_the_exit_codes() {
        command().debug_assert();
        let help = command().render_long_help().to_string();
        assert!(help.contains("69") && help.contains("77"), "{help}");
    }

    #[test]
    fn who_mistypes_a_flag_is_not_told_to_run_it_as_a_command() {
        for line in ["adit bridge --nonsense", "adit bridge --heartbeat -5", "adit bridge -5"] {
            let error = command().try_get_matches_from(line.split(' ')).unwrap_err();
            let text = without_tip(error).to_string();
            assert!(text.starts_with("error: ") && !text.contains("-- -"), "{text}");
        }
    }

    #[test]
    fn no_help_shows_a_key() {
        for mut subcommand in command().get_subcommands().cloned() {
            let help = subcommand.render_long_help().to_string();
            assert!(!help.contains("[env: ADIT_KEY=") || help.contains("[env: ADIT_KEY]"), "{help}");
        }
    }
}
