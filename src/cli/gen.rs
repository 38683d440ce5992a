//! `adit gen`: shell completions and man pages out of the definition of the command line.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::options::values;
use crate::auth::password::hash;
use crate::relay::ADMIN;

/// Bytes of a line that is read.
const MOST: u64 = 16 * 1024;

/// The subcommand with its own subcommands.
pub(super) fn command() -> Command {
    let shell = Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell));
    let dir = Arg::new("dir").value_name("DIR").required(true).value_parser(value_parser!(PathBuf));
    Command::new("gen").about("Writes shell completions and man pages").subcommand_required(true).subcommands(
        [
            Command::new("completions")
                .about("Prints a completion script")
                .arg(shell.help("Shell to complete in")),
            Command::new("man")
                .about("Writes a man page for each command")
                .arg(dir.help("Directory for the pages")),
            Command::new("password-hash")
                .about("Reads the dashboard's password from stdin and prints what admin-password-hash takes"),
        ],
    )
}

/// Writes what was asked for.
pub(super) fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let mut all = super::command();
    match matches.subcommand() {
        Some(("completions", matches)) => {
            let shell = matches.get_one::<Shell>("shell").context("no shell was named")?;
            // Gathered first, as the generator panics when stdout is closed.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut all, "adit", &mut script);
            std::io::stdout().write_all(&script).context("stdout")?;
        }
        Some(("man", matches)) => {
            let dir = matches.get_one::<PathBuf>("dir").context("no directory was named")?;
            std::fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
            clap_mangen::generate_to(all, dir).with_context(|| format!("{}", dir.display()))?;
        }
        Some(("password-hash", _)) => {
            if std::io::stdin().is_terminal() {
                eprintln!("adit gen: type the password and Enter; it is shown as you type");
            }
            let mut line = String::new();
            // Longer than any password.
            std::io::stdin().lock().take(MOST).read_line(&mut line).context("stdin")?;
            match password_hash(line.trim_end_matches(['\r', '\n'])) {
                Ok(hash) => writeln!(std::io::stdout(), "{hash}").context("stdout")?,
                Err(error) => {
                    eprintln!("adit gen password-hash: {error}");
                    return Ok(ExitCode::from(super::USAGE));
                }
            }
        }
        _ => return Ok(ExitCode::from(super::USAGE)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What a relay takes for this password.
fn password_hash(password: &str) -> Result<String, String> {
    let password = values::admin_password(password)?;
    hash(ADMIN, password.expose()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_the_relay_takes_and_a_short_password_is_told() {
        let text = password_hash("correct horse").unwrap();
        assert!(crate::auth::password::BasicAuth::from_text(&text).unwrap().matches(ADMIN, "correct horse"));
        assert!(password_hash("short").unwrap_err().contains("at least 8"));
    }

    #[test]
    fn completions_and_man_pages_know_every_command() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut super::super::command(), "adit", &mut script);
        let dir = tempfile::tempdir().unwrap();
        let line = ["adit", "gen", "man", dir.path().to_str().unwrap()];
        let matches = super::super::command().try_get_matches_from(line).unwrap();
        run(matches.subcommand().unwrap().1).unwrap();
        let script = String::from_utf8(script).unwrap();
        for name in ["http", "up", "ls", "close", "extend", "status", "dev", "relay", "key", "token"] {
            assert!(
                script.contains(&format!("adit__subcmd__{name}")) || script.contains(&format!("adit,{name}")),
                "{name}"
            );
            assert!(dir.path().join(format!("adit-{name}.1")).exists(), "{name}");
        }
    }
}
