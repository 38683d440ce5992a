//! Scripts of `tests/browser`, run against a dashboard.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::time::timeout;

use crate::tools::{installed, root};

/// Of the dashboard.
pub const PASSWORD: &str = "an operator's secret";
/// One script, start of the browser and all; it ends much sooner unless something hangs.
pub const SCRIPT: Duration = Duration::from_secs(600);

/// Runs `tests/browser/NAME` against the dashboard there; what it prints.
pub async fn browse(script: &str, admin: SocketAddr, more: &[(&str, &str)]) -> String {
    let modules = root("target/tools/node/node_modules");
    assert!(
        modules.join("axe-core").exists() && modules.join("playwright-core").exists(),
        "the modules of node are not installed; run `make setup`"
    );
    let mut node = installed("node");
    node.arg(root("tests/browser").join(script)).stdin(Stdio::null());
    node.env("ADIT_NODE_MODULES", &modules)
        .env("DASHBOARD", format!("http://{admin}"))
        .env("PASSWORD", PASSWORD);
    let output = timeout(SCRIPT, node.envs(more.iter().copied()).output());
    let output = output.await.expect("the browser hangs").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}: {}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
