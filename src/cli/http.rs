//! `adit http`: one tunnel to one target; and the loop in which every command that opens tunnels waits.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::USAGE;
use super::policy::PolicyArgs;
use super::signals::Signals;
use crate::auth::Secret;
use crate::client::report::{Report, Style};
use crate::client::{
    Connector, Dialer, End, Event, Options, Proxies, ProxyProtocol, RelayUrl, Session, Target,
};
use crate::proto::api::{Balance, NoBalance, TARGET_HTTP1, TARGET_HTTP2};
use crate::proto::duration;
use crate::proto::name::Name;

/// Which relay, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RelayArgs {
    /// URL of the relay [default: http://127.0.0.1:8080]
    #[arg(long, env = "ADIT_RELAY", value_name = "URL")]
    pub(super) relay: Option<String>,
    /// Key of yours on the relay; ADIT_KEY keeps it out of `ps`
    #[arg(long, env = "ADIT_KEY", value_name = "KEY", hide_env_values = true)]
    pub(super) key: Option<String>,
    #[command(flatten)]
    pub(super) way: WayArgs,
}

/// How it is reached.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct WayArgs {
    /// Proxy on the way to the relay, or `none` [default: HTTPS_PROXY and so on; none for a relay on this machine]
    #[arg(long, env = "ADIT_PROXY", value_name = "URL", hide_env_values = true)]
    pub(super) proxy: Option<String>,
    /// Certificates, in PEM, of the authority that the relay's certificate is from [default: those of the system]
    #[arg(long, env = "ADIT_RELAY_CA", value_name = "FILE", conflicts_with = "insecure")]
    pub(super) relay_ca: Option<PathBuf>,
    /// Take any certificate of the relay: whoever is on the way can read along and take its place
    #[arg(long)]
    pub(super) insecure: bool,
}

/// The relay that is meant when none is named: `adit relay` without options.
const DEFAULT_RELAY: &str = "http://127.0.0.1:8080";

impl RelayArgs {
    /// The error is a sentence about what was typed.
    pub(super) fn connector(&self) -> Result<Arc<Connector>, String> {
        self.connector_given_by("--relay")
    }

    /// The same where the address was typed as something else, which errors name.
    pub(super) fn connector_given_by(&self, source: &'static str) -> Result<Arc<Connector>, String> {
        let relay = RelayUrl::parse(self.relay.as_deref().unwrap_or(DEFAULT_RELAY))
            .map_err(|error| error.to_string())?;
        let key = self.key.as_deref().filter(|key| !key.is_empty()).map(Secret::new);
        let dialer = self.way.dialer(relay)?.naming(source);
        Connector::new(dialer, key.as_ref()).map_err(|error| error.to_string())
    }
}

impl WayArgs {
    /// The way to `relay`; the error is a sentence about what was typed.
    pub(super) fn dialer(&self, relay: RelayUrl) -> Result<Dialer, String> {
        let proxies = match self.proxy.as_deref() {
            None => Proxies::from_env(),
            Some("none") => Proxies::none(),
            Some(url) => Proxies::fixed(url).map_err(|error| error.to_string())?,
        };
        let dialer = Dialer::new(relay, proxies);
        Ok(match (&self.relay_ca, self.insecure) {
            (None, false) => dialer,
            (Some(file), _) => {
                let at = |error: String| format!("relay-ca: {}: {error}", file.display());
                dialer.trusting(&fs::read(file).map_err(|error| at(error.to_string()))?).map_err(at)?
            }
            (None, true) => {
                eprintln!(
                    "warning: --insecure: the relay's certificate is not checked; whoever is on the way can read \
                     along and take its place"
                );
                dialer.trusting_anybody().map_err(|error| error.to_string())?
            }
        })
    }
}

/// How what happens is shown.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct ShowArgs {
    /// One JSON object a line on stdout for everything that happens
    #[arg(long)]
    json: bool,
    /// Only the URL, and errors that end it
    #[arg(long, short)]
    quiet: bool,
}

impl ShowArgs {
    pub(super) fn style(self) -> Style {
        Style { json: self.json, quiet: self.quiet, colour: Style::colour_wanted() }
    }
}

/// `adit http`.
#[derive(Debug, Args)]
pub(super) struct HttpArgs {
    /// Service to expose: 3000, HOST:PORT, http://…, https://… or unix:/PATH
    #[arg(value_parser = target)]
    target: Target,
    #[command(flatten)]
    relay: RelayArgs,
    /// Name in the URL [default: one that the relay makes up and that stays]
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// The tunnel ends after this, such as 30m or 8h [default: when you stop it]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<String>,
    /// Viewers must give this user and password
    #[arg(long, value_name = "USER:PASSWORD", env = "ADIT_AUTH", hide_env_values = true, value_parser = auth)]
    auth: Option<(String, String)>,
    /// Host header for the target: `preserve` the viewers' own, `rewrite` to the target's, or a value
    #[arg(long, value_name = "HOST", default_value = "preserve")]
    host_header: String,
    /// End with code 69 when the relay is not reached or lost, instead of trying again
    #[arg(long)]
    exit_on_disconnect: bool,
    /// Host of your own that leads to the tunnel, too; its TXT entry in DNS at _adit.HOST says adit-owner=KEY, with your
    /// key's name. May be repeated
    #[arg(long = "domain", value_name = "HOST")]
    domains: Vec<String>,
    /// Each connection to the service begins with a header that names the viewer: v1 or v2 of the PROXY protocol
    #[arg(long, value_name = "VERSION", value_parser = proxy_protocol)]
    proxy_protocol: Option<ProxyProtocol>,
    /// What the target speaks: http1, or h2 for HTTP/2 with prior knowledge, as gRPC servers do
    #[arg(long, value_name = "PROTO", default_value = "http1", value_parser = target_proto)]
    target_proto: Speaks,
    /// Share the tunnel with other clients of yours that say so too, instead of taking it over
    #[arg(long, requires = "name")]
    replica: bool,
    /// How viewers are shared among them: least-busy, or sticky by their addresses [default: least-busy]
    #[arg(long, value_name = "HOW", requires = "replica", value_parser = balance)]
    balance: Option<Balance>,
    /// One data socket for each request
    #[arg(long)]
    no_reuse: bool,
    #[command(flatten)]
    show: ShowArgs,
    // Last, as its heading is for all that follows.
    #[command(flatten)]
    policy: PolicyArgs,
}

/// Opens the tunnel and keeps it open.
pub(super) async fn run(args: HttpArgs) -> anyhow::Result<ExitCode> {
    let connector = match args.relay.connector() {
        Ok(connector) => connector,
        Err(sentence) => return Ok(usage("http", &[sentence])),
    };
    let style = args.show.style();
    let host_header = match host_header(&args.host_header, &args.target) {
        Ok(host_header) => host_header,
        Err(sentence) => return Ok(usage("http", &[sentence])),
    };
    let policy = match args.policy.read(args.auth.is_some()) {
        Ok(policy) => policy,
        Err(sentences) => return Ok(usage("http", &sentences)),
    };
    if let Err(error) = args.target.check_proxy_protocol(args.proxy_protocol) {
        return Ok(usage("http", &[error.to_string()]));
    }
    let options = Options {
        name: args.name,
        ttl: args.ttl,
        auth: args.auth,
        policy,
        host_header,
        reuse: !args.no_reuse,
        domains: args.domains,
        proxy_protocol: args.proxy_protocol,
        replica: args.replica.then(|| args.balance.unwrap_or_default()),
        http2: args.target_proto == Speaks::Http2,
        exit_on_disconnect: args.exit_on_disconnect,
        ..options(connector, args.target, style)
    };
    keep_open(vec![(None, options)], style).await
}

/// A session as the command line starts it.
pub(super) fn options(connector: Arc<Connector>, target: Target, style: Style) -> Options {
    Options {
        requests_per_second: style.requests_per_second(),
        probe: true,
        source: "cli".to_owned(),
        device_name: hostname(),
        ..Options::new(connector, target)
    }
}

/// Prints what was typed wrong; the exit code for that.
pub(super) fn usage(command: &str, sentences: &[String]) -> ExitCode {
    for sentence in sentences {
        eprintln!("adit {command}: {sentence}");
    }
    ExitCode::from(USAGE)
}

/// Runs sessions, each with its label, until all have ended or a signal ends them in order; a second signal ends the
/// process at once, with code 1. The exit code is the highest of theirs.
pub(super) async fn keep_open(
    wanted: Vec<(Option<String>, Options)>,
    style: Style,
) -> anyhow::Result<ExitCode> {
    let start = |(label, options): (_, Options)| {
        let report = Report::new(style, label, options.target.clone());
        let (session, events) = Session::start(options);
        (session, report, events)
    };
    let started = wanted.into_iter().map(start).collect();
    keep(started, style, |_| Ok(())).await
}

/// What runs until it ends or is stopped.
pub(super) trait Kept {
    /// Asks it to end in order.
    fn stop(&self);
    /// Waits for its end.
    async fn ended(&mut self) -> End;
    /// Events since the last call that were not told.
    fn take_omitted(&self) -> u64;
}

impl Kept for Session {
    fn stop(&self) {
        self.stop();
    }

    async fn ended(&mut self) -> End {
        self.ended().await
    }

    fn take_omitted(&self) -> u64 {
        self.take_omitted()
    }
}

/// The same of whatever has been started; `note` sees each event before it is shown, and its error ends everything.
pub(super) async fn keep<K: Kept>(
    started: Vec<(K, Report, mpsc::Receiver<Event>)>,
    style: Style,
    mut note: impl FnMut(&Event) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::with_hangup()?;
    let mut running = Vec::with_capacity(started.len());
    let mut arriving = FuturesUnordered::new();
    for (at, (session, report, events)) in started.into_iter().enumerate() {
        running.push((session, report));
        arriving.push(next(at, events));
    }
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let (mut stopping, mut told, mut code) = (false, false, 0);
    loop {
        tokio::select! {
            arrived = arriving.next() => match arrived {
                Some((at, Some(event), events)) => {
                    note(&event)?;
                    running[at].1.event(&event);
                    arriving.push(next(at, events));
                }
                Some((at, None, _)) => {
                    let (session, report) = &mut running[at];
                    code = code.max(session.ended().await.exit_code());
                    report.omitted(session.take_omitted());
                }
                None => return Ok(ExitCode::from(code)),
            },
            _ = second.tick() => {
                for (session, report) in &running {
                    report.omitted(session.take_omitted());
                }
                if stopping && !std::mem::replace(&mut told, true) && !style.json && !style.quiet {
                    // The terminal may be closed.
                    let _ = writeln!(
                        std::io::stderr(),
                        "closing: waiting a few seconds for open connections; Ctrl-C again ends at once"
                    );
                }
            }
            () = signals.next() => {
                if stopping {
                    return Ok(ExitCode::FAILURE);
                }
                stopping = true;
                running.iter().for_each(|(session, _)| session.stop());
            }
        }
    }
}

async fn next(at: usize, mut events: mpsc::Receiver<Event>) -> (usize, Option<Event>, mpsc::Receiver<Event>) {
    let event = events.recv().await;
    (at, event, events)
}

/// Reads a target; the error is a sentence.
pub(super) fn target(text: &str) -> Result<Target, String> {
    Target::parse(text).map_err(|error| error.to_string())
}

/// Reads a tunnel's name.
pub(super) fn name(text: &str) -> Result<String, String> {
    Name::parse(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

/// Reads a lifetime and leaves it as it was written.
pub(super) fn ttl(text: &str) -> Result<String, String> {
    duration::parse(text).map(|_| text.trim().to_owned()).map_err(|error| error.to_string())
}

/// Reads a version of the PROXY protocol.
pub(super) fn proxy_protocol(text: &str) -> Result<ProxyProtocol, String> {
    text.parse::<ProxyProtocol>().map_err(|error| error.to_string())
}

/// Reads `USER:PASSWORD`; the password may have colons.
pub(super) fn auth(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => {
            Ok((user.into(), password.into()))
        }
        // The text is a password, or half of one, and is not repeated.
        _ => Err("write USER:PASSWORD, neither of them empty".into()),
    }
}

/// What a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, or by ALPN where it has TLS.
    Http2,
}

/// Reads what a target speaks.
pub(super) fn target_proto(text: &str) -> Result<Speaks, String> {
    match text {
        TARGET_HTTP1 => Ok(Speaks::Http1),
        TARGET_HTTP2 => Ok(Speaks::Http2),
        _ => Err("write h2 for HTTP/2, or http1".into()),
    }
}

/// Reads how viewers are shared.
pub(super) fn balance(text: &str) -> Result<Balance, String> {
    text.parse().map_err(|error: NoBalance| error.to_string())
}

/// What `preserve`, `rewrite` or a value mean for a target.
pub(super) fn host_header(text: &str, target: &Target) -> Result<Option<String>, String> {
    match text.trim() {
        "preserve" => Ok(None),
        "rewrite" => Ok(Some(target.authority())),
        value if value.parse::<::http::uri::Authority>().is_ok() && !value.contains('@') => {
            Ok(Some(value.into()))
        }
        value => {
            Err(format!("host-header: {value:?} is no host: write preserve, rewrite, HOST or HOST:PORT"))
        }
    }
}

/// Name of this machine, as far as it is told without a system call of its own.
fn hostname() -> Option<String> {
    let told = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    told.ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    fn error_of(line: &str) -> String {
        command().try_get_matches_from(line.split(' ')).unwrap_err().to_string()
    }

    #[test]
    fn what_is_typed_wrong_is_told_with_what_to_type() {
        for (line, part) in [
            ("adit http", "<TARGET>"),
            ("adit http localhost", "localhost:3000"),
            ("adit http http://a/b", "no path"),
            ("adit http 3000 --name a.b", "a-z"),
            ("adit http 3000 --ttl soon", "1h30m"),
            ("adit http 3000 --auth secret", "USER:PASSWORD"),
            ("adit http 3000 --target-proto h3", "h2"),
            ("adit http 3000 --replica --name web --balance fair", "sticky"),
            ("adit http 3000 --replica", "--name"),
            ("adit http 3000 --balance sticky", "--replica"),
        ] {
            let error = error_of(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn the_host_header_is_kept_rewritten_or_given() {
        let target = Target::parse("https://app:8443").unwrap();
        assert_eq!(host_header("preserve", &target), Ok(None));
        assert_eq!(host_header("rewrite", &target), Ok(Some("app:8443".into())));
        assert_eq!(host_header("example.com", &target), Ok(Some("example.com".into())));
        assert!(host_header("a b", &target).is_err());
        assert!(host_header("a/b", &target).is_err());
    }

    #[tokio::test]
    async fn the_relay_is_checked_before_anything_is_dialled() {
        let args = |relay: &str, key: &str| RelayArgs {
            relay: Some(relay.into()),
            key: Some(key.into()),
            way: WayArgs { proxy: Some("none".into()), ..WayArgs::default() },
        };
        assert!(args("https://relay.example/path", "k").connector().err().unwrap().contains("path"));
        assert!(args("https://relay.example", "a b").connector().err().unwrap().contains("ADIT_KEY"));
        assert!(args("https://relay.example", "").connector().is_ok_and(|connector| !connector.has_key()));
    }
}
