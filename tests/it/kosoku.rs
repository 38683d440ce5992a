//! kosoku, which runs the framing cases of the Autobahn test suite, as a client of ours and as a server; its verdicts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::rig::soon;
use crate::tools::tool;

/// All framing cases of few bytes: permessage-deflate (sections 12 and 13) is spoken by nobody here.
pub const SMALL: &[&str] = &["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];
/// A thousand messages one by one, of 0 bytes to 16 KiB.
pub const MANY_MESSAGES: &[&str] = &["9.7.*", "9.8.*"];
/// Messages of 64 KiB to 16 MiB, whole and in fragments.
pub const LARGE: &[&str] = &["9.1.*", "9.2.*", "9.3.*", "9.4.*", "9.5.*", "9.6.*"];
/// For all of them.
const PATIENCE: Duration = Duration::from_secs(120);
/// Most of the time of most cases is a wait of kosoku for what must not come.
pub const MANY: usize = 40;
/// For cases of many bytes: those waits last a second only, also on a busy machine.
pub const FEW: usize = 3;

/// What kosoku says of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Of what was sent and answered.
    pub behavior: String,
    /// Of how it was closed.
    pub close: String,
    /// The code in our close frame.
    pub code: Option<u64>,
    /// Only an end that sends messages back can pass.
    pub wants_echo: bool,
}

impl Verdict {
    /// Whether kosoku itself counts the case as passed.
    pub fn is_pass(&self) -> bool {
        matches!(&self.behavior[..], "OK" | "NON-STRICT" | "INFORMATIONAL")
            && matches!(&self.close[..], "OK" | "INFORMATIONAL")
    }
}

/// By the number of the case.
pub type Verdicts = BTreeMap<String, Verdict>;

/// Runs `cases` by `judge`, and fails with a list unless exactly `expected` (numbers, separated by white space) were not
/// passed. What is unexpected is judged once more, a few at a time: the judge's waits are short.
pub async fn assert_failed(
    cases: &[&str],
    expected: &str,
    judge: impl AsyncFn(&[&str], usize) -> Verdicts,
) -> Verdicts {
    let expected: Vec<&str> = expected.split_whitespace().collect();
    let unexpected = |verdicts: &Verdicts| -> Vec<String> {
        let wrong =
            verdicts.iter().filter(|(case, verdict)| verdict.is_pass() == expected.contains(&&case[..]));
        wrong.map(|(case, _)| case.clone()).collect()
    };
    let mut verdicts = judge(cases, if cases == LARGE { FEW } else { MANY }).await;
    let again = unexpected(&verdicts);
    if !again.is_empty() && again.len() < 20 {
        let again: Vec<&str> = again.iter().map(String::as_str).collect();
        verdicts.extend(judge(&again, FEW).await);
    }
    let wrong: Vec<_> =
        unexpected(&verdicts).into_iter().map(|case| (verdicts[&case].clone(), case)).collect();
    assert!(wrong.is_empty(), "not as expected: {wrong:#?}");
    verdicts
}

fn kosoku(mode: &str, address: &str, cases: &[&str], at_once: usize, reports: &TempDir) -> Command {
    let mut command = tool("kosoku");
    command.args(["-m", mode, address, "-p", &at_once.to_string(), "-o"]).arg(reports.path());
    command.args(cases.iter().flat_map(|case| ["-i", case]));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn read(reports: &TempDir) -> Verdicts {
    let json = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(reports.path().join(name)).unwrap()).unwrap()
    };
    let index = json("index.json");
    let cases = index.as_object().unwrap().values().flat_map(|agent| agent.as_object().unwrap());
    cases
        .map(|(case, verdict)| {
            let text = |key: &str| verdict[key].as_str().unwrap().to_owned();
            let accepted = json(&text("reportfile"))["expected"].as_object().unwrap().clone();
            let echoes =
                |events: &Value| events.as_array().unwrap().iter().any(|event| event[0] == "message");
            let verdict = Verdict {
                behavior: text("behavior"),
                close: text("behaviorClose"),
                code: verdict["remoteCloseCode"].as_u64(),
                wants_echo: !accepted.is_empty() && accepted.values().all(echoes),
            };
            (case.clone(), verdict)
        })
        .collect()
}

/// Runs `cases` against the server at `url`.
pub async fn judge_server(url: &str, cases: &[&str], at_once: usize) -> Verdicts {
    let reports = TempDir::new().unwrap();
    let mut command = kosoku("fuzzingclient", url, cases, at_once, &reports);
    let output = timeout(PATIENCE, command.output()).await.expect("kosoku did not end").unwrap();
    assert!(reports.path().join("index.json").exists(), "{}", String::from_utf8_lossy(&output.stderr));
    read(&reports)
}

/// kosoku as a server that judges clients.
pub struct Server {
    child: Child,
    reports: TempDir,
    pub address: SocketAddr,
}

impl Server {
    pub async fn start(cases: &[&str]) -> Self {
        let reports = TempDir::new().unwrap();
        let mut child = kosoku("fuzzingserver", "127.0.0.1:0", cases, 1, &reports).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.as_mut().unwrap()).lines();
        let line = soon(stderr.next_line()).await.unwrap().expect("kosoku did not start");
        let address = line.rsplit("ws://").next().unwrap().parse().unwrap();
        Self { child, reports, address }
    }

    /// After the client has asked for the reports.
    pub async fn verdicts(mut self) -> Verdicts {
        timeout(PATIENCE, self.child.wait()).await.expect("kosoku did not end").unwrap();
        read(&self.reports)
    }
}
