//! What the programs write: nothing secret, nothing that steers a terminal, and not as much as strangers would like.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::frames::{CLOSE, Raw, TEXT, handshake};
use crate::program::{Running, real, relay};
use crate::rig::{ALICE, Answer, read_all, read_head, read_request, request, soon, target};

/// Everything that steers a terminal, breaks a line, or writes backwards.
const STEERING: &str =
    "\u{1b}[2J\u{1b}]0;t\u{7}\r\n\u{9b}31m\u{85}\u{7f}\u{202e}\u{2066}\u{2028}\u{200b}\u{0}";
/// In every place that may hold a secret.
const CANARY: &str = "s3cr3t";
const BASIC: &str = "YW5uOnMzY3IzdC1wYXNzd29yZA==";

/// `STEERING` as it stands in JSON.
fn steering() -> String {
    let json = json!(STEERING).to_string();
    json[1..json.len() - 1].to_owned()
}

/// Fails at the first line that steers, holds a secret, or is very long.
fn assert_harmless(what: &str, said: &str, secrets: &[String]) {
    let fixed = [ALICE, "nbk_", CANARY, BASIC].map(str::to_owned);
    for line in said.split('\n') {
        let steers = |c: char| c.is_control() || (!c.is_ascii() && STEERING.contains(c));
        assert!(!line.contains(steers) && line.len() < 16 * 1024, "{what}: {line:?}");
        for secret in fixed.iter().chain(secrets) {
            assert!(!line.contains(secret.as_str()), "{what}: {secret:?} is in {line:?}");
        }
    }
}

async fn send(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    // A request that is nonsense may be refused while it is being sent.
    let mut stream = soon(TcpStream::connect(address)).await.unwrap();
    let _ = stream.write_all(request.as_ref()).await;
    Answer::parse(&soon(read_all(&mut stream)).await)
}

/// The real client, which tells all it can, into files: a pipe that nobody reads would stop it.
fn client(home: &Path, relay: SocketAddr, target: SocketAddr, more: &[&str]) -> Child {
    let mut command = real(home, relay, "real", target, more);
    command.env("ADIT_LOG_FILTER", "trace");
    let file = |name: &str| std::fs::File::create(home.join(name)).unwrap();
    command.stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap()
}

/// Ends it with SIGTERM: stdout and stderr.
async fn said_by(mut child: Child, home: &Path) -> [String; 2] {
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    soon(child.wait()).await.unwrap();
    ["stdout", "stderr"].map(|name| std::fs::read_to_string(home.join(name)).unwrap())
}

/// A viewer who writes what it can wherever it can, to the tunnel `name`.
async fn viewer(address: SocketAddr, name: &str) {
    let head = format!(
        "Host: localhost\r\nConnection: close\r\nAuthorization: Basic {BASIC}\r\nCookie: {CANARY}\r\nX-{CANARY}: {CANARY}\r\n"
    );
    for path in
        ["a", "a\u{9b}31m\u{85}\u{202e}\u{2028}b", "%1b%5b2J%0a", &format!("{}\u{9b}", "x".repeat(9000))]
    {
        send(address, format!("GET /t/{name}/{path}?{CANARY} HTTP/1.1\r\n{head}\r\n")).await;
        send(
            address,
            format!("GET http://localhost/t/{name}/{path}?{CANARY}#{CANARY} HTTP/1.1\r\n{head}\r\n"),
        )
        .await;
        send(
            address,
            format!("POST /t/{name}/{path}?{CANARY} HTTP/1.1\r\n{head}Content-Length: 6\r\n\r\n{CANARY}"),
        )
        .await;
    }
    for request in [
        format!("GET /t/{name}/{STEERING}{CANARY} HTTP/1.1\r\n{head}\r\n"),
        format!("{CANARY}{STEERING} / HTTP/1.1\r\n{head}\r\n"),
        format!("GET /t/{name}/?{CANARY} HTTP/1.1\r\nX: {STEERING}\r\n{head}\r\n"),
        format!("GET /t/{name}/?{CANARY} HTTP/1.1\r\nHost: {CANARY}\u{9b}\r\n\r\n"),
        format!("GET /t/{name}/?{CANARY} HTTP/1.1\r\nHost: {CANARY}\r\n{head}\r\n"),
        format!("GET /t/none/?{CANARY} HTTP/1.1\r\n{head}X-Request-Id: \u{9b}\r\n\r\n"),
        format!("POST /t/{name}/?{CANARY} HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n{CANARY}\r\n"),
        format!("GET /t/{name}/?{CANARY} HTTP/1.1\r\n{head}X: {}\r\n\r\n", CANARY.repeat(20_000)),
    ] {
        send(address, request).await;
    }
}

/// HTTP/2 by the same viewer.
async fn viewer_of_http2(address: SocketAddr, name: &str) {
    let io = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.unwrap());
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = soon(hyper::client::conn::http2::handshake(executor, io)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://localhost/t/{name}/?{CANARY}"))
        .header("authorization", format!("Bearer {CANARY}"))
        .header("cookie", CANARY)
        .body(crate::http2::empty());
    let _ = soon(sender.send_request(request.unwrap())).await;
}

/// Whoever calls the API, with a key or with a wrong one.
async fn caller(address: SocketAddr, key: &str) {
    let head = format!(
        "Host: localhost\r\nConnection: close\r\nCookie: {CANARY}\r\nAuthorization: Bearer {key}\r\n"
    );
    let hostile = steering() + CANARY;
    for body in [
        json!({"local_port": 1, "name": format!("{STEERING}{CANARY}")}).to_string(),
        json!({"local_port": 1, "name": "shown", "ttl": format!("{STEERING}{CANARY}")}).to_string(),
        json!({"local_port": 1, "name": "shown", "device_name": STEERING, "source": STEERING}).to_string(),
        json!({"local_port": 1, "name": "shown", "host_header": STEERING}).to_string(),
        json!({"local_port": 1, "name": "shown", "auth_user": "ann", "auth_pass": CANARY}).to_string(),
        format!("{{\"{hostile}\":\"{hostile}"),
        format!("{STEERING}{CANARY}"),
    ] {
        let length = body.len();
        let request =
            format!("POST /v1/tunnels?{CANARY} HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{body}");
        send(address, request).await;
    }
    for path in [
        "/v1/tunnels/s3cr3t\u{9b}\u{202e}",
        "/v1/\u{9b}s3cr3t",
        "/ws/data?id=s3cr3t",
        "/ws/control?tunnel_id=s3cr3t",
    ] {
        send(address, format!("GET {path} HTTP/1.1\r\n{head}\r\n")).await;
        send(address, handshake(path, Some(key)).replace("Upgrade: w", "Connection: close\r\nUpgrade: w"))
            .await;
    }
}

/// A client of level two that says what no client says.
async fn talker(address: SocketAddr, id: &str) {
    let ask = handshake(&format!("/ws/control?tunnel_id={id}"), Some(ALICE));
    let ask = ask.replace("Upgrade: w", "Sec-WebSocket-Protocol: adit.1\r\nUpgrade: w");
    let mut stream = soon(TcpStream::connect(address)).await.unwrap();
    stream.write_all(ask.as_bytes()).await.unwrap();
    assert_eq!(Answer::parse(&soon(read_head(&mut stream)).await.unwrap()).status, 101);
    let mut control = Raw(stream);
    let waiting = tokio::spawn(send(
        address,
        format!("GET /t/talker/?{CANARY} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    ));
    let mut connection = Value::Null;
    while connection["type"] != "connection" {
        connection = serde_json::from_slice(&control.next(TEXT).await.unwrap()).unwrap();
    }
    let hostile = format!("{STEERING}{CANARY}");
    for message in [
        json!({"type": "reject", "id": hostile, "reason": hostile}),
        json!({"type": "reject", "id": connection["id"], "reason": STEERING, "message": hostile.repeat(100)}),
        json!({"type": "auth", "token": hostile}),
        json!({"type": "auth", "token": format!("{CANARY}.{CANARY}.{CANARY}")}),
        json!({"type": "auth", hostile.clone(): hostile}),
        json!({"type": hostile}),
        json!(hostile),
    ] {
        control.send(TEXT, message.to_string()).await;
    }
    control.send(TEXT, &hostile).await;
    soon(waiting).await.unwrap();
    control.send(CLOSE, [&[0x03, 0xe8], STEERING.as_bytes(), CANARY.as_bytes()].concat()).await;
    soon(read_all(&mut control.0)).await;
}

/// A target whose answers are as bad as its viewers' requests.
async fn bad_target() -> SocketAddr {
    target(|number, mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            let answer = match number % 4 {
                0 => format!("HTTP/1.1 200 {STEERING}{CANARY}\r\n\r\n"),
                1 => format!("{STEERING}{CANARY}\r\n\r\n"),
                2 => format!(
                    "HTTP/1.1 200 \u{9b}\r\nSet-Cookie: {CANARY}\r\nContent-Length: 6\r\n\r\n{CANARY}"
                ),
                _ => format!(
                    "HTTP/1.1 200 OK\r\nLocation: /?{CANARY}\u{9b}\r\nContent-Length: 9\r\n\r\n{CANARY}"
                ),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
            if number % 4 != 2 {
                return;
            }
        }
    })
    .await
}

async fn whatever_strangers_send(form: &str, level: &str, more: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    let mut command = relay(home.path(), &[]);
    command.env("ADIT_LOG_FILTER", level).env("ADIT_LOG_EXCHANGES", "on");
    let relay = Running::start_as(form, command).await;
    let address = relay.addresses[0];
    let real = client(home.path(), address, bad_target().await, more);
    soon(async {
        // With a client, an answer is the target's or the relay's word on it.
        while send(address, "GET /t/real/up HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .status
            > 502
            || relay.create(ALICE, "real").await.1["connected"] != json!(true)
        {}
    })
    .await;
    viewer(address, "real").await;
    viewer_of_http2(address, "real").await;
    caller(address, ALICE).await;
    caller(address, &format!("nbk_{CANARY}")).await;
    caller(address, &format!("{CANARY}.{CANARY}.{CANARY}")).await;
    let (_, tunnel) = relay.create(ALICE, "talker").await;
    talker(address, tunnel["id"].as_str().unwrap()).await;

    let [out, err] = said_by(real, home.path()).await;
    relay.signal("TERM");
    let (_, log) = relay.end().await;
    for known in ["tunnel created", "client connected", "exchange", "bad_response", "rejected", "bad_host"] {
        assert!(log.contains(known), "{known:?} is not in the log:\n{log}");
    }
    if form == "json" {
        log.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).expect(line)));
    }
    assert!((out.clone() + &err).contains("/a"), "{out}{err}");
    assert_harmless("the relay's log", &log, &[]);
    assert_harmless("the client's stdout", &out, &[]);
    assert_harmless("the client's stderr", &err, &[]);
}

#[tokio::test]
async fn nothing_of_strangers_steers_or_is_secret_in_text() {
    whatever_strangers_send("text", "trace", &[]).await;
}

#[tokio::test]
async fn nothing_of_strangers_steers_or_is_secret_in_json() {
    whatever_strangers_send("json", "adit=trace,h2=trace,hyper=trace,debug", &["--json"]).await;
}

// ---- a hostile relay ----

/// A relay that answers a client with as much harm as fits, and ends the session by `last`.
async fn hostile_relay(last: &'static str) -> SocketAddr {
    target(move |_, mut stream| async move {
        let Some(request) = read_request(&mut stream).await else { return };
        let request = String::from_utf8(request).unwrap();
        let hostile = format!("{STEERING}{}", "é".repeat(20_000));
        if request.starts_with("POST") {
            let body = match last {
                "refused" => json!({"error": hostile, "code": STEERING}),
                _ => json!({"id": format!("i{STEERING}"), "slug": "real", "public_url": format!("http://a/{STEERING}")}),
            };
            let (status, body) = (if last == "refused" { 409 } else { 201 }, body.to_string());
            let answer = format!("HTTP/1.1 {status} \u{9b}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            return drop(stream.write_all(answer.as_bytes()).await);
        }
        let Some((_, key)) = request.split_once("sec-websocket-key: ") else { return };
        if last == "no socket" {
            let answer = format!("HTTP/1.1 403 \u{9b}\r\nContent-Length: {}\r\n\r\n{hostile}", hostile.len());
            return drop(stream.write_all(answer.as_bytes()).await);
        }
        let accept = derive_accept_key(key.split("\r\n").next().unwrap().as_bytes());
        let answer = format!(
            "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: adit.1\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let welcome = json!({
            "type": "welcome", "session": STEERING, "relay": hostile, "ping_interval_ms": 1, "pong_timeout_ms": 1,
            "claim_ms": 1, "limits": {"control_message_bytes": 1, "data_message_bytes": 1, "waiting": 1, "standby": 1},
        });
        let mut messages = vec![welcome];
        messages.extend((0..100).map(|_| json!({"type": "error", "message": hostile})));
        messages.push(json!({"type": "expiring", "what": hostile, "at": STEERING, "in_ms": 1}));
        messages.push(json!({"type": "auth", "accepted": false, "error": hostile}));
        messages.push(json!({"type": "connection", "id": STEERING, "remote_addr": STEERING}));
        messages.push(json!({"type": STEERING}));
        messages.push(json!({"type": "closed", "reason": "deleted", "message": hostile}));
        for message in messages {
            if stream.write_all(&text(&message.to_string())).await.is_err() {
                return;
            }
        }
        // The code for an end for good.
        let _ = stream.write_all(&[&[CLOSE, 12, 0x03, 0xe8], &STEERING.as_bytes()[..10]].concat()).await;
        read_all(&mut stream).await;
    })
    .await
}

/// A message of a server.
fn text(message: &str) -> Vec<u8> {
    let mut bytes = vec![TEXT, 127];
    bytes.extend_from_slice(&(message.len() as u64).to_be_bytes());
    bytes.extend_from_slice(message.as_bytes());
    bytes
}

#[tokio::test]
async fn a_hostile_relay_steers_no_terminal_and_floods_no_log() {
    for (last, form) in [("closed", ""), ("closed", "--json"), ("refused", ""), ("no socket", "")] {
        let home = tempfile::tempdir().unwrap();
        let relay = hostile_relay(last).await;
        let more =
            if form.is_empty() { &["--exit-on-disconnect"][..] } else { &["--exit-on-disconnect", form] };
        let mut command = real(home.path(), relay, "real", 1, more);
        command.env("ADIT_LOG_FILTER", "trace");
        let (_, out, err) = crate::program::run(&mut command).await;
        assert!(!(out.clone() + &err).is_empty());
        let parsed =
            out.lines().filter(|_| !form.is_empty()).all(|line| serde_json::from_str::<Value>(line).is_ok());
        assert!(parsed, "{last}: {out}");
        for (what, said) in [("stdout", &out), ("stderr", &err)] {
            let long = if form.is_empty() { said.clone() } else { said.replace("é", "") };
            assert_harmless(&format!("{last} {form} {what}"), &long, &[]);
        }
        let told = err.matches("could not read a message of ours").count();
        assert!(told <= 2, "{told} of 100 at once:\n{err}");
    }
}

// ---- floods ----

#[tokio::test]
async fn a_flood_fills_no_log_and_what_was_left_out_is_told() {
    const MANY: usize = 300;
    let home = tempfile::tempdir().unwrap();
    let relay = Running::start(relay(home.path(), &[])).await;
    let address = relay.addresses[0];
    // Without a key: refused in every way.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let refused = "GET /v1/tunnels HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer guessed\r\n\r\n\
                   GET /ws/data?id=guessed HTTP/1.1\r\nHost: localhost\r\n\r\n\
                   GET /t/guessed/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..MANY {
        stream.write_all(refused.as_bytes()).await.unwrap();
        for _ in 0..3 {
            assert!(soon(read_request(&mut stream)).await.is_some());
        }
    }
    for nonsense in
        ["\u{0}\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nx\r\n\r\n"]
    {
        for _ in 0..20 {
            send(address, nonsense).await;
        }
    }
    // With a key: the same tunnel again and again.
    let body = json!({"local_port": 1, "name": "web"}).to_string();
    let create = request(ALICE, "POST", "/v1/tunnels", "", &body);
    let mut stream = TcpStream::connect(address).await.unwrap();
    for _ in 0..MANY {
        stream.write_all(create.as_bytes()).await.unwrap();
        assert!(soon(read_request(&mut stream)).await.is_some());
    }
    relay.signal("TERM");
    let (_, log) = relay.end().await;
    let created = log.matches("\"message\":\"tunnel created\"").count();
    let left_out: u64 = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|record| record["message"] == "more records of this kind were left out")
        .map(|record| {
            assert!(record["place"].as_str().unwrap().starts_with("adit::relay::api::tunnels:"), "{record}");
            record["count"].as_u64().unwrap()
        })
        .sum();
    // A slow machine may need a second window.
    assert!((100..MANY).contains(&created), "{created}\n{log}");
    assert_eq!(created + left_out as usize, MANY);
    assert!(log.lines().count() < created + 12, "strangers without a key have no records:\n{log}");
}
