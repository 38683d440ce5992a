//! One process that the bridge runs: how it is started, and how it is ended with all that it has started.

use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Spawn, SpawnError, listener};
use crate::bridge::target::Target;
use crate::proto::limits::bridge::spawn::END;

/// A process, and the group of those that it has started.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
}

/// Listens at `target` and starts the command with that socket as fd 0.
pub(super) fn start(spawn: &Spawn, target: &Target) -> Result<Process, SpawnError> {
    let [program, arguments @ ..] = &spawn.command[..] else {
        return Err(SpawnError::Settings("there is no command to run".into()));
    };
    let socket = listener::listen(target, spawn.listen_backlog).map_err(|error| SpawnError::Listen {
        target: target.clone(),
        command: program.clone(),
        error,
    })?;
    let mut command = Command::new(program);
    if let Some(names) = &spawn.copy_environment {
        command.env_clear();
        command.envs(names.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    }
    command.args(arguments).envs(spawn.environment.iter().map(|(name, value)| (name, value)));
    // A group of its own: what it starts ends with it, and what is typed at our terminal is not for it.
    command.stdin(Stdio::from(socket)).process_group(0).kill_on_drop(true);
    let child = command.spawn().map_err(|error| {
        listener::forget(target);
        SpawnError::Start { command: program.clone(), error }
    })?;
    let group = pid(&child);
    Ok(Process { child, group })
}

impl Process {
    /// Until it ends; how it did.
    pub(super) async fn wait(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Ends it, and whatever of its group is left.
    pub(super) async fn end(mut self, signal: i32) {
        if let (Some(group), Some(signal)) = (pid(&self.child), Signal::from_named_raw(signal)) {
            let _ = kill_process_group(group, signal);
        }
        let _ = timeout(END, self.child.wait()).await;
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait().await;
    }
}

impl Drop for Process {
    /// Where nobody ended it: what is dropped under way leaves nothing behind either.
    fn drop(&mut self) {
        if let Some(group) = pid(&self.child) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The id of a child that has not been waited for: nobody else can have it.
fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

/// Sends a signal to a child that still runs.
pub(in crate::bridge) fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = pid(child) {
        let _ = kill_process(pid, signal);
    }
}

/// Ends a child: SIGTERM, and if that does not do it in time SIGKILL.
pub(in crate::bridge) async fn end(child: &mut Child) -> Option<ExitStatus> {
    signal(child, Signal::TERM);
    if let Ok(status) = timeout(END, child.wait()).await {
        return status.ok();
    }
    let _ = child.start_kill();
    child.wait().await.ok()
}
