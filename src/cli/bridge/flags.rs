//! The options of `adit bridge`: those of websockify in their spelling, and ours beside them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, Command, ValueEnum};
use ipnet::IpNet;

use super::doors::DoorFlags;
use super::through::ThroughFlags;
use crate::bridge::{FrameType, TextMessages};
use crate::proto::duration;
use crate::proto::networks::network;

/// The heading of the options that websockify has.
const THEIRS: &str = "As with websockify";

/// `command` with beginnings of websockify's options that ours have as well: they are meant as websockify means them.
pub(super) fn cut_short(command: Command) -> Command {
    let longs = |theirs: bool| {
        let wanted = command.get_arguments().filter(|arg| (arg.get_help_heading() == Some(THEIRS)) == theirs);
        wanted.filter_map(Arg::get_long).map(str::to_owned).collect::<Vec<_>>()
    };
    let (mut theirs, ours) = (longs(true), longs(false));
    theirs.push("help".into());
    let begins = |longs: &[String], part: &str| longs.iter().filter(|long| long.starts_with(part)).count();
    command.mut_args(|arg| {
        let Some(long) = arg.get_long().filter(|_| arg.get_help_heading() == Some(THEIRS)) else {
            return arg;
        };
        let parts = (1..long.len()).map(|end| long[..end].to_owned());
        let meant: Vec<_> =
            parts.filter(|part| begins(&theirs, part) == 1 && begins(&ours, part) > 0).collect();
        arg.aliases(meant)
    })
}

/// What is typed behind `adit bridge`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = THEIRS)]
pub(super) struct Flags {
    /// [ADDRESS:]PORT to listen at, and HOST:PORT that WebSockets lead to
    #[arg(value_name = "[ADDRESS:]PORT HOST:PORT", num_args = 0..)]
    pub words: Vec<String>,
    /// A program to run, whose own port is taken in its place
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,

    /// More in the log
    #[arg(short, long)]
    pub verbose: bool,
    /// A character on stdout for each frame that goes through
    #[arg(long)]
    pub traffic: bool,
    /// Record each session in FILE.number, for noVNC to replay
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Serve in the background
    #[arg(short = 'D', long)]
    pub daemon: bool,
    /// End after the first session
    #[arg(long)]
    pub run_once: bool,
    /// End after so many seconds without anybody connected, in all
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// End after so many seconds without anybody connected, at a stretch
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub idle_timeout: Option<Duration>,
    /// Certificate in PEM, with its chain; self.pem is taken if it is there
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its private key, if it is in a file of its own
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Refused: keys are read without a password
    #[arg(long, value_name = "PASSWORD", hide = true)]
    pub key_password: Option<String>,
    /// Close connections without TLS
    #[arg(long)]
    pub ssl_only: bool,
    /// The lowest version of TLS: default, tlsv1_2 or tlsv1_3
    #[arg(long, value_name = "VERSION")]
    pub ssl_version: Option<String>,
    /// Suites of TLS, one by one, with colons between them
    #[arg(long, value_name = "SUITES")]
    pub ssl_ciphers: Option<String>,
    /// Let in only who shows a certificate of --cafile, or else of the system's authorities
    #[arg(long)]
    pub verify_client: bool,
    /// Authorities for --verify-client, in PEM
    #[arg(long, value_name = "FILE")]
    pub cafile: Option<PathBuf>,
    /// TLS to the target
    #[arg(long)]
    pub ssl_target: bool,
    /// WebSockets lead to this Unix socket
    #[arg(long, value_name = "PATH")]
    pub unix_target: Option<PathBuf>,
    /// Listen at this path in the place of a port
    #[arg(long, value_name = "PATH")]
    pub unix_listen: Option<PathBuf>,
    /// Its permissions, octal [default: 0600]
    #[arg(long, value_name = "OCTAL", value_parser = mode)]
    pub unix_listen_mode: Option<u32>,
    /// Standard input is the socket: one that listens, or a connection
    #[arg(long)]
    pub inetd: bool,
    /// Serve the files of this directory, too
    #[arg(long, value_name = "DIR")]
    pub web: Option<PathBuf>,
    /// Ask for a login for these as well
    #[arg(long)]
    pub web_auth: bool,
    /// No lists of directories
    #[arg(long)]
    pub file_only: bool,
    /// What the end of COMMAND means
    #[arg(long, value_name = "MODE", value_enum, default_value = "exit")]
    pub wrap_mode: WrapMode,
    /// IPv6 before IPv4
    #[arg(short = '6', long)]
    pub prefer_ipv6: bool,
    /// Everything is served by one process anyway
    #[arg(long, hide = true)]
    pub libserver: bool,
    /// The older name of --token-plugin TokenFile --token-source FILE
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token_plugin", "token_source"])]
    pub target_config: Option<String>,
    /// How a token leads to a target: TokenFile, ReadOnlyTokenFile, TokenFileName, UnixDomainSocketDirectory, BaseTokenAPI,
    /// JSONTokenApi, JWTTokenApi or TokenRedis
    #[arg(long, value_name = "NAME")]
    pub token_plugin: Option<String>,
    /// Where the plugin reads
    #[arg(long, value_name = "SOURCE", env = "ADIT_TOKEN_SOURCE", hide_env_values = true)]
    pub token_source: Option<String>,
    /// The token is the host that was asked for
    #[arg(long)]
    pub host_token: bool,
    /// Who is let in: BasicHTTPAuth, ExpectOrigin or ClientCertCNAuth; several of them must agree
    #[arg(long, value_name = "NAME")]
    pub auth_plugin: Vec<String>,
    /// What the plugin compares with
    #[arg(long, value_name = "SOURCE", env = "ADIT_AUTH_SOURCE", hide_env_values = true)]
    pub auth_source: Vec<String>,
    /// A ping each so many seconds; who leaves two unanswered is gone at the third
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub heartbeat: Option<Duration>,
    /// Write the log to this file, too
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// And to a syslog daemon: HOST:PORT or a path
    #[arg(long, value_name = "SERVER")]
    pub syslog: Option<String>,
    /// As older daemons read it
    #[arg(long)]
    pub legacy_syslog: bool,

    #[command(flatten)]
    pub doors: DoorFlags,
    #[command(flatten)]
    pub through: ThroughFlags,
    /// What a file says in the place of words.
    #[arg(skip)]
    pub file: Option<FileWords>,

    #[command(flatten)]
    pub ours: Ours,
}

/// What stands in a file in the place of words.
#[derive(Debug, Clone)]
pub(super) struct FileWords {
    /// Where to listen.
    pub listen: Vec<String>,
    /// Where WebSockets lead to that no route takes.
    pub target: Option<String>,
    /// Something else may take all of them.
    pub has_routes: bool,
}

/// What websockify does not have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Beside websockify")]
pub(super) struct Ours {
    /// Read settings and routes from this TOML file; flags go before it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only look whether the settings are good
    #[arg(long)]
    pub check: bool,
    /// Write what a configuration of lighttpd with mod_wstunnel says as such a file, and on stderr what it could not
    #[arg(long, value_name = "FILE", exclusive = true)]
    pub from_lighttpd: Option<PathBuf>,
    /// Authorities of the target's certificate, in PEM; implies --ssl-target
    #[arg(long, value_name = "FILE")]
    pub ssl_target_ca: Option<PathBuf>,
    /// Take any certificate of the target; implies --ssl-target
    #[arg(long, conflicts_with = "ssl_target_ca")]
    pub ssl_target_insecure: bool,
    /// Text messages: refuse (1003) or pass
    #[arg(long, value_name = "WHAT", value_parser = str::parse::<TextMessages>, default_value = "refuse")]
    pub text: TextMessages,
    /// Messages to the viewer: binary or text
    #[arg(long, value_name = "TYPE", value_parser = str::parse::<FrameType>, default_value = "binary")]
    pub frame_type: FrameType,
    /// A subprotocol to choose if it is offered, beside binary and base64
    #[arg(long, value_name = "NAME")]
    pub protocol: Option<String>,
    /// Dial the target before the handshake is answered: 502 where it fails, and not close code 1011. Routes do so unless
    /// this is false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub connect_first: Option<bool>,
    /// To be connected to the target
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub connect_timeout: Duration,
    /// After the target's end, so long for what the viewer still sends; or off
    #[arg(long, value_name = "SECONDS", value_parser = half_close, default_value = "2")]
    pub half_close: HalfClose,
    /// Bytes of the largest frame that is taken; a larger one is 1009
    #[arg(long, value_name = "BYTES")]
    pub max_frame: Option<u64>,
    /// For TLS and the request; and between two requests
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub handshake_timeout: Duration,
    /// End a session in which nothing moves for so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub session_idle: Option<Duration>,
    /// At the end, sessions go on for so long before they are closed with 1001
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0")]
    pub drain: Duration,
    /// Tell the target the viewer's address by a PROXY header: version 1 or 2
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub proxy_protocol: Option<u8>,
    /// A proxy in front whose X-Forwarded-For is believed; may be repeated
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub trusted_proxy: Vec<IpNet>,
    /// Those proxies begin each connection with a PROXY header
    #[arg(long)]
    pub accept_proxy_protocol: bool,
    /// Metrics for Prometheus
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// The log as text or json
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogForm,
    /// The process in the background, to which the one before hands its sockets by standard input
    #[arg(long, hide = true)]
    pub daemon_of: bool,
}

/// What the end of a wrapped program means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WrapMode {
    /// The end of the bridge.
    Exit,
    /// Nothing.
    Ignore,
    /// It is started again.
    Respawn,
}

/// As `--log-format` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogForm {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `--half-close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HalfClose(pub Option<Duration>);

/// Seconds, as websockify has them, or a time with a unit.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => duration::parse(text).map_err(|_| "expected seconds, or for example 500ms or 5m".into()),
    }
}

fn half_close(text: &str) -> Result<HalfClose, String> {
    if text == "off" { Ok(HalfClose(None)) } else { seconds(text).map(|time| HalfClose(Some(time))) }
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "expected permissions such as 0660".into())
}
