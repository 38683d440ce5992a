//! Several clients of one tunnel: viewers are shared among them, and none is lost with one of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::SinkExt;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::grpc::{Server, call};
use crate::program::{Running, adit, get, http, real, relay, run, signal};
use crate::rig::{ALICE, Answer, Rig, read_all, read_request, soon, target, until};
use crate::wire::receive;

/// A target that answers with its name, and with the body that came.
async fn named(name: &'static str) -> SocketAddr {
    target(move |_, mut stream| async move {
        while let Some(request) = read_request(&mut stream).await {
            let at = request.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
            let body = [name.as_bytes(), &request[at..]].concat();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// `adit http` as a process, whose tunnel `web` is open.
struct Replica {
    process: Child,
    said: JoinSet<String>,
    _home: TempDir,
}

impl Replica {
    async fn start(relay: SocketAddr, target: SocketAddr, options: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let options = [&["--json"], options].concat();
        let mut process = real(home.path(), relay, "web", target, &options).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("\"online\"") {
                    return;
                }
            }
            panic!("it did not come online");
        };
        soon(first).await;
        let mut said = JoinSet::new();
        said.spawn(async move {
            let mut all = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                all += &line;
            }
            all
        });
        Self { process, said, _home: home }
    }

    fn id(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// The exit code, and what it said.
    async fn end(mut self) -> (Option<i32>, String) {
        let code = soon(self.process.wait()).await.unwrap().code();
        (code, soon(self.said.join_next()).await.unwrap().unwrap())
    }
}

const TOGETHER: [&str; 1] = ["--replica"];

/// The name of whoever answers.
async fn ask(relay: SocketAddr) -> String {
    let answer = get(relay, "/t/web/").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

async fn clients(rig: &Rig, count: u64) {
    until(async || rig.api(ALICE, "GET", "/v1/tunnels", "").await.1[0]["clients"] == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_share_the_viewers_and_are_shown() {
    let rig = Rig::start().await;
    let _first = Replica::start(rig.address, named("first").await, &TOGETHER).await;
    let _second = Replica::start(rig.address, named("second").await, &TOGETHER).await;
    clients(&rig, 2).await;
    let mut counts = [0, 0];
    for _ in 0..40 {
        counts[usize::from(ask(rig.address).await == "second")] += 1;
    }
    assert!(counts.iter().all(|count| *count >= 15), "{counts:?}");
    let (_, listed) = rig.api(ALICE, "GET", "/v1/tunnels", "").await;
    assert_eq!(
        (&listed[0]["replica"], &listed[0]["balance"], &listed[0]["connected"]),
        (&json!(true), &json!("least-busy"), &json!(true))
    );
    let home = tempfile::tempdir().unwrap();
    let url = format!("http://{}", rig.address);
    let (code, table, _) = run(&mut adit(home.path(), &["ls", "--relay", &url, "--key", ALICE])).await;
    assert!(code == 0 && table.contains("online (2)"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_is_killed_under_load_no_request_fails_that_may_be_sent_again() {
    let rig = Rig::start().await;
    let first = Replica::start(rig.address, named("first").await, &TOGETHER).await;
    let second = Replica::start(rig.address, named("second").await, &TOGETHER).await;
    clients(&rig, 2).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut viewers = JoinSet::new();
    for _ in 0..8 {
        let (stop, done, relay) = (Arc::clone(&stop), Arc::clone(&done), rig.address);
        viewers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                ask(relay).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let more = async |count: usize| {
        let before = done.load(Ordering::Relaxed);
        until(async || done.load(Ordering::Relaxed) >= before + count).await;
    };
    more(200).await;
    signal(second.id(), "KILL");
    more(500).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(viewer) = viewers.join_next().await {
        viewer.unwrap();
    }
    clients(&rig, 1).await;
    assert_eq!(ask(rig.address).await, "first");
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_reach_its_target_passes_its_viewers_on_with_their_bodies() {
    let rig = Rig::start().await;
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let _broken = Replica::start(rig.address, nobody, &TOGETHER).await;
    let _whole = Replica::start(rig.address, named("whole").await, &TOGETHER).await;
    clients(&rig, 2).await;
    for round in 0..30 {
        let body = format!("body {round} {}", "x".repeat(round * 100));
        let request = format!(
            "POST /t/web/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = http(rig.address, request).await;
        assert_eq!((answer.status, answer.text()), (200, format!("whole{body}")), "{round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_closes_what_waits_is_asked_anew_also_where_there_is_one_client() {
    let rig = Rig::start().await;
    let hasty = target(|_, mut stream| async move {
        if read_request(&mut stream).await.is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let _only = Replica::start(rig.address, hasty, &TOGETHER).await;
    for _ in 0..100 {
        assert_eq!(ask(rig.address).await, "ok");
    }
    let wanted = json!({"local_port": 1, "name": "base", "replica": true}).to_string();
    let (_, tunnel) = rig.api(ALICE, "POST", "/v1/tunnels", &wanted).await;
    let control = rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
    let _base = rig.serve(control, hasty).await;
    for _ in 0..20 {
        assert_eq!(rig.get("base", "/").await.text(), "ok");
    }
}

#[tokio::test]
async fn one_that_takes_up_nobody_is_passed_over_within_the_time_for_a_claim() {
    let rig = Rig::with(|config| config.limits.claim_wait = Duration::from_secs(4)).await;
    let wanted = json!({"local_port": 1, "name": "web", "replica": true}).to_string();
    let (_, tunnel) = rig.api(ALICE, "POST", "/v1/tunnels", &wanted).await;
    let id = tunnel["id"].as_str().unwrap();
    let mut silent = rig.connect(ALICE, id).await;
    let served = rig.connect(ALICE, id).await;
    let _served = rig.serve(served, named("served").await).await;
    clients(&rig, 2).await;
    // However many come, one of them waits for it, and all are served.
    for _ in 0..10 {
        assert_eq!(rig.get("web", "/").await.text(), "served");
    }
    // A client of level two, which would open them, says of which session a standby socket is.
    let standby = format!("/ws/data?tunnel_id={id}&id=01234567-89ab-4cde-8f01-23456789abcd");
    let refused = rig.socket(&standby, Some(ALICE)).await.err().unwrap();
    assert!(refused.0 == 409 && refused.1.contains("no_session"), "{refused:?}");
    // It wakes up.
    let waking = async {
        loop {
            let id = silent.notified().await.unwrap();
            // Those for which it is too late.
            let Ok(mut socket) = rig.socket(&format!("/ws/data?id={id}"), None).await else { continue };
            if receive(&mut socket).await.is_some() {
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nawake";
                socket.send(Message::binary(answer)).await.unwrap();
                return;
            }
        }
    };
    let viewing = until(async || rig.get("web", "/").await.text() == "awake");
    soon(async { tokio::join!(waking, viewing) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_to_the_tunnel_is_done_to_all_of_them() {
    let rig = Rig::start().await;
    let first = Replica::start(rig.address, named("first").await, &TOGETHER).await;
    let second = Replica::start(rig.address, named("second").await, &TOGETHER).await;
    clients(&rig, 2).await;
    let (_, listed) = rig.api(ALICE, "GET", "/v1/tunnels", "").await;
    let path = format!("/v1/tunnels/{}", listed[0]["id"].as_str().unwrap());
    let suspend = format!("{path}/suspend");
    assert_eq!(rig.api(ALICE, "POST", &suspend, r#"{"suspended":true}"#).await.0, 200);
    assert_eq!(rig.get("web", "/").await.status, 503);
    assert_eq!(rig.api(ALICE, "POST", &suspend, r#"{"suspended":false}"#).await.0, 200);
    assert_eq!(rig.get("web", "/").await.status, 200);
    assert_eq!(rig.api(ALICE, "DELETE", &format!("{path}?unless_connected=true"), "").await.0, 409);
    assert_eq!(rig.api(ALICE, "DELETE", &path, "").await.0, 204);
    for replica in [first, second] {
        let (code, said) = replica.end().await;
        assert!(code == Some(0) && said.contains("deleted"), "{code:?} {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_one_leaves_the_tunnel_to_the_other_and_the_last_one_closes_it() {
    let rig = Rig::start().await;
    let first = Replica::start(rig.address, named("first").await, &TOGETHER).await;
    let second = Replica::start(rig.address, named("second").await, &TOGETHER).await;
    clients(&rig, 2).await;
    signal(first.id(), "INT");
    assert_eq!(first.end().await.0, Some(0));
    clients(&rig, 1).await;
    assert_eq!(ask(rig.address).await, "second");
    signal(second.id(), "INT");
    assert_eq!(second.end().await.0, Some(0));
    assert_eq!(rig.api(ALICE, "GET", "/v1/tunnels", "").await.1, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_ask_to_share_takes_over_from_all() {
    let rig = Rig::start().await;
    let first = Replica::start(rig.address, named("first").await, &TOGETHER).await;
    let second = Replica::start(rig.address, named("second").await, &TOGETHER).await;
    clients(&rig, 2).await;
    let alone = Replica::start(rig.address, named("alone").await, &[]).await;
    for replica in [first, second] {
        let (code, said) = replica.end().await;
        assert!(code == Some(0) && said.contains("replaced"), "{code:?} {said}");
    }
    assert_eq!(ask(rig.address).await, "alone");
    // And the other way round: it has not agreed to share.
    let _late = Replica::start(rig.address, named("late").await, &TOGETHER).await;
    assert!(alone.end().await.1.contains("replaced"));
    assert_eq!(ask(rig.address).await, "late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_viewers_stay_with_their_client_until_it_goes() {
    let rig = Rig::start().await;
    let options = ["--replica", "--balance", "sticky"];
    let mut replicas = Vec::new();
    for name in ["0", "1", "2"] {
        replicas.push(Some(Replica::start(rig.address, named(name).await, &options).await));
    }
    clients(&rig, 3).await;
    let from = async |last: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        let mut stream: TcpStream = soon(socket.connect(rig.address)).await.unwrap();
        let request = "GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = Answer::parse(&soon(read_all(&mut stream)).await);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().parse::<usize>().unwrap()
    };
    let mut homes = Vec::new();
    for last in 2..26 {
        homes.push(from(last).await);
    }
    for _ in 0..2 {
        for last in 2..26 {
            assert_eq!(from(last).await, homes[usize::from(last) - 2]);
        }
    }
    for replica in 0..3 {
        assert!(homes.contains(&replica), "{homes:?}");
    }
    let gone = replicas[0].take().unwrap();
    signal(gone.id(), "KILL");
    gone.end().await;
    clients(&rig, 2).await;
    for last in 2..26 {
        let (before, now) = (homes[usize::from(last) - 2], from(last).await);
        assert!(now != 0 && (before == 0 || before == now), "{before} {now}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_move_to_the_successor_of_their_relay_without_a_failed_request() {
    let home = tempfile::tempdir().unwrap();
    let old = Running::start(relay(home.path(), &[])).await;
    let address = old.addresses[0];
    let _first = Replica::start(address, named("first").await, &TOGETHER).await;
    let _second = Replica::start(address, named("second").await, &TOGETHER).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut viewers = JoinSet::new();
    for _ in 0..4 {
        let stop = Arc::clone(&stop);
        viewers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                ask(address).await;
            }
        });
    }
    let new = Running::start(relay(home.path(), &["--take-over"])).await;
    assert_eq!(old.end().await.0, Some(0));
    stop.store(true, Ordering::Relaxed);
    while let Some(viewer) = viewers.join_next().await {
        viewer.unwrap();
    }
    let rig = Rig::of(new.addresses[0], new.admin.unwrap());
    clients(&rig, 2).await;
    let mut names = Vec::new();
    for _ in 0..8 {
        names.push(ask(address).await);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_grpc_are_shared_and_outlive_one_of_two() {
    let rig = Rig::start().await;
    let servers = [Server::start().await, Server::start().await];
    let options = ["--replica", "--target-proto", "h2"];
    let first = Replica::start(rig.address, servers[0].address, &options).await;
    let _second = Replica::start(rig.address, servers[1].address, &options).await;
    clients(&rig, 2).await;
    assert!(call(rig.address, &["both", "many", "cancel"]).await.contains("ok cancel"));
    signal(first.id(), "KILL");
    clients(&rig, 1).await;
    assert!(call(rig.address, &["unary", "both", "many"]).await.contains("ok many"));
}
