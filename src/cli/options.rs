//! Brings the relay's options together: flag, environment, file, default, in this order; all errors at once.

mod merge;
mod otel;
mod table;
mod taskcluster;
pub(crate) mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

pub use merge::{Env, Origin};
pub use table::{OPTIONS, Opt, Places};

use merge::merge;

use crate::auth::Secret;
use crate::relay::config::RelayConfig;

/// The configuration, and where each value of it comes from.
#[derive(Debug)]
pub struct Resolved {
    /// All options, read and checked.
    pub config: RelayConfig,
    /// There is no data directory: what others keep there is in memory. The one of `config` is nobody's.
    pub in_memory: bool,
    /// The environment is that of Taskcluster's websocktunnel, whose records go to stdout.
    pub is_taskcluster: bool,
    origins: BTreeMap<&'static str, Origin>,
}

/// Adds the options that `choose` names to a command. Their values stay text: [`resolve`] reads them.
pub fn add(command: Command, choose: impl Fn(&Opt) -> bool) -> Command {
    let default = RelayConfig::default();
    let flags = OPTIONS.iter().filter(|option| option.places != Places::EnvAndFile && choose(option));
    command.args(flags.map(|option| {
        let mut help = format!("{} [env: {}]", option.help, option.env());
        let shown = (option.show)(&default).join(",");
        if option.key == "data-dir" {
            help += " [default: ~/.local/share/adit, for root /var/lib/adit]";
        } else if !shown.is_empty() {
            help += &format!(" [default: {shown}]");
        }
        let action = if option.repeat { ArgAction::Append } else { ArgAction::Set };
        Arg::new(option.key).long(option.key).value_name(option.value).help(help).action(action)
    }))
}

/// Reads all options, and the environment of websocktunnel if that is there. On failure returns every error, each naming where the bad value came from.
pub fn resolve(matches: &ArgMatches, env: &Env) -> Result<Resolved, Vec<String>> {
    resolve_chosen(matches, env, true, |_| true)
}

/// Reads only the options that say where the data directory is, for commands that need no more.
pub fn data_dir(matches: &ArgMatches, env: &Env) -> Result<PathBuf, Vec<String>> {
    Ok(resolve_chosen(matches, env, false, |option| option.key == "data-dir")?.config.data_dir)
}

/// Reads only the secrets of tokens, for commands that need no more.
pub fn jwt_secrets(matches: &ArgMatches, env: &Env) -> Result<Vec<Secret>, Vec<String>> {
    Ok(resolve_chosen(matches, env, false, |option| option.key == "jwt-secret")?.config.jwt_secrets)
}

/// The secrets of workers' tokens, for commands that need no more, of any length: those of the command line, else those
/// that a relay has for workers, else those that Taskcluster's own relay is given.
pub fn worker_secrets(matches: &ArgMatches, env: &Env) -> Result<Vec<Secret>, Vec<String>> {
    let mut errors = Vec::new();
    let given = merge(matches, env, &mut errors);
    let typed = given.get("jwt-secret").filter(|(origin, _)| matches!(origin, Origin::Flag(_)));
    let mut secrets = taskcluster_secrets(env);
    if let Some((origin, texts)) = typed.or(given.get("worker-secret")) {
        secrets = texts.iter().map(Secret::new).collect();
        if texts.iter().any(|text| text.is_empty() || text == values::HIDDEN) {
            errors.push(format!("{origin}: a secret is empty, or is not the real one"));
        }
    }
    if errors.is_empty() { Ok(secrets) } else { Err(errors) }
}

/// The secrets that Taskcluster's own relay is given: the one that signs, and the other.
pub fn taskcluster_secrets(env: &Env) -> Vec<Secret> {
    let names = ["TASKCLUSTER_PROXY_SECRET_A", "TASKCLUSTER_PROXY_SECRET_B"];
    names.iter().filter_map(|name| env.text(name)).map(Secret::new).collect()
}

fn resolve_chosen(
    matches: &ArgMatches,
    env: &Env,
    whole: bool,
    choose: impl Fn(&Opt) -> bool,
) -> Result<Resolved, Vec<String>> {
    let mut errors = Vec::new();
    let given = merge(matches, env, &mut errors);
    let mut config = RelayConfig::default();
    let mut origins = BTreeMap::new();
    let mut bad = Vec::new();
    for option in OPTIONS.iter().filter(|option| choose(option)) {
        let Some((origin, values)) = given.get(option.key) else {
            origins.insert(option.key, Origin::Default);
            continue;
        };
        if let Err(error) = (option.set)(&mut config, values) {
            errors.push(format!("{origin}: {error}"));
            bad.push(option.key);
        }
        origins.insert(option.key, origin.clone());
    }
    let is_taskcluster = whole && taskcluster::is_meant(env, &mut errors);
    if is_taskcluster {
        taskcluster::read(env, &mut config, &mut origins, &mut errors);
    }
    // Nothing of it has to outlive the process: its image has run without a disk.
    let in_memory = is_taskcluster && origins.get("data-dir") == Some(&Origin::Default);
    if in_memory && config.acme.is_wanted() {
        errors.push(
            "acme-email and acme-directory: what is ordered has to be kept; give data-dir, a directory that outlives the \
             relay"
                .into(),
        );
    }
    if !in_memory && origins.get("data-dir") == Some(&Origin::Default) {
        match env.data_dir() {
            Some(dir) => config.data_dir = dir,
            None => errors.push("data-dir: no home directory is known; give --data-dir DIRECTORY".into()),
        }
    }
    // What other programs with OpenTelemetry are told is for a build that can do something with it.
    if cfg!(feature = "otlp") && origins.get("otlp-endpoint") == Some(&Origin::Default) {
        match otel::from_environment(env) {
            Some(Ok((url, origin))) => {
                config.otlp_endpoint = Some(url);
                origins.insert("otlp-endpoint", origin);
            }
            Some(Err(error)) => errors.push(error),
            None => {}
        }
    }
    // A contradiction with the default of a value that could not be read would be none of the operator's.
    let contradictions = config.validate().into_iter();
    let contradictions = contradictions.filter(|error| !bad.iter().any(|key| names(error, key)));
    errors.extend(contradictions.map(|error| with_origins(&error, &origins)));
    if errors.is_empty() { Ok(Resolved { config, in_memory, is_taskcluster, origins }) } else { Err(errors) }
}

/// Whether a sentence names an option: `listen` is not named by `admin-listen`.
fn names(text: &str, key: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == key)
}

fn with_origins(error: &str, origins: &BTreeMap<&'static str, Origin>) -> String {
    let given = origins.iter().filter(|(key, origin)| **origin != Origin::Default && names(error, key));
    let given: Vec<_> = given.map(|(_, origin)| origin.to_string()).collect();
    if given.is_empty() { error.into() } else { format!("{}: {error}", given.join(", ")) }
}

impl Resolved {
    /// The configuration as a file that says the same, with the origin of each value; secrets are hidden.
    pub fn to_toml(&self) -> String {
        let mut file =
            String::from("# The configuration of adit relay, each value with where it comes from.\n");
        for option in OPTIONS.iter().filter(|option| option.places != Places::FlagAndEnv) {
            if let Some(why) = self.cannot_be_written(option.key) {
                file += &format!("# {} is not set: {why}\n", option.key);
                continue;
            }
            let values: Vec<_> = (option.show)(&self.config).into_iter().map(quote).collect();
            let value = match values.as_slice() {
                values if option.repeat => format!("[{}]", values.join(", ")),
                [value] => value.clone(),
                _ => {
                    file += &format!("# {} is not set\n", option.key);
                    continue;
                }
            };
            let origin = self.origins.get(option.key).unwrap_or(&Origin::Default);
            // A path may hold a line end, which would end the comment.
            let origin = origin.to_string().replace(char::is_control, "?");
            file += &format!("{} = {value}  # {origin}\n", option.key);
        }
        file
    }

    /// Why a file has no words for what this option is now.
    fn cannot_be_written(&self, key: &str) -> Option<String> {
        match key {
            "data-dir" if self.in_memory => Some("everything is in memory".to_owned()),
            "tls-cert" | "tls-key" if !self.config.tls_given.is_empty() => {
                Some(format!("it is in {}", self.origins.get(key)?))
            }
            _ => None,
        }
    }
}

fn quote(value: String) -> String {
    // TOML has no number that begins with a zero.
    let number = value.parse::<u32>().is_ok() && (value == "0" || !value.starts_with('0'));
    if number { value } else { toml::Value::String(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn run(args: &[&str], vars: &[(&str, &str)]) -> Result<Resolved, Vec<String>> {
        let command = add(Command::new("relay").no_binary_name(true), |_| true);
        let vars = [("HOME", "/home/ann")].iter().chain(vars);
        let vars = vars.map(|(name, value)| (name.to_string(), value.into())).collect();
        resolve(&command.try_get_matches_from(args).unwrap(), &Env { vars, root: false })
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn flag_goes_before_environment_before_file_before_default() {
        let file = file("drain = \"1s\"\nping-every = \"1s\"\npong-wait = \"3s\"\n");
        let path = file.path().to_str().unwrap();
        let env =
            [("ADIT_CONFIG", path), ("ADIT_DRAIN", "2s"), ("ADIT_PING_EVERY", "2s"), ("ADIT_KEEP_ALIVE", "")];
        let resolved = run(&["--drain", "4s"], &env).unwrap();
        let limits = &resolved.config.limits;
        let seconds =
            [limits.drain, limits.ping_every, limits.pong_wait, limits.keep_alive].map(|wait| wait.as_secs());
        assert_eq!(seconds, [4, 2, 3, 60]);
        let origins =
            ["drain", "ping-every", "pong-wait", "keep-alive"].map(|key| resolved.origins[key].to_string());
        let from_file = format!("{path} key pong-wait");
        assert_eq!(origins, ["flag --drain", "environment ADIT_PING_EVERY", from_file.as_str(), "default"]);
    }

    #[test]
    fn every_kind_of_toml_value_is_taken() {
        let file = file(
            "listen = [\"127.0.0.1:1\", \"[::1]:2\"]\n\
             trusted-proxy = \"10.0.0.0/8, ::1\"\npath-routing = false\n\
             base-domain = \"Example.com.\"\nheaders = 50\nbody-bytes = \"1MiB\"\n\
             keys = [\"alice:nbk_1\", \"bob:nbk_2\"]\n",
        );
        let config = run(&["--config", file.path().to_str().unwrap()], &[]).unwrap().config;
        assert_eq!(config.listen.len(), 2);
        assert_eq!(config.trusted_proxies.len(), 2);
        assert!(!config.path_routing);
        assert_eq!(config.base_domain.as_deref(), Some("example.com"));
        assert_eq!((config.limits.headers, config.limits.body_bytes), (50, Some(1 << 20)));
        let names: Vec<_> = config.static_keys.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["alice", "bob"]);
    }

    #[test]
    fn all_errors_come_together_and_name_their_origin() {
        let file = file("head-bytes = \"1\"\nbase_domian = \"a\"\nlog = [\"text\"]\nconfig = \"x\"\n");
        let path = file.path().to_str().unwrap();
        let env =
            [("ADIT_LISTEN", "127.0.0.1:1,nowhere"), ("ADIT_KEYS", "s3cret"), ("ADIT_PING_EVERY", "5m")];
        let errors = run(&["--config", path, "--drain", "5x", "--path-routing", "off"], &env).unwrap_err();
        let expected = [
            format!("{path} key base_domian: no such option; did you mean base-domain?"),
            format!("{path} key config: no such option; `adit relay --help` lists them"),
            format!("{path} key log: expected a string, an integer, true or false"),
            "environment ADIT_LISTEN: \"nowhere\": expected an address and a port, such as 127.0.0.1:8080 or \
             [::]:8080"
                .into(),
            "environment ADIT_KEYS: key 1 has no ':'; expected NAME:SECRET".into(),
            format!("{path} key head-bytes: \"1\": expected a size from 1KiB to 1MiB, such as 65536 or 64KiB"),
            "flag --drain: \"5x\": expected a duration from 0 to 1h, such as 90s or 1h30m".into(),
            "flag --path-routing: path-routing is off and base-domain is not set, so no tunnel could be \
             reached; set one of them"
                .into(),
            "environment ADIT_PING_EVERY: pong-wait (60s) must be longer than ping-every (300s), or \
             every client is taken for dead"
                .into(),
        ];
        assert_eq!(errors, expected);
    }

    #[test]
    fn a_value_that_cannot_be_read_makes_no_contradiction() {
        let errors = run(&["--ping-every", "2m", "--pong-wait", "5x"], &[]).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
    }

    #[test]
    fn what_check_prints_is_a_file_that_says_the_same() {
        let args = [
            "--listen",
            "127.0.0.1:1",
            "--listen",
            "[::1]:2",
            "--base-domain",
            "a.example",
            "--headers",
            "99",
        ];
        let env = [("ADIT_KEYS", "alice:s3cret"), ("ADIT_BODY_BYTES", "2000"), ("ADIT_DRAIN", "1500ms")];
        let first = run(&args, &env).unwrap().to_toml();
        assert!(first.contains("keys = [\"alice:***\"]  # environment ADIT_KEYS\n"), "{first}");
        assert!(first.contains("headers = 99  # flag --headers\n"), "{first}");
        assert!(first.contains("# public-url is not set\n"), "{first}");
        assert!(first.contains("data-dir = \"/home/ann/.local/share/adit\"  # default\n"), "{first}");
        assert!(!first.contains("s3cret"));

        let again = file(&first);
        let config = again.path().to_str().unwrap();
        let errors = run(&["--config", config], &[]).unwrap_err();
        assert_eq!(errors.len(), 1, "the hidden secret is not taken for one: {errors:?}");
        let second = run(&["--config", config], &[("ADIT_KEYS", "alice:s3cret")]).unwrap().to_toml();
        let values = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(values(&first), values(&second));
    }

    #[test]
    fn the_data_directory_follows_the_user() {
        let dir = |vars: &[(&str, &str)], root| {
            let vars = vars.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
            let command = add(Command::new("key").no_binary_name(true), |option| option.key == "data-dir");
            data_dir(&command.try_get_matches_from([""; 0]).unwrap(), &Env { vars, root }).ok()
        };
        assert_eq!(dir(&[("HOME", "/home/ann")], false), Some("/home/ann/.local/share/adit".into()));
        assert_eq!(dir(&[("HOME", "/h"), ("XDG_DATA_HOME", "/data")], false), Some("/data/adit".into()));
        assert_eq!(
            dir(&[("HOME", "/h"), ("XDG_DATA_HOME", "data")], false),
            Some("/h/.local/share/adit".into())
        );
        assert_eq!(dir(&[("HOME", "/root")], true), Some("/var/lib/adit".into()));
        assert_eq!(dir(&[("ADIT_DATA_DIR", "/x"), ("ADIT_DRAIN", "bad")], false), Some("/x".into()));
        assert_eq!(dir(&[], false), None);
    }

    #[test]
    fn limits_have_the_defaults_of_the_contract() {
        let config = run(&[], &[]).unwrap().config;
        assert_eq!(config.limits, crate::proto::limits::Limits::default());
        assert_eq!(config.limits.claim_wait, Duration::from_secs(10));
    }
}
