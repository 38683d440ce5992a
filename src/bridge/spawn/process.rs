//! One process that the bridge runs: how it is started, and how it is ended with all that it has started.

use std::io;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::process::{Child, Command};
use tokio::signal::unix::SignalKind;
use tokio::time::timeout;

use super::{Spawn, SpawnError, listener};
use crate::bridge::target::Target;
use crate::proto::limits::bridge::spawn::END;

/// A process, which mostly leads the group of those that it has started.
#[derive(Debug)]
pub(in crate::bridge) struct Process {
    child: Child,
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
    command.stdin(Stdio::from(socket));
    // What is typed at our terminal is not for it.
    Process::start(command, true).map_err(|error| {
        listener::forget(target);
        SpawnError::Start { command: program.clone(), error }
    })
}

impl Process {
    /// Starts it; with a group of its own, what it starts ends with it.
    pub(in crate::bridge) fn start(mut command: Command, grouped: bool) -> io::Result<Self> {
        if grouped {
            command.process_group(0);
        }
        Ok(Self { child: command.kill_on_drop(true).spawn()? })
    }

    /// Waits for its end; what is left of its group goes on.
    pub(in crate::bridge) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Until it has ended. It is not waited for by that: until [`Process::end`] does, nobody else can have its id, which is
    /// that of its group.
    pub(super) async fn ended(&self) -> io::Result<()> {
        let Some(pid) = pid(&self.child) else { return Ok(()) };
        let mut children = tokio::signal::unix::signal(SignalKind::child())?;
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(pid), look)?.is_none() {
            children.recv().await;
        }
        Ok(())
    }

    /// Ends it, if it has not ended, and whatever of its group is left; how it ended.
    pub(in crate::bridge) async fn end(mut self, signal: i32) -> String {
        if let Some(signal) = Signal::from_named_raw(signal) {
            self.kill(signal);
        }
        let _ = timeout(END, self.ended()).await;
        self.kill(Signal::KILL);
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn kill(&self, signal: Signal) {
        if let Some(pid) = pid(&self.child)
            && kill_process_group(pid, signal).is_err()
        {
            // It leads no group: it has ours.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    /// Where nobody ended it: what is dropped under way leaves nothing behind either.
    fn drop(&mut self) {
        self.kill(Signal::KILL);
    }
}

/// The id of a child that has not been waited for: nobody else can have it.
fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::spawn::Place;

    #[tokio::test]
    async fn the_id_of_a_process_that_has_ended_is_kept_until_its_group_is() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::Unix(dir.path().join("socket"));
        let target = Target::Unix(dir.path().join("socket"));
        let spawn = Spawn {
            command: ["sh", "-c", "sleep 1000 & exit 3"].map(String::from).into(),
            place,
            min_procs: 1,
            max_procs: 1,
            environment: Vec::new(),
            copy_environment: None,
            kill_signal: 15,
            listen_backlog: 1,
        };
        let process = start(&spawn, &target).unwrap();
        process.ended().await.unwrap();
        let leader = pid(&process.child).unwrap();
        assert!(rustix::process::test_kill_process_group(leader).is_ok());
        assert_eq!(process.end(15).await, "exit status: 3");
    }
}
