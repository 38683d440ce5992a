//! Programs of others that the tests run; `make setup` installs them.

use std::path::PathBuf;

use tokio::process::Command;

/// A program from `target/tools/bin`, ended when it is dropped.
pub fn tool(name: &str) -> Command {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "target", "tools", "bin", name].iter().collect();
    assert!(path.exists(), "{name} is not installed; run `make setup`");
    let mut command = Command::new(path);
    command.kill_on_drop(true);
    command
}
