//! Programs of others that judge or load the HTTP side: h2spec, h2load, slowhttptest.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use adit::client::{Proxies, Tunnel};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::program::{Running, http, relay};
use crate::rig::{ALICE, Answer, soon, target};
use crate::tools::tool;

/// What a test waits for a program of others.
const PATIENCE: Duration = Duration::from_secs(60);

/// A relay as a process of its own, so that what it holds is its own, with the tunnel `web`.
pub struct Relay {
    running: Running,
    pub address: SocketAddr,
    _tunnel: Tunnel,
    _home: TempDir,
}

impl Relay {
    /// With a target that answers each GET with `ok`, and options beside those that every relay has here.
    pub async fn start(options: &[&str]) -> Self {
        Self::before(ok_target().await, options).await
    }

    pub async fn before(target: SocketAddr, options: &[&str]) -> Self {
        let home = TempDir::new().unwrap();
        let options = [&["--base-domain", "relay.test"], options].concat();
        let running = Running::start(relay(home.path(), &options)).await;
        let address = running.addresses[0];
        let tunnel = Tunnel::to(format!("http://{address}")).key(ALICE).name("web").proxies(Proxies::none());
        let tunnel = soon(tunnel.expose_port(target.port())).await.unwrap();
        Self { running, address, _tunnel: tunnel, _home: home }
    }

    fn process(&self) -> PathBuf {
        format!("/proc/{}", self.running.id()).into()
    }

    /// Bytes of memory in use.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(self.process().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Descriptors in use.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.process().join("fd")).unwrap().count()
    }

    /// A GET, on a connection of its own: of the relay's `/health`, or of a path of the tunnel.
    pub async fn get(&self, path: &str) -> Answer {
        let host = if path == "/health" { "localhost" } else { "web.relay.test" };
        http(self.address, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    }

    /// The tunnel by its path, for those who know no host.
    fn url(&self) -> String {
        format!("http://{}/t/web/", self.address)
    }
}

/// Answers each head with `ok`, whatever its body, as quickly as it can; `/page` with some more, and `/large` with a megabyte,
/// as its last answer.
async fn ok_target() -> SocketAddr {
    target(|_, mut stream| async move {
        let (mut came, mut part) = (Vec::new(), vec![0; 16 * 1024]);
        while let Ok(count @ 1..) = stream.read(&mut part).await {
            came.extend_from_slice(&part[..count]);
            while let Some(end) = came.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head: Vec<u8> = came.drain(..end + 4).collect();
                // A body that is still to come is waited for by whoever sends it slowly.
                if head.starts_with(b"POST") {
                    continue;
                }
                let large = head.starts_with(b"GET /large");
                let page = head.starts_with(b"GET /page");
                let (body, last) = match (large, page) {
                    (true, _) => ("x".repeat(1 << 20), "Connection: close\r\n"),
                    (_, true) => ("what fills a window of three bytes".into(), ""),
                    _ => ("ok".into(), ""),
                };
                let answer = format!("HTTP/1.1 200 OK\r\n{last}Content-Length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).await.is_err() || large {
                    return;
                }
            }
        }
    })
    .await
}

async fn stdout(command: &mut Command) -> String {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("it did not end").unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The one case that is left needs a port that speaks nothing but HTTP/2: what is no preface is HTTP/1 here, and gets a
/// 400 before the end.
const PREFACE: &str = "http2/3.5 Sends invalid connection preface";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2spec_finds_nothing_but_that_http_1_is_spoken_too() {
    let relay = Relay::start(&[]).await;
    let report = relay._home.path().join("h2spec.xml");
    let port = relay.address.port().to_string();
    let said = stdout(
        tool("h2spec")
            .args(["--strict", "-h", "127.0.0.1", "-p", &port, "-P", "/t/web/page", "-o", "5", "-j"])
            .arg(&report),
    )
    .await;
    let report = std::fs::read_to_string(report).expect(&said);
    let attribute = |case: &str, name: &str| {
        case.split_once(&format!("{name}=\"")).unwrap().1.split_once('"').unwrap().0.to_owned()
    };
    let cases: Vec<&str> = report.split("<testcase ").skip(1).collect();
    assert_eq!(cases.len(), 146);
    assert!(!report.contains("<skipped"), "{said}");
    let failed: Vec<String> = cases
        .iter()
        .filter(|case| case.contains("<failure") || case.contains("<error"))
        .map(|case| attribute(case, "package") + " " + &attribute(case, "classname"))
        .collect();
    assert_eq!(failed, [PREFACE], "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_gets_each_of_ten_thousand_answers() {
    // 200 at once: no more may wait for one client than 256.
    let relay = Relay::start(&[]).await;
    let said =
        stdout(Command::new("h2load").args(["-n", "10000", "-c", "10", "-m", "20", &relay.url()])).await;
    for line in ["10000 succeeded, 0 failed, 0 errored, 0 timeout", "status codes: 10000 2xx"] {
        assert!(said.contains(line), "{said}");
    }
}

/// slowhttptest with `connections` for some seconds: others are served meanwhile, and nothing is left behind.
async fn slow(connections: usize, options: &[&str]) {
    let relay = Relay::start(&[
        "--head-wait",
        "2s",
        "--first-byte-wait",
        "2s",
        "--keep-alive",
        "2s",
        "--idle-exchange",
        "5s",
    ])
    .await;
    assert_eq!(relay.get("/").await.text(), "ok");
    let (descriptors, before) = (relay.descriptors(), relay.resident());
    let url = relay.url() + "large";
    let mut program = Command::new("slowhttptest");
    program
        .args(["-c", &connections.to_string(), "-r", "300", "-l", "4", "-i", "1", "-u", &url])
        .args(options);
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let program = program.spawn().unwrap();
    let mut most = (0, 0);
    let mut ending = Box::pin(timeout(PATIENCE, program.wait_with_output()));
    let output = loop {
        tokio::select! {
            output = &mut ending => break output.expect("it did not end").unwrap(),
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        let answer = soon(relay.get("/")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
        most = (relay.descriptors().max(most.0), relay.resident().max(most.1));
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(most.0 >= descriptors + connections / 2, "there were few connections: {most:?}\n{said}");
    let grown = most.1.saturating_sub(before);
    println!("{connections} with {options:?}: {} descriptors, grown by {} KiB", most.0, grown >> 10);
    assert!(grown < 100 << 20, "grown by {grown} bytes");
    // What a client holds in advance may be more than before.
    let gone = timeout(PATIENCE, async {
        while relay.descriptors() > descriptors + 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(gone.await.is_ok(), "{} descriptors, {descriptors} before", relay.descriptors());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_slow_heads_delay_nobody_and_leave_nothing() {
    slow(300, &["-H"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_slow_bodies_delay_nobody_and_leave_nothing() {
    slow(300, &["-B", "-s", "8192", "-x", "10"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_slow_readers_delay_nobody_and_leave_nothing() {
    slow(100, &["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32"]).await;
}
