//! `adit status`: whether a relay serves, on one screen, for its users and for its operator.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::http::RelayArgs;
use super::tunnels::{Failure, pretty, print, table};
use crate::client::Connector;
use crate::client::text::{size, visible};

pub(super) const EXIT_CODES: &str = "Exit codes:\n  \
    0   the relay answers; with --exit-code, it serves\n  \
    1   with --exit-code, it does not: it is stopping\n  \
    2   wrong usage\n  \
    69  the relay cannot be reached, or something else answers\n  \
    77  the key is wrong";

/// Where `adit relay` listens for its operator without options.
pub(super) const DEFAULT_ADMIN: &str = "http://127.0.0.1:9090";

/// `adit status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    relay: RelayArgs,
    /// Ask the relay's admin listener, as its operator, instead of --relay [default: http://127.0.0.1:9090]
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = DEFAULT_ADMIN)]
    admin: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Exit with 1 if the relay does not serve, for scripts
    #[arg(long)]
    exit_code: bool,
}

/// Prints how the relay is.
pub(super) async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let StatusArgs { mut relay, admin, json, exit_code } = args;
    let told = match admin {
        None => of_users(&relay, json).await,
        Some(admin) => {
            // What the environment says of the relay's users is not for its operator.
            let url = if admin.contains("://") { admin } else { format!("http://{admin}") };
            (relay.relay, relay.key) = (Some(url), None);
            of_operator(&relay, json).await
        }
    };
    Ok(match told {
        Err(failure) => failure.tell("status"),
        Ok(serves) if serves || !exit_code => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
    })
}

/// How the relay is, and the tunnels of the key. Whether it serves.
async fn of_users(args: &RelayArgs, json: bool) -> Result<bool, Failure> {
    let connector = args.connector().map_err(Failure::Usage)?;
    let health = connector.health().await?;
    let serves = health.status == "ok";
    // Without a key the relay's health is all that can be told.
    let tunnels = if connector.has_key() { Some(connector.list().await?) } else { None };
    let relay = connector.relay().to_string();
    if json {
        let relay = json!({ "url": relay, "status": health.status, "version": health.version });
        print(&pretty(&json!({ "relay": relay, "tunnels": tunnels })));
        return Ok(serves);
    }
    let (state, version) = (visible(&health.status), visible(&health.version));
    print(&format!("relay {relay}: {state}, version {version}\n"));
    match tunnels {
        Some(tunnels) if tunnels.is_empty() => print("no tunnels\n"),
        Some(tunnels) => print(&table(&tunnels)),
        None => eprintln!("adit status: your tunnels are shown when ADIT_KEY or --key gives your key"),
    }
    Ok(serves)
}

/// What the admin listener tells. Whether the relay serves.
async fn of_operator(args: &RelayArgs, json: bool) -> Result<bool, Failure> {
    let connector = args.connector_given_by("--admin").map_err(Failure::Usage)?;
    let other = |status: StatusCode| {
        Failure::Unreachable(format!(
            "what answers at {} is not the admin listener of a relay ({status}): give the address of its admin-listen",
            connector.relay()
        ))
    };
    let hint = |failure| match failure {
        Failure::Call(error) => {
            Failure::Unreachable(format!("{error}; `adit relay --check` shows its admin-listen"))
        }
        failure => failure,
    };
    let (status, state) = connector.look("/readyz").await.map_err(Failure::Call).map_err(hint)?;
    let state = String::from_utf8_lossy(&state).trim().to_owned();
    let serves = match (status, state.as_str()) {
        (StatusCode::OK, "ready") => true,
        (StatusCode::SERVICE_UNAVAILABLE, "closing") => false,
        _ => return Err(other(status)),
    };
    let counts = counts(&connector).await.map_err(hint)?;
    let url = connector.relay().to_string();
    if json {
        let relay = json!({ "url": url, "status": state, "ready": serves });
        print(&pretty(&json!({ "relay": relay, "counts": counts.as_ref().ok() })));
    } else {
        let meaning = if serves { "it serves" } else { "it is stopping, and takes no new requests" };
        print(&format!("relay {url}: {state}, {meaning}\n"));
        if let Ok(counts) = &counts {
            print(&screen(counts));
        }
    }
    if let Err(why) = counts {
        eprintln!("adit status: what the relay holds is not told: {}", visible(&why));
    }
    Ok(serves)
}

/// What it holds, or why it does not tell.
async fn counts(connector: &Connector) -> Result<Result<Map<String, Value>, String>, Failure> {
    let (status, body) = connector.look("/counts").await.map_err(Failure::Call)?;
    Ok(match serde_json::from_slice(&body) {
        Ok(Value::Object(counts)) if status.is_success() => Ok(counts),
        Ok(problem) if problem["error"]["message"].is_string() => {
            Err(problem["error"]["message"].as_str().unwrap_or_default().to_owned())
        }
        _ if status == StatusCode::NOT_FOUND => {
            Err("its metrics-listen answers here: give --admin the address of its admin-listen".to_owned())
        }
        _ => Err(String::from_utf8_lossy(&body).trim().chars().take(200).collect()),
    })
}

/// A line for each kind, and in it what is there.
fn screen(counts: &Map<String, Value>) -> String {
    let lines: [(&str, &[(&str, &str)]); 6] = [
        (
            "viewers",
            &[
                ("exchanges", "under way"),
                ("upgraded", "upgraded"),
                ("raw", "raw"),
                ("waiting_for_client", "waiting for a client"),
                ("waiting", "waiting for a claim"),
            ],
        ),
        ("tunnels", &[("tunnels", "known"), ("tunnels_by_port", "with a port")]),
        ("clients", &[("control_sockets", "connected")]),
        (
            "data sockets",
            &[
                ("data_sockets_in_use", "in use"),
                ("idle_data_sockets", "idle"),
                ("standby_data_sockets", "standby"),
            ],
        ),
        ("connections", &[("connections", "open")]),
        ("process", &[("descriptors", "descriptors"), ("tasks", "tasks")]),
    ];
    let mut screen = String::new();
    for (kind, fields) in lines {
        let there = fields.iter().filter_map(|(field, name)| Some((counts.get(*field)?.as_u64()?, name)));
        let mut words: Vec<String> = there.map(|(count, name)| format!("{count} {name}")).collect();
        if kind == "process" {
            words.extend(
                counts
                    .get("memory_bytes")
                    .and_then(Value::as_u64)
                    .map(|bytes| format!("{} of memory", size(bytes))),
            );
        }
        if !words.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(screen, "  {kind:<13} {}", words.join(", "));
        }
    }
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_has_what_is_told_and_nothing_else() {
        let counts =
            json!({"exchanges": 3, "upgraded": 0, "connections": 7, "memory_bytes": 12_300_000, "other": 9});
        let shown = screen(counts.as_object().unwrap());
        assert_eq!(
            shown,
            "  viewers       3 under way, 0 upgraded\n  connections   7 open\n  process       12 MB of memory\n"
        );
        assert_eq!(screen(&Map::new()), "");
    }
}
