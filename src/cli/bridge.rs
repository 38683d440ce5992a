//! `adit bridge`: a WebSocket server in front of a TCP service, with the options of websockify.

mod daemon;
mod doors;
mod file;
mod flags;
mod lighttpd;
mod settings;
mod sockets;
mod through;
mod wrapped;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::USAGE;
use super::http::usage;
use super::log::{self, Out};
use super::signals::Signals;
use crate::bridge::{Bridge, BridgeConfig, Wrap};
use crate::stream::{tcp, unix};
use daemon::Before;
use file::RouteFile;
use flags::Flags;
use settings::Usage;
use sockets::Sockets;

const HELP: &str = "Forms:\n  \
    adit bridge [ADDRESS:]PORT HOST:PORT\n  \
    adit bridge [ADDRESS:]PORT --unix-target PATH\n  \
    adit bridge [ADDRESS:]PORT --token-plugin NAME --token-source SOURCE\n  \
    adit bridge [ADDRESS:]PORT -- COMMAND\n  \
    adit bridge --through RELAY --name NAME PORT\n  \
    adit bridge --config FILE\n  \
    adit bridge --from-lighttpd FILE\n\n\
    Exit codes:\n  \
    0   ended by a signal, --run-once, --timeout or --idle-timeout; with a COMMAND that ends, its own code\n  \
    1   failed, for example because the port is in use\n  \
    2   wrong usage or configuration";

/// The subcommand with all its options.
pub(super) fn command() -> Command {
    let about = "Lets browsers reach a TCP service over WebSockets, as websockify does: adit bridge 6080 localhost:5900";
    flags::cut_short(Flags::augment_args(Command::new("bridge")))
        .about(about)
        .long_about(None)
        .after_help(HELP)
        .after_long_help(format!("{HELP}\n\n{}", file::HELP))
        // What is typed goes before what stands in a file.
        .args_override_self(true)
        .infer_long_args(true)
}

/// Serves until it is told to end, or as the options say.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_arg_matches(matches)?;
    if let Some(path) = &flags.ours.from_lighttpd {
        return lighttpd::run(path);
    }
    let (flags, routes) = match &flags.ours.config {
        Some(path) => match file::settings(path) {
            Ok(settings) => settings,
            Err(_) if viewer_reads(&flags, &io::stderr()) => return Ok(ExitCode::from(USAGE)),
            Err(errors) => return Ok(usage("bridge", &errors)),
        },
        None => (flags, Vec::new()),
    };
    match serve(&flags, routes).await {
        Ok(code) => Ok(code),
        Err(error) if viewer_reads(&flags, &io::stderr()) => {
            Ok(if is_usage(&error) { ExitCode::from(USAGE) } else { ExitCode::FAILURE })
        }
        Err(error) if is_usage(&error) => {
            eprintln!("adit bridge: {error}");
            Ok(ExitCode::from(USAGE))
        }
        Err(error) => Err(error),
    }
}

/// What is for the operator is not written there: the viewer would take it for an answer.
fn viewer_reads(flags: &Flags, output: &impl AsFd) -> bool {
    flags.inetd && sockets::is_stdin(output)
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<Usage>()
}

async fn serve(flags: &Flags, routes: Vec<RouteFile>) -> anyhow::Result<ExitCode> {
    let mut before = if flags.ours.daemon_of { Some(daemon::take().await?) } else { None };
    let served = prepare(flags, routes, &mut before).await;
    match (&served, before) {
        (Err(error), Some(before)) => {
            before.fail(error).await?;
            Ok(ExitCode::FAILURE)
        }
        _ => served,
    }
}

/// All that can be wrong with the settings or in the way of the sockets; then the bridge runs. `before` is told there that it
/// does.
async fn prepare(
    flags: &Flags,
    routes: Vec<RouteFile>,
    before: &mut Option<Before>,
) -> anyhow::Result<ExitCode> {
    let given = if flags.ours.daemon_of { None } else { sockets::given()? };
    sockets::check_tls(flags, given.as_ref())?;
    let words = settings::words(flags, given.is_some())?;
    let connector = through::connector(flags)?;
    let mut config = settings::config(flags, words.target.clone())?;
    let connect_first = flags.ours.connect_first;
    config.routes.extend(routes.into_iter().map(|route| route.into_route(&config.service, connect_first)));
    let listening = given.as_ref().map_or(&[][..], Sockets::listeners);
    let wrap = wrapped::wrap(flags, &words, listening, &mut config)?;
    let (format, syslog) = settings::log(flags)?;
    if connector.is_some() {
        // The relay has the port and its TLS, whatever certificate lies about here.
        config.tls = None;
    }
    if viewer_reads(flags, &io::stdout()) {
        config.traffic = false;
    }
    // Before anything is begun: what is wrong with the settings is told at the terminal.
    let bridge = Bridge::new(config.clone()).map_err(|error| Usage(error.to_string()))?;
    if flags.ours.check {
        println!("the settings are good");
        return Ok(ExitCode::SUCCESS);
    }
    let file = flags.log_file.as_deref();
    let log = |out| log::begin(log::Settings { out, format, syslog: &syslog, verbose: flags.verbose, file });
    if let Some(connector) = connector {
        let _log = log(Out::Stderr)?;
        return through::run(flags, connector, config).await;
    }
    let socket_file = flags.unix_listen.as_deref().map(settings::absolute).transpose()?;
    let (sockets, metrics) = match before {
        Some(before) => (Sockets::Listening(std::mem::take(&mut before.listeners)), before.metrics.take()),
        None => {
            let sockets = match given {
                _ if flags.inetd => sockets::stdin()?,
                Some(given) => given,
                None => Sockets::Listening(sockets::bind(flags, &words.sources).await?),
            };
            let metrics = flags.ours.metrics_listen.map(|address| {
                tcp::listen(address, false)
                    .with_context(|| format!("--metrics-listen: cannot listen on {address}"))
            });
            (sockets, metrics.transpose()?)
        }
    };
    if flags.daemon && before.is_none() {
        let Sockets::Listening(listeners) = &sockets else {
            return Err(Usage(
                "-D is for sockets that listen, and what there is to serve is one connection".into(),
            )
            .into());
        };
        daemon::start(listeners, metrics.as_ref().map(AsFd::as_fd)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let out = if viewer_reads(flags, &io::stderr()) { Out::Nowhere } else { Out::Stderr };
    let _log = log(out)?;
    let directory = flags.web.as_deref().unwrap_or(Path::new("/"));
    let ready = Ready { config: &config, bridge, wrap, sockets, metrics, socket_file };
    let served = ready.run(before, directory).await;
    if let Err(error) = &served
        && flags.ours.daemon_of
    {
        // It has no terminal, and the process before it may be gone.
        tracing::error!(error = format!("{error:#}"), "the bridge ends");
    }
    served
}

/// A bridge whose sockets listen and whose log is begun.
struct Ready<'a> {
    config: &'a BridgeConfig,
    bridge: Bridge,
    wrap: Option<Wrap>,
    sockets: Sockets,
    metrics: Option<TcpListener>,
    /// Where a socket of it is found, which is to be removed at the end.
    socket_file: Option<PathBuf>,
}

impl Ready<'_> {
    /// Starts what it is to start, lets the process before this one go, and serves to the end.
    async fn run(self, before: &mut Option<Before>, directory: &Path) -> anyhow::Result<ExitCode> {
        let Self { config, mut bridge, wrap, sockets, metrics, socket_file } = self;
        let mut signals = Signals::with_hangup()?;
        if let Some(before) = before {
            before.leave(directory)?;
        }
        bridge.spawn().await?;
        let wrapped = wrap.map(Wrap::start).transpose()?;
        if let Some(before) = before.take() {
            before.dismiss().await?;
        }
        tell(config, &sockets, metrics.as_ref());
        if let Some(listener) = metrics {
            bridge = bridge.with_metrics(listener);
        }
        let socket_file = socket_file.as_deref().and_then(unix::File::at);
        let (stop, ending) = (CancellationToken::new(), CancellationToken::new());
        let shutdown = stop.clone().cancelled_owned();
        let mut serving = pin!(async {
            match sockets {
                Sockets::Listening(listeners) => bridge.run(listeners, shutdown).await,
                Sockets::Accepted(connection) => bridge.serve(connection, shutdown).await,
            }
        });
        let mut wrapping = pin!(wrapped::run(wrapped, &ending));
        let mut signalled = pin!(async {
            signals.next().await;
            stop.cancel();
            // The second one waits for nobody.
            signals.next().await;
            tracing::warn!("stopped at once");
        });
        let code = tokio::select! {
            () = &mut serving => None,
            () = &mut signalled => None,
            ended = &mut wrapping => Some(ended),
        };
        let code = match code {
            // A signal to all that run at a terminal ends both, and is no failure.
            Some(ended) => {
                let asked = stop.is_cancelled();
                stop.cancel();
                tokio::select! {
                    () = serving => {}
                    () = signalled => {}
                }
                ended.map(|code| code.filter(|_| !asked))
            }
            None => {
                ending.cancel();
                wrapping.await
            }
        };
        if let Some(file) = socket_file {
            file.remove();
        }
        Ok(code?.map_or(ExitCode::SUCCESS, ExitCode::from))
    }
}

/// The settings that count, as the first records of the log.
fn tell(config: &BridgeConfig, sockets: &Sockets, metrics: Option<&TcpListener>) {
    let service = &config.service;
    let target = match &service.tokens {
        Some(tokens) => Some(format!("by {}", tokens.plugin())),
        None => service.target.as_ref().map(ToString::to_string),
    };
    let routes = Some(config.routes.len()).filter(|routes| *routes > 0);
    let tls = match &config.tls {
        None => "none",
        Some(tls) if tls.only || tls.verify.is_some() => "only",
        Some(_) => "beside plain",
    };
    match sockets {
        Sockets::Listening(listeners) => {
            for listener in listeners.iter().map(sockets::shown) {
                tracing::info!(listener, to = target, routes, tls, "listening");
            }
        }
        Sockets::Accepted(_) => tracing::info!(to = target, tls, "one connection is served"),
    }
    if let Some(address) = metrics.and_then(|listener| listener.local_addr().ok()) {
        tracing::info!(%address, "metrics");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_websockify_takes_cut_short_is_taken_in_its_sense() {
        for (typed, meant) in [
            ("--log=x", "log_file"),
            ("--log-f=x", "log_file"),
            ("--pre", "prefer_ipv6"),
            ("--ssl-t", "ssl_target"),
            ("--dae", "daemon"),
            ("--hea=5", "heartbeat"),
            ("--run", "run_once"),
            ("--file", "file_only"),
            ("--log-fo=json", "log_format"),
            ("--proxy-p=1", "proxy_protocol"),
        ] {
            let matches = command().try_get_matches_from(["bridge", typed]).unwrap();
            let source = matches.value_source(meant);
            assert_eq!(source, Some(clap::parser::ValueSource::CommandLine), "{typed}");
        }
        for typed in ["--ssl", "--he", "--t"] {
            assert!(command().try_get_matches_from(["bridge", typed]).is_err(), "{typed}");
        }
    }
}
