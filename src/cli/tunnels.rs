//! `adit ls`, `close` and `extend`: an owner's tunnels on the relay.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::http::{RelayArgs, ttl, usage};
use crate::client::Connector;
use crate::client::api::CallError;
use crate::client::text::{visible, visible_json};
use crate::proto::api::{NEVER, Tunnel};

/// `adit ls`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    relay: RelayArgs,
    /// Print the relay's JSON
    #[arg(long)]
    json: bool,
}

/// `adit close`.
#[derive(Debug, Args)]
pub(super) struct CloseArgs {
    /// Name or id of the tunnel
    #[arg(value_name = "NAME|ID")]
    tunnel: String,
    #[command(flatten)]
    relay: RelayArgs,
}

/// `adit extend`.
#[derive(Debug, Args)]
pub(super) struct ExtendArgs {
    /// Name or id of the tunnel
    #[arg(value_name = "NAME|ID")]
    tunnel: String,
    /// From now on, such as 30m or 8h; 0 is for ever
    #[arg(value_parser = ttl)]
    ttl: String,
    #[command(flatten)]
    relay: RelayArgs,
}

/// How a command came out when it did not.
pub(super) enum Failure {
    /// What was typed.
    Usage(String),
    /// The relay.
    Call(CallError),
    /// There is none.
    Unreachable(String),
    /// There is no such tunnel, or several.
    Which(String),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Failure {
    pub(super) fn tell(self, command: &str) -> ExitCode {
        let (text, code) = match self {
            Self::Usage(text) => return usage(command, &[text]),
            Self::Which(text) => (text, 1),
            Self::Unreachable(text) => (text, 69),
            Self::Call(error) => {
                let code = match error {
                    CallError::Unauthorised { .. } => 77,
                    CallError::Refused { .. } | CallError::TooSoon { .. } => 1,
                    CallError::Unreachable(_) => 69,
                };
                let hint = if code == 77 { "; check ADIT_KEY or --key" } else { "" };
                (format!("{error}{hint}"), code)
            }
        };
        eprintln!("adit {command}: {}", visible(&text));
        ExitCode::from(code)
    }
}

fn done(command: &str, outcome: Result<(), Failure>) -> anyhow::Result<ExitCode> {
    Ok(outcome.map_or_else(|failure| failure.tell(command), |()| ExitCode::SUCCESS))
}

/// Prints the tunnels of the key.
pub(super) async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let listed = async {
        let tunnels = args.relay.connector().map_err(Failure::Usage)?.list().await?;
        print(&if args.json { pretty(&json!(tunnels)) } else { table(&tunnels) });
        if tunnels.is_empty() && !args.json {
            eprintln!("adit ls: there are no tunnels; `adit http 3000` makes one");
        }
        Ok(())
    };
    done("ls", listed.await)
}

/// Deletes a tunnel.
pub(super) async fn close(args: CloseArgs) -> anyhow::Result<ExitCode> {
    let closed = async {
        let connector = args.relay.connector().map_err(Failure::Usage)?;
        let tunnel = find(&connector, &args.tunnel).await?;
        connector.delete(&tunnel.id).await?;
        eprintln!("closed: {}", visible(&tunnel.public_url));
        Ok(())
    };
    done("close", closed.await)
}

/// Changes when a tunnel ends.
pub(super) async fn extend(args: ExtendArgs) -> anyhow::Result<ExitCode> {
    let extended = async {
        let connector = args.relay.connector().map_err(Failure::Usage)?;
        let tunnel = find(&connector, &args.tunnel).await?;
        let tunnel = connector.extend(&tunnel.id, &args.ttl).await?;
        eprintln!("{} ends {}", visible(&tunnel.slug), ends(&tunnel));
        Ok(())
    };
    done("extend", extended.await)
}

/// The one tunnel with that name or id, or whose id begins so.
async fn find(connector: &Connector, wanted: &str) -> Result<Tunnel, Failure> {
    pick(connector.list().await?, wanted).map_err(Failure::Which)
}

fn pick(tunnels: Vec<Tunnel>, wanted: &str) -> Result<Tunnel, String> {
    let exact = |tunnel: &Tunnel| tunnel.id == wanted || tunnel.slug.eq_ignore_ascii_case(wanted);
    if let Some(tunnel) = tunnels.iter().find(|tunnel| exact(tunnel)) {
        return Ok(tunnel.clone());
    }
    // A few digits of an id could be a mistyped name.
    let mut begin = tunnels.into_iter().filter(|tunnel| wanted.len() >= 8 && tunnel.id.starts_with(wanted));
    match (begin.next(), begin.next()) {
        (Some(tunnel), None) => Ok(tunnel),
        (Some(_), Some(_)) => {
            Err(format!("several tunnels have an id that begins with {wanted}: write more of it"))
        }
        (None, _) => Err(format!("you have no tunnel {wanted:?}: `adit ls` shows them")),
    }
}

pub(super) fn table(tunnels: &[Tunnel]) -> String {
    if tunnels.is_empty() {
        return String::new();
    }
    let header = ["NAME", "STATE", "ENDS", "REQUESTS", "URL", "ID"].map(str::to_owned);
    let rows = tunnels.iter().map(|tunnel| {
        let state = match (tunnel.suspended, tunnel.connected) {
            (true, _) => "suspended".to_owned(),
            (false, true) if tunnel.replica => format!("online ({})", tunnel.clients),
            (false, true) => "online".to_owned(),
            (false, false) => "offline".to_owned(),
        };
        let id = tunnel.id.chars().take(8).collect();
        [tunnel.slug.clone(), state, ends(tunnel), tunnel.requests.to_string(), tunnel.public_url.clone(), id]
            .map(|cell: String| visible(&cell).into_owned())
    });
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..6).map(width).collect();
    rows.iter().fold(String::new(), |mut table, row| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        table.push_str(cells.join("  ").trim_end());
        table.push('\n');
        table
    })
}

fn ends(tunnel: &Tunnel) -> String {
    match tunnel.expires_at.as_str() {
        "" | NEVER => "never".into(),
        // To the second is enough for people.
        at => match at.split_once('.') {
            Some((seconds, _)) => format!("{seconds}Z"),
            None => at.into(),
        },
    }
}

pub(super) fn pretty(value: &serde_json::Value) -> String {
    visible_json(&format!("{value:#}\n")).into_owned()
}

/// A reader that went away is no error.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(id: &str, slug: &str) -> Tunnel {
        Tunnel {
            id: id.into(),
            slug: slug.into(),
            public_url: format!("https://{slug}.a"),
            ..Tunnel::default()
        }
    }

    #[test]
    fn a_tunnel_is_found_by_name_id_or_the_beginning_of_its_id() {
        let all = || vec![tunnel("12345678-aaaa", "web"), tunnel("12345678-bbbb", "api")];
        assert_eq!(pick(all(), "Web").unwrap().slug, "web");
        assert_eq!(pick(all(), "12345678-bbbb").unwrap().slug, "api");
        assert_eq!(pick(all(), "12345678-b").unwrap().slug, "api");
        assert!(pick(all(), "12345678").unwrap_err().contains("several"));
        assert!(pick(all(), "1234").unwrap_err().contains("adit ls"));
    }

    #[test]
    fn the_table_is_aligned_and_harmless() {
        let mut online = tunnel("12345678-aaaa", "web");
        (online.connected, online.requests, online.expires_at) =
            (true, 17, "2026-11-21T05:00:00.123Z".into());
        let several = Tunnel { connected: true, replica: true, clients: 3, ..tunnel("y", "several") };
        assert!(table(&[several]).contains("online (3)"));
        let shown = table(&[online, tunnel("x", "e\x1b[2J")]);
        let expected = "NAME        STATE    ENDS                  REQUESTS  URL                  ID\n\
                        web         online   2026-11-21T05:00:00Z  17        https://web.a        12345678\n\
                        e\\u{1b}[2J  offline  never                 0         https://e\\u{1b}[2J.a  x\n";
        assert_eq!(
            shown.replace("  ", " ").split_whitespace().collect::<Vec<_>>(),
            expected.split_whitespace().collect::<Vec<_>>()
        );
        assert!(!shown.contains('\x1b'));
        assert_eq!(table(&[]), "");
    }
}
