//! `adit tcp` and `adit tls`: one tunnel whose bytes are not read, at a port of the relay or by its name in TLS.

use std::process::ExitCode;

use clap::Args;

use super::http::{self, RelayArgs, ShowArgs, keep_open, options, usage};
use super::policy::WhoArgs;
use crate::client::{Options, Proto, ProxyProtocol, Target};

/// `adit tcp`.
#[derive(Debug, Args)]
pub(super) struct TcpArgs {
    /// Service to expose: 5432, HOST:PORT or unix:/PATH
    #[arg(value_parser = target)]
    target: Target,
    #[command(flatten)]
    relay: RelayArgs,
    /// Port of the relay [default: the one that the name had before, or a free one; it stays yours]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    remote_port: Option<u16>,
    #[command(flatten)]
    common: RawArgs,
}

/// `adit tls`.
#[derive(Debug, Args)]
pub(super) struct TlsArgs {
    /// Service to expose, which speaks TLS: 443, HOST:PORT or unix:/PATH
    #[arg(value_parser = target)]
    target: Target,
    #[command(flatten)]
    relay: RelayArgs,
    /// Host of your own that leads to the tunnel, too; its TXT entry in DNS at _adit.HOST says adit-owner=KEY, with your
    /// key's name. May be repeated
    #[arg(long, value_name = "HOST")]
    domain: Vec<String>,
    #[command(flatten)]
    common: RawArgs,
}

/// What all tunnels have whose bytes are not read.
#[derive(Debug, Args)]
pub(super) struct RawArgs {
    /// Name of the tunnel [default: one that the relay makes up and that stays]
    #[arg(long, value_parser = http::name)]
    name: Option<String>,
    /// The tunnel ends after this, such as 30m or 8h [default: when you stop it]
    #[arg(long, value_name = "TIME", value_parser = http::ttl)]
    ttl: Option<String>,
    /// Each connection to the service begins with a header that names the viewer: v1 or v2 of the PROXY protocol
    #[arg(long, value_name = "VERSION", value_parser = http::proxy_protocol)]
    proxy_protocol: Option<ProxyProtocol>,
    /// End with code 69 when the relay is not reached or lost, instead of trying again
    #[arg(long)]
    exit_on_disconnect: bool,
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    who: WhoArgs,
}

/// Opens the tunnel and keeps it open.
pub(super) async fn run(args: TcpArgs) -> anyhow::Result<ExitCode> {
    open("tcp", Proto::Tcp, args.relay, args.target, args.remote_port, Vec::new(), args.common).await
}

/// The same by the name in TLS.
pub(super) async fn run_tls(args: TlsArgs) -> anyhow::Result<ExitCode> {
    open("tls", Proto::Tls, args.relay, args.target, None, args.domain, args.common).await
}

/// Opens a tunnel whose bytes are not read.
pub(super) async fn open(
    command: &str,
    proto: Proto,
    relay: RelayArgs,
    target: Target,
    remote_port: Option<u16>,
    domains: Vec<String>,
    common: RawArgs,
) -> anyhow::Result<ExitCode> {
    let connector = match relay.connector() {
        Ok(connector) => connector,
        Err(sentence) => return Ok(usage(command, &[sentence])),
    };
    let RawArgs { name, ttl, proxy_protocol, exit_on_disconnect, show, who } = common;
    let policy = match who.read() {
        Ok(policy) => policy,
        Err(sentences) => return Ok(usage(command, &sentences)),
    };
    let style = show.style();
    let options = Options {
        name,
        ttl,
        proto,
        remote_port,
        policy,
        proxy_protocol,
        domains,
        exit_on_disconnect,
        ..options(connector, target, style)
    };
    keep_open(vec![(None, options)], style).await
}

/// Reads a target of bytes; the error is a sentence.
pub(super) fn target(text: &str) -> Result<Target, String> {
    Target::parse_for(Proto::Tcp, text).map_err(|error| error.to_string())
}
