//! A wall clock that jumps: nothing but tokens goes by it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use adit::client::Event;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::{halves, is_offline, is_online, served, tunnel, until};
use crate::ports::free_address;
use crate::program::{Running, adit, list, real, relay, relay_at, run};
use crate::rig::{self, ALICE, soon};

/// A wall clock for processes, set by a file. The monotonic one stays as it is.
struct Clock(PathBuf);

impl Clock {
    fn new(home: &Path) -> Self {
        let clock = Self(home.join("clock"));
        clock.set("+0");
        clock
    }

    fn set(&self, offset: &str) {
        // Put in its place whole: it is read at any time.
        let draft = self.0.with_extension("new");
        std::fs::write(&draft, format!("{offset}\n")).unwrap();
        std::fs::rename(draft, &self.0).unwrap();
    }

    fn rules(&self, mut command: Command) -> Command {
        let libraries = std::fs::read_dir("/usr/lib").unwrap();
        let found = libraries
            .map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.exists())
            .expect("faketime is not installed; run `make setup`");
        command
            .env("LD_PRELOAD", found)
            .env("FAKETIME_TIMESTAMP_FILE", &self.0)
            .env("FAKETIME_NO_CACHE", "1");
        command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command
    }
}

#[tokio::test]
async fn sessions_and_lifetimes_stay_when_the_clock_jumps_an_hour() {
    let home = tempfile::tempdir().unwrap();
    let clock = Clock::new(home.path());
    let running =
        Running::start(clock.rules(relay(home.path(), &["--ping-every", "1s", "--pong-wait", "2s"]))).await;
    let address = running.addresses[0];
    let (target, _uploads) = halves().await;
    let lasting = tunnel(address, "web").ttl(Duration::from_secs(1800));
    let mut client = lasting.expose(&target.to_string()).await.unwrap();
    let program = real(home.path(), address, "program", target, &["--json"]);
    let mut program = clock.rules(program).spawn().unwrap();
    let mut said = BufReader::new(program.stdout.take().unwrap()).lines();
    served(address, "program").await;
    for offset in ["+1h", "-1h"] {
        let body = json!({"local_port": 1, "name": "short", "ttl": "1s"});
        let (status, short) = running.post(ALICE, "/v1/tunnels", body).await;
        assert!(status < 300, "{short}");
        clock.set(offset);
        // It ends by the time that passes, whatever the clock says; by then every watch has looked at the clock.
        rig::until(async || {
            let tunnels = list(address, "/v1/tunnels").await;
            tunnels.as_array().unwrap().iter().all(|tunnel| tunnel["slug"] != "short")
        })
        .await;
        served(address, "web").await;
        served(address, "program").await;
    }
    program.start_kill().unwrap();
    while let Some(line) = soon(said.next_line()).await.unwrap() {
        assert!(!line.contains("\"offline\""), "{line}");
    }
    running.signal("KILL");
    running.end().await;
    // Of all that time it has told of no loss until now.
    let told = until(&mut client, |event| is_offline(event) || is_online(event)).await;
    assert!(is_offline(&told), "{told:?}");
}

/// A key that was made while the clock was ahead is as good as any other.
#[tokio::test]
async fn a_session_of_a_key_that_is_younger_than_the_clock_is_not_taken_for_revoked() {
    let home = tempfile::tempdir().unwrap();
    let clock = Clock::new(home.path());
    let running = Running::start(clock.rules(relay(home.path(), &[]))).await;
    clock.set("+1h");
    let create = clock.rules(adit(home.path(), &["key", "create", "carol"]));
    let (code, key, stderr) = run(&mut { create }).await;
    assert_eq!(code, 0, "{stderr}");
    clock.set("+0");
    let (target, _uploads) = halves().await;
    let address = running.addresses[0];
    let mut client = tunnel(address, "web").key(key.trim()).expose(&target.to_string()).await.unwrap();
    let watched = tokio::time::timeout(Duration::from_millis(2500), until(&mut client, is_offline));
    assert!(watched.await.is_err(), "its session was ended");
    served(address, "web").await;
    let revoke = clock.rules(adit(home.path(), &["key", "revoke", "carol"]));
    assert_eq!(run(&mut { revoke }).await.0, 0);
    soon(client.ended()).await;
}

/// What is stored of an end is a time of the wall clock, as no other outlives the process.
#[tokio::test]
async fn a_tunnel_that_ended_while_the_relay_was_away_is_its_clients_again() {
    let home = tempfile::tempdir().unwrap();
    let clock = Clock::new(home.path());
    let address = free_address().await;
    let mut running = Running::start(clock.rules(relay_at(home.path(), address, &[]))).await;
    let (target, _uploads) = halves().await;
    let lasting = tunnel(address, "web").ttl(Duration::from_secs(1800));
    let mut client = lasting.expose(&target.to_string()).await.unwrap();
    for offset in ["+1h", "-1h"] {
        running.signal("KILL");
        running.end().await;
        clock.set(offset);
        running = Running::start(clock.rules(relay_at(home.path(), address, &[]))).await;
        let Event::Online { url, .. } = until(&mut client, is_online).await else { unreachable!() };
        assert_eq!(url, client.url());
        served(address, "web").await;
    }
}
