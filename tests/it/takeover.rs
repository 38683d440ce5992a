//! One relay process takes the place of another: no request fails, and nothing is lost.

mod load;

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::process::Command;

use crate::frames::{BINARY, Raw, TEXT};
use crate::program::{Running, adit, keys, relay, run};
use crate::rig::{ALICE, Answer, BOB, request, soon};
use crate::wire::Viewer;

/// The one that takes over, when it serves.
async fn successor(home: &Path, old: &Running) -> Running {
    successor_with(relay(home, &["--take-over"]), old).await
}

/// The same of another command.
pub async fn successor_with(command: Command, old: &Running) -> Running {
    let new = Running::start(command).await;
    assert_eq!(new.addresses, old.addresses);
    new
}

async fn viewer(address: SocketAddr) -> Viewer {
    Viewer(soon(TcpStream::connect(address)).await.unwrap())
}

fn get(name: &str) -> String {
    format!("GET /t/{name}/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

async fn notified(control: &mut Raw) -> String {
    let told: Value = serde_json::from_slice(&control.next(TEXT).await.unwrap()).unwrap();
    told["id"].as_str().unwrap().to_owned()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

// ---- refusals ----

#[tokio::test]
async fn with_nothing_to_take_over_the_exit_code_is_69() {
    let home = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(&mut relay(home.path(), &["--take-over"])).await;
    assert_eq!((code, stdout.as_str()), (69, ""));
    assert!(stderr.contains("no relay runs") && stderr.contains("without --take-over"), "{stderr}");
    assert!(!home.path().join("data").exists(), "nothing is made");

    // The socket of a relay that was killed is nobody.
    let killed = Running::start(relay(home.path(), &[])).await;
    killed.signal("KILL");
    killed.end().await;
    assert_eq!(run(&mut relay(home.path(), &["--take-over"])).await.0, 69);
    Running::start(relay(home.path(), &[])).await;
}

#[tokio::test]
async fn a_second_relay_on_the_same_data_directory_is_told_of_take_over() {
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(relay(home.path(), &[])).await;
    let (code, _, stderr) = run(&mut relay(home.path(), &[])).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("--take-over") && stderr.contains("--data-dir"), "{stderr}");
    assert!(running.takes(ALICE).await);
    running.signal("TERM");
    assert_eq!(running.end().await.0, Some(0));
    Running::start(relay(home.path(), &[])).await;
}

#[tokio::test]
async fn other_addresses_are_refused_and_the_running_relay_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let running = Running::start(relay(home.path(), &[])).await;
    for (listen, admin, option) in
        [("127.0.0.2:0", "127.0.0.1:0", "listen"), ("127.0.0.1:0", "127.0.0.1:1", "admin-listen")]
    {
        let other = ["relay", "--take-over", "--listen", listen, "--admin-listen", admin];
        let (code, _, stderr) = run(adit(home.path(), &other).env("ADIT_KEYS", keys())).await;
        assert_eq!(code, 2, "{stderr}");
        let wrong = if option == "listen" { listen } else { admin };
        assert!(stderr.contains(option) && stderr.contains(wrong), "{stderr}");
        if option == "listen" {
            assert!(stderr.contains(&running.addresses[0].to_string()), "{stderr}");
        }
        assert!(running.takes(ALICE).await);
    }
    let new = successor(home.path(), &running).await;
    assert!(new.takes(ALICE).await);
    assert_eq!(running.end().await.0, Some(0));
}

#[tokio::test]
async fn a_successor_that_dies_before_it_is_ready_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut running = Running::start(relay(home.path(), &[])).await;
    let mut control = running.control("web").await;
    // It waits for the database, and is killed there.
    let database = home.path().join("data/adit/adit.db");
    let other = rusqlite::Connection::open(database).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut new = relay(home.path(), &["--take-over"]).spawn().unwrap();
    running.until("another relay begins to take over").await;
    new.kill().await.unwrap();
    running.until("no successor took over; going on").await;
    other.execute_batch("ROLLBACK").unwrap();
    // One that says nothing, and one that says nonsense.
    for words in ["", "nonsense\n", "{\"take_over\":{}}\n"] {
        let mut stream = UnixStream::connect(home.path().join("data/adit/relay.sock")).await.unwrap();
        stream.write_all(words.as_bytes()).await.unwrap();
    }
    let address = running.addresses[0];
    let mut viewer = viewer(address).await;
    for _ in 0..2 {
        viewer.say(get("web")).await;
        let mut data = Raw::data(address, &notified(&mut control).await).await;
        data.request().await;
        data.send(BINARY, OK).await;
        let answer = viewer.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (200, None));
        data.write(crate::frames::frame(crate::frames::CLOSE, &1000u16.to_be_bytes())).await;
        while data.frame().await.is_some() {}
    }
    let new = successor(home.path(), &running).await;
    assert!(new.takes(ALICE).await);
}

// ---- what the old one has and the new one needs ----

#[tokio::test]
async fn probes_say_ready_all_the_time_and_are_led_to_the_new_one() {
    const READY: &str = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let home = tempfile::tempdir().unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let start = |more: &'static str| {
        let admin = admin.to_string();
        let arguments = ["relay", "--listen", "127.0.0.1:0", "--admin-listen", &admin, more];
        let mut command = adit(home.path(), &arguments);
        command.env("ADIT_KEYS", keys());
        Running::start(command)
    };
    let old = start("--path-routing=on").await;
    // Holds the old one.
    let mut control = old.control("web").await;
    let mut viewer = viewer(old.addresses[0]).await;
    viewer.say(get("web")).await;
    let mut data = Raw::data(old.addresses[0], &notified(&mut control).await).await;
    let mut kept = Viewer(TcpStream::connect(admin).await.unwrap());
    kept.say(READY).await;
    assert_eq!(kept.answer().await.status, 200);
    let new = start("--take-over").await;
    kept.say(READY).await;
    let answer = Answer::parse(&kept.rest().await);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    let mut fresh = Viewer(TcpStream::connect(admin).await.unwrap());
    fresh.say(READY).await;
    let answer = fresh.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    data.request().await;
    data.send(BINARY, OK).await;
    assert_eq!(Answer::parse(&viewer.rest().await).status, 200);
    drop((control, data));
    assert_eq!(old.end().await.0, Some(0));
    drop(new);
}

#[tokio::test]
async fn a_connection_that_the_old_one_announced_is_taken_up_through_the_new_one() {
    let home = tempfile::tempdir().unwrap();
    let old = Running::start(relay(home.path(), &[])).await;
    let (address, mut control) = (old.addresses[0], old.control("web").await);
    let mut waiting = viewer(address).await;
    waiting.say(get("web")).await;
    let id = notified(&mut control).await;
    let new = successor(home.path(), &old).await;

    let path = format!("/ws/data?id={id}");
    let refused = Raw::open(address, &path, Some(BOB)).await.err().unwrap();
    assert_eq!(refused.status, 403);
    let unknown = format!("/ws/data?id={}", "0b6fd1c8-6d1c-4c37-8c1c-5b8a3f6f2d10");
    assert_eq!(Raw::open(address, &unknown, None).await.err().unwrap().status, 404);
    let mut data = Raw::open(address, &path, Some(ALICE)).await.unwrap();
    assert_eq!(Raw::open(address, &path, None).await.err().unwrap().status, 404, "good for one claim");
    assert!(data.request().await.starts_with("GET / "));

    // Viewers of the new one reach the client that is still at the old one.
    let mut fresh = viewer(address).await;
    fresh.say(get("web")).await;
    let mut second = Raw::data(address, &notified(&mut control).await).await;
    assert!(second.request().await.starts_with("GET / "));
    second.send(BINARY, OK).await;
    let answer = fresh.answer().await;
    assert_eq!((answer.status, answer.header("connection"), answer.text()), (200, None, "ok".into()));
    assert_eq!(second.frame().await, None, "used once");

    data.send(BINARY, OK).await;
    let answer = Answer::parse(&waiting.rest().await);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(control.close_code().await, Some(1012));
    assert_eq!(old.end().await.0, Some(0));
    drop(new);
}

/// The end of a response without a length is the end of its connection, so a break must not look like one.
#[tokio::test]
async fn a_response_through_both_that_breaks_off_is_not_taken_for_a_whole_one() {
    let home = tempfile::tempdir().unwrap();
    let old = Running::start(relay(home.path(), &[])).await;
    let (address, mut control) = (old.addresses[0], old.control("web").await);
    let mut holding = viewer(address).await;
    holding.say(get("web")).await;
    let _held = Raw::data(address, &notified(&mut control).await).await;
    let _new = successor(home.path(), &old).await;
    for whole in [true, false] {
        let mut viewer = viewer(address).await;
        viewer.say("GET /t/web/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        let mut data = Raw::data(address, &notified(&mut control).await).await;
        data.request().await;
        data.send(BINARY, "HTTP/1.1 200 OK\r\n\r\nbytes").await;
        assert!(viewer.head().await.contains("chunked"));
        assert_eq!(viewer.bytes(10).await, b"5\r\nbytes\r\n");
        if whole {
            drop(data);
        } else {
            data.0.set_zero_linger().unwrap();
            drop(data);
        }
        assert_eq!(viewer.rest().await, if whole { &b"0\r\n\r\n"[..] } else { b"" });
    }
}

#[tokio::test]
async fn a_download_from_a_base_client_that_began_before_ends_whole() {
    let home = tempfile::tempdir().unwrap();
    let old = Running::start(relay(home.path(), &[])).await;
    let (address, mut control) = (old.addresses[0], old.control("web").await);
    let mut viewer = viewer(address).await;
    viewer.say(get("web")).await;
    let mut data = Raw::data(address, &notified(&mut control).await).await;
    data.request().await;
    data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await;
    viewer.head().await;
    let new = successor(home.path(), &old).await;
    for _ in 0..100 {
        data.send(BINARY, [b'x'; 1000]).await;
        viewer.bytes(1000).await;
    }
    // Its connection is idle now, and the answer to its next request is the last one there.
    viewer.say(get("web")).await;
    data.request().await;
    data.send(BINARY, OK).await;
    let answer = Answer::parse(&viewer.rest().await);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(control.close_code().await, Some(1012));
    assert_eq!(old.end().await.0, Some(0));
    assert!(new.takes(ALICE).await);
}

/// Scripts and supervisors stop the old process by habit; that cut what it was still serving.
#[tokio::test]
async fn a_relay_that_was_taken_over_finishes_in_spite_of_a_sigterm() {
    let home = tempfile::tempdir().unwrap();
    let mut old = Running::start(relay(home.path(), &[])).await;
    let (address, mut control) = (old.addresses[0], old.control("web").await);
    let mut viewer = viewer(address).await;
    viewer.say(get("web")).await;
    let mut data = Raw::data(address, &notified(&mut control).await).await;
    data.request().await;
    data.send(BINARY, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nhalf").await;
    viewer.head().await;
    let _new = successor(home.path(), &old).await;
    old.signal("TERM");
    old.until("stopping already: requests under way may finish; another signal stops at once").await;
    data.send(BINARY, "half").await;
    assert_eq!(viewer.bytes(8).await, b"halfhalf");
    drop(viewer);
    assert_eq!(control.close_code().await, Some(1012));
    assert_eq!(old.end().await.0, Some(0));
}

#[tokio::test]
async fn an_upgraded_connection_goes_through_both() {
    let home = tempfile::tempdir().unwrap();
    let old = Running::start(relay(home.path(), &[])).await;
    let (address, mut control) = (old.addresses[0], old.control("web").await);
    let upgrade = "GET /t/web/ HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let switched = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let mut before = viewer(address).await;
    before.say(upgrade).await;
    let mut of_before = Raw::data(address, &notified(&mut control).await).await;
    of_before.request().await;
    of_before.send(BINARY, switched).await;
    before.head().await;
    let _new = successor(home.path(), &old).await;
    let mut after = viewer(address).await;
    after.say(upgrade).await;
    let mut of_after = Raw::data(address, &notified(&mut control).await).await;
    of_after.request().await;
    of_after.send(BINARY, switched).await;
    after.head().await;
    for (viewer, data) in [(&mut before, &mut of_before), (&mut after, &mut of_after)] {
        viewer.say("ping").await;
        assert_eq!(data.next(BINARY).await.unwrap(), b"ping");
        data.send(BINARY, "pong").await;
        assert_eq!(viewer.bytes(4).await, b"pong");
    }
    // The end of either side reaches the other.
    drop(after);
    assert_eq!(of_after.next(BINARY).await, None);
    drop(of_before);
    assert_eq!(before.rest().await, b"");
    drop(before);
    assert_eq!(old.end().await.0, Some(0));
}

#[tokio::test]
async fn http2_viewers_are_told_to_go_and_their_streams_end_whole() {
    let home = tempfile::tempdir().unwrap();
    let old = Running::start(relay(home.path(), &[])).await;
    let (address, mut control) = (old.addresses[0], old.control("web").await);
    let io = TokioIo::new(soon(TcpStream::connect(address)).await.unwrap());
    let (mut sender, connection) = soon(handshake(TokioExecutor::new(), io)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://localhost/t/web/").body(Empty::<Bytes>::new()).unwrap();
    let answer = tokio::spawn(sender.send_request(request));
    let mut data = Raw::data(address, &notified(&mut control).await).await;
    data.request().await;
    data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
    let answer = soon(answer).await.unwrap().unwrap();
    let _new = successor(home.path(), &old).await;
    data.send(BINARY, "half").await;
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "halfhalf");
    // The relay ends the connection, which its viewer keeps.
    soon(connection).await.unwrap().unwrap();
    assert!(sender.is_closed());
    assert_eq!(old.end().await.0, Some(0));
}

#[tokio::test]
async fn a_viewer_that_stays_idle_is_closed_when_the_time_is_over() {
    let home = tempfile::tempdir().unwrap();
    let old = Running::start(relay(home.path(), &["--drain", "1s"])).await;
    let (address, _control) = (old.addresses[0], old.control("web").await);
    let mut idle = viewer(address).await;
    idle.say("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(idle.answer().await.header("connection"), None);
    let new = successor(home.path(), &old).await;
    assert_eq!(idle.rest().await, b"");
    let (code, said) = old.end().await;
    assert_eq!(code, Some(0));
    assert!(!said.contains("is cut"), "{said}");
    assert!(new.takes(ALICE).await);
}

#[tokio::test]
async fn a_tunnel_that_the_old_one_made_is_known_to_the_new_one_at_once() {
    let home = tempfile::tempdir().unwrap();
    let old = Running::start(relay(home.path(), &[])).await;
    let address = old.addresses[0];
    let mut kept = viewer(address).await;
    let body = json!({"local_port": 1, "name": "late"}).to_string();
    let whole = request(ALICE, "POST", "/v1/tunnels", "", &body);
    kept.say(whole.strip_suffix(&body).unwrap()).await;
    let new = successor(home.path(), &old).await;
    // The request ends at the old one, which has read its head.
    kept.say(body).await;
    let created = Answer::parse(&kept.rest().await);
    assert_eq!((created.status, created.header("connection")), (201, Some("close")));
    let tunnel: Value = serde_json::from_slice(&created.body).unwrap();
    let path = format!("/ws/control?tunnel_id={}", tunnel["id"].as_str().unwrap());
    let mut control = Raw::open(address, &path, Some(ALICE)).await.unwrap();
    control.frame().await.unwrap();
    assert_eq!(old.end().await.0, Some(0));
    assert_eq!(new.create(ALICE, "late").await.1["id"], tunnel["id"]);
}

#[tokio::test]
async fn a_second_successor_comes_while_the_first_relay_still_drains() {
    let home = tempfile::tempdir().unwrap();
    let first = Running::start(relay(home.path(), &[])).await;
    let (address, mut control) = (first.addresses[0], first.control("web").await);
    let mut waiting = viewer(address).await;
    waiting.say(get("web")).await;
    let id = notified(&mut control).await;
    let second = successor(home.path(), &first).await;
    let mut between = viewer(address).await;
    between.say(get("web")).await;
    let between_id = notified(&mut control).await;
    let third = successor(home.path(), &second).await;
    let mut last = viewer(address).await;
    last.say(get("web")).await;
    let last_id = notified(&mut control).await;
    for (id, viewer) in [(last_id, &mut last), (between_id, &mut between), (id, &mut waiting)] {
        let mut data = Raw::data(address, &id).await;
        data.request().await;
        data.send(BINARY, OK).await;
        let answer = viewer.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "ok".into()));
    }
    assert_eq!(control.close_code().await, Some(1012));
    assert_eq!((first.end().await.0, second.end().await.0), (Some(0), Some(0)));
    assert!(third.takes(ALICE).await);
}
