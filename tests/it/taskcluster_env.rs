//! A relay in the place of Taskcluster's websocktunnel, as its environment alone starts it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use adit::auth::Secret;
use adit::auth::jwt::{Secrets, WorkerTokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::{ChildStderr, Command};

use crate::certs::Authority;
use crate::ports::free_address;
use crate::program::{Running, adit, http, run};
use crate::rig::{Answer, soon};

const SECRET: &str = "a-secret-of-taskcluster-that-is-long";
const URL: &str = "https://tunnel.example.com";

/// A relay with the variables that every one of them needs, and no port that another may have.
fn relay(home: &Path, arguments: &[&str]) -> Command {
    let mut command = adit(home, &[&["relay"], arguments].concat());
    command.env("ADIT_ADMIN_LISTEN", "127.0.0.1:0");
    command.env("TASKCLUSTER_PROXY_SECRET_A", SECRET).env("URL_PREFIX", URL);
    command
}

const ANYWHERE: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// A token as Taskcluster makes them.
fn token(secret: &str, audience: Option<&str>, id: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let secrets = Secrets::new(vec![Secret::new(secret)]);
    let tokens = WorkerTokens { secrets, audience: audience.map(str::to_owned) };
    tokens.mint(id, Duration::from_secs(96 * 3600), now.as_millis() as i64).unwrap()
}

/// What a worker gets for its handshake; its connection stays.
async fn register(relay: SocketAddr, id: &str, token: &str) -> (Answer, TcpStream) {
    let mut stream = soon(TcpStream::connect(relay)).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         x-websocktunnel-id: {id}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    (Answer::parse(&head), stream)
}

async fn get(relay: SocketAddr, path: &str) -> Answer {
    http(relay, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await
}

/// The same address on this machine.
fn here(address: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}

/// Ends the relay in order: what it wrote to stdout and to stderr.
async fn stop(relay: Running, mut stderr: ChildStderr) -> (String, String) {
    relay.signal("TERM");
    let (code, said) = relay.end().await;
    assert_eq!(code, Some(0), "{said}");
    let mut errors = String::new();
    soon(stderr.read_to_string(&mut errors)).await.unwrap();
    (said, errors)
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[tokio::test]
async fn the_environment_alone_starts_a_relay_that_needs_no_disk() {
    let port = free_address().await.port();
    // Nobody can write there, root neither.
    let mut command = relay(Path::new("/proc"), &[]);
    command.env("PORT", port.to_string()).env("TASKCLUSTER_PROXY_SECRET_B", "short");
    let (relay, stderr) = Running::start_on_stdout(command).await;
    assert_eq!(relay.addresses.len(), 1);
    assert!(relay.addresses[0].port() == port && relay.addresses[0].ip().is_unspecified());
    let address = here(relay.addresses[0]);
    for (id, secret) in [("worker-1", SECRET), ("worker~2", "short")] {
        let (answer, _worker) = register(address, id, &token(secret, None, id)).await;
        assert_eq!(answer.status, 101, "{}", answer.head);
        assert_eq!(answer.header("x-websocktunnel-client-url"), Some(&*format!("{URL}/{id}")));
    }
    let (answer, _) = register(address, "worker-1", &token("another secret", None, "worker-1")).await;
    assert_eq!(answer.status, 401);
    assert_eq!(get(address, "/__heartbeat__").await.status, 200);
    assert_eq!(get(address, "/nobody/").await.status, 404);
    // Workers alone have anything here.
    for path in ["/v1/tunnels", "/v1/version", "/ws/control?tunnel_id=1"] {
        assert_eq!(get(address, path).await.status, 401, "{path}");
    }
    assert!(relay.said.contains("position=2") && !relay.said.contains("position=1"), "{}", relay.said);
    let (said, errors) = stop(relay, stderr).await;
    assert!(said.contains(" INFO ") && said.contains("no data directory"), "for people: {said}");
    assert!(errors.starts_with("dashboard: http://") && errors.lines().count() == 1, "{errors}");
}

#[tokio::test]
async fn in_production_the_log_is_json_on_stdout_and_goes_to_syslog() {
    let (home, socket) = (tempfile::tempdir().unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let mut command = relay(home.path(), &ANYWHERE);
    command.env("ENV", "production").env("AUDIENCE", "ours");
    command.env("SYSLOG_ADDR", socket.local_addr().unwrap().to_string());
    let (mut relay, stderr) = Running::start_on_stdout(command).await;
    let mut record = vec![0; 65536];
    loop {
        let count = soon(socket.recv(&mut record)).await.unwrap();
        if String::from_utf8_lossy(&record[..count]).contains("relay ready") {
            break;
        }
    }
    let address = relay.addresses[0];
    for (audience, status) in [(Some("ours"), 101), (Some("theirs"), 401), (None, 401)] {
        let (answer, _worker) = register(address, "a", &token(SECRET, audience, "a")).await;
        assert_eq!(answer.status, status, "{audience:?}");
    }
    // A successor would have to find this one by a file.
    relay.signal("USR2");
    relay.until_said("no successor is started", 1).await;
    let (said, errors) = stop(relay, stderr).await;
    for line in said.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(record["message"].is_string(), "{line}");
    }
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(is_empty(home.path()), "nothing is written");
}

#[tokio::test]
async fn a_certificate_of_the_environment_is_shown_at_port() {
    let (home, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (certificate, key) = authority.write(home.path(), "relay", &["localhost"]);
    let base64 = |path: &Path| {
        let output = std::process::Command::new("base64").arg("-w0").arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let port = free_address().await.port();
    let mut command = relay(Path::new("/proc"), &[]);
    command.env("TLS_CERTIFICATE", base64(&certificate)).env("TLS_KEY", base64(&key));
    command.env("PORT", port.to_string()).env_remove("URL_PREFIX").env("HOSTNAME", "localhost");
    let (relay, stderr) = Running::start_on_stdout(command).await;
    assert!(relay.said.contains(&format!("url=\"https://localhost:{port}\"")), "{}", relay.said);
    let ca = authority.file(home.path()).display().to_string();
    let url = format!("https://localhost:{port}/__version__");
    let arguments = ["-sS", "--noproxy", "*", "--cacert", &ca, "-w", " %{ssl_verify_result}", &url];
    let output = soon(Command::new("curl").args(arguments).output()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("\"version\":") && said.ends_with(" 0"), "{said} {output:?}");
    // Where only TLS is spoken, nobody is served without.
    let plain = get(here(relay.addresses[0]), "/__version__").await;
    assert!(matches!(plain.status, 308 | 400), "{}", plain.head);
    stop(relay, stderr).await;
}

#[tokio::test]
async fn a_proxy_that_says_nothing_of_tls_is_not_led_to_https() {
    let (home, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (certificate, key) = authority.write(home.path(), "relay", &["localhost"]);
    for (redirect, status) in [(None, 404), (Some("on"), 308)] {
        let mut command = relay(home.path(), &ANYWHERE);
        command.env("ADIT_TLS_CERT", &certificate).env("ADIT_TLS_KEY", &key);
        command.envs(redirect.map(|value| ("ADIT_HTTPS_REDIRECT", value)));
        let (relay, stderr) = Running::start_on_stdout(command).await;
        assert_eq!(get(relay.addresses[0], "/nobody/").await.status, status);
        stop(relay, stderr).await;
    }
}

#[tokio::test]
async fn what_cannot_be_used_keeps_the_relay_from_starting() {
    let home = tempfile::tempdir().unwrap();
    for (name, value, sentence) in [
        ("TLS_KEY", "AAAA", "environment TLS_KEY: TLS_CERTIFICATE is not set; set both"),
        ("PORT", "http", "environment PORT: \"http\": expected a port"),
        ("URL_PREFIX", "https://tunnel.example.com/ws", "without a path"),
        ("ADIT_JWT_SECRET", SECRET, "have a secret in common"),
    ] {
        let mut command = relay(home.path(), &ANYWHERE);
        command.env(name, value);
        let (code, stdout, stderr) = run(&mut command).await;
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", 1), "{name}: {stderr}");
        assert!(stderr.contains(sentence), "{stderr}");
    }
    assert!(is_empty(home.path()));
}

#[tokio::test]
async fn a_data_directory_is_used_where_it_is_given_and_without_one_nobody_is_replaced() {
    let home = tempfile::tempdir().unwrap();
    let mut command = relay(home.path(), &[&ANYWHERE[..], &["--take-over"]].concat());
    let (code, _, stderr) = run(&mut command).await;
    assert!(code == 2 && stderr.contains("--data-dir"), "{stderr}");
    let data = home.path().join("data");
    let mut command = relay(home.path(), &ANYWHERE);
    command.env("ADIT_DATA_DIR", &data);
    let (relay, stderr) = Running::start_on_stdout(command).await;
    assert!(data.join("relay.sock").exists());
    stop(relay, stderr).await;
    assert!(!is_empty(&data));
}

#[tokio::test]
async fn without_the_secret_the_environment_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let check = async |vars: &[(&str, &str)]| {
        let mut command = adit(home.path(), &["relay", "--check"]);
        run(command.envs(vars.iter().copied())).await
    };
    let usual = check(&[]).await;
    assert_eq!(usual.0, 0);
    let vars =
        [("HOSTNAME", "box"), ("PORT", "1"), ("ENV", "production"), ("AUDIENCE", "a"), ("TLS_KEY", "?")];
    assert_eq!(check(&vars).await, usual);
    let (code, shown, _) = check(&[&vars[..3], &[("TASKCLUSTER_PROXY_SECRET_A", SECRET)]].concat()).await;
    assert_eq!(code, 0);
    for line in ["listen = [\"[::]:1\"]  # environment PORT", "\"http://box:1\"  # environment HOSTNAME"] {
        assert!(shown.contains(line) || shown.contains(&line.replace("[::]", "0.0.0.0")), "{shown}");
    }
    assert!(!shown.contains(SECRET));
}
