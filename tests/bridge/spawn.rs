//! Backends that the bridge runs itself: their socket, their environment, their restarts and their end.

use std::path::Path;
use std::time::Duration;

use adit::bridge::{Balancing, Bridge, BridgeConfig, Key, Matcher, Place, Route, Service, Spawn, SpawnError};

use crate::rig::{Rig, nobody, soon};

/// Accepts at fd 0. Each connection is told the process, one that it has started, and a variable, and then obeys.
const PROGRAM: &str = r#"
import os, socket, subprocess, sys, threading
listener = socket.socket(fileno=0)
child = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
def serve(connection):
    connection.sendall(f"{os.getpid()} {child.pid} {os.environ.get('GREETING')} {'HOME' in os.environ}\n".encode())
    if connection.recv(100) == b"die":
        os._exit(1)
while True:
    connection, _ = listener.accept()
    threading.Thread(target=serve, args=[connection], daemon=True).start()
"#;

fn spawn(place: Place) -> Spawn {
    Spawn {
        command: ["python3", "-c", PROGRAM].map(String::from).into(),
        place,
        min_procs: 1,
        max_procs: 1,
        environment: vec![("GREETING".into(), "hello".into())],
        copy_environment: Some(vec!["PATH".into()]),
        kill_signal: 15,
        listen_backlog: 16,
    }
}

fn route(spawn: Spawn) -> Route {
    let mut service = Service::default();
    service.connect_first = true;
    Route {
        matcher: Matcher { key: Key::from(""), extensions: Vec::new(), url: Vec::new(), host: Vec::new() },
        backends: Vec::new(),
        spawned: vec![spawn],
        balancing: Balancing { disable_time: Duration::from_millis(50), ..Balancing::default() },
        admit: None,
        service,
    }
}

async fn rig(spawn: Spawn) -> Rig {
    Rig::with(nobody().await, |config| config.routes = vec![route(spawn)]).await
}

/// What a process said of itself, and the socket to it.
struct Met {
    process: u32,
    started: u32,
    rest: String,
    viewer: crate::rig::Viewer<tokio::net::TcpStream>,
}

/// Asks until a process is there.
async fn meet(rig: &Rig) -> Met {
    soon(async {
        loop {
            let (head, mut viewer) = rig.ask(&crate::rig::handshake("/", "")).await;
            let line = match head.starts_with("HTTP/1.1 101 ") {
                true => viewer.frame().await,
                false => None,
            };
            let Some((0x82, line)) = line else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let line = String::from_utf8(line).unwrap();
            let words: Vec<_> = line.trim().splitn(3, ' ').collect();
            let [process, started] = [words[0], words[1]].map(|word| word.parse().unwrap());
            return Met { process, started, rest: words[2].to_owned(), viewer };
        }
    })
    .await
}

/// Whether there is a process that still does something.
fn runs(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
}

pub(crate) async fn gone(process: u32) {
    soon(async {
        while runs(process) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_process_serves_at_the_socket_that_it_was_given_and_ends_with_the_bridge() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backend.sock");
    let mut rig = rig(spawn(Place::Unix(path.clone()))).await;
    let met = meet(&rig).await;
    assert_eq!(met.rest, "hello False");
    assert!(runs(met.process) && runs(met.started) && path.exists());
    rig.stop();
    rig.ended().await;
    gone(met.process).await;
    // What it has started has gone with it, and nothing is left lying about.
    gone(met.started).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_process_that_dies_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let rig = rig(spawn(Place::Unix(dir.path().join("backend.sock")))).await;
    let mut first = meet(&rig).await;
    first.viewer.send(0x82, "die").await;
    gone(first.process).await;
    let second = meet(&rig).await;
    assert_ne!(first.process, second.process);
    gone(first.started).await;
}

#[tokio::test]
async fn one_more_process_is_started_while_each_is_busy_but_not_more_than_there_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Unix(dir.path().join("backend.sock"));
    let rig = rig(Spawn { max_procs: 2, ..spawn(place) }).await;
    let first = meet(&rig).await;
    assert!(!dir.path().join("backend.sock-1").exists());
    let mut others = Vec::new();
    let second = soon(async {
        loop {
            let met = meet(&rig).await;
            if met.process != first.process {
                return met;
            }
            others.push(met);
        }
    })
    .await;
    for _ in 0..4 {
        let met = meet(&rig).await;
        assert!([first.process, second.process].contains(&met.process));
        others.push(met);
    }
}

#[tokio::test]
async fn a_process_may_listen_at_a_port() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rig = rig(spawn(Place::Tcp(free))).await;
    assert_eq!(meet(&rig).await.rest, "hello False");
}

async fn refused(spawn: Spawn) -> SpawnError {
    let mut config = BridgeConfig::to(nobody().await);
    config.routes = vec![route(spawn)];
    Bridge::new(config).unwrap().spawn().await.unwrap_err()
}

#[tokio::test]
async fn what_cannot_be_started_is_told_before_anybody_comes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| Place::Unix(dir.path().join(name));
    let error = refused(Spawn { command: vec!["/no/such/program".into()], ..spawn(at("a")) }).await;
    assert!(error.to_string().starts_with("cannot start /no/such/program: No such file"), "{error}");
    assert!(!dir.path().join("a").exists());
    std::fs::write(dir.path().join("file"), "mine").unwrap();
    let error = refused(spawn(at("file"))).await;
    assert!(error.to_string().contains("is no socket") && kept(&dir.path().join("file")), "{error}");
    let _other = std::os::unix::net::UnixListener::bind(dir.path().join("used")).unwrap();
    let error = refused(spawn(at("used"))).await;
    assert!(error.to_string().contains("another program listens there"), "{error}");
}

fn kept(path: &Path) -> bool {
    std::fs::read(path).unwrap() == b"mine"
}
