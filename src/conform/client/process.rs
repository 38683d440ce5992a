//! The client under test: a command in a process group of its own that ends with the case, or a task of this process.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::conform::trace::{Trace, Way};
use crate::sync::lock;

/// Bytes of what a client prints that are kept for people.
const KEPT: usize = 2048;

/// How long the last that an ended client has printed may take to be read: something that it has started may still hold
/// its output open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How the client is started.
#[derive(Clone)]
pub enum Launch {
    /// A program with its arguments, in which `{relay}`, `{key}` and `{port}` are filled in.
    Command(Vec<String>),
    /// Something in this process, which runs until it has ended or its token is cancelled.
    Here(Arc<dyn Fn(Start) -> BoxFuture<'static, ()> + Send + Sync>),
}

/// What a client has to know.
#[derive(Debug, Clone)]
pub struct Start {
    /// URL of the relay.
    pub relay: String,
    /// The key.
    pub key: String,
    /// Port of the target on 127.0.0.1.
    pub port: u16,
    /// Cancelled when it is to end in order, as by SIGTERM.
    pub stop: CancellationToken,
}

/// A client that runs; dropped, it is gone.
pub(super) struct Client {
    runs: Runs,
    printed: Arc<Mutex<VecDeque<u8>>>,
    trace: Trace,
}

enum Runs {
    Command { child: Child, group: Option<Pid>, readers: JoinSet<()> },
    Here { task: JoinSet<()>, stop: CancellationToken },
}

impl Launch {
    /// Starts it; the error is a sentence.
    pub(super) fn start(&self, start: Start, trace: &Trace) -> Result<Client, String> {
        let printed = Arc::default();
        let runs = match self {
            Self::Command(words) => command(words, &start, &printed)?,
            Self::Here(run) => {
                let (mut task, stop) = (JoinSet::new(), start.stop.clone());
                task.spawn(run(start));
                Runs::Here { task, stop }
            }
        };
        Ok(Client { runs, printed, trace: trace.clone() })
    }
}

fn command(words: &[String], start: &Start, printed: &Arc<Mutex<VecDeque<u8>>>) -> Result<Runs, String> {
    let Start { relay, key, port, .. } = start;
    let port = port.to_string();
    let filled =
        |word: &String| word.replace("{relay}", relay).replace("{key}", key).replace("{port}", &port);
    let [program, arguments @ ..] = words else { return Err("there is no command to run".into()) };
    let mut command = Command::new(filled(program));
    command.args(arguments.iter().map(filled));
    command.env("ADIT_RELAY", relay).env("ADIT_KEY", key).env("ADIT_TARGET", format!("127.0.0.1:{port}"));
    // The relay is on this machine, whatever proxy leads elsewhere.
    command.env("NO_PROXY", "127.0.0.1,localhost").env("no_proxy", "127.0.0.1,localhost");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: what it starts ends with it, and Ctrl-C is for the kit.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("cannot run {}: {error}", filled(program)))?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let mut readers = JoinSet::new();
    if let Some(stdout) = child.stdout.take() {
        readers.spawn(keep(stdout, Arc::clone(printed)));
    }
    if let Some(stderr) = child.stderr.take() {
        readers.spawn(keep(stderr, Arc::clone(printed)));
    }
    Ok(Runs::Command { child, group, readers })
}

/// Keeps the last of what is printed.
async fn keep(mut from: impl AsyncRead + Unpin, printed: Arc<Mutex<VecDeque<u8>>>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mut printed = lock(&printed);
        printed.extend(&buffer[..read]);
        let over = printed.len().saturating_sub(KEPT);
        printed.drain(..over);
    }
}

impl Client {
    /// Asks it to end in order: SIGTERM.
    pub(super) fn stop(&self) {
        self.trace.text(Way::Sent, "client", "SIGTERM");
        match &self.runs {
            Runs::Command { group: Some(group), .. } => {
                let _ = kill_process_group(*group, Signal::TERM);
            }
            Runs::Command { .. } => {}
            Runs::Here { stop, .. } => stop.cancel(),
        }
    }

    /// Waits until it has ended; how it did.
    pub(super) async fn ended(&mut self) -> String {
        let how = match &mut self.runs {
            Runs::Command { child, .. } => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Runs::Here { task, .. } => {
                task.join_next().await;
                "ended".to_owned()
            }
        };
        self.trace.text(Way::Came, "client", &how);
        how
    }

    /// Whether it ends within `wait`.
    pub(super) async fn ends_within(&mut self, wait: Duration) -> Option<String> {
        timeout(wait, self.ended()).await.ok()
    }

    /// The last that it has printed, on stdout and stderr; of one that has ended, to its last word.
    pub(super) async fn printed(&mut self) -> String {
        if let Runs::Command { child, readers, .. } = &mut self.runs
            && child.id().is_none()
        {
            let _ = timeout(LAST_WORDS, async { while readers.join_next().await.is_some() {} }).await;
        }
        let bytes: Vec<u8> = lock(&self.printed).iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Runs::Command { child, group: Some(group), .. } = &mut self.runs else { return };
        // One that was waited for may have left others behind; its group keeps the number as long as they are there.
        let _ = kill_process_group(*group, Signal::KILL);
        let _ = child.start_kill();
    }
}
