//! The program in the background (`-D`): it serves before its starter ends, and what is in its way is told there.

use std::fs;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::frame_bytes::*;
use crate::program::{assert_echoes, bridge, open};
use crate::rig::{echo, soon};

fn free() -> SocketAddr {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What became of the process that starts another one, with these arguments in that directory.
async fn start(dir: &Path, arguments: &str) -> Output {
    let mut command = bridge(arguments);
    soon(command.current_dir(dir).output()).await.unwrap()
}

/// Waits until nobody listens there any more.
async fn gone(address: SocketAddr) {
    soon(async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn in_the_background_it_serves_what_was_listened_at_before_and_logs_to_its_file() {
    let (dir, free, target) = (TempDir::new().unwrap(), free(), echo().await);
    let log = dir.path().join("log");
    let output = start(dir.path(), &format!("-D --run-once --log-file=log {free} {target}")).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut viewer = open(free).await;
    assert_echoes(&mut viewer).await;
    viewer.send(CLOSE, "").await;
    viewer.close().await;
    soon(async {
        while !fs::read_to_string(&log).unwrap().contains("the bridge ends") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(fs::read_to_string(&log).unwrap().contains("session ended"));
    assert!(TcpStream::connect(free).await.is_err());
}

/// Tells what its standard input is, until somebody answers.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import os, socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
while True:
    connection, _ = listener.accept()
    connection.sendall(os.readlink("/proc/self/fd/0").encode())
    if connection.recv(1):
        sys.exit(0)
"#;

#[tokio::test]
async fn in_the_background_a_program_of_this_directory_is_wrapped_and_gets_nothing_of_the_starter() {
    crate::wrap::library();
    let (dir, free) = (TempDir::new().unwrap(), free());
    let program = dir.path().join("program");
    fs::write(&program, PROGRAM).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let output = start(dir.path(), &format!("-D {free} -- ./program {}", free.port())).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Until it listens, there is an end instead.
    let mut viewer = soon(async {
        loop {
            let mut viewer = open(free).await;
            if viewer.frame().await == Some((BINARY, b"/dev/null".to_vec())) {
                return viewer;
            }
        }
    })
    .await;
    viewer.send(BINARY, "x").await;
    gone(free).await;
}

#[tokio::test]
async fn what_ends_it_in_the_background_is_told_by_its_starter_and_its_code() {
    let (dir, free) = (TempDir::new().unwrap(), free());
    let text = format!(
        "listen = \"{free}\"\n[[route]]\npath = \"\"\nspawn = [{{ command = \"./missing\", socket = \"s\" }}]\n"
    );
    fs::write(dir.path().join("bridge.toml"), text).unwrap();
    let output = start(dir.path(), "-D --config bridge.toml").await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("cannot start /"), "{said}");
    assert!(said.contains("/missing: No such file"), "{said}");
    gone(free).await;
}
