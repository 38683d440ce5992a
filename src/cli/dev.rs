//! `adit dev`: a relay and a client in one process, on loopback, with a sample site where there is no target.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::http::{self, RelayArgs, ShowArgs, WayArgs, usage};
use crate::auth::keys::generate_key;
use crate::auth::{Keys, StaticKey};
use crate::client::{Options, Target};
use crate::proto::name::Name;
use crate::relay::config::RelayConfig;
use crate::relay::{Listeners, Relay, sample};
use crate::store::{Sqlite, Store};

/// Names below it are this machine for every browser.
const BASE_DOMAIN: &str = "localhost";

/// A browser keeps connections open; nobody shall wait for them after Ctrl-C.
const DRAIN: Duration = Duration::from_secs(1);

/// `adit dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Service to expose, as of `adit http` [default: a built-in sample site]
    #[arg(value_parser = http::target)]
    target: Option<Target>,
    /// Port of the relay on this machine
    #[arg(long, default_value_t = 8080, env = "ADIT_DEV_PORT")]
    port: u16,
    /// Name in the URL [default: that of the directory, else demo]
    #[arg(long, value_parser = http::name)]
    name: Option<String>,
    #[command(flatten)]
    show: ShowArgs,
}

/// Runs both until a signal.
pub(super) async fn run(args: DevArgs) -> anyhow::Result<ExitCode> {
    let listeners = match listen(args.port).await {
        Ok(listeners) => listeners,
        Err(sentence) => return Ok(usage("dev", &[sentence])),
    };
    let first = listeners.first().context("no listener")?.local_addr()?;
    let key = generate_key()?;
    let mut config = RelayConfig {
        listen: vec![first],
        base_domain: Some(BASE_DOMAIN.into()),
        static_keys: vec![StaticKey { name: "dev".into(), secret: key.clone() }],
        ..RelayConfig::default()
    };
    config.limits.drain = DRAIN;
    // In memory: what is tried out leaves nothing behind.
    let store: Arc<dyn Store> = Arc::new(Sqlite::memory()?);
    let keys = Keys::new(Arc::clone(&store), config.static_keys.clone());
    let listeners = Listeners { tcp: listeners, ..Listeners::default() };
    let relay = Relay::start(config, listeners, keys, store).await?;
    let (target, _site) = match args.target {
        Some(target) => (target, None),
        None => {
            let (target, site) = sample_site().await?;
            (target, Some(site))
        }
    };
    let to_relay = RelayArgs {
        relay: Some(format!("http://{first}")),
        key: Some(key.expose().to_owned()),
        way: WayArgs { proxy: Some("none".into()), ..WayArgs::default() },
    };
    let connector = to_relay.connector().map_err(anyhow::Error::msg)?;
    let style = args.show.style();
    let name = args.name.unwrap_or_else(default_name);
    let options = Options { name: Some(name), ..http::options(connector, target, style) };
    let code = http::keep_open(vec![(None, options)], style).await?;
    // Whoever waits for the second time has asked for haste.
    let _ = tokio::time::timeout(2 * DRAIN, relay.shutdown()).await;
    Ok(code)
}

/// Both families, as browsers take either for names below localhost. The error is a sentence.
async fn listen(port: u16) -> Result<Vec<TcpListener>, String> {
    let taken = |address: SocketAddr, error: std::io::Error| {
        format!(
            "port {port} cannot be had on {}: {error}; choose another with --port, such as --port 8081",
            address.ip()
        )
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let first = TcpListener::bind(address).await.map_err(|error| taken(address, error))?;
    // Port 0 is any free one, and then the same for both.
    let port = first.local_addr().map_or(port, |bound| bound.port());
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    match TcpListener::bind(address).await {
        Ok(second) => Ok(vec![first, second]),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(taken(address, error)),
        // A machine without IPv6.
        Err(_) => Ok(vec![first]),
    }
}

/// The sample site on a port of its own; it ends when the handle is dropped.
async fn sample_site() -> anyhow::Result<(Target, AbortOnDropHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let target = Target::parse(&listener.local_addr()?.to_string())?;
    let serving = tokio::spawn(async move {
        if let Err(error) = sample::serve(listener).await {
            tracing::error!(%error, "the sample site ended");
        }
    });
    Ok((target, AbortOnDropHandle::new(serving)))
}

fn default_name() -> String {
    let dir = std::env::current_dir().ok();
    let dir = dir.as_ref().and_then(|dir| dir.file_name()).and_then(|name| name.to_str());
    name_of(dir.unwrap_or_default()).unwrap_or_else(|| "demo".into())
}

/// A directory's name as a tunnel's, with what no tunnel's name can have turned into hyphens.
fn name_of(dir: &str) -> Option<String> {
    let parts = dir.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    let name = parts.collect::<Vec<_>>().join("-");
    Name::parse(&name).ok().map(|name| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_directory_where_it_can_be() {
        assert_eq!(name_of("My shop (2)"), Some("my-shop-2".into()));
        assert_eq!(name_of("www"), None);
        assert_eq!(name_of("é"), None);
    }

    #[tokio::test]
    async fn a_taken_port_is_told_with_the_option() {
        let listeners = listen(0).await.unwrap();
        let port = listeners[0].local_addr().unwrap().port();
        let error = listen(port).await.unwrap_err();
        assert!(error.contains("--port") && error.contains(&port.to_string()), "{error}");
    }
}
