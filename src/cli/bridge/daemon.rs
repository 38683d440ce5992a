//! `-D`: a bridge in the background is this program once more, which gets the sockets by way of its standard input.
//!
//! A fork of a process that has threads leaves locks that nobody opens any more, so there is none.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::setsid;
use rustix::stdio::dup2_stdin;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::is_usage;
use super::settings::Usage;
use super::sockets::listener;
use crate::bridge::Listener;
use crate::proto::limits::bridge::BACKGROUND;
use crate::stream::courier::Courier;

/// What tells the new process that it is that.
pub(super) const FLAG: &str = "--daemon-of";

/// What the two processes say to each other.
#[derive(Serialize, Deserialize)]
enum Message {
    /// So many sockets come along.
    Sockets { listening: usize, metrics: bool },
    /// The new process serves.
    Ready,
    /// It does not, and says why: nobody else hears it.
    Failed { why: String, usage: bool },
}

/// Starts the process in the background and hands it these sockets. Once it serves, this one may end.
pub(super) async fn start(listeners: &[Listener], metrics: Option<BorrowedFd<'_>>) -> anyhow::Result<()> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe().context("this program is not found any more")?)
        .args(arguments(std::env::args_os().skip(1)))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("the process in the background cannot be started")?;
    ours.set_nonblocking(true)?;
    let mut courier = Courier::new(UnixStream::from_std(ours)?);
    let mut descriptors: Vec<_> = listeners.iter().map(descriptor).collect();
    descriptors.extend(metrics);
    let sockets = Message::Sockets { listening: listeners.len(), metrics: metrics.is_some() };
    let talking = async {
        courier.send(&sockets, &descriptors).await?;
        courier.receive::<Message>().await
    };
    match timeout(BACKGROUND, talking).await {
        Ok(Ok(Some(Message::Ready))) => Ok(()),
        Ok(Ok(Some(Message::Failed { why, usage: true }))) => Err(Usage(why).into()),
        Ok(Ok(Some(Message::Failed { why, .. }))) => bail!(why),
        Ok(_) => {
            let _ = child.kill();
            bail!(
                "the process in the background ended at its start ({}); without -D it says why",
                child.wait()?
            )
        }
        Err(_) => {
            let _ = child.kill();
            bail!("the process in the background does not start")
        }
    }
}

fn descriptor(listener: &Listener) -> BorrowedFd<'_> {
    match listener {
        Listener::Tcp(listener) => listener.as_fd(),
        Listener::Unix(listener) => listener.as_fd(),
    }
}

/// The same arguments, with the flag right behind the subcommand.
fn arguments(own: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut own: Vec<_> = own.collect();
    own.insert(own.len().min(1), FLAG.into());
    own
}

/// The process before this one, which waits to hear how it went, and the sockets that it has handed over.
pub(super) struct Before {
    courier: Courier,
    pub(super) listeners: Vec<Listener>,
    pub(super) metrics: Option<tokio::net::TcpListener>,
}

/// Takes the sockets, in the process in the background.
pub(super) async fn take() -> anyhow::Result<Before> {
    let stream: std::os::unix::net::UnixStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    // What is started here inherits standard input, and is none that this is said to.
    dup2_stdin(File::open("/dev/null").context("/dev/null")?)?;
    stream.set_nonblocking(true)?;
    let mut courier = Courier::new(UnixStream::from_std(stream)?);
    let told = timeout(BACKGROUND, courier.receive()).await.context("no sockets were handed over")??;
    let Some(Message::Sockets { listening, metrics }) = told else { bail!("no sockets were handed over") };
    let mut listeners = Vec::with_capacity(listening);
    while listeners.len() < listening {
        listeners.push(listener(courier.take_descriptor().context("a socket is missing")?)?);
    }
    let metrics = match courier.take_descriptor().filter(|_| metrics).map(listener).transpose()? {
        Some(Listener::Tcp(listener)) => Some(listener),
        _ => None,
    };
    Ok(Before { courier, listeners, metrics })
}

impl Before {
    /// Leaves its terminal and its directory; what is started from now on has nothing to do with either.
    pub(super) fn leave(&self, directory: &Path) -> anyhow::Result<()> {
        // It leads no group, as it was just started by another process.
        setsid().context("no session of its own can be had")?;
        std::env::set_current_dir(directory).with_context(|| directory.display().to_string())
    }

    /// Lets it end: this one serves.
    pub(super) async fn dismiss(mut self) -> anyhow::Result<()> {
        self.courier.send(&Message::Ready, &[]).await.context("the process before is gone")
    }

    /// Has it tell at its terminal why this one does not serve, and end so.
    pub(super) async fn fail(mut self, error: &anyhow::Error) -> io::Result<()> {
        let failed = Message::Failed { why: format!("{error:#}"), usage: is_usage(error) };
        self.courier.send(&failed, &[]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_stands_before_all_that_may_be_of_another_program() {
        let typed = ["bridge", "-D", "1", "--", "program", "-x"].map(OsString::from);
        assert_eq!(arguments(typed.into_iter()), ["bridge", FLAG, "-D", "1", "--", "program", "-x"]);
    }
}
