//! The signals that end what a command does, in order.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask for an end: SIGTERM and Ctrl-C, and SIGHUP where it does.
pub(super) struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// From now on these signals no longer end the process by themselves.
    pub fn new() -> std::io::Result<Self> {
        let (term, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { term, interrupt, hangup: None })
    }

    /// The same with SIGHUP, by which a terminal is closed, unless whoever started us has it ignored, as nohup(1) does.
    pub fn with_hangup() -> std::io::Result<Self> {
        let hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { hangup, ..Self::new()? })
    }

    /// The next one. SIGHUP counts as the first alone: shells and the system each tell of a closed terminal.
    pub async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => {}
        }
        self.hangup = None;
    }
}

/// Whether SIGHUP is ignored (proc_pid_status(5)); where that cannot be read, it is not.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The first signal is the lowest bit.
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
}
