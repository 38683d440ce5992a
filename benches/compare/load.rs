//! The kinds of load, and wrk, which makes them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::machine::Tools;
use crate::process::TempDir;

/// Bytes of one upload.
pub const UPLOAD: u64 = 16 * 1024 * 1024;
/// What wrk may take beyond the seconds it was asked for.
const EXTRA: Duration = Duration::from_secs(30);
/// One GB.
const GB: f64 = 1e9;

/// A kind of load, and a column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Small responses on connections that stay.
    KeepAlive,
    /// Small responses, each on a new connection.
    NewConnection,
    /// A large file, to two viewers at once.
    Down,
    /// Large request bodies, from two viewers at once.
    Up,
    /// A large file, to eight viewers at once.
    DownEight,
    /// Large request bodies, from eight viewers at once.
    UpEight,
    /// Small responses by TLS on connections that stay.
    TlsKeepAlive,
    /// Small responses, each after a TLS handshake that takes up a session.
    TlsResumed,
    /// Small responses, each after a full TLS handshake.
    TlsHandshake,
}

impl Load {
    /// Those without TLS, in the order of the table.
    pub const PLAIN: &[Self] =
        &[Self::KeepAlive, Self::NewConnection, Self::Down, Self::Up, Self::DownEight, Self::UpEight];
    /// Those with it.
    pub const TLS: &[Self] = &[Self::TlsKeepAlive, Self::TlsResumed, Self::TlsHandshake];

    /// The column's title.
    pub fn title(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::NewConnection => "new connection",
            Self::Down => "bulk down",
            Self::Up => "bulk up",
            Self::DownEight => "8 streams down",
            Self::UpEight => "8 streams up",
            Self::TlsKeepAlive => "TLS keep-alive",
            Self::TlsResumed => "TLS session resumed",
            Self::TlsHandshake => "TLS handshake each",
        }
    }

    /// Whether it is counted in bytes instead of requests.
    pub fn is_bulk(self) -> bool {
        !matches!(self, Self::KeepAlive | Self::NewConnection) && !self.is_tls()
    }

    /// Whether viewers speak TLS.
    pub fn is_tls(self) -> bool {
        Self::TLS.contains(&self)
    }

    /// Whether viewers send what is counted.
    pub fn is_upload(self) -> bool {
        matches!(self, Self::Up | Self::UpEight)
    }

    /// A rate of this load, with its unit.
    pub fn show_rate(self, rate: f64) -> String {
        if self.is_bulk() { format!("{rate:.2} GB/s") } else { format!("{rate:.0} req/s") }
    }

    /// Connections that wrk holds.
    fn connections(self) -> &'static str {
        match self {
            Self::Down | Self::Up => "2",
            Self::DownEight | Self::UpEight => "8",
            _ => "32",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Down | Self::DownEight => "/big",
            Self::Up | Self::UpEight => "/upload",
            _ => "/",
        }
    }

    /// wrk's script. Only `done` is called while wrk runs, and only once, so it costs nothing.
    fn script(self) -> String {
        let upload = format!("wrk.method = 'POST'\nwrk.body = string.rep('x', {UPLOAD})\n");
        let done = r#"
            function done(summary)
              local e = summary.errors
              io.write(string.format(
                '{"us":%d,"requests":%d,"bytes":%d,"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
                summary.duration, summary.requests, summary.bytes,
                e.status, e.connect, e.read, e.write, e.timeout))
            end"#;
        if self.is_upload() { upload + done } else { done.to_owned() }
    }
}

/// What wrk counted.
#[derive(Debug)]
pub struct Outcome {
    /// Requests, or GB.
    pub amount: f64,
    /// How long it took.
    pub seconds: f64,
    /// What went wrong, if anything did; the figure is then worth nothing.
    pub problem: Option<String>,
}

impl Outcome {
    /// Requests per second, or GB per second.
    pub fn rate(&self) -> f64 {
        self.amount / self.seconds
    }
}

/// Loads `address` for so many seconds.
pub async fn run(
    tools: &Tools,
    temp: &TempDir,
    load: Load,
    address: SocketAddr,
    host: &str,
    seconds: u32,
) -> Result<Outcome> {
    let script = temp.join("wrk.lua");
    std::fs::write(&script, load.script())?;
    let mut command = Command::new(&tools.wrk);
    command.args(["-t2", "-c", load.connections(), "-d", &format!("{seconds}s"), "--timeout", "10s", "-s"]);
    command.arg(&script).args(["-H", &format!("Host: {host}")]);
    if matches!(load, Load::NewConnection | Load::TlsResumed) {
        command.args(["-H", "Connection: close"]);
    }
    let scheme = if load.is_tls() { "https" } else { "http" };
    command.arg(format!("{scheme}://{address}{}", load.path())).kill_on_drop(true);
    let output = timeout(Duration::from_secs(seconds.into()) + EXTRA, command.output())
        .await
        .context("wrk does not come to an end")?
        .context("cannot run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text
        .lines()
        .rfind(|line| line.starts_with('{'))
        .with_context(|| format!("odd output of wrk: {text}"))?;
    read_summary(load, line)
}

/// Makes an outcome of the line that the script wrote.
fn read_summary(load: Load, line: &str) -> Result<Outcome> {
    let summary: Value = serde_json::from_str(line).context("odd line of the wrk script")?;
    let field = |name: &str| summary[name].as_f64().with_context(|| format!("no {name} in {line}"));
    let requests = field("requests")?;
    let amount = match load {
        Load::Down | Load::DownEight => field("bytes")? / GB,
        Load::Up | Load::UpEight => requests * UPLOAD as f64 / GB,
        _ => requests,
    };
    let mut problems = Vec::new();
    for (name, words) in [
        ("status", "responses other than 2xx or 3xx"),
        ("connect", "failed connects"),
        ("read", "read errors"),
        ("write", "write errors"),
        ("timeout", "timeouts"),
    ] {
        let count = field(name)?;
        if count > 0.0 {
            problems.push(format!("{count} {words}"));
        }
    }
    if amount == 0.0 {
        problems.push("nothing came through".into());
    }
    let problem = (!problems.is_empty()).then(|| problems.join(", "));
    Ok(Outcome { amount, seconds: field("us")? / 1e6, problem })
}
