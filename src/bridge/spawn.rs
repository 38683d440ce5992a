//! Backends that the bridge runs itself: each process gets its listening socket as fd 0, is started again when it dies, and ends
//! with the bridge.

mod listener;
mod process;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub(super) use process::Process;

use super::target::Target;
use crate::proto::limits::bridge::spawn::RESTART;

/// Where a process is listened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A Unix socket; with several processes each has the path with `-0`, `-1` and so on behind it.
    Unix(PathBuf),
    /// An address and a port; with several processes each has the next port.
    Tcp(SocketAddr),
}

/// A command that serves at a listening socket: `bin-path` of lighttpd and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spawn {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it is listened for.
    pub place: Place,
    /// Processes that run from the start, at least one.
    pub min_procs: usize,
    /// Processes at most: one more is started while each has a visitor.
    pub max_procs: usize,
    /// Variables that it gets, besides those it inherits.
    pub environment: Vec<(String, String)>,
    /// The only variables that it inherits; `None` is all.
    pub copy_environment: Option<Vec<String>>,
    /// What ends it: the number of a signal.
    pub kill_signal: i32,
    /// Connections that may wait for it to accept them.
    pub listen_backlog: i32,
}

/// Why a process does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// No command, or no such signal.
    #[error("{0}")]
    Settings(String),
    /// It has nowhere to listen.
    #[error("cannot listen at {target} for {command}: {error}")]
    Listen {
        /// Its socket.
        target: Target,
        /// The program.
        command: String,
        /// Why not.
        error: io::Error,
    },
    /// It does not start.
    #[error("cannot start {command}: {error}")]
    Start {
        /// The program.
        command: String,
        /// Why not.
        error: io::Error,
    },
}

/// One process to be, and whether it runs.
#[derive(Debug)]
pub struct Slot {
    spawn: Arc<Spawn>,
    target: Target,
    wanted: AtomicBool,
    running: AtomicBool,
    start: Notify,
}

impl Spawn {
    /// A place for each process that may run; `min_procs` of them are wanted from the start.
    pub fn slots(self) -> Vec<Arc<Slot>> {
        let spawn = Arc::new(self.absolute());
        let slot = |number| {
            Arc::new(Slot {
                target: spawn.target(number),
                wanted: AtomicBool::new(number < spawn.min_procs.max(1)),
                running: AtomicBool::new(false),
                start: Notify::new(),
                spawn: Arc::clone(&spawn),
            })
        };
        (0..spawn.max_procs.max(spawn.min_procs).max(1)).map(slot).collect()
    }

    /// The same with whole paths: it may be started when this process stands elsewhere.
    fn absolute(mut self) -> Self {
        if let Some(program) = self.command.first_mut().filter(|program| program.contains('/'))
            && let Ok(path) = std::path::absolute(&program)
            && let Some(path) = path.to_str()
        {
            *program = path.to_owned();
        }
        if let Place::Unix(path) = &mut self.place
            && let Ok(whole) = std::path::absolute(&path)
        {
            *path = whole;
        }
        self
    }

    fn target(&self, number: usize) -> Target {
        match &self.place {
            Place::Unix(path) if self.max_procs > 1 => {
                let mut path = OsString::from(path);
                path.push(format!("-{number}"));
                Target::Unix(path.into())
            }
            Place::Unix(path) => Target::Unix(path.clone()),
            Place::Tcp(address) => {
                let port = u16::try_from(number).ok().and_then(|number| address.port().checked_add(number));
                // A port that there is not is told when the process is started.
                Target::Tcp { host: address.ip().to_string(), port: port.unwrap_or_default() }
            }
        }
    }
}

impl Slot {
    /// Where its process is reached.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether there is a process, which may still be getting ready.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Whether there is to be one.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// From now on there is to be one.
    pub(super) fn start(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.start.notify_one();
        }
    }
}

/// Everything that the bridge runs. To be [ended](Self::end): a drop kills all of it at once.
#[derive(Debug)]
pub struct Processes {
    keepers: JoinSet<()>,
    ending: CancellationToken,
}

impl Processes {
    /// Starts what is wanted from the start. An error: one of them cannot be started at all, and none is left.
    pub async fn start(slots: &[Arc<Slot>]) -> Result<Self, SpawnError> {
        let mut processes = Self { keepers: JoinSet::new(), ending: CancellationToken::new() };
        for slot in slots {
            let first = match slot.is_wanted() {
                true => match process::start(&slot.spawn, &slot.target) {
                    Ok(child) => Some(child),
                    Err(error) => {
                        processes.end().await;
                        return Err(error);
                    }
                },
                false => None,
            };
            slot.running.store(first.is_some(), Ordering::Release);
            processes.keepers.spawn(keep(Arc::clone(slot), first, processes.ending.clone()));
        }
        Ok(processes)
    }

    /// Has all of them started as soon as they can be.
    pub fn keep(slots: &[Arc<Slot>]) -> Self {
        let mut processes = Self { keepers: JoinSet::new(), ending: CancellationToken::new() };
        for slot in slots {
            processes.keepers.spawn(keep(Arc::clone(slot), None, processes.ending.clone()));
        }
        processes
    }

    /// Ends all of them, with what they have started.
    pub async fn end(mut self) {
        self.ending.cancel();
        while self.keepers.join_next().await.is_some() {}
    }
}

/// Keeps one process running until the end.
async fn keep(slot: Arc<Slot>, mut running: Option<Process>, ending: CancellationToken) {
    let mut next = Instant::now();
    loop {
        if let Some(process) = running.take() {
            slot.running.store(true, Ordering::Release);
            next = Instant::now() + RESTART;
            tokio::select! {
                _ = process.ended() => {}
                () = ending.cancelled() => {}
            }
            slot.running.store(false, Ordering::Release);
            let ended = process.end(slot.spawn.kill_signal).await;
            if ending.is_cancelled() {
                break;
            }
            tracing::warn!(command = %slot.spawn.command[0], backend = %slot.target, %ended, "a backend has ended; it is started again");
        }
        tokio::select! {
            () = ending.cancelled() => break,
            () = wanted(&slot, next) => {}
        }
        match process::start(&slot.spawn, &slot.target) {
            Ok(child) => running = Some(child),
            Err(error) => {
                tracing::error!(%error, "a backend is not there");
                next = Instant::now() + RESTART;
            }
        }
    }
    listener::forget(&slot.target);
}

async fn wanted(slot: &Slot, next: Instant) {
    while !slot.is_wanted() {
        slot.start.notified().await;
    }
    sleep_until(next).await;
}
