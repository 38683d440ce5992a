//! Programs of others that the tests run; `make setup` installs them.

use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A file or directory of the project.
pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program of the system, ended when it is dropped.
pub fn installed(program: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    assert!(found, "{program} is not installed; run `make setup`");
    let mut command = Command::new(program);
    command.kill_on_drop(true);
    command
}

/// A program from `target/tools/bin`, ended when it is dropped.
pub fn tool(name: &str) -> Command {
    let path = root("target/tools/bin").join(name);
    assert!(path.exists(), "{name} is not installed; run `make setup`");
    let mut command = Command::new(path);
    command.kill_on_drop(true);
    command
}
