//! Real programs around the relay: nginx in front of it, Node behind it.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::task::JoinSet;

use crate::ports::free_address;
use crate::rig::{ALICE, BOB, Rig, read_request, soon, target, until};
use crate::tools::installed;

/// A program that ends with the test.
pub fn start(program: &str, arguments: &[&str]) -> Child {
    let mut command = installed(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits until something listens at `address`.
pub async fn listening(address: &str) {
    until(async || TcpStream::connect(address).await.is_ok()).await;
}

/// A keep-alive target that answers every request with its own name.
async fn named(name: &'static str) -> std::net::SocketAddr {
    target(move |_, mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// One GET on a kept connection: the body.
async fn ask(stream: &mut TcpStream, host: &str) -> String {
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length =
        head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooling_nginx_no_request_reaches_another_tenants_target() {
    let rig = Rig::with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let _first = rig.client(ALICE, "first", named("first").await).await;
    let _second = rig.client(BOB, "second", named("second").await).await;
    let directory = tempfile::tempdir().unwrap();
    let port = free_address().await.port();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", directory.path().display()))
        .concat();
    let config = format!(
        "daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log stderr; events {{ worker_connections 512; }}
         http {{ access_log off; {paths}
         upstream relay {{ server {relay}; keepalive 2; }}
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://relay; proxy_http_version 1.1;
         proxy_set_header Host $http_host; proxy_set_header Connection ''; }} }} }}",
        dir = directory.path().display(),
        relay = rig.address,
    );
    let file = directory.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let file = file.display().to_string();
    let _nginx = start("nginx", &["-e", "stderr", "-c", &file]);
    listening(&format!("127.0.0.1:{port}")).await;

    let mut viewers = JoinSet::new();
    for viewer in 0..8 {
        viewers.spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            for request in 0..100 {
                // The two connections to the relay carry both tenants' requests in turn.
                let name = if (viewer + request) % 2 == 0 { "first" } else { "second" };
                assert_eq!(ask(&mut stream, &format!("{name}.relay.test")).await, name);
            }
        });
    }
    soon(viewers.join_all()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_to_a_node_target_never_meet_its_closing_keep_alive() {
    let rig = Arc::new(Rig::start().await);
    // Node tells `Keep-Alive: timeout=2` and closes idle connections by it.
    let script =
        "const s = require('http').createServer((q, r) => { q.resume(); q.on('end', () => r.end('ok')) });
        s.keepAliveTimeout = 2000; s.listen(0, '127.0.0.1', () => console.log(s.address().port));";
    let mut node = start("node", &["-e", script]);
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let port: u16 = soon(lines.next_line()).await.unwrap().unwrap().parse().unwrap();
    let _client = rig.client(ALICE, "node", ([127, 0, 0, 1], port).into()).await;

    let request =
        "POST / HTTP/1.1\r\nHost: node.relay.test\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    assert_eq!(rig.get("node", "/").await.status, 200);
    assert_eq!(rig.get("node", "/").await.status, 200);
    let mut viewers = JoinSet::new();
    for viewer in 0..8u64 {
        let rig = Arc::clone(&rig);
        viewers.spawn(async move {
            for round in 0..40u64 {
                assert_eq!(rig.raw(request).await.status, 200, "{viewer} {round}");
                // Pauses of every length around the one second that the keep-alive leaves.
                let pause = Duration::from_millis((viewer * 131 + round * 37) % 260);
                tokio::time::timeout(pause, std::future::pending::<()>()).await.unwrap_err();
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(60), viewers.join_all()).await.unwrap();
}
