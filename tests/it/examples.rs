//! The programs in `examples/`, each run as its reader would run it: started, visited, and stopped by Ctrl-C.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::program::http;
use crate::rig::{ALICE, Answer, Rig, echo_target, soon};

/// Where cargo puts examples, beside this very test. They are built if need be: `cargo test --test it` alone does not.
fn directory() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let mut profile = std::env::current_exe().unwrap();
    profile.pop();
    profile.pop();
    BUILT.get_or_init(|| {
        let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--offline", "--examples"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
    });
    profile.join("examples")
}

/// An example that has printed its URL.
struct Running {
    child: Child,
    url: String,
}

impl Running {
    async fn start(rig: Option<&Rig>, name: &str, argument: Option<String>) -> Self {
        let path = tokio::task::spawn_blocking(directory).await.unwrap().join(name);
        let mut command = Command::new(path);
        command.args(argument).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if let Some(rig) = rig {
            command.env("ADIT_RELAY", format!("http://{}", rig.address)).env("ADIT_KEY", ALICE);
        }
        let mut child = command.spawn().unwrap();
        let mut url = String::new();
        soon(BufReader::new(child.stdout.take().unwrap()).read_line(&mut url)).await.unwrap();
        Self { child, url: url.trim_end().to_owned() }
    }

    /// A GET of `path` below the URL.
    async fn get(&self, path: &str) -> Answer {
        let authority = self.url.strip_prefix("http://").unwrap();
        let port: u16 = authority.rsplit_once(':').unwrap().1.parse().unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        http(([127, 0, 0, 1], port).into(), request).await
    }

    /// Stops it: what it said on stderr.
    async fn stop(mut self) -> String {
        let id = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-s", "INT", &id]).status().unwrap().success());
        let mut said = String::new();
        soon(self.child.stderr.take().unwrap().read_to_string(&mut said)).await.unwrap();
        assert_eq!(soon(self.child.wait()).await.unwrap().code(), Some(0), "{said}");
        said
    }
}

#[tokio::test]
async fn expose_port_exposes_a_port() {
    let rig = Rig::start().await;
    let port = echo_target().await.port().to_string();
    let example = Running::start(Some(&rig), "expose_port", Some(port)).await;
    assert!(example.get("/some/path").await.text().starts_with("GET /some/path "));
    let visited = example.url.clone();
    example.stop().await;
    assert_eq!(rig.api(ALICE, "GET", "/v1/tunnels", "").await.1, serde_json::json!([]), "{visited}");
}

#[tokio::test]
async fn serve_router_serves_a_router_that_knows_its_viewers() {
    let rig = Rig::start().await;
    let example = Running::start(Some(&rig), "serve_router", None).await;
    assert_eq!(example.get("/hello/you").await.text(), "hello, you\n");
    assert_eq!(example.get("/").await.text(), "you are 127.0.0.1\n");
    example.stop().await;
}

#[tokio::test]
async fn events_tells_of_requests_and_of_the_end() {
    let rig = Rig::start().await;
    let port = echo_target().await.port().to_string();
    let example = Running::start(Some(&rig), "events", Some(port)).await;
    assert_eq!(example.get("/a?b").await.status, 200);
    let said = example.stop().await;
    assert!(said.contains("GET /a?b 200\n") && said.ends_with("ended: tunnel closed\n"), "{said}");
}

#[tokio::test]
async fn embedded_relay_is_a_relay_and_a_client() {
    let example = Running::start(None, "embedded_relay", None).await;
    assert!(example.url.starts_with("http://inside.localhost:"), "{}", example.url);
    assert_eq!(example.get("/").await.text(), "hello from inside\n");
    let relay = example.url.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    example.stop().await;
    assert!(TcpStream::connect(("127.0.0.1", relay)).await.is_err(), "nothing listens any more");
}
