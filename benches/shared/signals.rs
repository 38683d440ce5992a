//! A bench that is stopped stops what it started.

use anyhow::{Result, bail};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Runs everything, unless a signal ends it first. Dropping `run` ends every process it started: on success, on an error
/// and on a signal alike.
pub fn until_signal<T>(runtime: &Runtime, run: impl Future<Output = Result<T>>) -> Result<T> {
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            result = run => result,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}
