//! One `adit relay` and the `adit http` clients behind it, as a user would start them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::http::wait_ready;
use crate::load::Load;
use crate::process::{Server, TempDir, free_address};
use crate::rounds::{System, Way};

/// The key of the one owner there is.
pub const KEY: &str = "nbk_bench_0123456789abcdef0123456789abcdef";
/// Tunnels are reached at `NAME.` and this.
const BASE_DOMAIN: &str = "bench.localhost";
/// How long a client may take to have its tunnel.
const CLIENT_WAIT: Duration = Duration::from_secs(15);

/// A running relay. What its directory holds belongs to it alone.
pub struct Relay {
    /// Where viewers and clients connect.
    pub address: SocketAddr,
    /// The process.
    pub server: Server,
    directory: PathBuf,
}

/// A tunnel, and the client that holds it open.
pub struct Tunnel {
    /// What viewers send as `Host`.
    pub host: String,
    /// The client's process.
    pub client: Server,
}

/// A relay with the tunnels that the loads need.
pub struct Adit {
    /// The relay.
    pub relay: Relay,
    /// To the backend.
    pub small: Tunnel,
    /// To the target that swallows uploads.
    pub upload: Tunnel,
}

impl System for Adit {
    fn name(&self) -> String {
        "**adit**".into()
    }

    fn way(&self, load: Load) -> Way<'_> {
        let tunnel = if load.is_upload() { &self.upload } else { &self.small };
        Way {
            address: self.relay.address,
            host: &tunnel.host,
            hops: vec![&self.relay.server, &tunnel.client],
        }
    }
}

impl Relay {
    /// Starts a relay on free ports, with its data in the directory `name`.
    pub async fn start(temp: &TempDir, name: &str) -> Result<Self> {
        Self::start_with(temp, name, &[]).await
    }

    /// The same with more options.
    pub async fn start_with(temp: &TempDir, name: &str, options: &[&str]) -> Result<Self> {
        let directory = temp.join(name);
        std::fs::create_dir(&directory)?;
        let (address, admin) = (free_address()?, free_address()?);
        let mut command = adit(&directory);
        command.arg("relay").args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()]);
        command.args(options).args(["--base-domain", BASE_DOMAIN, "--data-dir"]).arg(directory.join("data"));
        command.env("ADIT_KEYS", format!("bench:{KEY}")).stdout(Stdio::null());
        let mut server = Server::start("adit relay", &mut command, directory.join("relay.log"))?;
        wait_ready(&mut server, address, &address.to_string(), "/health").await?;
        Ok(Self { address, server, directory })
    }

    /// Starts `adit http target --name name` and waits until its tunnel is open.
    pub async fn expose(&self, name: &str, target: SocketAddr) -> Result<Tunnel> {
        self.expose_by(self.address, name, target).await
    }

    /// The same with a client that reaches the relay at `relay`.
    pub async fn expose_by(&self, relay: SocketAddr, name: &str, target: SocketAddr) -> Result<Tunnel> {
        let mut command = adit(&self.directory);
        command.args(["http", &target.to_string(), "--relay", &format!("http://{relay}")]);
        command.args(["--key", KEY, "--name", name]).stdout(Stdio::piped());
        let log = self.directory.join(format!("client-{name}.log"));
        let mut client = Server::start(&format!("adit http ({name})"), &mut command, log)?;
        let stdout = client.stdout().context("the client's output is not piped")?;
        let line = timeout(CLIENT_WAIT, BufReader::new(stdout).lines().next_line()).await;
        let Ok(Ok(Some(url))) = line else {
            client.check()?;
            bail!("{} printed no URL in {CLIENT_WAIT:?}:\n{}", client.name, client.log_tail());
        };
        let host = url.trim().trim_end_matches('/').strip_prefix("http://");
        let host =
            host.with_context(|| format!("{} printed {url:?} instead of its URL", client.name))?.to_owned();
        Ok(Tunnel { host, client })
    }

    /// KiB of anonymous memory that the relay has now.
    pub fn memory_kib(&self) -> Result<f64> {
        self.server.memory_kib()
    }
}

/// The release binary, without anything of the user's own settings.
fn adit(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    let settings =
        std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("ADIT_"));
    settings.for_each(|name| {
        command.env_remove(name);
    });
    command.env_remove("XDG_CONFIG_HOME").env_remove("RUST_LOG").env("HOME", home);
    // As many threads as nginx has workers.
    command.env("TOKIO_WORKER_THREADS", "2");
    command
}
