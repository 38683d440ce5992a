//! Quotas of a key: each is reached, told and given back, and no other key notices.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::program::real;
use crate::rig::{ALICE, Answer, BOB, Rig, echo_target, read_head, soon, target, until};
use crate::wire::{Viewer, by_hand, claim, receive, scripted};

const LONG: Duration = Duration::from_secs(60);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Asks for `/` of the tunnel `name`.
async fn ask(rig: &Rig, name: &str) -> Viewer {
    let mut viewer = Viewer::new(rig).await;
    viewer.say(format!("GET / HTTP/1.1\r\nHost: {name}.relay.test\r\n\r\n")).await;
    viewer
}

/// The target's end of the next request, once that is there.
async fn reached(targets: &mut Receiver<TcpStream>) -> TcpStream {
    let mut stream = soon(targets.recv()).await.unwrap();
    soon(read_head(&mut stream)).await.unwrap();
    stream
}

/// That this answer is the refusal of a limit, which it names, with whom to ask.
fn refused(answer: &Answer, limit: &str, most: usize) {
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("2")), "{problem}");
    assert_eq!(problem["cause"], limit.replace('-', "_"));
    let detail = problem["detail"].as_str().unwrap();
    for part in [limit, &format!(" is {most};"), "operator"] {
        assert!(detail.contains(part), "{part:?} in {detail}");
    }
}

/// Until a request of the tunnel `name` is let in: it is answered with 200.
async fn room(rig: &Rig, name: &str) {
    until(async || rig.get(name, "/").await.status == 200).await;
}

// ---- viewers ----

/// A relay where each key may have one viewer; alice's `web` has its target in the test's hands, her `quick` answers.
async fn one_viewer(idle: Duration) -> (Rig, Vec<crate::rig::Client>, Receiver<TcpStream>) {
    let rig = Rig::with(|config| {
        config.limits.viewers_per_key = Some(1);
        config.limits.idle_exchange = idle;
    })
    .await;
    let (address, targets) = by_hand().await;
    let quick = scripted(OK).await;
    let clients = vec![
        rig.client(ALICE, "web", address).await,
        rig.client(ALICE, "quick", quick).await,
        rig.client(BOB, "bobs", quick).await,
    ];
    (rig, clients, targets)
}

#[tokio::test]
async fn viewers_beyond_those_of_a_key_get_503_and_room_comes_back_however_one_ends() {
    for end in ["answered", "aborted", "timed out", "cut by the target", "early answer", "suspended"] {
        let ends_soon = end == "timed out";
        let (rig, clients, mut targets) =
            one_viewer(if ends_soon { Duration::from_millis(300) } else { LONG }).await;
        let mut viewer = ask(&rig, "web").await;
        let mut stream = reached(&mut targets).await;
        if !ends_soon {
            refused(&rig.get("quick", "/").await, "viewers-per-key", 1);
        }
        assert_eq!(rig.get("bobs", "/").await.status, 200, "another key has its own");
        match end {
            "answered" => {
                stream.write_all(OK.as_bytes()).await.unwrap();
                assert_eq!(viewer.answer().await.status, 200);
            }
            "aborted" => viewer.vanish(),
            "timed out" => assert_eq!(viewer.answer().await.status, 504),
            "cut by the target" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await.unwrap();
                drop(stream);
                viewer.rest().await;
            }
            "early answer" => {
                stream.write_all(OK.as_bytes()).await.unwrap();
                assert_eq!(viewer.answer().await.status, 200);
                room(&rig, "quick").await;
                viewer
                    .say("POST / HTTP/1.1\r\nHost: quick.relay.test\r\nContent-Length: 9\r\n\r\nhalf")
                    .await;
                viewer.vanish();
            }
            _ => {
                let path = format!("/v1/tunnels/{}/suspend", clients[0].id);
                assert_eq!(rig.api(ALICE, "POST", &path, r#"{"suspended":true}"#).await.0, 200);
                assert_eq!(viewer.answer().await.status, 503);
            }
        }
        room(&rig, "quick").await;
    }
}

#[tokio::test]
async fn an_upgraded_connection_counts_as_a_viewer_until_it_ends() {
    let (rig, _clients, mut targets) = one_viewer(LONG).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer
        .say("GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
        .await;
    let mut stream = reached(&mut targets).await;
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nhi";
    stream.write_all(switch.as_bytes()).await.unwrap();
    assert!(viewer.head().await.starts_with("http/1.1 101 "));
    assert_eq!(viewer.bytes(2).await, b"hi");
    refused(&rig.get("quick", "/").await, "viewers-per-key", 1);
    drop(viewer);
    room(&rig, "quick").await;
}

#[tokio::test]
async fn a_viewer_counts_on_while_another_session_takes_over() {
    let (rig, _clients, mut targets) = one_viewer(LONG).await;
    let mut viewer = ask(&rig, "web").await;
    let mut stream = reached(&mut targets).await;
    let _newer = rig.control(ALICE, "web").await;
    refused(&rig.get("quick", "/").await, "viewers-per-key", 1);
    stream.write_all(OK.as_bytes()).await.unwrap();
    assert_eq!(viewer.answer().await.status, 200);
    room(&rig, "quick").await;
}

#[tokio::test]
async fn a_storm_of_aborted_viewers_leaves_the_quota_as_it_was() {
    let rig = Rig::with(|config| config.limits.viewers_per_key = Some(4)).await;
    let (silent, _targets) = by_hand().await;
    let _clients =
        [rig.client(ALICE, "web", silent).await, rig.client(ALICE, "quick", scripted(OK).await).await];
    for _ in 0..20 {
        let mut viewers = Vec::new();
        for _ in 0..8 {
            viewers.push(ask(&rig, "web").await);
        }
        viewers.into_iter().for_each(Viewer::vanish);
    }
    room(&rig, "quick").await;
    // All four places are there.
    let (address, mut held) = by_hand().await;
    let _held = rig.client(ALICE, "held", address).await;
    let mut viewers = Vec::new();
    soon(async {
        while viewers.len() < 4 {
            let mut viewer = ask(&rig, "held").await;
            let stream = tokio::select! {
                stream = reached(&mut held) => Some(stream),
                answer = viewer.answer() => {
                    assert_eq!(answer.status, 503);
                    None
                }
            };
            viewers.extend(stream.map(|stream| (viewer, stream)));
        }
    })
    .await;
    refused(&rig.get("quick", "/").await, "viewers-per-key", 4);
}

// ---- viewers that wait ----

#[tokio::test]
async fn waiting_viewers_of_a_key_count_over_all_its_tunnels() {
    let rig = Rig::with(|config| config.limits.waiting_per_key = Some(2)).await;
    let mut controls = [rig.control(ALICE, "one").await, rig.control(ALICE, "two").await];
    let mut waiting = Vec::new();
    for (control, name) in controls.iter_mut().zip(["one", "two"]) {
        waiting.push(ask(&rig, name).await);
        soon(control.notified()).await.unwrap();
    }
    let _clients = [
        rig.client(ALICE, "web", scripted(OK).await).await,
        rig.client(BOB, "bobs", scripted(OK).await).await,
    ];
    refused(&rig.get("web", "/").await, "waiting-per-key", 2);
    assert_eq!(rig.get("bobs", "/").await.status, 200);
    waiting.pop().unwrap().vanish();
    room(&rig, "web").await;
}

#[tokio::test]
async fn a_viewer_of_a_client_that_is_away_counts_as_waiting_until_it_is_served() {
    let rig = Rig::with(|config| {
        config.limits.waiting_per_key = Some(1);
        config.limits.reconnect_wait = LONG;
    })
    .await;
    rig.create(ALICE, "away").await;
    let (mut one, mut other) = (ask(&rig, "away").await, ask(&rig, "away").await);
    let (answer, mut left) = tokio::select! {
        answer = one.answer() => (answer, other),
        answer = other.answer() => (answer, one),
    };
    refused(&answer, "waiting-per-key", 1);
    let mut control = rig.control(ALICE, "away").await;
    let mut socket = claim(&rig, &mut control).await;
    receive(&mut socket).await.unwrap();
    let mut next = ask(&rig, "away").await;
    // What was claimed does not wait any more, though it has no answer yet.
    let mut second = claim(&rig, &mut control).await;
    for (socket, viewer) in [(&mut socket, &mut left), (&mut second, &mut next)] {
        socket.send(Message::binary(OK.as_bytes())).await.unwrap();
        assert_eq!(viewer.answer().await.status, 200);
    }
}

#[tokio::test]
async fn a_claim_that_never_comes_gives_its_place_back() {
    let rig = Rig::with(|config| {
        config.limits.waiting_per_key = Some(1);
        config.limits.claim_wait = Duration::from_millis(100);
    })
    .await;
    let _silent = rig.control(ALICE, "silent").await;
    for _ in 0..3 {
        assert_eq!(rig.get("silent", "/").await.status, 504);
    }
}

// ---- creations ----

async fn create(rig: &Rig, key: &str, body: Value) -> Answer {
    let mut body = body;
    body["local_port"] = json!(1);
    rig.call(key, "POST", "/v1/tunnels", &body.to_string()).await
}

#[tokio::test]
async fn creations_beyond_the_rate_of_a_key_get_429_and_deleting_gives_nothing_back() {
    const MOST: usize = 60;
    let rig = Rig::with(|config| config.limits.creations_per_key = Some(MOST)).await;
    let first = create(&rig, ALICE, json!({"name": "web"})).await;
    assert_eq!(first.status, 201);
    let began = Instant::now();
    let mut made = 1;
    let answer = loop {
        let answer = create(&rig, ALICE, json!({})).await;
        if answer.status != 201 {
            break answer;
        }
        let id = serde_json::from_slice::<Value>(&answer.body).unwrap()["id"].as_str().unwrap().to_owned();
        assert_eq!(rig.api(ALICE, "DELETE", &format!("/v1/tunnels/{id}"), "").await.0, 204);
        made += 1;
    };
    assert!(made >= MOST && made <= MOST + 1 + began.elapsed().as_secs() as usize, "{made}");
    let error: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &error["code"]), (429, &json!("too_many_creations")), "{error}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let sentence = error["error"].as_str().unwrap();
    assert!(sentence.contains("60 tunnels a minute (creations-per-key)") && sentence.contains("operator"));
    // What is there is no creation, and another key has its own rate.
    assert_eq!(create(&rig, ALICE, json!({"name": "web"})).await.status, 200);
    assert_eq!(create(&rig, ALICE, json!({"name": "web", "ttl": "1h"})).await.status, 200);
    assert_eq!(create(&rig, BOB, json!({})).await.status, 201);
    until(async || create(&rig, ALICE, json!({})).await.status == 201).await;
}

#[tokio::test]
async fn a_client_that_is_told_to_wait_waits_says_so_once_and_comes() {
    let rig = Rig::with(|config| config.limits.creations_per_key = Some(30)).await;
    while create(&rig, ALICE, json!({})).await.status == 201 {}
    let home = tempfile::tempdir().unwrap();
    let mut client = real(home.path(), rig.address, "late", 1, &[]).spawn().unwrap();
    let url = BufReader::new(client.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    assert!(url.contains("late"), "{url}");
    client.start_kill().unwrap();
    let mut said = String::new();
    client.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("creations-per-key")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].starts_with("offline: ") && lines[0].contains("; trying again in "), "{said}");
    client.wait().await.unwrap();
}

// ---- bandwidth ----

const RATE: u64 = 512 * 1024;
/// A second's worth.
const BODY: usize = 512 * 1024;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

async fn slow_alice() -> (Rig, Vec<crate::rig::Client>) {
    let rig = Rig::with(|config| config.limits.bandwidth_per_key = Some(RATE)).await;
    let echo = echo_target().await;
    let body =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n").into_bytes(), pattern(BODY)].concat();
    let bulk = scripted(body).await;
    let clients = vec![
        rig.client(ALICE, "bulk", bulk).await,
        rig.client(ALICE, "echo", echo).await,
        rig.client(BOB, "bobs", bulk).await,
    ];
    (rig, clients)
}

/// No faster than the rate allows, with what may go ahead; a slow machine is no fault.
fn paced(took: Duration, bytes: usize) {
    let least = Duration::from_secs_f64(bytes as f64 / RATE as f64) - Duration::from_millis(250);
    assert!(took >= least, "{bytes} bytes in {took:?}");
}

#[tokio::test]
async fn downloads_slow_down_without_loss_and_each_key_has_the_whole_rate() {
    let (rig, _clients) = slow_alice().await;
    let began = Instant::now();
    let timed = async |name: &str| {
        let answer = rig.get(name, "/").await;
        assert!(answer.status == 200 && answer.complete);
        (answer.body, began.elapsed())
    };
    let alices = async { tokio::join!(timed("bulk"), timed("bulk"), timed("bulk")) };
    let (alices, (_, small), (bobs, bob)) = tokio::join!(alices, timed("echo"), timed("bobs"));
    let (alices, ends): (Vec<_>, Vec<_>) = <[_; 3]>::from(alices).into_iter().unzip();
    assert!(alices.iter().chain([&bobs]).all(|body| *body == pattern(BODY)));
    let alice = *ends.iter().max().unwrap();
    paced(alice, 3 * BODY);
    paced(bob, BODY);
    // Had they one rate together, Bob would end with Alice, after four bodies.
    assert!(bob < alice * 2 / 3, "bob {bob:?}, alice {alice:?}");
    // Beside bulk transfers of the same key, what is small comes soon: not at the end of them.
    assert!(small < alice / 2, "{small:?} of {alice:?}");
}

#[tokio::test]
async fn uploads_and_upgraded_connections_slow_down_without_loss() {
    let (rig, _clients) = slow_alice().await;
    let raw = target(|_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
        stream.write_all(switch.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let _raw = rig.client(ALICE, "raw", raw).await;
    let body = pattern(BODY / 2);
    // Up and down again.
    let began = Instant::now();
    let mut request = format!(
        "POST / HTTP/1.1\r\nHost: echo.relay.test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    let answer = rig.raw(request).await;
    assert!(answer.complete && answer.body.ends_with(&body));
    paced(began.elapsed(), 2 * body.len());

    let began = Instant::now();
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: raw.relay.test\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n").await;
    assert!(viewer.head().await.starts_with("http/1.1 101 "));
    let (mut read, mut write) = viewer.0.split();
    let mut back = vec![0; body.len()];
    let (sent, got) = soon(async { tokio::join!(write.write_all(&body), read.read_exact(&mut back)) }).await;
    sent.unwrap();
    got.unwrap();
    assert!(back == body);
    paced(began.elapsed(), 2 * body.len());
}

#[tokio::test]
async fn many_small_answers_count_for_the_bandwidth_too() {
    let (rig, _clients) = slow_alice().await;
    let began = Instant::now();
    let mut moved = 0;
    let mut viewer = Viewer::new(&rig).await;
    let filler = "x".repeat(8 * 1024);
    while moved < RATE as usize {
        viewer.say(format!("GET / HTTP/1.1\r\nHost: echo.relay.test\r\nX-Filler: {filler}\r\n\r\n")).await;
        moved += 2 * viewer.answer().await.body.len();
    }
    paced(began.elapsed(), moved);
}

// ---- connections of an address ----

#[tokio::test]
async fn connections_beyond_those_of_an_address_are_closed_and_other_addresses_get_in() {
    let rig = Rig::with(|config| config.limits.connections_per_address = Some(3)).await;
    let health = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(rig.viewer().await);
    }
    // Accepted in their order, so these were.
    let refused = async {
        let mut stream = rig.viewer().await;
        let _ = stream.write_all(health).await;
        !matches!(stream.read(&mut [0; 1]).await, Ok(1..))
    };
    assert!(soon(refused).await, "a fourth connection was served");
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(rig.address).await.unwrap();
    other.write_all(health).await.unwrap();
    assert!(soon(read_head(&mut other)).await.unwrap().starts_with(b"HTTP/1.1 200 "));
    idle.pop();
    let mut statuses = HashSet::new();
    soon(async {
        while !statuses.contains(&200) {
            statuses.insert(rig.raw(health).await.status);
        }
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxy_may_have_any_number_of_connections() {
    let rig = Rig::with(|config| {
        config.limits.connections_per_address = Some(1);
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let _idle = [rig.viewer().await, rig.viewer().await];
    let _client = rig.client(ALICE, "web", scripted(OK).await).await;
    assert_eq!(rig.get("web", "/").await.status, 200);
}
