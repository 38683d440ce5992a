//! Pictures for docs/dashboard.md: `make pictures`. An hour passes in five minutes, and at the end of it the clock of the relay
//! is right.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "pictures that fail are not taken")]
#![allow(dead_code, reason = "what tests stand on has more than this takes")]

#[path = "../tests/it/chromium.rs"]
mod chromium;
#[path = "../tests/it/frame_bytes.rs"]
mod frame_bytes;
#[path = "../tests/it/frames.rs"]
mod frames;
#[path = "../tests/it/program.rs"]
mod program;
#[path = "../tests/it/rig.rs"]
mod rig;
#[path = "../tests/it/tools.rs"]
mod tools;

use std::process::Stdio;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::handshake::client::Request;

use chromium::{PASSWORD, browse};
use program::{RELAY, Running, adit, keys, quiet, real, run};
use rig::{ALICE, BOB, Rig, echo_target};

const CAROL: &str = "nbk_carol_0123456789abcdef";

#[tokio::main]
async fn main() {
    const FASTER: u32 = 12;
    const REAL: Duration = Duration::from_secs(330);
    let home = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_adit");
    let mut command = Command::new("faketime");
    command
        .args(["-f", &format!("-{}s x{FASTER}", REAL.as_secs() * u64::from(FASTER - 1)), program])
        .args(RELAY);
    command.args(["--base-domain=tunnels.example", "--pong-wait=20m", "--reconnect-wait=0s"]);
    command.env_clear().env("HOME", home.path()).env("XDG_DATA_HOME", home.path().join("data"));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("ADIT_KEYS", format!("acme:{ALICE},{}", keys().replace(ALICE, CAROL)));
    command
        .env("ADIT_ADMIN_PASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let running = Running::start(command).await;
    let rig = Rig::of(running.addresses[0], running.admin.unwrap());
    let _heard = running.heard();
    // One that can be revoked here.
    run(&mut adit(home.path(), &["key", "create", "workshop"])).await;
    let end = Instant::now() + REAL;
    let mut clients = JoinSet::new();
    let names = ["shop", "api", "docs", "camera", "build", "wiki", "staging", "hooks", "metrics", "blog"];
    let agents = ["adit/0.1.0", "adit/0.1.0", "nullbore/1.4.2", "adit/0.0.9", "field-gateway/2.1 (arm64)"];
    let owners = [ALICE, BOB, CAROL];
    for number in 0..200 {
        let key = owners[number * 7 % 3];
        let name = format!("{}-{:02}", names[number % 10], number / 10);
        let tunnel = rig.create(key, &name).await;
        let mut request = rig.control_request(key, tunnel["id"].as_str().unwrap());
        let agent = agents[number * 3 % 5];
        request.headers_mut().insert("user-agent", agent.parse().unwrap());
        if agent.starts_with("adit/") {
            request.headers_mut().insert("sec-websocket-protocol", "adit.1".parse().unwrap());
        }
        clients.spawn(live(request, number, end));
    }
    let _site = quiet(real(home.path(), rig.address, "site", echo_target().await, &[])).spawn().unwrap();
    let _files = rig.client(BOB, "files", echo_target().await).await;
    let viewers = async {
        for turn in 0.. {
            let (name, length) = match turn % 9 {
                0 => ("shop-00", 0),
                2 | 5 => ("files", 3_000),
                _ => ("site", 200),
            };
            let body = "x".repeat(length);
            drop(
                timeout(
                    Duration::from_millis(400),
                    rig.raw(format!(
                        "PUT /{turn} HTTP/1.1\r\nHost: {name}.tunnels.example\r\nConnection: close\r\n\
                         Content-Length: {length}\r\n\r\n{body}"
                    )),
                )
                .await,
            );
            tokio::time::sleep(Duration::from_millis(5 + turn / 200 * 13 % 29)).await;
        }
    };
    let pictures = async {
        browse("pictures.mjs", rig.admin, &[("SECONDS", &REAL.as_secs().to_string())]).await;
    };
    tokio::select! { () = viewers => {}, () = pictures => {} }
}

/// A client with a life: its pongs take a while, some more than others, and some end before the hour does.
async fn live(request: Request, number: usize, end: Instant) {
    let mut chance = 0x9e37_79b9_u64.wrapping_mul(number as u64 + 1);
    let mut next = move |below: u64| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (chance >> 33) % below
    };
    let fate = match number % 21 {
        3 | 11 => end - Duration::from_millis(2_000 + 1_500 * next(60)),
        _ => end + Duration::from_secs(600),
    };
    loop {
        let Ok((mut socket, _)) = connect_async(request.clone()).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if Instant::now() > fate {
                match number % 3 {
                    // Gone without a word, silent, or in order.
                    0 => return,
                    1 => return std::future::pending().await,
                    _ => {
                        drop(socket.close(None).await);
                        while let Some(Ok(_)) = socket.next().await {}
                        return;
                    }
                }
            }
            if message.is_ping() {
                // The library sends the pong when it is asked for the next message.
                let wait = match next(150) {
                    0 => 2_700,
                    1..4 => 20 + next(60),
                    _ => 0,
                };
                tokio::time::sleep(Duration::from_millis(wait)).await;
                if number % 40 == 7 && next(60) == 0 {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100 + next(900))).await;
    }
}
