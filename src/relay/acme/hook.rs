//! The operator's command for DNS entries (DNS-01): `HOOK present|cleanup _acme-challenge.NAME VALUE`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use crate::proto::limits::acme::HOOK_WAIT;

/// Why an entry was not set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// It cannot be run.
    #[error("acme-dns-hook: {path} cannot be run: {error}", path = path.display())]
    NotRun {
        /// Its path.
        path: PathBuf,
        /// The operating system's words.
        error: std::io::Error,
    },
    /// It did not end in time.
    #[error("acme-dns-hook: {path} did not end within {} seconds", HOOK_WAIT.as_secs(), path = path.display())]
    Late {
        /// Its path.
        path: PathBuf,
    },
    /// It says that it failed.
    #[error("acme-dns-hook: {path} failed ({status}): {said}", path = path.display())]
    Failed {
        /// Its path.
        path: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it wrote to stderr.
        said: String,
    },
}

/// Runs the hook until it ends: it waits itself until the entry can be seen by others.
pub async fn run(path: &Path, action: &str, entry: &str, value: &str) -> Result<(), HookError> {
    const SHOWN: usize = 500;
    let mut command = Command::new(path);
    // Keys of our own are none of its business.
    for name in
        std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("ADIT_"))
    {
        command.env_remove(name);
    }
    command.args([action, entry, value]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let running = command.kill_on_drop(true).output();
    let path = || path.to_owned();
    let output = timeout(HOOK_WAIT, running).await.map_err(|_| HookError::Late { path: path() })?;
    let output = output.map_err(|error| HookError::NotRun { path: path(), error })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().chars().rev().take(SHOWN).collect::<Vec<_>>().into_iter().rev().collect();
    Err(HookError::Failed { path: path(), status: output.status, said })
}
