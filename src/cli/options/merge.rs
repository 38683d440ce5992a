//! Collects the text of every option from flags, environment and file, and remembers where it stood.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::table::{OPTIONS, Opt, Places};
use crate::cli::nearest::nearest;

/// What the process was started in: its environment, and whether it is root.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// Variables by name.
    pub vars: BTreeMap<String, OsString>,
    /// Root keeps its data where services do.
    pub root: bool,
}

impl Env {
    /// That of this process.
    pub fn process() -> Self {
        let vars =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        Self { vars, root: is_root() }
    }

    /// An empty variable counts as unset.
    pub(super) fn get(&self, name: &str) -> Option<&OsString> {
        self.vars.get(name).filter(|value| !value.is_empty())
    }

    /// The text of a variable that is set.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| value.to_str())
    }

    /// Where data is kept unless something else is said: XDG base directory specification, or `/var/lib` for
    /// root.
    pub(super) fn data_dir(&self) -> Option<PathBuf> {
        let absolute = |name| self.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        if let Some(data) = absolute("XDG_DATA_HOME") {
            return Some(data.join("adit"));
        }
        if self.root {
            return Some(PathBuf::from("/var/lib/adit"));
        }
        absolute("HOME").map(|home| home.join(".local/share/adit"))
    }
}

#[cfg(unix)]
fn is_root() -> bool {
    // The standard library does not tell the user id of a process, but whose a process's entry is. Where
    // there is no /proc, root is whoever has root's home.
    match fs::metadata("/proc/self") {
        Ok(process) => std::os::unix::fs::MetadataExt::uid(&process) == 0,
        Err(_) => std::env::var_os("HOME").is_some_and(|home| home == "/var/root" || home == "/root"),
    }
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `--KEY`.
    Flag(&'static str),
    /// An environment variable.
    Env(String),
    /// A key of the file.
    File(PathBuf, &'static str),
    /// Nobody gave one.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "flag --{key}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::File(path, key) => write!(f, "{} key {key}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Options by key, each with its origin and its values.
pub(super) type Given = BTreeMap<&'static str, (Origin, Vec<String>)>;

/// The text of every option that was given, from the first of flag, environment and file that has it.
pub(super) fn merge(matches: &ArgMatches, env: &Env, errors: &mut Vec<String>) -> Given {
    let mut given = Given::new();
    for option in OPTIONS {
        // A command has only some of the flags.
        if let Ok(Some(values)) = matches.try_get_many::<String>(option.key) {
            let values = values.flat_map(|text| split(option, text)).collect();
            given.insert(option.key, (Origin::Flag(option.key), values));
        } else if let Some(value) = env.get(&option.env()) {
            let origin = Origin::Env(option.env());
            match value.to_str() {
                Some(text) => _ = given.insert(option.key, (origin, split(option, text))),
                None => errors.push(format!("{origin}: the value is not UTF-8")),
            }
        }
    }
    if let Some(path) = given.get("config").and_then(|(_, values)| values.first()).map(PathBuf::from) {
        match read_file(&path) {
            Ok(table) => merge_file(&path, table, &mut given, errors),
            Err(error) => errors.push(error),
        }
    }
    given
}

fn split(option: &Opt, text: &str) -> Vec<String> {
    if !option.repeat {
        return vec![text.into()];
    }
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Into::into).collect()
}

fn read_file(path: &Path) -> Result<toml::Table, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.parse().map_err(|error: toml::de::Error| {
        // The error's own text quotes the line, on which a secret may stand.
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        format!("{} line {line}: {}", path.display(), error.message().replace('\n', " "))
    })
}

fn merge_file(path: &Path, table: toml::Table, given: &mut Given, errors: &mut Vec<String>) {
    for (key, value) in table {
        let Some(option) = Opt::find(&key).filter(|option| option.places != Places::FlagAndEnv) else {
            errors.push(format!("{} key {key}: {}", path.display(), unknown(&key)));
            continue;
        };
        let origin = Origin::File(path.into(), option.key);
        let values = match value {
            toml::Value::Array(values) if option.repeat => {
                values.into_iter().map(text).collect::<Option<Vec<_>>>()
            }
            toml::Value::Array(_) => None,
            value => text(value).map(|value| vec![value]),
        };
        match values {
            // Checked although something else goes before it: it is wrong there, too.
            None => errors.push(format!(
                "{origin}: expected {}",
                if option.repeat {
                    "a string or a list of strings"
                } else {
                    "a string, an integer, true or false"
                }
            )),
            Some(values) if !given.contains_key(option.key) => {
                let values = values.iter().flat_map(|text| split(option, text)).collect();
                given.insert(option.key, (origin, values));
            }
            Some(_) => {}
        }
    }
}

fn text(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn unknown(key: &str) -> String {
    let wanted = key.to_ascii_lowercase().replace('_', "-");
    let in_file =
        OPTIONS.iter().filter(|option| option.places != Places::FlagAndEnv).map(|option| option.key);
    match nearest(&wanted, in_file) {
        Some(known) => format!("no such option; did you mean {known}?"),
        None => "no such option; `adit relay --help` lists them".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::options::add;

    fn merged(args: &[&str], vars: &[(&str, &str)]) -> (Given, Vec<String>) {
        let command = add(clap::Command::new("relay").no_binary_name(true), |_| true);
        let vars = vars.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        let mut errors = Vec::new();
        let matches = command.try_get_matches_from(args).unwrap();
        (merge(&matches, &Env { vars, root: false }, &mut errors), errors)
    }

    #[test]
    fn a_list_is_repeated_or_has_commas() {
        let (given, _) = merged(&["--listen", "a,b", "--listen", "c"], &[("ADIT_TRUSTED_PROXY", " d , e,")]);
        assert_eq!(given["listen"], (Origin::Flag("listen"), ["a", "b", "c"].map(String::from).into()));
        assert_eq!(given["trusted-proxy"].1, ["d", "e"]);
    }

    #[test]
    fn secrets_cannot_be_given_as_a_flag() {
        let command = add(clap::Command::new("relay").no_binary_name(true), |_| true);
        assert!(command.try_get_matches_from(["--keys", "alice:1"]).is_err());
    }

    #[test]
    fn a_mistake_in_the_file_is_told_with_its_line_but_not_its_text() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "drain = \"1s\"\nkeys = \"alice:s3cret\n").unwrap();
        let (_, errors) = merged(&["--config", file.path().to_str().unwrap()], &[]);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].contains(" line 2: ") && !errors[0].contains("s3cret"), "{errors:?}");
        let (_, errors) = merged(&["--config", "/nowhere/adit.toml"], &[]);
        assert!(errors[0].starts_with("/nowhere/adit.toml: No such file"), "{errors:?}");
    }

    #[test]
    fn an_unknown_key_gets_the_nearest_known_one() {
        for (key, nearest) in
            [("Base_Domain", "base-domain"), ("lisen", "listen"), ("pingevery", "ping-every")]
        {
            assert!(unknown(key).ends_with(&format!("did you mean {nearest}?")), "{key}: {}", unknown(key));
        }
        assert!(unknown("zebra").contains("--help"));
    }
}
