//! lighttpd's conditions as what a route of the bridge asks of a request.

use ipnet::IpNet;
use regex::Regex;

use super::parse::Condition;

/// What requests of a block are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Patterns of paths, all of which must fit.
    pub(super) url: Vec<String>,
    /// The same of hosts.
    pub(super) host: Vec<String>,
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    /// The listening socket that they came by.
    pub(super) socket: Option<String>,
}

impl Asked {
    /// Of all `conditions`; an error says which of them there is no word for.
    pub(super) fn of(conditions: &[Condition]) -> Result<Self, String> {
        let mut asked = Self::default();
        for condition in conditions {
            asked.add(condition).map_err(|why| format!("{} {why}", shown(condition)))?;
        }
        Ok(asked)
    }

    fn add(&mut self, condition: &Condition) -> Result<(), String> {
        match condition.subject.as_str() {
            "$HTTP[\"url\"]" => self.url.push(pattern(condition, "")?),
            // A host may be given with its port, which a condition without one does not mean.
            "$HTTP[\"host\"]" => {
                let bare = condition.sign == "==" && !condition.text.contains(':');
                self.host.push(pattern(condition, if bare { "(:[0-9]+)?" } else { "" })?);
            }
            "$HTTP[\"remoteip\"]" | "$HTTP[\"remote-ip\"]" => {
                let network = condition.text.parse::<IpNet>().map(|network| network.to_string());
                let network =
                    network.or_else(|_| condition.text.parse::<std::net::IpAddr>().map(|ip| ip.to_string()));
                match (condition.sign, network) {
                    ("==", Ok(network)) if condition.negated => self.deny.push(network),
                    ("==", Ok(network)) if self.allow.is_empty() => self.allow.push(network),
                    _ => return Err("is not one address or network".into()),
                }
            }
            "$SERVER[\"socket\"]" if condition.sign == "==" && !condition.negated => {
                self.socket = Some(condition.text.clone());
            }
            _ => return Err("is nothing that a route can ask".into()),
        }
        Ok(())
    }

    /// Takes the patterns out that say no more than `key`, which becomes more exact where they do.
    pub(super) fn settle(&mut self, key: &str) -> String {
        let mut key = key.to_owned();
        self.url.retain(|pattern| {
            match literal(pattern) {
                Some(Literal::Prefix(text))
                    if key.is_empty() || (key.starts_with('/') && text.starts_with(&key)) =>
                {
                    key = text
                }
                Some(Literal::Prefix(text)) => return !key.starts_with(&text),
                Some(Literal::Suffix(text)) if key.is_empty() && !text.starts_with('/') => key = text,
                _ => return true,
            }
            false
        });
        key
    }
}

/// As it stands in the file.
pub(super) fn shown(condition: &Condition) -> String {
    let not = if condition.negated { "not " } else { "" };
    format!("{not}{} {} \"{}\" (line {})", condition.subject, condition.sign, condition.text, condition.line)
}

/// A condition as a pattern of ours: a regular expression, behind `!` if it must not fit.
fn pattern(condition: &Condition, end: &str) -> Result<String, String> {
    let escaped = regex::escape(&condition.text);
    let regex = match condition.sign {
        "==" => format!("^{escaped}{end}$"),
        "=^" => format!("^{escaped}"),
        "=$" => format!("{escaped}$"),
        _ => condition.text.clone(),
    };
    if Regex::new(&regex).is_err() {
        return Err("has a regular expression that needs PCRE (looking around, back references)".into());
    }
    Ok(match (condition.negated, regex.starts_with('!')) {
        (true, _) => format!("!{regex}"),
        (false, true) => format!("\\{regex}"),
        (false, false) => regex,
    })
}

enum Literal {
    Prefix(String),
    Suffix(String),
}

/// What a pattern says in plain text, if it does.
fn literal(pattern: &str) -> Option<Literal> {
    if let Some(text) = pattern.strip_prefix('^') {
        return plain(text).map(Literal::Prefix);
    }
    pattern.strip_suffix('$').filter(|_| !pattern.starts_with('!')).and_then(plain).map(Literal::Suffix)
}

/// The text that a regular expression without any freedom means.
fn plain(regex: &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = regex.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(char::is_ascii_punctuation)?),
            '.' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' | '^' | '$' => return None,
            c => text.push(c),
        }
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(subject: &str, sign: &'static str, text: &str, negated: bool) -> Condition {
        Condition { line: 1, subject: format!("$HTTP[\"{subject}\"]"), sign, text: text.into(), negated }
    }

    fn settled(sign: &'static str, text: &str, key: &str) -> (String, Vec<String>) {
        let mut asked = Asked::of(&[condition("url", sign, text, false)]).unwrap();
        let key = asked.settle(key);
        (key, asked.url)
    }

    #[test]
    fn a_plain_condition_is_a_path_and_any_other_a_pattern() {
        for (sign, text, key, path, url) in [
            ("=~", "^/websockify", "", "/websockify", None),
            ("=~", "^/a\\.b/", "", "/a.b/", None),
            ("=^", "/vnc", "", "/vnc", None),
            ("=^", "/vnc", "/vnc/one", "/vnc/one", None),
            ("=^", "/vnc/one", "/vnc", "/vnc/one", None),
            ("=^", "/a", "/b", "/b", Some("^/a")),
            ("=^", "/a", ".tun", ".tun", Some("^/a")),
            ("=~", "\\.tun$", "", ".tun", None),
            ("==", "/ws", "", "", Some("^/ws$")),
            ("=~", "^/(a|b)", "", "", Some("^/(a|b)")),
            ("=~", "ws", "", "", Some("ws")),
            ("=~", "!x", "", "", Some("\\!x")),
        ] {
            let expected = (path.to_owned(), url.map(str::to_owned).into_iter().collect());
            assert_eq!(settled(sign, text, key), expected, "{sign} {text} {key}");
        }
    }

    #[test]
    fn hosts_and_addresses_are_asked_for_and_what_else_there_is_has_no_word() {
        let asked = Asked::of(&[
            condition("host", "==", "example.org", false),
            condition("host", "=~", "^www", true),
            condition("remoteip", "==", "10.0.0.0/8", false),
            condition("remoteip", "==", "10.1.2.3", true),
        ]);
        let asked = asked.unwrap();
        assert_eq!(asked.host, ["^example\\.org(:[0-9]+)?$", "!^www"]);
        assert_eq!((asked.allow, asked.deny), (vec!["10.0.0.0/8".to_owned()], vec!["10.1.2.3".to_owned()]));
        for condition in [
            condition("useragent", "=~", "x", false),
            condition("remoteip", "=~", "^10", false),
            condition("url", "=~", "(?!x)", false),
        ] {
            let why = Asked::of(&[condition]).unwrap_err();
            assert!(why.contains("(line 1) "), "{why}");
        }
    }
}
