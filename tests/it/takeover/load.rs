//! A take-over under load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::successor;
use crate::frames::{Raw, TEXT};
use crate::program::{Running, http as call, list, quiet, real, relay};
use crate::rig::{ALICE, Answer, CLOSE, echo_target, read_request, request, serve_one, soon, until};

/// Viewers of one tunnel that send without pause.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<Vec<AtomicUsize>>,
    viewers: JoinSet<Vec<String>>,
}

impl Load {
    /// Begins with `count` viewers; every third one has a connection for each request.
    fn start(address: SocketAddr, name: &str, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered: Arc<Vec<_>> = Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect());
        let mut viewers = JoinSet::new();
        for number in 0..count {
            let (stop, answered, name) = (Arc::clone(&stop), Arc::clone(&answered), name.to_owned());
            viewers.spawn(async move {
                let (mut failed, mut connection) = (Vec::new(), None);
                while !stop.load(Ordering::Relaxed) {
                    let kept = connection.is_some();
                    match exchange(address, &name, number, &mut connection).await {
                        Ok(()) => drop(answered[number].fetch_add(1, Ordering::Relaxed)),
                        Err(what) => failed.push(format!("viewer {number} of {name}, kept: {kept}: {what}")),
                    }
                }
                failed
            });
        }
        Self { stop, answered, viewers }
    }

    fn answered(&self) -> usize {
        self.answered.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Waits until each viewer has had `more` answers from now on.
    async fn more(&self, more: usize) {
        let now: Vec<usize> =
            self.answered.iter().map(|count| count.load(Ordering::Relaxed) + more).collect();
        let all =
            || self.answered.iter().zip(&now).all(|(count, wanted)| count.load(Ordering::Relaxed) >= *wanted);
        until(async || all()).await;
    }

    /// Stops: how many answers there were, and what failed.
    async fn end(mut self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        while let Some(viewer) = soon(self.viewers.join_next()).await {
            failed.extend(viewer.unwrap());
        }
        (self.answered(), failed)
    }
}

/// One request and its answer, over the kept connection if there is one.
async fn exchange(
    address: SocketAddr,
    name: &str,
    number: usize,
    kept: &mut Option<TcpStream>,
) -> Result<(), String> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => TcpStream::connect(address).await.map_err(|error| error.to_string())?,
    };
    let close = if number.is_multiple_of(3) { "Connection: close\r\n" } else { "" };
    let request = format!("GET /t/{name}/{number} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("not sent: {error}"))?;
    let answer = soon(read_request(&mut stream)).await.ok_or("no whole answer")?;
    let answer = Answer::parse(&answer);
    if answer.status != 200 || !answer.text().starts_with(&format!("GET /{number} ")) {
        return Err(format!("{} {}", answer.status, answer.text()));
    }
    if answer.header("connection") != Some("close") {
        *kept = Some(stream);
    }
    Ok(())
}

/// A base client that comes back at once, under the same name.
async fn base_client(address: SocketAddr, name: String, target: SocketAddr) {
    let mut streams = JoinSet::new();
    loop {
        let body = json!({"local_port": 1, "name": name}).to_string();
        let created = call(address, request(ALICE, "POST", "/v1/tunnels", CLOSE, &body)).await;
        let Ok(tunnel) = serde_json::from_slice::<Value>(&created.body) else { continue };
        let path = format!("/ws/control?tunnel_id={}", tunnel["id"].as_str().unwrap());
        let Ok(mut control) = Raw::open(address, &path, Some(ALICE)).await else { continue };
        while let Some((first, payload)) = control.frame_whenever().await {
            match first {
                TEXT => {
                    let told: Value = serde_json::from_slice(&payload).unwrap();
                    streams.spawn(serve_one(address, told["id"].as_str().unwrap().to_owned(), target));
                }
                crate::frames::CLOSE => break,
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_request_fails_names_stay_and_counters_add_up() {
    const CLIENTS: usize = 4;
    let home = tempfile::tempdir().unwrap();
    let old = Running::start(relay(home.path(), &[])).await;
    let address = old.addresses[0];
    let target = echo_target().await;
    let names: Vec<String> =
        ["base", "real"].iter().flat_map(|kind| (0..CLIENTS).map(move |n| format!("{kind}-{n}"))).collect();
    let (mut base, mut programs) = (JoinSet::new(), Vec::new());
    for name in &names {
        match name.starts_with("base") {
            true => drop(base.spawn(base_client(address, name.clone(), target))),
            false => programs.push(quiet(real(home.path(), address, name, target, &[])).spawn().unwrap()),
        }
    }
    // Requests that come before the client are no part of the load; they are not counted either.
    for name in &names {
        until(async || exchange(address, name, 0, &mut None).await.is_ok()).await;
    }
    let before = list(address, "/v1/tunnels").await;
    let loads: Vec<Load> = names.iter().map(|name| Load::start(address, name, 4)).collect();
    let more = async |count| {
        for load in &loads {
            load.more(count).await;
        }
    };
    more(10).await;
    let new = successor(home.path(), &old).await;
    more(10).await;
    let (code, said) = old.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("cut"), "{said}");
    more(10).await;

    let mut sent = Vec::new();
    for load in loads {
        let (answered, failed) = load.end().await;
        assert_eq!(failed, Vec::<String>::new());
        sent.push(answered);
    }
    // The old one has saved at its end; the new one takes that up within a moment.
    let count = |tunnels: &Value, name: &str| {
        let tunnel =
            tunnels.as_array().unwrap().iter().find(|tunnel| tunnel["slug"] == *name).unwrap().clone();
        (tunnel["id"].clone(), tunnel["requests"].as_u64().unwrap() as usize)
    };
    for (name, sent) in names.iter().zip(&sent) {
        let (id, already) = count(&before, name);
        let after = async || count(&list(address, "/v1/tunnels").await, name);
        until(async || after().await.1 >= already + sent).await;
        assert_eq!(after().await, (id, already + sent), "{name}");
    }
    new.signal("TERM");
    drop((base, programs));
    assert_eq!(new.end().await.0, Some(0));
}
