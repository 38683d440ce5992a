//! `adit key`: creates, lists and revokes keys in the database; a running relay takes notice at once.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::options::{self, Env, values};
use crate::auth::keys::{generate_key, hash_key};
use crate::store::{FILE_NAME, KeyRow, Sqlite, Store};

/// The subcommand with its own subcommands.
pub fn command() -> Command {
    let name = || {
        Arg::new("name").value_name("NAME").required(true).help("Name of the key, the owner of its tunnels")
    };
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON");
    let subcommands = [
        Command::new("create").about("Makes a key and prints it, for the only time").arg(name()),
        Command::new("list").about("Lists all keys, the revoked ones too").arg(json),
        Command::new("revoke").about("Revokes a key; its tunnels are closed").arg(name()),
    ];
    let place = |option: &options::Opt| matches!(option.key, "data-dir" | "config");
    Command::new("key")
        .about("Creates, lists and revokes the keys of clients")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(subcommands.map(|subcommand| options::add(subcommand, place)))
}

/// Does what was asked. The key alone, or the list, goes to stdout; exit code 1 when it could not be done.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some((action, matches)) = matches.subcommand() else {
        return Ok(ExitCode::from(2));
    };
    let action = match action {
        "list" => Action::List { json: matches.get_flag("json") },
        action => {
            let name = matches.get_one::<String>("name").cloned().unwrap_or_default();
            if let Err(error) = values::key_name(&name) {
                eprintln!("adit key {action}: {error}");
                return Ok(ExitCode::from(2));
            }
            if action == "create" { Action::Create(name) } else { Action::Revoke(name) }
        }
    };
    let dir = match options::data_dir(matches, &Env::process()) {
        Ok(dir) => dir,
        Err(errors) => {
            for error in errors {
                eprintln!("adit key: {error}");
            }
            return Ok(ExitCode::from(2));
        }
    };
    // Only a key to be created is a reason to make a database; otherwise the directory is the wrong one.
    if !matches!(action, Action::Create(_)) && !dir.join(FILE_NAME).exists() {
        eprintln!(
            "adit key: there is no database in {}; say with --data-dir where the relay has it",
            dir.display()
        );
        return Ok(ExitCode::FAILURE);
    }
    let store = Sqlite::open(&dir)?;
    let (said, code) = match perform(&store, action).await? {
        Outcome::Done { stdout, hint } => {
            std::io::stdout().write_all(stdout.as_bytes()).context("stdout")?;
            (hint, ExitCode::SUCCESS)
        }
        Outcome::Failed(sentence) => (sentence, ExitCode::FAILURE),
    };
    if !said.is_empty() {
        eprintln!("adit key: {said}");
    }
    Ok(code)
}

enum Action {
    Create(String),
    List { json: bool },
    Revoke(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done { stdout: String, hint: String },
    Failed(String),
}

async fn perform(store: &dyn Store, action: Action) -> anyhow::Result<Outcome> {
    Ok(match action {
        Action::Create(name) => {
            let key = generate_key()?;
            if store.create_key(name.clone(), hash_key(key.expose())).await? {
                let hint = format!("this is the key {name:?}; keep it now, it is not shown again");
                Outcome::Done { stdout: format!("{}\n", key.expose()), hint }
            } else {
                Outcome::Failed(format!(
                    "there is a key {name:?} already; choose another name, or `adit key revoke {name}` first"
                ))
            }
        }
        Action::List { json } => {
            let keys = store.keys().await?;
            let hint =
                if keys.is_empty() { "there are no keys; `adit key create NAME` makes one" } else { "" };
            Outcome::Done { stdout: if json { as_json(&keys)? } else { as_table(&keys) }, hint: hint.into() }
        }
        Action::Revoke(name) => {
            if store.revoke_key(name.clone()).await? {
                Outcome::Done { stdout: String::new(), hint: format!("the key {name:?} is revoked") }
            } else {
                Outcome::Failed(format!("there is no live key {name:?}; `adit key list` shows them"))
            }
        }
    })
}

fn as_table(keys: &[KeyRow]) -> String {
    if keys.is_empty() {
        return String::new();
    }
    let width = keys.iter().map(|key| key.name.len()).chain([4]).max().unwrap_or(4);
    let mut table = format!("{:width$}  {:20}  STATE\n", "NAME", "CREATED");
    for key in keys {
        let state = key.revoked_at.map_or_else(|| "live".into(), |at| format!("revoked {}", rfc3339(at)));
        table += &format!("{:width$}  {:20}  {state}\n", key.name, rfc3339(key.created_at));
    }
    table
}

fn as_json(keys: &[KeyRow]) -> anyhow::Result<String> {
    let object = |key: &KeyRow| {
        serde_json::json!({
            "name": key.name,
            "created_at": rfc3339(key.created_at),
            "state": if key.revoked_at.is_some() { "revoked" } else { "live" },
            "revoked_at": key.revoked_at.map(rfc3339),
        })
    };
    Ok(serde_json::to_string_pretty(&keys.iter().map(object).collect::<Vec<_>>())? + "\n")
}

/// Unix milliseconds as a date, to the second; `None` beyond the years that have four digits.
pub(super) fn date(millis: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(millis.div_euclid(1000)).ok()?.format(&Rfc3339).ok()
}

/// The same, or `?`.
pub(super) fn rfc3339(millis: i64) -> String {
    date(millis).unwrap_or_else(|| "?".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn done(store: &Sqlite, action: Action) -> String {
        match perform(store, action).await.unwrap() {
            Outcome::Done { stdout, .. } => stdout,
            Outcome::Failed(error) => panic!("{error}"),
        }
    }

    async fn failed(store: &Sqlite, action: Action) -> String {
        match perform(store, action).await.unwrap() {
            Outcome::Failed(error) => error,
            done => panic!("{done:?}"),
        }
    }

    #[test]
    fn the_command_is_sound() {
        command().debug_assert();
        let matches = command().try_get_matches_from(["key", "create", "alice", "--data-dir", "/x"]).unwrap();
        let dir = options::data_dir(matches.subcommand().unwrap().1, &Env::default());
        assert_eq!(dir, Ok("/x".into()));
    }

    #[tokio::test]
    async fn a_key_is_printed_alone_and_once() {
        let store = Sqlite::memory().unwrap();
        let key = done(&store, Action::Create("alice".into())).await;
        let found = store.find_key(hash_key(key.trim_end())).await.unwrap();
        assert_eq!(found.unwrap().name, "alice");
        assert!(key.starts_with("nbk_") && key.len() == 53, "{key}");
        assert!(failed(&store, Action::Create("alice".into())).await.contains("adit key revoke alice"));
        assert!(!done(&store, Action::List { json: true }).await.contains("nbk_"));
    }

    #[tokio::test]
    async fn a_key_that_is_unknown_or_revoked_cannot_be_revoked() {
        let store = Sqlite::memory().unwrap();
        assert!(failed(&store, Action::Revoke("alice".into())).await.contains("alice"));
        done(&store, Action::Create("alice".into())).await;
        assert_eq!(done(&store, Action::Revoke("alice".into())).await, "");
        failed(&store, Action::Revoke("alice".into())).await;
    }

    #[test]
    fn the_list_is_a_table_or_json() {
        let key =
            |name: &str, revoked_at| KeyRow { name: name.into(), created_at: 1_700_000_000_123, revoked_at };
        let keys = [key("alice", Some(1_700_000_001_000)), key("bob", None)];
        let table = "NAME   CREATED               STATE\n\
                     alice  2023-11-14T22:13:20Z  revoked 2023-11-14T22:13:21Z\n\
                     bob    2023-11-14T22:13:20Z  live\n";
        assert_eq!(as_table(&keys), table);
        let json: serde_json::Value = serde_json::from_str(&as_json(&keys).unwrap()).unwrap();
        assert_eq!(json[0]["state"], "revoked");
        assert_eq!(json[1]["revoked_at"], serde_json::Value::Null);
        assert_eq!(as_json(&[]).unwrap(), "[]\n");
    }
}
