//! One data directory, the relay process that has it now, and its `adit http` clients.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::http;

/// The key of the one owner there is.
pub const KEY: &str = "nbk_soak_0123456789abcdef0123456789abcdef";
/// Between two looks at something that is to come.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);
/// For a relay to start, or a client to be back.
pub const BACK_WAIT: Duration = Duration::from_secs(30);

/// Numbers by name.
pub type Counts = BTreeMap<String, u64>;

/// The relay and where it is. Dropping it kills what runs.
pub struct House {
    /// Where viewers and clients come in.
    pub address: SocketAddr,
    admin: SocketAddr,
    directory: PathBuf,
    options: Vec<String>,
    relay: Child,
    clients: BTreeMap<String, Child>,
}

impl House {
    /// Starts a relay with `options`, in the new directory `name`.
    pub async fn start(temp: &Path, name: &str, options: &[&str]) -> Result<Self> {
        let directory = temp.join(name);
        std::fs::create_dir(&directory)?;
        let (address, admin) = (free_address()?, free_address()?);
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let relay = spawn_relay(&directory, address, admin, &options, &[])?;
        let house = Self { address, admin, directory, options, relay, clients: BTreeMap::new() };
        house.is_up().await?;
        Ok(house)
    }

    /// Until the relay answers.
    async fn is_up(&self) -> Result<()> {
        until(BACK_WAIT, async || counts(self.admin).await.is_ok()).await.context("the relay did not start")
    }

    /// Where `/counts` is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Ends the relay without a word.
    pub async fn kill_relay(&mut self) -> Result<()> {
        self.relay.kill().await.context("the relay was gone already")
    }

    /// Starts it again, with what is on disk.
    pub async fn restart_relay(&mut self) -> Result<()> {
        self.relay = spawn_relay(&self.directory, self.address, self.admin, &self.options, &[])?;
        self.is_up().await
    }

    /// Replaces the relay by another process, and waits for the end of the old one.
    pub async fn take_over(&mut self, wait: Duration) -> Result<()> {
        let new = spawn_relay(&self.directory, self.address, self.admin, &self.options, &["--take-over"])?;
        let mut old = std::mem::replace(&mut self.relay, new);
        let ended = timeout(wait, old.wait()).await.context("the old relay did not end")??;
        ensure!(ended.code() == Some(0), "the old relay ended with {ended}");
        ensure!(self.relay.try_wait()?.is_none(), "the new relay ended");
        Ok(())
    }

    /// Stops the relay in order.
    pub async fn stop(mut self, wait: Duration) -> Result<ExitStatus> {
        signal(&self.relay, "TERM")?;
        timeout(wait, self.relay.wait()).await.context("the relay did not stop")?.context("the relay")
    }

    /// Starts `adit http` for the tunnel `name`.
    pub fn start_client(&mut self, name: &str, target: SocketAddr) -> Result<()> {
        let mut command = adit(&self.directory, &format!("client-{name}"))?;
        command.args(["http", &target.to_string(), "--relay", &format!("http://{}", self.address)]);
        command.args(["--key", KEY, "--name", name]).env("TOKIO_WORKER_THREADS", "1");
        self.clients.insert(name.to_owned(), command.spawn()?);
        Ok(())
    }

    /// Sends a signal to the client of `name`.
    pub fn signal_client(&self, name: &str, what: &str) -> Result<()> {
        signal(self.clients.get(name).context("no such client")?, what)
    }

    /// Ends the client of `name` without a word.
    pub async fn kill_client(&mut self, name: &str) -> Result<()> {
        self.clients.remove(name).context("no such client")?.kill().await?;
        Ok(())
    }

    /// Stops all clients in order.
    pub async fn stop_clients(&mut self) -> Result<()> {
        for (name, mut client) in std::mem::take(&mut self.clients) {
            signal(&client, "TERM")?;
            let ended = timeout(BACK_WAIT, client.wait()).await;
            ended.with_context(|| format!("the client of {name} did not stop"))??;
        }
        Ok(())
    }

    /// `adit key …` beside the relay: what it prints.
    pub async fn key(&self, arguments: &[&str]) -> Result<String> {
        let mut command = adit(&self.directory, "key")?;
        command.arg("key").args(arguments).arg("--data-dir").arg(self.directory.join("data"));
        let output = command.stdout(Stdio::piped()).output().await?;
        ensure!(output.status.success(), "adit key {arguments:?} ended with {}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Deletes every tunnel of the owner.
    pub async fn delete_tunnels(&self) -> Result<()> {
        let (status, list) = api(self.address, KEY, "GET", "/v1/tunnels", "").await?;
        ensure!(status == 200, "status {status} for the list of tunnels");
        let list: Vec<Value> = serde_json::from_str(&list)?;
        for tunnel in list {
            delete(self.address, tunnel["id"].as_str().unwrap_or_default()).await?;
        }
        Ok(())
    }
}

/// What the admin listener says.
pub async fn counts(admin: SocketAddr) -> Result<Counts> {
    let request = "GET /counts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (status, body) = timeout(Duration::from_secs(5), http::ask(admin, request)).await??;
    ensure!(status == 200, "status {status}");
    Ok(serde_json::from_str(&body)?)
}

/// A call of the REST API.
pub async fn api(
    relay: SocketAddr,
    key: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String)> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    timeout(BACK_WAIT, http::ask(relay, &request)).await.context("no answer of the API")?
}

/// Creates a tunnel: its id.
pub async fn create(relay: SocketAddr, key: &str, name: &str, ttl: &str) -> Result<String> {
    let body = serde_json::json!({"local_port": 1, "name": name, "ttl": ttl}).to_string();
    let (status, tunnel) = api(relay, key, "POST", "/v1/tunnels", &body).await?;
    ensure!(status == 200 || status == 201, "status {status}: {tunnel}");
    let tunnel: Value = serde_json::from_str(&tunnel)?;
    Ok(tunnel["id"].as_str().context("the tunnel has no id")?.to_owned())
}

/// Deletes a tunnel.
pub async fn delete(relay: SocketAddr, id: &str) -> Result<()> {
    let (status, body) = api(relay, KEY, "DELETE", &format!("/v1/tunnels/{id}"), "").await?;
    ensure!(status < 300, "status {status} for a deletion: {body}");
    Ok(())
}

/// Waits until `is` so.
pub async fn until(wait: Duration, is: impl AsyncFn() -> bool) -> Result<()> {
    let deadline = Instant::now() + wait;
    while !is().await {
        if Instant::now() > deadline {
            bail!("it did not come about in {wait:?}");
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn spawn_relay(
    directory: &Path,
    address: SocketAddr,
    admin: SocketAddr,
    options: &[String],
    more: &[&str],
) -> Result<Child> {
    let mut command = adit(directory, "relay")?;
    command.args(["relay", "--base-domain=soak.test", "--listen", &address.to_string()]);
    command.args(["--admin-listen", &admin.to_string(), "--data-dir"]).arg(directory.join("data"));
    command.args(options).args(more).env("ADIT_KEYS", format!("soak:{KEY}"));
    Ok(command.spawn()?)
}

/// The program, without anything of the user's own settings, with what it says in the file `log`.
fn adit(directory: &Path, log: &str) -> Result<Command> {
    let log = File::options().append(true).create(true).open(directory.join(log).with_extension("log"))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.env_clear().env("HOME", directory).env("RUST_LOG", "warn");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    Ok(command)
}

fn signal(child: &Child, what: &str) -> Result<()> {
    let id = child.id().context("the process has ended")?.to_string();
    ensure!(
        std::process::Command::new("kill").args(["-s", what, &id]).status()?.success(),
        "kill -{what} failed"
    );
    Ok(())
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
