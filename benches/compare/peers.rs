//! Other relays in front of the same backend, as far as they are installed (`deploy/peers.sh`). They pass TCP connections
//! on without looking at what is in them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::http::wait_ready;
use crate::load::Load;
use crate::process::{Server, TempDir, find_program, free_address};
use crate::rounds::{System, Way};

/// Where `deploy/peers.sh` puts them.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin");
/// Where bore's server listens for its clients: it takes no other.
const BORE_PORT: u16 = 7835;

/// A relay and its clients.
pub struct Peer {
    name: &'static str,
    /// Leads to the backend.
    small: SocketAddr,
    /// Leads to the target that swallows uploads.
    upload: SocketAddr,
    relay: Server,
    /// One for both ways, or one for each.
    clients: Vec<Server>,
}

impl System for Peer {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn way(&self, load: Load) -> Way<'_> {
        let (address, client) = match load.is_upload() {
            false => (self.small, self.clients.first()),
            true => (self.upload, self.clients.last()),
        };
        Way { address, host: "localhost", hops: std::iter::once(&self.relay).chain(client).collect() }
    }
}

/// Starts those that are installed, and tells of the others.
pub async fn start(temp: &TempDir, backend: SocketAddr, sink: SocketAddr) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    if let Some(program) = program("rathole") {
        peers.push(rathole(&program, temp, backend, sink).await.context("rathole")?);
    }
    if let Some(program) = program("bore") {
        peers.push(bore(&program, temp, backend, sink).await.context("bore")?);
    }
    Ok(peers)
}

fn program(name: &str) -> Option<PathBuf> {
    let ours = PathBuf::from(INSTALLED).join(name);
    let found = if ours.exists() { Some(ours) } else { find_program(name) };
    if found.is_none() {
        eprintln!("{name} is not installed: run deploy/peers.sh");
    }
    found
}

/// `program` with as many threads as nginx has workers.
fn command(program: &PathBuf) -> Command {
    let mut command = Command::new(program);
    command.env("TOKIO_WORKER_THREADS", "2").env("RUST_LOG", "error").stdout(Stdio::null());
    command
}

async fn rathole(program: &PathBuf, temp: &TempDir, backend: SocketAddr, sink: SocketAddr) -> Result<Peer> {
    let (control, small, upload) = (free_address()?, free_address()?, free_address()?);
    let (server, client) = (temp.join("rathole-server.toml"), temp.join("rathole-client.toml"));
    let of_server = |name: &str, address| format!("[server.services.{name}]\nbind_addr = \"{address}\"\n");
    let of_client = |name: &str, address| format!("[client.services.{name}]\nlocal_addr = \"{address}\"\n");
    let text = format!("[server]\nbind_addr = \"{control}\"\ndefault_token = \"bench\"\n");
    fs::write(&server, text + &of_server("small", small) + &of_server("upload", upload))?;
    let text = format!("[client]\nremote_addr = \"{control}\"\ndefault_token = \"bench\"\n");
    fs::write(&client, text + &of_client("small", backend) + &of_client("upload", sink))?;
    let start = |name, option, config| {
        Server::start(name, command(program).arg(option).arg(config), temp.join(&format!("{name}.log")))
    };
    let relay = start("rathole-server", "--server", &server)?;
    let mut client = start("rathole-client", "--client", &client)?;
    wait_ready(&mut client, small, "localhost", "/").await?;
    Ok(Peer { name: "rathole", small, upload, relay, clients: vec![client] })
}

async fn bore(program: &PathBuf, temp: &TempDir, backend: SocketAddr, sink: SocketAddr) -> Result<Peer> {
    let loopback = Ipv4Addr::LOCALHOST.to_string();
    let port = SocketAddr::from((Ipv4Addr::LOCALHOST, BORE_PORT));
    ensure!(std::net::TcpListener::bind(port).is_ok(), "port {BORE_PORT} is in use, and bore takes no other");
    let mut server = command(program);
    server.args(["server", "--bind-addr", &loopback]);
    let mut relay = Server::start("bore server", &mut server, temp.join("bore-server.log"))?;
    let mut clients = Vec::new();
    let (small, upload) = (free_address()?, free_address()?);
    for (target, at) in [(backend, small), (sink, upload)] {
        // It tries to connect once.
        while std::net::TcpStream::connect(port).is_err() {
            relay.check()?;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let mut client = command(program);
        client.args(["local", &target.port().to_string(), "--local-host", &loopback, "--to", &loopback]);
        client.args(["--port", &at.port().to_string()]);
        let log = temp.join(&format!("bore-client-{}.log", at.port()));
        clients.push(Server::start("bore local", &mut client, log)?);
    }
    wait_ready(&mut clients[0], small, "localhost", "/").await?;
    Ok(Peer { name: "bore", small, upload, relay, clients })
}
