//! The processes we start: ended when dropped, and read through `/proc` for their CPU seconds and memory.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, ChildStdout};

/// Between two looks at whether a process has ended after SIGTERM.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Looks before it is killed: three seconds.
const LOOKS: u32 = 300;

/// A directory of our own under the system's temporary one, removed with all its contents when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Creates the directory, readable by us alone.
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("adit-bench-{}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// The path of `name` inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// A server that we started. Dropping it ends it, and its workers with it.
pub struct Server {
    /// What it is, for messages.
    pub name: String,
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Server {
    /// Starts `command` with its standard error in `log`.
    pub fn start(name: &str, command: &mut tokio::process::Command, log: PathBuf) -> Result<Self> {
        let stderr = fs::File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {name} ({:?})", command.as_std().get_program()))?;
        let pid = child.id().context("the process has no id")?;
        Ok(Self { name: name.into(), child, pid, log })
    }

    /// Its standard output, if that was piped; once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// An error if the process has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.log_tail()),
            None => Ok(()),
        }
    }

    /// The last lines of the log, for an error message.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// User and system CPU seconds so far, of the process and the children it has now.
    pub fn cpu_seconds(&self, ticks_per_second: f64) -> Result<f64> {
        let mut ticks = 0;
        for stat in self.family()? {
            ticks += stat.ticks;
        }
        Ok(ticks as f64 / ticks_per_second)
    }

    /// KiB of anonymous resident memory, of the process and the children it has now; what they share since a fork counts
    /// once.
    pub fn memory_kib(&self) -> Result<f64> {
        let mut total = 0;
        for Stat { pid, .. } in self.family()? {
            let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = maps
                .lines()
                .find_map(|line| line.strip_prefix("Pss_Anon:"))
                .context("no Pss_Anon in /proc")?;
            total += line.trim().trim_end_matches(" kB").parse::<u64>().context("Pss_Anon is no number")?;
        }
        Ok(total as f64)
    }

    /// The process and its children (nginx's workers).
    fn family(&self) -> Result<Vec<Stat>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // A process that ended meanwhile is no error.
            let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let stat = Stat::parse(pid, &text).with_context(|| format!("odd /proc/{pid}/stat"))?;
            if pid == self.pid || stat.parent == self.pid {
                found.push(stat);
            }
        }
        ensure!(
            found.iter().any(|stat| stat.pid == self.pid),
            "{} has ended:\n{}",
            self.name,
            self.log_tail()
        );
        Ok(found)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child is ours and not yet waited for, so its id cannot have become somebody else's.
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = Command::new("kill").args(["-TERM", &self.pid.to_string()]).stderr(Stdio::null()).status();
        for _ in 0..LOOKS {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let workers = self.family().unwrap_or_default();
        let _ = self.child.start_kill();
        for worker in workers.iter().filter(|stat| stat.pid != self.pid) {
            let _ =
                Command::new("kill").args(["-KILL", &worker.pid.to_string()]).stderr(Stdio::null()).status();
        }
    }
}

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)) that we use.
struct Stat {
    pid: u32,
    parent: u32,
    /// User and system time together, in clock ticks.
    ticks: u64,
}

impl Stat {
    fn parse(pid: u32, text: &str) -> Option<Self> {
        // The second field, the name in parentheses, may itself hold blanks and parentheses.
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Self { pid, parent: fields.get(1)?.parse().ok()?, ticks })
    }
}

/// An address on loopback that is free now. Nothing keeps it free, but the kernel hands out others first.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Where a program is: in `PATH`, or where Debian puts what only administrators are thought to need.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|directory| directory.join(name))
        .find(|file| is_file(file))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}
