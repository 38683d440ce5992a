//! A relay with two keys, and the clients behind it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::http::wait_ready;
use crate::process::{Server, TempDir, free_address};

/// The key of the tenant that is measured.
pub const QUIET: &str = "nbk_quiet_0123456789abcdef0123456789abcdef";
/// The key of the one that does its worst.
pub const LOUD: &str = "nbk_loud_0123456789abcdef0123456789abcdef";
/// Its tunnel, as viewers name it.
pub const HOST_QUIET: &str = "quiet.fair.localhost";
/// The tunnel of the other one.
pub const HOST_LOUD: &str = "loud.fair.localhost";
/// How long a client may take to have its tunnel.
const CLIENT_WAIT: Duration = Duration::from_secs(30);

/// A running relay.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    directory: PathBuf,
    _server: Server,
}

impl Relay {
    /// Starts one with its data in the directory `name`.
    pub async fn start(temp: &TempDir, name: &str, options: &[&str]) -> Result<Self> {
        let directory = temp.join(name);
        std::fs::create_dir(&directory)?;
        let (address, admin) = (free_address()?, free_address()?);
        let mut command = adit(&directory);
        command.args(["relay", "--listen", &address.to_string(), "--admin-listen", &admin.to_string()]);
        command.args(["--base-domain", "fair.localhost", "--data-dir"]).arg(directory.join("data"));
        command.args(options).env("ADIT_KEYS", format!("quiet:{QUIET},loud:{LOUD}")).stdout(Stdio::null());
        let mut server = Server::start("adit relay", &mut command, directory.join("relay.log"))?;
        wait_ready(&mut server, address, &address.to_string(), "/health").await?;
        Ok(Self { address, directory, _server: server })
    }

    /// Starts a client for the tunnel `name` and waits until that is open.
    pub async fn expose(&self, key: &str, name: &str, target: SocketAddr) -> Result<Server> {
        let mut command = adit(&self.directory);
        command.args([
            "http",
            &target.to_string(),
            "--relay",
            &format!("http://{}", self.address),
            "--quiet",
        ]);
        command.args(["--key", key, "--name", name]).stdout(Stdio::piped());
        let log = self.directory.join(format!("client-{name}.log"));
        let mut client = Server::start(&format!("adit http ({name})"), &mut command, log)?;
        let stdout = client.stdout().context("the client's output is not piped")?;
        let line = timeout(CLIENT_WAIT, BufReader::new(stdout).lines().next_line()).await;
        if !matches!(line, Ok(Ok(Some(_)))) {
            client.check()?;
            bail!("{} printed no URL in {CLIENT_WAIT:?}:\n{}", client.name, client.log_tail());
        }
        Ok(client)
    }
}

/// The release binary, without anything of the user's own settings.
fn adit(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ADIT_")) {
        command.env_remove(name);
    }
    command.env_remove("XDG_CONFIG_HOME").env_remove("RUST_LOG").env("HOME", home);
    command
}
