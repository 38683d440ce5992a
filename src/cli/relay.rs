//! `adit relay`: resolves the configuration, sees that there is a key, and serves.

use std::io::Write;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::log;
use super::options::{self, Env};
use super::signals::Signals;
use super::systemd::{self, Supervisor};
use crate::auth::keys::{generate_key, hash_key};
use crate::auth::{Keys, Secret, StaticKey};
use crate::relay::config::{LogFormat, RelayConfig};
use crate::relay::{Relay, TakeOverError, is_answered, take_over};
use crate::store::{Sqlite, Store};

/// Exit code for options that cannot be used, as clap has it.
const USAGE: u8 = 2;

/// Exit code where there is no relay to take over from.
const UNREACHABLE: u8 = 69;

/// Name of the key that is made when there is none.
const FIRST_KEY: &str = "default";

/// Why a relay without a data directory has no successor.
const IN_MEMORY: &str = "a relay is replaced by way of its data directory, and this one has none; give each --data-dir, \
                         or stop one and start the other";

/// A static secret shorter than this can be guessed; 20 random characters cannot.
const SHORT_SECRET: usize = 20;

/// The subcommand with all its options.
pub fn command() -> Command {
    let about = "Runs a relay: viewers come in here, clients connect to it";
    let command = Command::new("relay").about(about).after_help(
        "Each option can also be a key of the file, without the dashes. A flag goes before the environment, \
         the environment before the file. Keys of clients are made with `adit key create`, or given as \
         ADIT_KEYS or the file's `keys`, as NAME:SECRET,…; tokens with `adit token mint`. With ADIT_WORKER_SECRET, \
         workers of Taskcluster register, too. Where TASKCLUSTER_PROXY_SECRET_A is set, the environment of \
         Taskcluster's websocktunnel is read in the place of defaults",
    );
    options::add(command, |_| true)
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Only read the configuration and print it as a file, with the origin of each value"),
        )
        .arg(Arg::new("take-over").long("take-over").action(ArgAction::SetTrue).help(
            "Take the place of the relay that runs on the same data directory: it hands over its sockets, \
             finishes what is under way and ends. No request fails",
        ))
}

/// Runs the relay until it is stopped. Errors in the options are printed here, all of them, with exit code 2.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let resolved = match options::resolve(matches, &Env::process()) {
        Ok(resolved) => resolved,
        Err(errors) => {
            for error in errors {
                eprintln!("adit relay: {error}");
            }
            return Ok(ExitCode::from(USAGE));
        }
    };
    if matches.get_flag("check") {
        std::io::stdout().write_all(resolved.to_toml().as_bytes()).context("stdout")?;
        return Ok(ExitCode::SUCCESS);
    }
    let (mut config, in_memory) = (resolved.config, resolved.in_memory);
    let log_format = config.log;
    let out = if resolved.is_taskcluster { log::Out::Stdout } else { log::Out::Stderr };
    let _log = log::init(out, log_format, &config.syslog)?;
    let supervisor = Supervisor::of_process();
    // Before anything is opened: what is refused leaves the running relay alone.
    let inheritance = if in_memory {
        if matches.get_flag("take-over") {
            eprintln!("adit relay: {IN_MEMORY}");
            return Ok(ExitCode::from(USAGE));
        }
        None
    } else if matches.get_flag("take-over") {
        match take_over(&config, is_started_by_the_one_before()).await {
            Ok(inheritance) => {
                // Mostly what they are already; of a relay whose sockets systemd has made, what these are.
                config.adopt_addresses(&inheritance.listeners, inheritance.tls);
                Some(inheritance)
            }
            Err(error) => {
                eprintln!("adit relay: {error}");
                return Ok(exit_code(&error));
            }
        }
    } else if is_answered(&config.data_dir).await {
        anyhow::bail!(
            "a relay is running on this data directory: add --take-over to replace it, or use another --data-dir"
        );
    } else {
        None
    };
    let given = match &inheritance {
        Some(_) => None,
        None => systemd::inherited(&mut config).map_err(anyhow::Error::msg)?,
    };
    // Sockets that others have made have addresses of their own.
    if given.is_some()
        && let errors @ [_, ..] = &config.validate()[..]
    {
        for error in errors {
            eprintln!("adit relay: {error}");
        }
        return Ok(ExitCode::from(USAGE));
    }
    let store: Arc<dyn Store> =
        Arc::new(if in_memory { Sqlite::memory()? } else { Sqlite::open(&config.data_dir)? });
    match first_key(&config, store.as_ref()).await? {
        FirstKey::Present => {}
        FirstKey::Made(secret) => eprintln!("{}", greeting(&config, &secret)),
        FirstKey::Missing => {
            eprintln!(
                "adit relay: there are no keys, and other machines could reach this relay: run `adit key \
                 create NAME --data-dir {}`, or set ADIT_KEYS to NAME:SECRET, or ADIT_JWT_SECRET",
                config.data_dir.display()
            );
            return Ok(ExitCode::from(USAGE));
        }
    }
    for name in guessable(&config) {
        tracing::warn!(
            key = name,
            "the secret of this key is shorter than {SHORT_SECRET} characters and may be guessed"
        );
    }
    for position in guessable_workers(&config) {
        tracing::warn!(
            position,
            "this secret of workers is shorter than {SHORT_SECRET} characters and may be guessed"
        );
    }
    let keys =
        Keys::new(Arc::clone(&store), config.static_keys.clone()).with_tokens(config.jwt_secrets.clone());
    let mut relay = match (inheritance, given) {
        (Some(inheritance), _) => Relay::succeed(config, inheritance, keys, store).await?,
        (None, Some(listeners)) => Relay::start(config, listeners, keys, store).await?,
        (None, None) => Relay::bind(config, keys, store).await?,
    };
    if in_memory {
        tracing::info!(
            "no data directory: what is kept is in memory, and this relay cannot be replaced with --take-over"
        );
    } else if let Err(error) = relay.let_successors_in() {
        tracing::warn!(%error, "no socket in the data directory: this relay cannot be replaced with --take-over");
    }
    // Before anybody is told that we are ready, and may send them: unheard they would end us.
    let mut signals = Signals::new()?;
    let (mut hangup, mut upgrade) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?);
    for address in relay.addresses() {
        tracing::info!(%address, "listening");
    }
    for path in relay.paths() {
        tracing::info!(path = %path.display(), "listening at a path");
    }
    if let Some(address) = relay.admin_address() {
        tracing::info!(%address, "listening for the operator");
    }
    if let Some(address) = relay.metrics_address() {
        tracing::info!(%address, "listening for scrapers");
    }
    show_link(&relay, log_format);
    tracing::info!(url = relay.public_url(), version = env!("CARGO_PKG_VERSION"), "relay ready");
    supervisor.ready();
    let _watching = Supervisor::of_process().watch();
    let handed_over = loop {
        tokio::select! {
            biased;
            () = relay.handed_over() => break true,
            () = signals.next() => break false,
            _ = hangup.recv() => {
                supervisor.reloading();
                relay.reload();
                show_link(&relay, log_format);
                supervisor.ready();
            }
            _ = upgrade.recv() => {
                if in_memory {
                    tracing::warn!("no successor is started: {IN_MEMORY}");
                } else {
                    start_successor();
                }
            }
        }
    };
    if handed_over {
        supervisor.handed_over(relay.successor());
    } else {
        supervisor.stopping();
    }
    let ending = async {
        if handed_over {
            relay.retire().await;
        } else {
            tracing::info!("stopping: requests under way may finish; another signal stops at once");
            relay.shutdown().await;
        }
    };
    let mut ending = pin!(ending);
    if handed_over {
        // Whoever replaces a relay may tell the old one to stop by habit: it does so already.
        tokio::select! {
            () = &mut ending => return Ok(ExitCode::SUCCESS),
            () = signals.next() => {
                tracing::info!("stopping already: requests under way may finish; another signal stops at once");
            }
        }
    }
    tokio::select! {
        () = &mut ending => {}
        () = signals.next() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Set for a process that the running relay starts to take its place.
const STARTED_BY: &str = "ADIT_SUCCESSOR_OF";

/// Whether the relay that we are to replace has started us itself: then we take its sockets, whatever addresses they have.
fn is_started_by_the_one_before() -> bool {
    let parent = std::os::unix::process::parent_id().to_string();
    std::env::var(STARTED_BY).is_ok_and(|pid| pid == parent)
}

/// Starts the program anew, as it is on the disk by now, with the same options, to take our place. If it fails, we go on.
fn start_successor() {
    let mut arguments = std::env::args_os();
    let Some(program) = arguments.next() else { return };
    let mut command = std::process::Command::new(program);
    command.args(arguments.filter(|argument| argument != "--take-over")).arg("--take-over");
    command.env(STARTED_BY, std::process::id().to_string());
    // Those of systemd were for us; of the other variables it has need.
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    match tokio::process::Command::from(command).spawn() {
        // Whoever waits for it is the runtime; after our end, the system.
        Ok(child) => tracing::info!(pid = child.id(), "a successor is started"),
        Err(error) => tracing::error!(%error, "no successor can be started; going on"),
    }
}

fn exit_code(error: &TakeOverError) -> ExitCode {
    match error {
        TakeOverError::NoRelay { .. } => ExitCode::from(UNREACHABLE),
        TakeOverError::OtherAddresses(_) => ExitCode::from(USAGE),
        TakeOverError::Refused(_) | TakeOverError::Io(_) => ExitCode::FAILURE,
    }
}

enum FirstKey {
    /// There are keys, or tokens of owners or workers are taken.
    Present,
    /// There were none, and only this machine reaches the relay: this one was made.
    Made(Secret),
    /// There are none, and one that is made unasked might be read by others.
    Missing,
}

/// A relay without keys would let nobody in or, worse, anybody.
async fn first_key(config: &RelayConfig, store: &dyn Store) -> anyhow::Result<FirstKey> {
    let configured =
        !config.static_keys.is_empty() || !config.jwt_secrets.is_empty() || config.worker_tokens.is_some();
    if configured || store.keys().await?.iter().any(|key| key.revoked_at.is_none()) {
        return Ok(FirstKey::Present);
    }
    if !config.is_loopback_only() {
        return Ok(FirstKey::Missing);
    }
    let secret = generate_key()?;
    // Another process may have been faster; then there is a key.
    let made = store.create_key(FIRST_KEY.into(), hash_key(secret.expose())).await?;
    Ok(if made { FirstKey::Made(secret) } else { FirstKey::Present })
}

/// Shows the first key, for the only time.
fn greeting(config: &RelayConfig, secret: &Secret) -> String {
    let server = match (&config.public_url, config.listen.first()) {
        (Some(url), _) => url.to_string(),
        (None, Some(address)) if address.port() != 0 => format!("http://{address}"),
        _ => "http://127.0.0.1:PORT".into(),
    };
    format!(
        "There was no key yet, so one named \"{FIRST_KEY}\" was made. It is shown only now:\n\n    {key}\n\n\
         Use it so:\n\n    ADIT_RELAY={server} ADIT_KEY={key} adit http 3000\n",
        key = secret.expose()
    )
}

/// Shows a link to the dashboard, where no password is set. It is no record: where records go, secrets do not. Nobody has to
/// read it.
fn show_link(relay: &Relay, format: LogFormat) {
    let Some(link) = relay.dashboard_link() else { return };
    let line = match format {
        LogFormat::Json => {
            serde_json::json!({"level": "INFO", "message": "dashboard", "url": link}).to_string()
        }
        _ => format!("dashboard: {link}  (good once, for ten minutes; SIGHUP shows another)"),
    };
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Names of the static keys that others may try to guess, and can.
fn guessable(config: &RelayConfig) -> Vec<&str> {
    let short = |key: &&StaticKey| !config.is_loopback_only() && key.secret.expose().len() < SHORT_SECRET;
    config.static_keys.iter().filter(short).map(|key| key.name.as_str()).collect()
}

/// Which secrets of workers others may try to guess, and can, counted from 1.
fn guessable_workers(config: &RelayConfig) -> Vec<usize> {
    let open = config.worker_tokens.iter().filter(|_| !config.is_loopback_only());
    let secrets = open.flat_map(|tokens| tokens.secrets.iter()).zip(1..);
    secrets.filter(|(secret, _)| secret.expose().len() < SHORT_SECRET).map(|(_, position)| position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::jwt::{Secrets, WorkerTokens};

    fn open_to_all() -> RelayConfig {
        RelayConfig { listen: vec!["0.0.0.0:80".parse().unwrap()], ..RelayConfig::default() }
    }

    #[test]
    fn the_command_is_sound() {
        command().debug_assert();
    }

    #[tokio::test]
    async fn a_loopback_relay_without_keys_makes_one_once() {
        let store = Sqlite::memory().unwrap();
        let config = RelayConfig::default();
        let FirstKey::Made(secret) = first_key(&config, &store).await.unwrap() else {
            panic!("no key was made")
        };
        let found = store.find_key(hash_key(secret.expose())).await.unwrap();
        assert_eq!(found.unwrap().name, "default");
        let shown = greeting(&config, &secret);
        assert!(
            shown.contains(&format!("ADIT_RELAY=http://127.0.0.1:8080 ADIT_KEY={}", secret.expose())),
            "{shown}"
        );
        assert!(matches!(first_key(&config, &store).await.unwrap(), FirstKey::Present));
        store.revoke_key("default".into()).await.unwrap();
        assert!(matches!(first_key(&config, &store).await.unwrap(), FirstKey::Made(_)));
    }

    #[tokio::test]
    async fn a_relay_that_others_reach_needs_a_key() {
        let store = Sqlite::memory().unwrap();
        assert!(matches!(first_key(&open_to_all(), &store).await.unwrap(), FirstKey::Missing));
        assert_eq!(store.keys().await, Ok(vec![]));
        store.create_key("alice".into(), [1; 32]).await.unwrap();
        assert!(matches!(first_key(&open_to_all(), &store).await.unwrap(), FirstKey::Present));
    }

    #[tokio::test]
    async fn a_secret_for_tokens_is_enough() {
        let store = Sqlite::memory().unwrap();
        let config = RelayConfig { jwt_secrets: vec![Secret::new("s".repeat(32))], ..open_to_all() };
        assert!(matches!(first_key(&config, &store).await.unwrap(), FirstKey::Present));
        assert_eq!(store.keys().await, Ok(vec![]));
    }

    #[tokio::test]
    async fn a_secret_of_workers_is_enough_and_a_short_one_is_told() {
        let store = Sqlite::memory().unwrap();
        let secrets = Secrets::new(vec![Secret::new("w".repeat(20)), Secret::new("w".repeat(19))]);
        let worker_tokens = Some(WorkerTokens { secrets, audience: None });
        let config = RelayConfig { worker_tokens, ..open_to_all() };
        assert!(matches!(first_key(&config, &store).await.unwrap(), FirstKey::Present));
        assert_eq!(store.keys().await, Ok(vec![]));
        assert_eq!(guessable_workers(&config), [2]);
        let local = RelayConfig { listen: RelayConfig::default().listen, ..config };
        assert!(guessable_workers(&local).is_empty());
    }

    #[tokio::test]
    async fn static_keys_are_enough_and_short_ones_are_named() {
        let store = Sqlite::memory().unwrap();
        let key = |name: &str, secret: &str| StaticKey { name: name.into(), secret: Secret::new(secret) };
        let static_keys = vec![key("short", "nineteen-characters"), key("long", "twenty-characters-ok")];
        let config = RelayConfig { static_keys, ..open_to_all() };
        assert!(matches!(first_key(&config, &store).await.unwrap(), FirstKey::Present));
        assert_eq!(guessable(&config), ["short"]);
        let local = RelayConfig { listen: RelayConfig::default().listen, ..config };
        assert!(guessable(&local).is_empty());
    }
}
