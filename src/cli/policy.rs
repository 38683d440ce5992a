//! The rules for viewers as flags of `adit http`, as a file of their own, and as a table of `adit up`.

use std::path::{Path, PathBuf};

use clap::Args;
use toml::{Table, Value};

use crate::proto::policy::Policy;
use crate::tunnel::policy::{Given, Scope, complaints};

/// Names a file with the offline page, in files.
const PAGE_FILE: &str = "offline_page_file";

/// Who may come, and how often: all that can be asked where bytes are not read.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Rules for viewers")]
pub(super) struct WhoArgs {
    /// Only viewers from this network or address; may be repeated
    #[arg(long, value_name = "NETWORK")]
    allow: Vec<String>,
    /// No viewers from this network or address, allowed or not; may be repeated
    #[arg(long, value_name = "NETWORK")]
    deny: Vec<String>,
    /// Requests or connections of one address, such as 100/s or 10/m,burst=30; all together with ,per=tunnel
    #[arg(long, value_name = "RATE")]
    rate_limit: Option<String>,
}

impl WhoArgs {
    fn rules(&self) -> Policy {
        let mut flags = Policy::new();
        flags = self.allow.iter().fold(flags, Policy::allow);
        flags = self.deny.iter().fold(flags, Policy::deny);
        self.rate_limit.iter().fold(flags, |flags, text| flags.rate_limit(text))
    }

    /// The rules of a tunnel whose bytes are not read; all that is wrong at once, in the names of flags.
    pub(super) fn read(&self) -> Result<Option<Policy>, Vec<String>> {
        let policy = self.rules();
        let wrong = complaints(&policy, &Given { scope: Scope::Connections, ..Given::default() });
        if wrong.is_empty() { Ok(Some(policy).filter(|policy| !policy.is_empty())) } else { Err(wrong) }
    }
}

/// What is wanted of viewers.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Rules for viewers")]
pub(super) struct PolicyArgs {
    /// File with these rules in TOML; flags go before it
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    who: WhoArgs,
    /// Requests must be signed: github, slack, stripe, standard or hmac,header=NAME; may be repeated. ADIT_VERIFY keeps it
    /// out of `ps`
    #[arg(long, value_name = "SCHEME:SECRET", env = "ADIT_VERIFY", hide_env_values = true)]
    verify: Vec<String>,
    /// Sets a header of requests; `+Name: value` adds one and `-Name` removes it; may be repeated
    #[arg(long, value_name = "NAME: VALUE", allow_hyphen_values = true)]
    request_header: Vec<String>,
    /// The same of responses; may be repeated
    #[arg(long, value_name = "NAME: VALUE", allow_hyphen_values = true)]
    response_header: Vec<String>,
    /// Longest body of a request, such as 10MB
    #[arg(long, value_name = "SIZE")]
    max_body: Option<String>,
    /// HTML for browsers while this client is away, at most 64 KiB
    #[arg(long, value_name = "FILE")]
    offline_page: Option<PathBuf>,
    /// Browsers are asked once whether they want to go on
    #[arg(long)]
    interstitial: bool,
}

impl PolicyArgs {
    /// The rules of flags and file together; all that is wrong at once, in the names of flags.
    /// `has_auth`: a user and a password were given besides.
    pub(super) fn read(&self, has_auth: bool) -> Result<Option<Policy>, Vec<String>> {
        let mut errors = Vec::new();
        let mut flags = self.who.rules().interstitial(self.interstitial);
        flags = self.verify.iter().fold(flags, |flags, text| flags.verify(text));
        flags = self.request_header.iter().fold(flags, Policy::request_header);
        flags = self.response_header.iter().fold(flags, Policy::response_header);
        flags = self.max_body.iter().fold(flags, Policy::max_body);
        if let Some(file) = &self.offline_page {
            match page(file) {
                Ok(html) => flags = flags.offline_page(html),
                Err(error) => errors.push(error),
            }
        }
        let of_file = self.policy.as_ref().map(|file| read_file(file)).transpose();
        let of_file = of_file.map_err(|error| errors.push(error)).unwrap_or_default().unwrap_or_default();
        let policy = flags.over(of_file);
        errors.extend(complaints(&policy, &Given { has_auth, ..Given::default() }));
        if errors.is_empty() { Ok(Some(policy).filter(|policy| !policy.is_empty())) } else { Err(errors) }
    }
}

/// The rules of a table, which stands in a file of this directory. What is wrong with them they say themselves.
pub(super) fn of_table(mut table: Table, dir: &Path) -> Result<Policy, String> {
    match table.remove(PAGE_FILE) {
        None => {}
        Some(_) if table.contains_key("offline_page") => {
            return Err(format!("offline_page and {PAGE_FILE}: write one of them"));
        }
        Some(Value::String(file)) => {
            table.insert("offline_page".to_owned(), Value::String(page(&dir.join(file))?));
        }
        Some(_) => return Err(format!("{PAGE_FILE}: write a text in quotes")),
    }
    Value::Table(table).try_into().map_err(|error| error.message().to_owned())
}

fn read_file(file: &Path) -> Result<Policy, String> {
    let at = |what: &str| format!("{}: {what}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| at(&error.to_string()))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        // The message has the line, on which a secret may stand.
        let line =
            error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        at(&format!("line {line}: {}", error.message().replace('\n', " ")))
    })?;
    of_table(table, file.parent().unwrap_or(Path::new("."))).map_err(|error| at(&error))
}

fn page(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("offline_page: {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_before_the_file_rule_by_rule() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("away.html"), "<p>away").unwrap();
        let file = dir.path().join("policy.toml");
        std::fs::write(
            &file,
            "allow = ['10.0.0.0/8']\nrate_limit = '1/s'\noffline_page_file = 'away.html'\nauth = 'ann:b'\n\
             [[verify]]\nscheme = 'slack'\nsecret = 'k'\n",
        )
        .unwrap();
        let args = PolicyArgs {
            policy: Some(file.clone()),
            who: WhoArgs { allow: vec!["192.0.2.0/24".into()], ..WhoArgs::default() },
            request_header: vec!["-X-A".into()],
            ..PolicyArgs::default()
        };
        let policy = args.read(false).unwrap().unwrap();
        assert_eq!(policy.allow.as_deref(), Some(&["192.0.2.0/24".to_owned()][..]));
        assert_eq!(policy.offline_page.as_deref(), Some("<p>away"));
        let rules = ["auth", "allow", "rate_limit", "verify", "request_headers", "offline_page"];
        assert_eq!(policy.rules(), rules);
        assert_eq!(PolicyArgs::default().read(false).unwrap(), None);
        assert!(args.read(true).unwrap_err()[0].contains("--auth"));
        std::fs::write(&file, "allow = [\nverify = 's3cret'").unwrap();
        let errors = args.read(false).unwrap_err();
        assert!(errors[0].contains("policy.toml: line 2: ") && !errors[0].contains("s3cret"), "{errors:?}");
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let args = PolicyArgs {
            policy: Some("/nowhere/policy.toml".into()),
            who: WhoArgs {
                allow: vec!["somewhere".into()],
                rate_limit: Some("fast".into()),
                ..WhoArgs::default()
            },
            verify: vec!["s3cret".into()],
            request_header: vec!["Host: x".into()],
            max_body: Some("big".into()),
            offline_page: Some("/nowhere/page.html".into()),
            ..PolicyArgs::default()
        };
        let errors = args.read(false).unwrap_err();
        for part in
            ["policy.toml", "somewhere", "\"fast\"", "SCHEME:SECRET", "host cannot", "\"big\"", "page.html"]
        {
            assert!(errors.iter().any(|error| error.contains(part)), "{part} in {errors:#?}");
        }
        assert!(!errors.iter().any(|error| error.contains("s3cret")), "{errors:?}");
    }
}
