//! What ends the program leaves nothing of it behind: neither sockets nor the processes that it has started.

use std::fs;
use std::net::TcpListener as StdListener;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::program::{address, assert_echoes, bridge, open, started, terminate};
use crate::rig::{echo, soon};

async fn hang_up(child: &Child) {
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &id]).status().await.unwrap().success());
}

/// The process that is told in a file, once it is.
async fn told(file: &Path) -> u32 {
    soon(async {
        loop {
            if let Some(number) = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
                return number;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_terminal_that_is_closed_ends_it_in_order_with_its_backends_and_its_sockets() {
    let dir = TempDir::new().unwrap();
    let [file, front, back, number] =
        ["bridge.toml", "front", "back", "number"].map(|name| dir.path().join(name));
    let script = dir.path().join("backend.sh");
    fs::write(&script, format!("echo $$ > {}\nexec sleep 1000\n", number.display())).unwrap();
    let command = format!("sh {}", script.display());
    let spawn = format!("{{ command = \"{command}\", socket = \"{}\" }}", back.display());
    fs::write(&file, format!("[[route]]\npath = \"\"\nspawn = [{spawn}]\n")).unwrap();
    let flags = format!("--config {} --unix-listen={}", file.display(), front.display());
    let (mut child, ..) = started(bridge(&flags)).await;
    let backend = told(&number).await;
    assert!(front.exists() && back.exists());
    hang_up(&child).await;
    assert_eq!(soon(child.wait()).await.unwrap().code(), Some(0));
    assert!(!front.exists() && !back.exists());
    crate::spawn::gone(backend).await;
}

#[tokio::test]
async fn it_serves_on_where_whoever_started_it_has_closed_terminals_ignored() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" bridge 127.0.0.1:0 \"$1\"", env!("CARGO_BIN_EXE_adit")]);
    shell.arg(echo().await.to_string()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let (mut child, seen, _log) = started(shell).await;
    hang_up(&child).await;
    assert_echoes(&mut open(address(&seen)).await).await;
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(terminate(&mut child).await, Some(0));
}

#[tokio::test]
async fn what_a_wrapped_program_has_started_ends_with_it_though_it_heeds_no_signal() {
    crate::wrap::library();
    for trap in ["", "trap '' TERM; "] {
        let dir = TempDir::new().unwrap();
        let number = dir.path().join("number");
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = bridge(&format!("127.0.0.1:{port} -- sh -c"));
        command.arg(format!("{trap}sleep 1000 & echo $! > {}; wait", number.display()));
        let (mut child, ..) = started(command).await;
        let sleeping = told(&number).await;
        assert_eq!(terminate(&mut child).await, Some(0), "{trap}");
        crate::spawn::gone(sleeping).await;
    }
}
