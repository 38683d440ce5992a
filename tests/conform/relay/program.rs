//! `adit conform relay` as a program.

use std::process::Output;

use adit::conform::relay::cases;
use tokio::net::TcpListener;
use tokio::process::Command;

use super::rig::{ALICE, Rig};

const ADIT: &str = env!("CARGO_BIN_EXE_adit");

/// Runs the kit from the command line.
async fn kit(arguments: &[&str]) -> Output {
    let mut kit = Command::new(ADIT);
    kit.args(["conform", "relay"]).args(arguments).env_remove("ADIT_KEY").kill_on_drop(true);
    kit.output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_relay_that_passes_is_told_by_code_0_and_keeps_nothing() {
    let rig = Rig::start(|_| {}).await;
    let url = format!("http://{}", rig.address);
    let output = kit(&[&url, "--key", ALICE, "--only", "rest-*,two-welcome", "--format", "tap"]).await;
    let (told, aside) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told} {aside}");
    assert!(told.starts_with("TAP version 14\n1..19\nok 1 - rest-health\n"), "{told}");
    assert!(aside.contains("level two"), "{aside}");
    // What is skipped, as it needs another key, fails nothing.
    let output = kit(&[&url, "--key", ALICE, "--only", "rest-list,name-of-another"]).await;
    let told = text(&output.stdout);
    assert!(output.status.code() == Some(0) && told.contains("--key2"), "{told}");
    let left = tunnels_of_alice(&rig).await;
    assert!(left.ends_with("\r\n\r\n[]"), "{left}");
}

/// The tunnels of alice, with their head.
async fn tunnels_of_alice(rig: &Rig) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    let head = format!(
        "GET /v1/tunnels HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn what_is_no_relay_or_refuses_the_key_is_said_at_once_by_code_69() {
    let rig = Rig::start(|_| {}).await;
    // Accepts, and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (address, key, part) in [
        (rig.address, "nbk_nobody_0123456789", "refuses the key that --key gives"),
        (mute.local_addr().unwrap(), ALICE, "is no relay, or cannot be reached"),
    ] {
        let output = kit(&[&format!("http://{address}"), "--key", key, "--patience", "1"]).await;
        let aside = text(&output.stderr);
        assert!(output.status.code() == Some(69) && aside.contains(part), "{aside}");
        assert!(!aside.contains(key) && output.stdout.is_empty(), "{aside}");
    }
}

#[tokio::test]
async fn what_was_typed_wrong_is_code_2_and_a_list_needs_no_relay() {
    for (arguments, part) in [
        (&["http://127.0.0.1:1"][..], "--key"),
        (&["127.0.0.1:1", "--key", "x"], "http://127.0.0.1:1"),
        (&["http://127.0.0.1:1", "--key", "x", "--only", "nothing"], "there is no case"),
    ] {
        let output = kit(arguments).await;
        let aside = text(&output.stderr);
        assert!(output.status.code() == Some(2) && aside.contains(part), "{aside}");
    }
    let output = kit(&["--list"]).await;
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(0), cases().len()));
}
