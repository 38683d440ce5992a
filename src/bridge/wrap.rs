//! Wrap mode: runs a program that listens on a port of its own, and moves that port to the loopback address, so that the bridge
//! can listen in its place (`adit bridge 2023 -- telnetd -F`).

mod elf;
mod program;
mod starts;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::process::Command;
use tokio::signal::unix::SignalKind;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backends::{Balance, Balancing};
use super::spawn::Process;
use super::target::Target;
use crate::proto::limits::bridge::wrap::PORTS;
use starts::Starts;

/// The library that moves the port.
const LIBRARY: &str = "libadit_rebind.so";

/// What happens when the program ends: websockify's `--wrap-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WrapMode {
    /// The bridge ends too, with its exit code.
    #[default]
    Exit,
    /// Nothing: what it has put into the background may still serve.
    Ignore,
    /// It is started again, unless the mean of its last three starts is less than 10 s ago.
    Respawn,
}

impl FromStr for WrapMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "exit" => Ok(Self::Exit),
            "ignore" => Ok(Self::Ignore),
            "respawn" => Ok(Self::Respawn),
            _ => Err(format!("{text:?}: expected exit, ignore or respawn")),
        }
    }
}

/// Why a program cannot be wrapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WrapError {
    /// There is none of that name.
    #[error("{0}: no such program, in no directory of PATH")]
    NotFound(String),
    /// It cannot be read, started or bound.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// It is no program of this system.
    #[error(
        "{0} is not a program for Linux (ELF) nor a script that names one; wrap mode loads a library into the program"
    )]
    NoProgram(String),
    /// Nothing can be loaded into it.
    #[error(
        "{0} is linked statically, so that no library can be loaded into it and its port cannot be moved; let it listen at \
             another port, such as 127.0.0.1:5901, and give that as the target instead of a command"
    )]
    Static(String),
    /// The loader leaves libraries of the environment out.
    #[error(
        "{0} runs with the rights of another user ({1}), and libraries are not loaded into such a program; start the bridge as \
             that user, or give the program a port of its own and that as the target"
    )]
    Privileged(String, &'static str),
    /// The library is for another machine or C library.
    #[error(
        "{program} is for {is}, and {library} for {ours}; wrap a program of the same kind, or let it listen at a port of its \
             own and give that as the target"
    )]
    Foreign {
        /// The program.
        program: String,
        /// What it was built for.
        is: String,
        /// Ours.
        library: String,
        /// What ours was built for.
        ours: String,
    },
    /// The library is not installed.
    #[error(
        "{LIBRARY} is neither beside this program nor in ../lib/adit (looked for {0}); `make install` puts it there, \
             `cargo build` beside the program"
    )]
    NoLibrary(String),
    /// It cannot be named in LD_PRELOAD.
    #[error("{0}: a path with a space or a colon cannot be preloaded; move the program elsewhere")]
    Path(String),
}

/// A program to wrap, checked.
#[derive(Debug)]
pub struct Wrap {
    /// The whole path: a daemon stands elsewhere.
    program: PathBuf,
    command: Vec<OsString>,
    mode: WrapMode,
    library: PathBuf,
    /// That the program listens on, and that it is moved to.
    ports: (u16, u16),
    /// See [`hold`].
    _held: Vec<Socket>,
}

impl Wrap {
    /// Looks whether `command` can be wrapped, and chooses a free port in the place of `port`.
    pub fn new(command: Vec<OsString>, port: u16, mode: WrapMode) -> Result<Self, WrapError> {
        let name = command.first().cloned().unwrap_or_default();
        let shown = name.to_string_lossy().into_owned();
        let library = library()?;
        let program = program::find(&name).ok_or(WrapError::NotFound(shown.clone()))?;
        program::check(&program, &library)?;
        let program = std::path::absolute(program).map_err(|error| WrapError::Io(shown, error))?;
        let (free, held) = hold().map_err(|error| WrapError::Io("no port is free for it".into(), error))?;
        Ok(Self { program, command, mode, library, ports: (port, free), _held: held })
    }

    /// Where the program is reached: it may listen on IPv4, IPv6 or both.
    pub fn targets(&self) -> [Target; 2] {
        let port = self.ports.1;
        [Ipv4Addr::LOCALHOST.to_string(), Ipv6Addr::LOCALHOST.to_string()]
            .map(|host| Target::Tcp { host, port })
    }

    /// How they are dialled: in their order for each viewer, however many there are, as the program mostly listens at one of
    /// them; and at once again, as there is nothing in a refusal.
    pub fn balancing() -> Balancing {
        Balancing { balance: Balance::InOrder, disable_time: Duration::ZERO }
    }

    /// The program, as it was typed.
    pub fn shown(&self) -> String {
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    /// Starts the program, within a tokio runtime. It is to be [run](Wrapped::run): a drop kills it.
    pub fn start(self) -> Result<Wrapped, WrapError> {
        let process = self.process()?;
        Ok(Wrapped { wrap: self, process })
    }

    fn process(&self) -> Result<Process, WrapError> {
        let mut preload = self.library.clone().into_os_string();
        if let Some(others) = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
            preload.push(":");
            preload.push(others);
        }
        let mut command = Command::new(&self.program);
        if let [name, arguments @ ..] = &self.command[..] {
            command.arg0(name).args(arguments);
        }
        command.env("LD_PRELOAD", preload);
        command.env("REBIND_OLD_PORT", self.ports.0.to_string());
        command.env("REBIND_NEW_PORT", self.ports.1.to_string());
        // At a terminal it may ask for something, and only processes of our group may read there.
        let grouped = !io::stdin().is_terminal();
        Process::start(command, grouped).map_err(|error| WrapError::Io(self.shown(), error))
    }
}

/// A program that was started.
#[derive(Debug)]
pub struct Wrapped {
    wrap: Wrap,
    process: Process,
}

impl Wrapped {
    /// Runs the program until `ending`, which it does not outlive. What it gives back is the exit code for the bridge, which is to end
    /// now: the program has, and the mode is [`WrapMode::Exit`]. An error: it was not started again.
    pub async fn run(self, ending: CancellationToken) -> Result<Option<u8>, WrapError> {
        let Self { wrap, mut process } = self;
        let mut starts = Starts::default();
        loop {
            starts.add(Instant::now());
            let status = tokio::select! {
                status = process.wait() => status.map_err(|error| WrapError::Io(wrap.shown(), error))?,
                () = ending.cancelled() => {
                    process.end(SignalKind::terminate().as_raw_value()).await;
                    return Ok(None);
                }
            };
            match wrap.mode {
                WrapMode::Exit => {
                    tracing::info!(command = %wrap.shown(), %status, "the wrapped program has ended");
                    return Ok(Some(code(status)));
                }
                WrapMode::Ignore => {
                    tracing::info!(command = %wrap.shown(), %status, "the wrapped program has ended, which is ignored");
                    ending.cancelled().await;
                    return Ok(None);
                }
                WrapMode::Respawn => {
                    let at = starts.next();
                    let wait_ms = at.saturating_duration_since(Instant::now()).as_millis();
                    tracing::warn!(command = %wrap.shown(), %status, wait_ms, "the wrapped program has ended; it is started again");
                    tokio::select! {
                        () = sleep_until(at) => {}
                        () = ending.cancelled() => return Ok(None),
                    }
                }
            }
            process = wrap.process()?;
        }
    }
}

/// What a shell makes of it: the code, or 128 and the signal that ended it.
fn code(status: ExitStatus) -> u8 {
    let signal = || Some(128 + std::os::unix::process::ExitStatusExt::signal(&status)?);
    status.code().or_else(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Beside this program, or where `make install` puts it.
fn library() -> Result<PathBuf, WrapError> {
    let this = std::env::current_exe().map_err(|error| WrapError::Io("this program".into(), error))?;
    let beside = this.parent().unwrap_or(Path::new("."));
    let places = [beside.join(LIBRARY), beside.join("../lib/adit").join(LIBRARY)];
    let Some(found) = places.iter().find(|path| path.is_file()) else {
        let places = places.map(|path| path.display().to_string());
        return Err(WrapError::NoLibrary(places.join(" and ")));
    };
    let found = found.canonicalize().unwrap_or_else(|_| found.clone());
    let shown = found.display().to_string();
    if shown.contains([' ', ':']) { Err(WrapError::Path(shown)) } else { Ok(found) }
}

/// A port of the loopback addresses, as far as there are both, and the sockets that keep other users from it: a program listens
/// at one of the two mostly, and who had the other would get its viewers. It may have both itself, as sockets of one user that
/// ask for it (`SO_REUSEPORT`, which the library does) share a port; these here do not listen.
fn hold() -> io::Result<(u16, Vec<Socket>)> {
    let mut tried = Vec::new();
    loop {
        let one = bound((Ipv4Addr::LOCALHOST, 0).into())?;
        let port = one.local_addr()?.as_socket().map_or(0, |address| address.port());
        match bound((Ipv6Addr::LOCALHOST, port).into()) {
            Ok(other) => return Ok((port, vec![one, other])),
            // Held meanwhile, so that the next one is another.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tried.len() < PORTS => tried.push(one),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            Err(_) => return Ok((port, vec![one])),
        }
    }
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
