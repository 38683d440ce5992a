//! The program as a process: started, spoken to, signalled, and heard.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

use crate::frames::Raw;
use crate::rig::{ALICE, Answer, BOB, CLOSE, read_all, request, soon};

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

/// A relay with the keys of alice and bob, and options beside.
pub fn relay(home: &Path, more: &[&str]) -> Command {
    let mut command = adit(home, &[&RELAY[..], more].concat());
    command.env("ADIT_KEYS", keys());
    command
}

/// The same where it was before: clients hold on to the URL that they were given.
pub fn relay_at(home: &Path, address: SocketAddr, more: &[&str]) -> Command {
    let listen = address.to_string();
    let arguments = ["relay", "--listen", &listen, "--admin-listen", "127.0.0.1:0"];
    let mut command = adit(home, &[&arguments[..], more].concat());
    command.env("ADIT_KEYS", keys());
    command
}

/// The real client of alice, with a target at a port or an address.
pub fn real(home: &Path, relay: SocketAddr, name: &str, target: impl ToString, more: &[&str]) -> Command {
    let (relay, target) = (format!("http://{relay}"), target.to_string());
    let mut command = adit(home, &[&["http", &target, "--relay", &relay, "--name", name], more].concat());
    command.env("ADIT_KEY", ALICE);
    command
}

/// The same where nobody reads what it says.
pub fn quiet(mut command: Command) -> Command {
    command.stdout(Stdio::null()).stderr(Stdio::null());
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
    pub metrics: Option<SocketAddr>,
    records: Lines<BufReader<Box<dyn AsyncRead + Send + Sync + Unpin>>>,
    pub said: String,
}

impl Running {
    pub async fn start(command: Command) -> Self {
        Self::start_as("json", command).await
    }

    /// One that writes its log in that form.
    pub async fn start_as(form: &str, mut command: Command) -> Self {
        let mut child = command.arg("--log").arg(form).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        Self::begun(child, Box::new(stderr)).await
    }

    /// One that writes its log to stdout, in the form that it chooses, with what else it says.
    pub async fn start_on_stdout(mut command: Command) -> (Self, ChildStderr) {
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        (Self::begun(child, Box::new(stdout)).await, stderr)
    }

    async fn begun(child: Child, records: Box<dyn AsyncRead + Send + Sync + Unpin>) -> Self {
        let (addresses, said, records) = (Vec::new(), String::new(), BufReader::new(records).lines());
        let mut relay = Self { child, addresses, admin: None, metrics: None, records, said };
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
                    } else if line.contains("listening for scrapers") {
                        relay.metrics = Some(address);
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
        let line = self.records.next_line().await.unwrap()?;
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
        let answer = http(self.addresses[0], request(key, "POST", path, CLOSE, &body.to_string())).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    /// Creates the tunnel `name`.
    pub async fn create(&self, key: &str, name: &str) -> (u16, Value) {
        self.post(key, "/v1/tunnels", json!({"local_port": 1, "name": name})).await
    }

    /// The control socket of alice's tunnel `name`, of a base client played by hand.
    pub async fn control(&self, name: &str) -> Raw {
        let (_, tunnel) = self.create(ALICE, name).await;
        let path = format!("/ws/control?tunnel_id={}", tunnel["id"].as_str().unwrap());
        let mut control = Raw::open(self.addresses[0], &path, Some(ALICE)).await.unwrap();
        control.frame().await.unwrap();
        control
    }

    /// Whether the key is let in.
    pub async fn takes(&self, key: &str) -> bool {
        let status = http(self.addresses[0], request(key, "GET", "/v1/version", CLOSE, "")).await.status;
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

/// A GET of the relay's own host, on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    http(address, request("", "GET", path, CLOSE, "")).await
}

/// JSON of alice's at a path of the REST API.
pub async fn list(relay: SocketAddr, path: &str) -> Value {
    let answer = http(relay, request(ALICE, "GET", path, CLOSE, "")).await;
    serde_json::from_slice(&answer.body).unwrap()
}

/// Sends a request and reads to the end.
pub async fn http(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut stream = soon(TcpStream::connect(address)).await.unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    Answer::parse(&soon(read_all(&mut stream)).await)
}
