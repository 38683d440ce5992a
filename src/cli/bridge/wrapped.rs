//! `adit bridge PORT -- COMMAND`: the program whose port the bridge takes, for as long as the bridge runs.

use std::ffi::OsString;

use tokio_util::sync::CancellationToken;

use super::flags::{self, Flags};
use super::settings::{Usage, Words};
use super::sockets;
use crate::bridge::{BridgeConfig, Key, Listener, Matcher, Route, Wrap, WrapError, WrapMode, Wrapped};

/// The program of the command line, if there is one. It is reached by a route for all that none of the others takes.
pub(super) fn wrap(
    flags: &Flags,
    words: &Words,
    given: &[Listener],
    config: &mut BridgeConfig,
) -> anyhow::Result<Option<Wrap>> {
    if flags.command.is_empty() {
        return Ok(None);
    }
    let given = given.iter().find_map(sockets::port);
    let port = match words.sources.first() {
        Some(source) => Some(sockets::parse(source)?.1),
        None => given,
    };
    let port = port.filter(|port| *port != 0).ok_or_else(|| {
        Usage(
            "a command is wrapped to take its port, so that one must be named: adit bridge 2023 -- COMMAND"
                .into(),
        )
    })?;
    let mode = match flags.wrap_mode {
        flags::WrapMode::Exit => WrapMode::Exit,
        flags::WrapMode::Ignore => WrapMode::Ignore,
        flags::WrapMode::Respawn => WrapMode::Respawn,
    };
    let wrap = Wrap::new(flags.command.iter().map(OsString::from).collect(), port, mode)?;
    config.routes.push(Route {
        matcher: Matcher { key: Key::from(""), extensions: Vec::new(), url: Vec::new(), host: Vec::new() },
        backends: wrap.targets().into(),
        spawned: Vec::new(),
        balancing: Wrap::balancing(),
        admit: None,
        service: config.service.clone(),
    });
    Ok(Some(wrap))
}

/// Runs it until `ending`, or until its end is to be that of the bridge: the exit code. Without a program it never ends.
pub(super) async fn run(
    wrapped: Option<Wrapped>,
    ending: &CancellationToken,
) -> Result<Option<u8>, WrapError> {
    match wrapped {
        Some(wrapped) => wrapped.run(ending.clone()).await,
        None => {
            ending.cancelled().await;
            Ok(None)
        }
    }
}
