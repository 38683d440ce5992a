//! `adit bridge --through RELAY`: the bridge listens nowhere, and is reached by a tunnel; so is a machine that nobody can
//! connect to.

use std::cell::Cell;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::flags::Flags;
use super::settings::Usage;
use crate::auth::Secret;
use crate::bridge::{Bridge, BridgeConfig, Target};
use crate::cli::http::{WayArgs, keep, name, options};
use crate::cli::signals::Signals;
use crate::client::report::{Report, Style};
use crate::client::{Connector, RelayUrl, Session};
use crate::stream::unix;

/// Nothing on the way may take a session for dead, whose desktop stands still.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Where the bridge is offered, if not at a port of this machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Through a relay")]
pub(super) struct ThroughFlags {
    /// URL of a relay at which the bridge is offered; then there is no port to listen at: --through URL --name desk 5900
    #[arg(long, value_name = "URL")]
    pub through: Option<String>,
    /// Name in the URL there [default: one that the relay makes up and that stays]
    #[arg(long, value_parser = name)]
    pub name: Option<String>,
    /// Key of yours on the relay; ADIT_KEY keeps it out of `ps`
    #[arg(long, env = "ADIT_KEY", value_name = "KEY", hide_env_values = true)]
    pub relay_key: Option<String>,
    #[command(flatten)]
    pub way: WayArgs,
}

/// The way to the relay, if one is named.
pub(super) fn connector(flags: &Flags) -> Result<Option<Arc<Connector>>, Usage> {
    let Some(url) = &flags.through.through else { return Ok(None) };
    let elsewhere = [
        (flags.inetd, "--inetd"),
        (flags.unix_listen.is_some(), "--unix-listen"),
        (flags.daemon, "-D"),
        (flags.cert.is_some(), "--cert"),
        (flags.ssl_only, "--ssl-only"),
        (flags.verify_client, "--verify-client"),
        (flags.ours.metrics_listen.is_some(), "--metrics-listen"),
    ];
    if let Some((_, flag)) = elsewhere.iter().find(|(asked, _)| *asked) {
        return Err(Usage(format!(
            "{flag} does not go with --through: viewers come to the relay, which has the port, its TLS and the metrics"
        )));
    }
    let relay = RelayUrl::parse(url).map_err(|error| Usage(format!("--through: {error}")))?;
    let key = flags.through.relay_key.as_deref().filter(|key| !key.is_empty()).map(Secret::new);
    let dialer = flags.through.way.dialer(relay).map_err(Usage)?;
    Connector::new(dialer, key.as_ref()).map(Some).map_err(|error| Usage(error.to_string()))
}

/// Offers a bridge at the relay until a signal ends it, or the settings do.
pub(super) async fn run(
    flags: &Flags,
    connector: Arc<Connector>,
    mut config: BridgeConfig,
) -> anyhow::Result<ExitCode> {
    config.service.heartbeat.get_or_insert(HEARTBEAT);
    // The relay says who the viewer is, and nobody else gets to the socket.
    config.trusted_proxies.push(std::net::IpAddr::from([127, 0, 0, 1]).into());
    let shown = shown(config.service.target.as_ref());
    let mut bridge = Bridge::new(config)?;
    bridge.spawn().await?;
    let place = Place::new()?;
    let listener = unix::listen(&place.socket(), 0o600).context("no socket of its own can be had")?;
    let target = format!("unix:{}", place.socket().display());
    let target = crate::client::Target::parse(&target)?;
    let style = Style { json: false, quiet: false, colour: Style::colour_wanted() };
    let wanted = options(connector, target.clone(), style);
    let wanted = crate::client::Options { name: flags.through.name.clone(), ..wanted };
    let report = Report::new(style, None, shown.unwrap_or(target));
    let (session, events) = Session::start(wanted);
    // Both hear the signal: sessions are closed with 1001, and then the tunnel has nothing to wait for.
    let mut signals = Signals::with_hangup()?;
    let told = Cell::new(false);
    let shutdown = async {
        signals.next().await;
        told.set(true);
    };
    let serving = pin!(bridge.run([listener.into()], shutdown));
    let mut keeping = pin!(keep(vec![(session, report, events)], style, |_| Ok(())));
    tokio::select! {
        code = keeping.as_mut() => code,
        () = serving => if told.get() { keeping.await } else { Ok(ExitCode::SUCCESS) },
    }
}

/// Where sessions end up, as the report names it.
fn shown(target: Option<&Target>) -> Option<crate::client::Target> {
    let text = match target? {
        Target::Unix(path) => format!("unix:{}", path.display()),
        target => target.to_string(),
    };
    crate::client::Target::parse(&text).ok()
}

/// A directory of our own that only we can look into, until dropped.
struct Place(PathBuf);

impl Place {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("adit-bridge-{}", uuid::Uuid::new_v4().simple()));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    fn socket(&self) -> PathBuf {
        Path::new(&self.0).join("bridge")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
