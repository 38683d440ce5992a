//! A real Prometheus beside a real relay and client: what we tell it to read it reads, and what is to alarm it does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::ports::free_address;
use crate::program::{RELAY, Running, adit, http, quiet, real, signal};
use crate::rig::{echo_target, soon};
use crate::tools::{installed, root};

/// For an alert: silence is noticed after some seconds only.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn yaml(dir: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(root(dir)).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "yml")).collect();
    files.sort();
    files
}

/// The files with rules.
pub fn rules() -> Vec<PathBuf> {
    yaml("deploy/prometheus")
}

/// Whether promtool is content, and what it said.
pub async fn promtool(arguments: &[&str], input: Option<&str>) -> (bool, String) {
    let mut command = installed("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.unwrap_or_default().as_bytes()).await.unwrap();
    drop(stdin);
    let output = soon(child.wait_with_output()).await.unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}

fn with<'a>(command: &[&'a str], files: &'a [PathBuf]) -> Vec<&'a str> {
    command.iter().copied().chain(files.iter().map(|file| file.to_str().unwrap())).collect()
}

#[tokio::test]
async fn rules_are_sound_and_alarm_when_they_should_and_not_else() {
    let (rules, tests) = (rules(), yaml("tests/prometheus"));
    let names =
        |files: &[PathBuf]| files.iter().map(|file| file.file_name().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&rules), names(&tests));
    for arguments in [with(&["check", "rules", "--lint-fatal"], &rules), with(&["test", "rules"], &tests)] {
        let (good, said) = promtool(&arguments, None).await;
        assert!(good, "{said}");
    }
    for (rules, tests) in rules.iter().zip(&tests) {
        let tested = std::fs::read_to_string(tests).unwrap();
        for line in std::fs::read_to_string(rules).unwrap().lines() {
            let Some(name) = line.trim().strip_prefix("- alert: ") else { continue };
            let scarce = name.ends_with("Scarce") && tested.contains("Scarce");
            assert!(tested.contains(name) || scarce, "{name} has no test");
        }
    }
}

#[tokio::test]
async fn the_configuration_beside_the_compose_file_is_sound_and_reads_the_relay_that_is_there() {
    let file = root("deploy/compose/prometheus.yml");
    let (good, said) = promtool(&with(&["check", "config"], std::slice::from_ref(&file)), None).await;
    assert!(good, "{said}");
    let text = std::fs::read_to_string(file).unwrap();
    let compose = std::fs::read_to_string(root("deploy/compose/compose.yaml")).unwrap();
    assert!(text.contains("job_name: adit\n"), "the rules name the job");
    assert!(text.contains("targets: [relay:9464]") && compose.contains("ADIT_METRICS_LISTEN: 0.0.0.0:9464"));
    // Paths that are mounted, from where the file stands.
    for path in compose.lines().filter_map(|line| line.trim().strip_prefix("- .")?.split_once(':')) {
        let path = root("deploy/compose").join(format!(".{}", path.0));
        assert!(path.exists(), "{}", path.display());
    }
}

/// Prometheus with our configuration and rules, but for address and times.
struct Prometheus {
    address: SocketAddr,
    _child: Child,
}

impl Prometheus {
    async fn start(dir: &Path, relay: SocketAddr) -> Self {
        let mut config = std::fs::read_to_string(root("deploy/compose/prometheus.yml")).unwrap();
        config =
            config.replace("relay:9464", &relay.to_string()).replace("_interval: 15s", "_interval: 200ms");
        assert!(config.contains(&relay.to_string()) && !config.contains("15s"), "{config}");
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        std::fs::create_dir(dir.join("rules")).unwrap();
        for file in rules() {
            let text = std::fs::read_to_string(&file).unwrap();
            let at_once: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("for:"))
                .flat_map(|line| [line, "\n"])
                .collect();
            std::fs::write(dir.join("rules").join(file.file_name().unwrap()), at_once).unwrap();
        }
        let address = free_address().await;
        let mut command = installed("prometheus");
        command
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self { address, _child: command.spawn().unwrap() }
    }

    async fn get(&self, path: &str) -> Value {
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        if tokio::net::TcpStream::connect(self.address).await.is_err() {
            return Value::Null;
        }
        serde_json::from_slice(&http(self.address, request).await.body).unwrap_or(Value::Null)
    }

    /// Until what is at `path` is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path}: {answer:#}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Names of the alerts that fire.
    async fn until_alerts(&self, wanted: impl Fn(&[&str]) -> bool) {
        self.until("/api/v1/alerts", |answer| {
            let Some(alerts) = answer["data"]["alerts"].as_array() else { return false };
            let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
            wanted(&firing.filter_map(|alert| alert["labels"]["alertname"].as_str()).collect::<Vec<_>>())
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_that_stands_still_raises_an_alarm_which_ends_when_it_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let options = ["--metrics-listen=127.0.0.1:0", "--ping-every=1s", "--pong-wait=8s"];
    let relay = Running::start(crate::program::relay(home.path(), &options)).await;
    let (address, metrics) = (relay.addresses[0], relay.metrics.unwrap());
    let _hearing = relay.heard();
    let client = quiet(real(home.path(), address, "web", echo_target().await, &[])).spawn().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), metrics).await;

    let alive = "/api/v1/query?query=adit_clients%7Bhealth%3D%22alive%22%7D";
    let is = |count: &'static str| move |answer: &Value| answer["data"]["result"][0]["value"][1] == count;
    prometheus.until(alive, is("1")).await;
    let targets = prometheus.get("/api/v1/targets").await;
    assert_eq!(targets["data"]["activeTargets"][0]["health"], "up", "{targets:#}");
    prometheus.until_alerts(|firing| firing.is_empty()).await;

    // First it is silent; when the relay has waited for its pong, it is lost.
    signal(client.id().unwrap(), "STOP");
    prometheus.until_alerts(|firing| firing.contains(&"AditClientSilent")).await;
    prometheus.until_alerts(|firing| firing.contains(&"AditClientDead")).await;
    signal(client.id().unwrap(), "CONT");
    prometheus.until(alive, is("1")).await;
    prometheus.until_alerts(|firing| firing.iter().all(|name| !name.starts_with("AditClient"))).await;
}

#[tokio::test]
async fn a_relay_that_is_gone_raises_an_alarm() {
    let home = tempfile::tempdir().unwrap();
    let relay =
        Running::start(adit(home.path(), &[&RELAY[..], &["--metrics-listen=127.0.0.1:0"]].concat())).await;
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), relay.metrics.unwrap()).await;
    prometheus
        .until("/api/v1/query?query=adit_ready", |answer| answer["data"]["result"][0]["value"][1] == "1")
        .await;
    relay.signal("KILL");
    relay.end().await;
    prometheus.until_alerts(|firing| firing.contains(&"AditRelayDown")).await;
}
