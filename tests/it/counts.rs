//! What a relay holds, as its admin listener tells; and a relay of its own process that must hold nothing after a storm.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::program::{Running, get, relay};
use crate::rig::{ALICE, LOOK_EVERY, PATIENCE, Rig, echo_target};

/// Between two looks at a relay that is not at rest.
/// Waits that end soon, for those who come half-way.
pub const SHORT: [&str; 4] = ["--first-byte-wait=1s", "--head-wait=1s", "--keep-alive=1s", "--claim-wait=1s"];
/// What the second of two equal storms may add to the memory. Caches and the allocator's fragments are some megabytes; a
/// leak of a few KiB in each of hundreds of connections is found by the other counts.
const MORE_MEMORY: u64 = 24 << 20;

/// What `/counts` says.
pub async fn counts(admin: SocketAddr) -> Map<String, Value> {
    serde_json::from_slice(&get(admin, "/counts").await.body).unwrap()
}

/// Until the counts are those of `expected`: all of them then.
pub async fn settle(admin: SocketAddr, expected: &Value) -> Map<String, Value> {
    let expected = expected.as_object().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let counts = counts(admin).await;
        let differ: Vec<_> = expected.iter().filter(|(name, value)| counts[*name] != **value).collect();
        if differ.is_empty() {
            return counts;
        }
        assert!(Instant::now() < deadline, "expected {differ:?} of {counts:?}");
        sleep(LOOK_EVERY).await;
    }
}

/// A relay as a process, with the tunnels `web`, which has had its first client and viewer, and `deaf`.
pub struct House {
    pub rig: Rig,
    start: Value,
    _running: JoinSet<()>,
    _home: TempDir,
}

impl House {
    /// With these `options`.
    pub async fn open(options: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let ours = ["--base-domain=relay.test", "--reconnect-wait=200ms"];
        let running = Running::start(relay(home.path(), &[&ours, options].concat())).await;
        let rig = Rig::of(running.addresses[0], running.admin.unwrap());
        let running = running.heard();
        let client = rig.client(ALICE, "web", echo_target().await).await;
        assert_eq!(rig.get("web", "/").await.status, 200);
        drop(client);
        rig.create(ALICE, "deaf").await;
        let rest = json!({"connections": 0, "viewer_tasks": 0, "client_tasks": 0, "admin_connections": 1});
        let mut start = settle(rig.admin, &rest).await;
        // A task that has done all may be counted for a moment more, so the least of some looks are those at rest.
        for _ in 0..10 {
            let again = settle(rig.admin, &rest).await;
            if again["tasks"].as_u64() <= start["tasks"].as_u64() {
                start = again;
            }
        }
        start.remove("memory_bytes");
        Self { rig, start: start.into(), _running: running, _home: home }
    }

    /// Lets `storm` rage twice: each time all counts are back at the start, and the second time takes no more memory.
    pub async fn stands(&self, storm: impl AsyncFn(&Rig)) {
        let mut memory = Vec::new();
        for _ in 0..2 {
            storm(&self.rig).await;
            settle(self.rig.admin, &self.start).await;
            memory.push(self.memory().await);
        }
        assert!(memory[1] <= memory[0] + MORE_MEMORY, "{memory:?}");
    }

    /// Resident bytes of the relay.
    pub async fn memory(&self) -> u64 {
        counts(self.rig.admin).await["memory_bytes"].as_u64().unwrap()
    }
}
