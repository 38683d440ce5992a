//! The program as a process: started, spoken to, signalled, and heard.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

use crate::rig::{ALICE, Answer, BOB, read_all, soon};

/// A relay on ports of its own.
pub const RELAY: [&str; 5] = ["relay", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

/// Keys of alice and bob, for `ADIT_KEYS`.
pub fn keys() -> String {
    format!("alice:{ALICE},bob:{BOB}")
}

/// `adit` with these arguments and nothing of our environment but a home of its own.
pub fn adit(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.args(arguments).env_clear().env("HOME", home).env("XDG_DATA_HOME", home.join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs to the end: exit code, stdout, stderr.
pub async fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = soon(command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("ended by a signal"), text(stdout), text(stderr))
}

/// A relay that is ready, its addresses, and what it says.
pub struct Running {
    child: Child,
    pub addresses: Vec<SocketAddr>,
    pub admin: Option<SocketAddr>,
    stderr: Lines<BufReader<ChildStderr>>,
    pub said: String,
}

impl Running {
    pub async fn start(command: Command) -> Self {
        Self::start_as("json", command).await
    }

    /// One that writes its log in that form.
    pub async fn start_as(form: &str, mut command: Command) -> Self {
        let mut child = command.arg("--log").arg(form).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut relay = Self { child, addresses: Vec::new(), admin: None, stderr, said: String::new() };
        soon(async {
            while let Some(line) = relay.line().await {
                if line.contains("relay ready") {
                    return;
                }
                if line.contains("listening") && !line.contains("at a path") {
                    let (_, address) =
                        line.split_once("\"address\":\"").or(line.split_once("address=")).unwrap();
                    let address = address.split(['"', ' ']).next().unwrap().parse().unwrap();
                    if line.contains("listening for the operator") {
                        relay.admin = Some(address);
                    } else {
                        relay.addresses.push(address);
                    }
                }
            }
            panic!("the relay did not start:\n{}", relay.said);
        })
        .await;
        relay
    }

    async fn line(&mut self) -> Option<String> {
        let line = self.stderr.next_line().await.unwrap()?;
        self.said += &line;
        self.said.push('\n');
        Some(line)
    }

    /// Reads what it says up to this message.
    pub async fn until(&mut self, message: &str) {
        let found = format!("\"message\":\"{message}\"");
        soon(async {
            while let Some(line) = self.line().await {
                if line.contains(&found) {
                    return;
                }
            }
            panic!("{message:?} was not said:\n{}", self.said);
        })
        .await;
    }

    /// Reads on until a line with this text has been read `count` times in all.
    pub async fn until_said(&mut self, text: &str, count: usize) {
        soon(async {
            while self.said.matches(text).count() < count {
                assert!(self.line().await.is_some(), "{text:?} was not said:\n{}", self.said);
            }
        })
        .await;
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Reads on what it says until it ends, or what this gives is dropped; a relay that is not heard stands still.
    pub fn heard(mut self) -> JoinSet<()> {
        let mut hearing = JoinSet::new();
        hearing.spawn(async move { while self.line().await.is_some() {} });
        hearing
    }

    /// The exit code, `None` after a kill, and everything that was said.
    pub async fn end(mut self) -> (Option<i32>, String) {
        soon(async {
            while self.line().await.is_some() {}
            (self.child.wait().await.unwrap().code(), self.said)
        })
        .await
    }

    /// A POST of JSON: status and JSON.
    pub async fn post(&self, key: &str, path: &str, body: Value) -> (u16, Value) {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = http(self.addresses[0], request).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    /// Creates the tunnel `name`.
    pub async fn create(&self, key: &str, name: &str) -> (u16, Value) {
        self.post(key, "/v1/tunnels", json!({"local_port": 1, "name": name})).await
    }

    /// Whether the key is let in.
    pub async fn takes(&self, key: &str) -> bool {
        let request = format!(
            "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\r\n"
        );
        let status = http(self.addresses[0], request).await.status;
        assert!(matches!(status, 200 | 401), "{status}");
        status == 200
    }
}

/// Sends a signal to a process.
pub fn signal(id: u32, name: &str) {
    let id = id.to_string();
    assert!(std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    // A thread that runs on another core goes on for a moment, in which it may serve somebody.
    while name == "STOP" && !stands_still(&id) {
        std::thread::yield_now();
    }
}

fn stands_still(id: &str) -> bool {
    let mut threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    threads.all(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| state.starts_with(['T', 'Z']))
    })
}

/// Sends a request and reads to the end.
pub async fn http(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut stream = soon(TcpStream::connect(address)).await.unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    Answer::parse(&soon(read_all(&mut stream)).await)
}
