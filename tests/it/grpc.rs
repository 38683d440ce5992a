//! gRPC through a tunnel whose target speaks HTTP/2, judged by programs of others.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use adit::client::{Proxies, Tunnel};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::counts::settle;
use crate::rig::{ALICE, Client, Rig, soon};
use crate::tools::tool;

const CHECKS: &str = "ok unary\nok server_stream\nok client_stream\nok both\nok metadata\nok status\nok deadline\n\
    ok cancel\nok many\n";

fn python(arguments: &[&str]) -> Command {
    let mut command = tool("grpcio-python");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grpc_peer.py")).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A gRPC server in Python.
pub struct Server {
    pub address: SocketAddr,
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Server {
    pub async fn start() -> Self {
        let mut process = python(&["serve"]).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let port: u16 = soon(said.next_line()).await.unwrap().expect("no server").parse().unwrap();
        Self { address: ([127, 0, 0, 1], port).into(), process, said }
    }

    async fn says(&mut self, line: &str) {
        assert_eq!(soon(self.said.next_line()).await.unwrap().as_deref(), Some(line));
    }
}

/// Runs these checks, or all; what they say.
pub async fn call(relay: SocketAddr, checks: &[&str]) -> String {
    let address = relay.to_string();
    let command = python(&[&["call", &address, "web.relay.test"], checks].concat()).output();
    let Output { status, stdout, stderr } =
        timeout(Duration::from_secs(60), command).await.expect("it did not end").unwrap();
    assert!(status.success(), "{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// A base client of the tunnel `web`, whose target speaks HTTP/2.
pub async fn client(rig: &Rig, target: SocketAddr) -> Client {
    let wanted = json!({"local_port": 1, "name": "web", "target_proto": "h2"}).to_string();
    let (status, tunnel) = rig.api(ALICE, "POST", "/v1/tunnels", &wanted).await;
    assert_eq!((status, &tunnel["target_proto"]), (201, &json!("h2")), "{tunnel}");
    let control = rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
    rig.serve(control, target).await
}

/// Our client of the same.
pub async fn tunnel(rig: &Rig, target: &str) -> Tunnel {
    let tunnel = Tunnel::to(format!("http://{}", rig.address)).key(ALICE).name("web").http2(true);
    soon(tunnel.proxies(Proxies::none()).expose(target)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_every_form_pass_a_client_that_only_copies_bytes() {
    let (rig, mut server) = (Rig::start().await, Server::start().await);
    let _client = client(&rig, server.address).await;
    assert_eq!(call(rig.address, &[]).await, CHECKS);
    // The deadline and the cancellation have reached it.
    server.says("cancelled").await;
    server.says("cancelled").await;
    settle(rig.admin, &json!({"exchanges": 0, "waiting": 0, "data_sockets_in_use": 1})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_every_form_pass_our_client() {
    let (rig, mut server) = (Rig::start().await, Server::start().await);
    let tunnel = tunnel(&rig, &server.address.to_string()).await;
    assert_eq!(call(rig.address, &[]).await, CHECKS);
    server.says("cancelled").await;
    server.says("cancelled").await;
    soon(tunnel.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_is_an_error_and_the_relays_own_words_are_a_status() {
    let (rig, mut server) = (Rig::start().await, Server::start().await);
    let _tunnel = tunnel(&rig, &server.address.to_string()).await;
    let mut calling =
        python(&["call", &rig.address.to_string(), "web.relay.test", "broken"]).spawn().unwrap();
    let mut said = BufReader::new(calling.stdout.take().unwrap()).lines();
    assert_eq!(soon(said.next_line()).await.unwrap().as_deref(), Some("under way"));
    soon(server.process.kill()).await.unwrap();
    assert_eq!(soon(said.next_line()).await.unwrap().as_deref(), Some("ok broken"));
    assert!(soon(calling.wait()).await.unwrap().success());
    // Nobody listens there any more.
    let said = call(rig.address, &["unavailable"]).await;
    assert!(said.contains("Connection refused") && said.contains("(rejected, request "), "{said}");
}
