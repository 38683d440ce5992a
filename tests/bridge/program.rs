//! The program: its ways to listen, its exit codes, inetd, systemd, logs and metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use adit::bridge::Target;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::process::{Child, Command};

use crate::frame_bytes::*;
use crate::rig::{Viewer, accepted, ask, echo, handshake, soon, target};

/// The program, which is ended by SIGHUP even where the tests are not (nohup, and many a CI).
pub(crate) fn adit() -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_adit")]);
    command
}

pub(crate) fn bridge(arguments: &str) -> Command {
    let mut command = adit();
    command.arg("bridge").args(arguments.split_whitespace()).kill_on_drop(true);
    command.env_remove("ADIT_LOG_FILTER").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) async fn output(arguments: &str) -> Output {
    soon(bridge(arguments).output()).await.unwrap()
}

/// A running bridge, and what its log says until it listens.
pub(crate) async fn started(
    mut command: Command,
) -> (Child, Vec<String>, tokio::io::Lines<BufReader<tokio::process::ChildStderr>>) {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = Vec::new();
    loop {
        let line = soon(lines.next_line()).await.unwrap().expect("it ended");
        let done = line.contains("listening") || line.contains("one connection");
        seen.push(line);
        if done {
            return (child, seen, lines);
        }
    }
}

/// The address in its first record.
pub(crate) fn address(seen: &[String]) -> SocketAddr {
    let line = seen.last().unwrap();
    let address = line.split("listener=").nth(1).unwrap().split(' ').next().unwrap().trim_matches('"');
    address.parse().unwrap()
}

pub(crate) async fn terminate(child: &mut Child) -> Option<i32> {
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").arg(id).status().await.unwrap().success());
    soon(child.wait()).await.unwrap().code()
}

pub(crate) async fn open(address: SocketAddr) -> Viewer<TcpStream> {
    let (head, viewer) = ask(TcpStream::connect(address).await.unwrap(), handshake("/", "").as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    viewer
}

pub(crate) async fn assert_echoes<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    viewer: &mut Viewer<S>,
) {
    viewer.send(BINARY, "hello").await;
    assert_eq!(viewer.bytes(5).await, b"hello");
}

#[tokio::test]
async fn a_signal_ends_it_with_1001_and_exit_code_0_and_the_log_tells_the_session() {
    let target = echo().await;
    let (mut child, seen, mut log) = started(bridge(&format!("127.0.0.1:0 {target}"))).await;
    let mut viewer = open(address(&seen)).await;
    assert_echoes(&mut viewer).await;
    let ended = tokio::spawn(async move {
        assert_eq!(viewer.close().await.0, 1001);
        viewer.send(CLOSE, b"\x03\xe9").await;
        viewer.end().await;
    });
    assert_eq!(terminate(&mut child).await, Some(0));
    soon(ended).await.unwrap();
    let mut story = None;
    while let Some(line) = soon(log.next_line()).await.unwrap() {
        if line.contains("session ended") {
            story = Some(line);
        }
    }
    let story = story.unwrap();
    for part in ["by=\"bridge\"", "code=1001", "received=5", "sent=5", &format!("{target}")] {
        assert!(story.contains(part), "{part} in {story}");
    }
}

/// An object whose keys are all different.
struct Distinct(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DistinctVisitor)
    }
}

struct DistinctVisitor;

impl<'de> Visitor<'de> for DistinctVisitor {
    type Value = Distinct;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Distinct, A::Error> {
        let mut found = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            assert!(found.insert(key.clone(), value).is_none(), "{key} twice");
        }
        Ok(Distinct(found))
    }
}

#[tokio::test]
async fn a_session_in_the_log_as_json_has_no_key_twice() {
    let target = echo().await.to_string();
    let (mut child, seen, mut log) =
        started(bridge(&format!("-v --log-format json 127.0.0.1:0 {target}"))).await;
    let listening: Distinct = serde_json::from_str(seen.last().unwrap()).unwrap();
    assert_eq!(
        (&listening.0["target"], &listening.0["to"]),
        (&"adit::cli::bridge".into(), &target.clone().into())
    );
    let address = listening.0["listener"].as_str().unwrap().parse().unwrap();
    let mut viewer = open(address).await;
    viewer.send(CLOSE, "").await;
    viewer.close().await;
    let mut said = Vec::new();
    while said.last() != Some(&Value::from("session ended")) {
        let line = soon(log.next_line()).await.unwrap().expect("it ended");
        let Distinct(record) = serde_json::from_str(&line).unwrap();
        if record["message"] == "session ended" {
            assert_eq!((&record["target"], &record["to"]), (&"adit::session".into(), &target.clone().into()));
        }
        said.push(record["message"].clone());
    }
    assert!(said.contains(&"session begins".into()), "{said:?}");
    assert_eq!(terminate(&mut child).await, Some(0));
}

#[tokio::test]
async fn wrong_usage_is_2_and_a_port_in_use_is_1_with_one_line() {
    for (arguments, said) in [
        ("6080", "too few"),
        ("6080 localhost:x", "no port"),
        ("6080 localhost:1 more", "too many"),
        ("--ssl-only 6080 localhost:1", "--cert FILE"),
        ("--cert /none.pem 6080 localhost:1", "/none.pem"),
        ("--ssl-version tlsv1_1 6080 localhost:1", "tlsv1_2"),
        ("--nonsense 6080 localhost:1", "--nonsense"),
        ("--cert Cargo.toml 6080 localhost:1", "give the file that has it by --key"),
        ("x:y localhost:1", "PORT"),
    ] {
        let output = output(arguments).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments} {text}");
        assert!(text.contains(said), "{text}");
    }
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let output = output(&format!("{} localhost:1", taken.local_addr().unwrap())).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().count() == 1 && text.contains("cannot listen on 127.0.0.1"), "{text}");
    assert!(text.contains("give another port"), "{text}");
}

#[tokio::test]
async fn it_listens_at_a_path_and_leads_to_one() {
    let dir = TempDir::new().unwrap();
    let (front, back) = (dir.path().join("front.sock"), dir.path().join("back.sock"));
    let behind = UnixListener::bind(&back).unwrap();
    let flags =
        format!("--unix-listen={} --unix-listen-mode=0660 --unix-target={}", front.display(), back.display());
    let (mut child, ..) = started(bridge(&flags)).await;
    assert_eq!(fs::metadata(&front).unwrap().permissions().mode() & 0o777, 0o660);
    let stream = UnixStream::connect(&front).await.unwrap();
    let (head, mut viewer) = ask(stream, handshake("/", "").as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (mut behind, _) = soon(behind.accept()).await.unwrap();
    viewer.send(BINARY, "hello").await;
    let mut read = [0; 5];
    soon(behind.read_exact(&mut read)).await.unwrap();
    behind.write_all(&read).await.unwrap();
    assert_eq!(viewer.bytes(5).await, b"hello");
    viewer.send(CLOSE, "").await;
    viewer.close().await;
    assert_eq!(terminate(&mut child).await, Some(0));
    assert!(!front.exists());
}

/// A bridge of which all three are one connection, as inetd has it without "wait", and the viewer's end of that.
async fn connected(arguments: &str) -> (Child, TcpStream) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().unwrap();
    let copy = || Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
    (bridge(arguments).stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap(), stream)
}

/// The viewer on `stream` is served, nothing else comes to it, and the bridge ends behind it.
async fn assert_serves_one(stream: TcpStream, child: &mut Child) {
    let (head, mut viewer) = ask(stream, handshake("/", "").as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_echoes(&mut viewer).await;
    viewer.send(CLOSE, "").await;
    viewer.close().await;
    viewer.end().await;
    assert_eq!(soon(child.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn what_is_for_the_operator_reaches_no_viewer_whose_connection_standard_output_is() {
    let (mut child, stream) = connected(&format!("--inetd --traffic {}", echo().await)).await;
    assert_serves_one(stream, &mut child).await;
    for (wrong, code) in [
        ("localhost:1 --log-file=/no/such/directory/log", 1),
        ("--ssl-only localhost:1", 2),
        ("--config=/no/such/file", 2),
    ] {
        let (mut child, mut stream) = connected(&format!("--inetd {wrong}")).await;
        let mut said = String::new();
        soon(stream.read_to_string(&mut said)).await.unwrap();
        assert_eq!((soon(child.wait()).await.unwrap().code(), said.as_str()), (Some(code), ""), "{wrong}");
    }
}

/// A bridge to `target` that finds `socket` where systemd would put it.
fn supervised(socket: OwnedFd, target: &Target) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0 </dev/null; LISTEN_FDS=1 exec \"$0\" bridge \"$1\""]);
    shell.arg(env!("CARGO_BIN_EXE_adit")).arg(target.to_string());
    shell.stdin(Stdio::from(socket)).stderr(Stdio::piped()).kill_on_drop(true);
    shell
}

#[tokio::test]
async fn a_supervisor_that_accepts_gives_a_connection() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (socket, _) = listener.accept().unwrap();
    let (mut child, ..) = started(supervised(socket.into(), &echo().await)).await;
    assert_serves_one(stream, &mut child).await;
}

#[tokio::test]
async fn standard_input_may_be_a_socket_that_listens_or_a_connection() {
    let target = echo().await;
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut listening = bridge(&format!("--inetd --run-once {target}"));
    listening.stdin(Stdio::from(OwnedFd::from(listener)));
    let (mut child, ..) = started(listening).await;
    let mut viewer = open(address).await;
    assert_echoes(&mut viewer).await;
    viewer.send(CLOSE, "").await;
    viewer.close().await;
    assert_eq!(soon(child.wait()).await.unwrap().code(), Some(0));

    let (mut child, stream) = connected(&format!("--inetd {target}")).await;
    assert_serves_one(stream, &mut child).await;

    let none = output(&format!("--inetd {target}")).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8(none.stderr).unwrap().contains("no socket"));
}

#[tokio::test]
async fn a_supervisor_may_give_the_sockets() {
    let target = echo().await;
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (mut child, ..) = started(supervised(listener.into(), &target)).await;
    assert_echoes(&mut open(address).await).await;
    assert_eq!(terminate(&mut child).await, Some(0));
}

#[tokio::test]
async fn figures_are_told_to_scrapers() {
    let free = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (listener, target) = target().await;
    let (_child, seen, _log) =
        started(bridge(&format!("--metrics-listen {free} 127.0.0.1:0 {target}"))).await;
    let mut viewer = open(address(&seen)).await;
    let behind = accepted(&listener).await;
    viewer.send(CLOSE, "").await;
    viewer.close().await;
    viewer.end().await;
    drop(behind);
    let _open = open(address(&seen)).await;
    soon(async {
        loop {
            let mut stream = TcpStream::connect(free).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut page = String::new();
            stream.read_to_string(&mut page).await.unwrap();
            let has = |line: &str| page.contains(line);
            assert!(has("adit_bridge_sessions_begun_total 2"), "{page}");
            if has("adit_bridge_sessions_open 1") && has("adit_bridge_sessions_ended_total{by=\"viewer\"} 1")
            {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_names_two_hosts_is_told_in_the_log() {
    let (_child, seen, mut log) = started(bridge(&format!("127.0.0.1:0 {}", echo().await))).await;
    let request = handshake("/", "Host: other.test\r\n");
    let (head, _) = ask(TcpStream::connect(address(&seen)).await.unwrap(), request.as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let line = soon(log.next_line()).await.unwrap().unwrap();
    assert!(line.contains("no WebSocket") && line.contains("more than one host"), "{line}");
}

#[test]
fn a_target_is_read_as_websockify_reads_it() {
    let target: Target = "::1:5900".parse().unwrap();
    assert_eq!(target, Target::Tcp { host: "::1".into(), port: 5900 });
}

/// Ends with its first connection, which somebody else goes on to hold.
const LEAVES: &str = r#"
import os, socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
connection, _ = listener.accept()
if os.fork() == 0:
    os.setsid()
    connection.sendall(b"held")
    connection.recv(1)
    os._exit(0)
os._exit(3)
"#;

#[tokio::test]
async fn signals_are_heeded_while_sessions_outlive_a_wrapped_program() {
    crate::wrap::library();
    let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = bridge(&format!("--drain 600 127.0.0.1:{port} -- python3 -c"));
    command.arg(LEAVES).arg(port.to_string());
    let (mut child, seen, mut log) = started(command).await;
    let viewer = soon(async {
        loop {
            let mut viewer = open(address(&seen)).await;
            if viewer.frame().await == Some((BINARY, b"held".to_vec())) {
                return viewer;
            }
        }
    });
    let _viewer = viewer.await;
    while !soon(log.next_line()).await.unwrap().expect("it ended").contains("the bridge ends") {}
    let id = child.id().unwrap().to_string();
    let code = soon(async {
        loop {
            assert!(Command::new("kill").arg(&id).status().await.unwrap().success());
            let wait = std::time::Duration::from_millis(50);
            if let Ok(ended) = tokio::time::timeout(wait, child.wait()).await {
                return ended.unwrap().code();
            }
        }
    });
    assert_eq!(code.await, Some(3));
}
