//! The bridge behind a relay: one command beside a service that nobody can connect to.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::frame_bytes::*;
use crate::program::output;
use crate::rig::{accepted, ask, echo, handshake, soon, target};

const KEY: &str = "nbk_alice_0123456789abcdef";

fn adit(home: &std::path::Path, arguments: &[&str]) -> Child {
    let mut command = crate::program::adit();
    command.args(arguments).env_clear().env("HOME", home).env("XDG_DATA_HOME", home).env("TMPDIR", home);
    command.env("ADIT_KEY", KEY).env("ADIT_KEYS", format!("alice:{KEY}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

/// The next line in which `part` stands.
async fn line<R: AsyncRead + Unpin>(lines: &mut Lines<BufReader<R>>, part: &str) -> String {
    let mut seen = String::new();
    loop {
        let next = soon(lines.next_line()).await.unwrap();
        let next = next.unwrap_or_else(|| panic!("it ended without {part:?}:\n{seen}"));
        if next.contains(part) {
            return next;
        }
        seen.push_str(&next);
        seen.push('\n');
    }
}

#[tokio::test]
async fn a_desktop_that_nobody_can_connect_to_is_reached_through_a_relay() {
    is_reached_until("-TERM").await;
}

#[tokio::test]
async fn a_terminal_that_is_closed_ends_the_bridge_and_its_tunnel_in_order() {
    is_reached_until("-HUP").await;
}

async fn is_reached_until(signal: &str) {
    let home = tempfile::tempdir().unwrap();
    let mut relay = adit(home.path(), &["relay", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut log = BufReader::new(relay.stderr.take().unwrap()).lines();
    let told = line(&mut log, "address=").await;
    let address =
        told.split("address=").nth(1).unwrap().split(' ').next().unwrap().trim_matches('"').to_owned();
    let (listener, target) = target().await;
    let port = target.to_string();
    let port = port.rsplit(':').next().unwrap();
    let url = format!("http://{address}");
    let arguments =
        ["bridge", "--through", &url, "--name", "desk", "--page", "terminal", "--deny", "192.0.2.7", port];
    let mut bridge = adit(home.path(), &arguments);
    let mut said = BufReader::new(bridge.stdout.take().unwrap()).lines();
    let shown = line(&mut said, "desk").await;
    assert!(shown.contains("/t/desk"), "{shown}");

    let page = format!("GET /t/desk/ HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let (head, _) = ask(TcpStream::connect(&address).await.unwrap(), page.as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let request = handshake("/t/desk/websockify", "");
    let (head, mut viewer) = ask(TcpStream::connect(&address).await.unwrap(), request.as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut behind = accepted(&listener).await;
    viewer.send(BINARY, "hello").await;
    let mut five = [0; 5];
    soon(tokio::io::AsyncReadExt::read_exact(&mut behind, &mut five)).await.unwrap();
    assert_eq!(&five, b"hello");
    soon(tokio::io::AsyncWriteExt::write_all(&mut behind, b"world")).await.unwrap();
    assert_eq!(viewer.bytes(5).await, b"world");

    // The end in order: a close frame, and nothing is left behind.
    let id = bridge.id().unwrap().to_string();
    assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    assert_eq!(viewer.close().await.0, 1001);
    viewer.send(CLOSE, b"\x03\xe9").await;
    assert_eq!(soon(bridge.wait()).await.unwrap().code(), Some(0));
    let left = std::fs::read_dir(home.path()).unwrap().filter_map(Result::ok);
    let left: Vec<_> = left
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().contains("bridge"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn what_does_not_go_with_a_relay_is_told_at_once() {
    let home = tempfile::tempdir().unwrap();
    let target = echo().await.to_string();
    for (more, part) in [
        (&["--ssl-only"][..], "its TLS"),
        (&["--unix-listen", "/x"], "--unix-listen"),
        (&["6080"], "too many"),
    ] {
        let arguments = [&["bridge", "--through", "http://127.0.0.1:1", &target], more].concat();
        let output = soon(adit(home.path(), &arguments).wait_with_output()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn settings_are_checked_without_going_to_the_relay() {
    let checked = output("--check --through http://127.0.0.1:1 --name desk 1").await;
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let metrics = output("--metrics-listen 127.0.0.1:0 --through http://127.0.0.1:1 --name desk 1").await;
    assert_eq!(metrics.status.code(), Some(2), "{metrics:?}");
}
