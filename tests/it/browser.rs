//! The dashboard in a browser: tests/browser has what is done there, and here is the relay with its clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit::auth::Secret;
use adit::auth::keys::hash_key;
use adit::relay::config::RelayConfig;
use adit::store::{Sqlite, Store};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::connect_async;

use crate::chromium::{PASSWORD, SCRIPT, browse};
use crate::program::{Running, quiet, real, relay};
use crate::rig::{ALICE, BOB, Rig, echo_target, read_head, read_request, request, soon, target};

const CAROL: &str = "nbk_carol_0123456789abcdef";
/// What a client may call itself.
const HOSTILE: &str = "<img src=x onerror=\"planted=1\"><b class=planted>&amp;";
/// Clients in the test with thousands: each takes a descriptor here and one in the relay.
const CROWD: usize = 10_000;
/// Of these processes, beside clients.
const SPARE: usize = 500;

/// A relay with a dashboard.
async fn rig(change: impl FnOnce(&mut RelayConfig)) -> Rig {
    Rig::with(|config| {
        config.admin_password = Some(Secret::new(PASSWORD));
        change(config);
    })
    .await
}

/// Control sockets that answer pings and do nothing else, until dropped.
#[derive(Default)]
struct Sockets(JoinSet<()>);

impl Sockets {
    /// One for a new tunnel of bob, which calls itself `agent`.
    async fn add(&mut self, rig: &Rig, name: &str, agent: &str) {
        let tunnel = rig.create(BOB, name).await;
        let mut request = rig.control_request(BOB, tunnel["id"].as_str().unwrap());
        request.headers_mut().insert("user-agent", agent.parse().unwrap());
        let (mut socket, _) = soon(connect_async(request)).await.unwrap();
        self.0.spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_log_in_and_see_every_view_and_what_strangers_sent_is_text() {
    let rig = rig(|config| config.limits.ping_every = Duration::from_secs(1)).await;
    let _web = rig.client(ALICE, "web", echo_target().await).await;
    assert_eq!(rig.get("web", "/").await.status, 200);
    // A target that hangs up gives its tunnel a failure.
    let _failing = rig
        .client(
            ALICE,
            "failing",
            target(|_, mut stream| async move { drop(read_request(&mut stream).await) }).await,
        )
        .await;
    assert_eq!(rig.get("failing", "/").await.status, 502);
    let mut sockets = Sockets::default();
    sockets.add(&rig, "hostile", HOSTILE).await;
    for number in 0..55 {
        sockets.add(&rig, &format!("plain-{number:02}"), "plain/1.0").await;
    }
    assert!(rig.socket("/ws/control?tunnel_id=no-such", Some(ALICE)).await.is_err());
    // One without a password.
    let open = Rig::start().await;
    let link = format!("http://{}/login?token={}", open.admin, open.link());
    let more = [("CLIENTS", "58"), ("HOSTILE", HOSTILE), ("FAILING", "failing"), ("LINK", &link)];
    browse("views.mjs", rig.admin, &more).await;
    rig.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stands_still_turns_late_then_dead_and_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let rig = rig(|config| {
        config.limits.ping_every = Duration::from_secs(1);
        config.limits.pong_wait = Duration::from_secs(8);
    })
    .await;
    let client = quiet(real(home.path(), rig.address, "real", echo_target().await, &[])).spawn().unwrap();
    let id = client.id().unwrap().to_string();
    browse("health.mjs", rig.admin, &[("CLIENT", "real"), ("CLIENT_ID", &id)]).await;
    rig.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_does_is_done_after_a_question() {
    let home = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Sqlite::memory().unwrap());
    assert!(store.create_key("carol".into(), hash_key(CAROL)).await.unwrap());
    let address = "127.0.0.1:0".parse().unwrap();
    let rig = Rig::on(store, address, |config| config.admin_password = Some(Secret::new(PASSWORD))).await;
    let _real = quiet(real(home.path(), rig.address, "real", echo_target().await, &[])).spawn().unwrap();
    let mut sockets = Sockets::default();
    sockets.add(&rig, "simple", "simple/1.0").await;
    browse("actions.mjs", rig.admin, &[]).await;
    rig.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_is_for_any_keys_eyes_and_windows() {
    let rig = rig(|config| config.limits.ping_every = Duration::from_secs(1)).await;
    let _web = rig.client(ALICE, "web", echo_target().await).await;
    assert_eq!(rig.get("web", "/").await.status, 200);
    let mut sockets = Sockets::default();
    sockets.add(&rig, "hostile", HOSTILE).await;
    for number in 0..6 {
        sockets
            .add(
                &rig,
                &format!("a-name-that-is-as-long-as-names-of-tunnels-may-be-at-most-{number}"),
                "plain/1.0",
            )
            .await;
    }
    browse("access.mjs", rig.admin, &[]).await;
    rig.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_are_shown_without_a_stutter() {
    let most = std::fs::read_to_string("/proc/self/limits").unwrap();
    let most = most.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let most = most.split_whitespace().nth(4).unwrap().parse().unwrap_or(usize::MAX);
    let crowd = CROWD.min(most.saturating_sub(SPARE));
    if crowd < CROWD {
        eprintln!("only {crowd} clients: a process may have {most} descriptors; see `ulimit -Hn`");
    }
    allow_descriptors(most);
    let home = tempfile::tempdir().unwrap();
    let mut command = relay(home.path(), &[]);
    command.env("ADIT_ADMIN_PASSWORD", PASSWORD);
    let running = Running::start(command).await;
    let (address, admin) = (running.addresses[0], running.admin.unwrap());
    let _heard = running.heard();
    let begun = Instant::now();
    let _clients = gather(address, crowd).await;
    println!("{crowd} clients in {:.1?}", begun.elapsed());
    println!("{}", browse("crowd.mjs", admin, &[("CLIENTS", &crowd.to_string())]).await);
}

/// This process may open as many descriptors as the hard limit lets it.
fn allow_descriptors(most: usize) {
    let limit = if most == usize::MAX { "unlimited".to_owned() } else { most.to_string() };
    let id = std::process::id().to_string();
    let raised = std::process::Command::new("prlimit")
        .args(["--pid", &id, &format!("--nofile={limit}:{limit}")])
        .status();
    assert!(raised.unwrap().success(), "prlimit could not raise the limit of descriptors");
}

/// So many clients of the base protocol, which answer pings until dropped.
async fn gather(relay: SocketAddr, count: usize) -> JoinSet<()> {
    const LANES: usize = 16;
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        lanes.spawn(async move {
            let mut clients = JoinSet::new();
            let mut api = TcpStream::connect(relay).await.unwrap();
            for number in (lane..count).step_by(LANES) {
                let socket = soon(one(&mut api, relay, number)).await;
                clients.spawn(answer_pings(socket));
            }
            clients
        });
    }
    let mut all = JoinSet::new();
    for mut clients in timeout(SCRIPT, lanes.join_all()).await.expect("the clients do not connect") {
        all.spawn(async move { while clients.join_next().await.is_some() {} });
    }
    all
}

/// Makes a tunnel over `api`, and connects its control socket by hand: a library would take longer than the relay.
async fn one(api: &mut TcpStream, relay: SocketAddr, number: usize) -> TcpStream {
    let body = format!(r#"{{"local_port":1,"name":"crowd-{number}"}}"#);
    api.write_all(request(ALICE, "POST", "/v1/tunnels", "", &body).as_bytes()).await.unwrap();
    let answer = read_request(api).await.unwrap();
    let start = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let tunnel: Value = serde_json::from_slice(&answer[start..]).unwrap();
    let mut socket = TcpStream::connect(relay).await.unwrap();
    let request = format!(
        "GET /ws/control?tunnel_id={} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ALICE}\r\n\
         User-Agent: crowd/1.{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        tunnel["id"].as_str().unwrap(),
        number % 7,
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut socket).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    socket
}

/// Answers each ping with its pong, masked with zeros (RFC 6455, section 5.5.3), and reads past all else.
async fn answer_pings(mut socket: TcpStream) {
    let mut frame = [0; 256];
    while socket.read_exact(&mut frame[..2]).await.is_ok() {
        let length = usize::from(frame[1] & 0x7f);
        assert!(length < 126, "nothing so long is sent to a client that nobody asks for");
        if socket.read_exact(&mut frame[6..6 + length]).await.is_err() {
            return;
        }
        if frame[0] == 0x89 {
            let head = [0x8a, 0x80 | frame[1], 0, 0, 0, 0];
            frame[..6].copy_from_slice(&head);
            if socket.write_all(&frame[..6 + length]).await.is_err() {
                return;
            }
        }
    }
}
