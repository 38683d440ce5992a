//! Tunnel names: what is allowed, what is reserved, and how one is made up.

use std::fmt;

/// Names that would be mistaken for the relay's own paths or hosts.
pub const RESERVED: &[&str] = &[
    "admin",
    "api",
    "dash",
    "health",
    "healthz",
    "localhost",
    "login",
    "metrics",
    "mail",
    "ns",
    "readyz",
    "static",
    "t",
    "tunnel",
    "tunnels",
    "v1",
    "v2",
    "ws",
    "www",
];

/// Why a name was refused; the text tells the user what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Shorter than two or longer than 63 characters (one DNS label).
    #[error("a name has 2 to 63 characters, this one has {0}")]
    Length(usize),
    /// Something other than `a`–`z`, `0`–`9` and `-`.
    #[error("a name consists of a-z, 0-9 and '-' only; {0:?} is not allowed")]
    Character(char),
    /// Begins or ends with a hyphen, or has two in a row.
    #[error("a name neither begins nor ends with '-' and has no '--'")]
    Hyphen,
    /// One of [`RESERVED`].
    #[error("the name {0:?} is reserved; choose another")]
    Reserved(String),
}

/// A checked tunnel name: one DNS label in lower case, 2 to 63 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// Checks `text`. Upper case is folded first, as hosts know no case.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = text.to_ascii_lowercase();
        if let Some(bad) = name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(NameError::Character(bad));
        }
        if !(2..=63).contains(&name.len()) {
            return Err(NameError::Length(name.len()));
        }
        if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
            return Err(NameError::Hyphen);
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(NameError::Reserved(name));
        }
        Ok(Self(name))
    }

    /// The name of a tunnel whose owner gave none: 12 hex digits of `random`, as the public clients know them.
    pub fn generated(random: [u8; 6]) -> Self {
        Self(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_dns_label_in_lower_case() {
        assert_eq!(Name::parse("Web-1").unwrap().as_str(), "web-1");
        for (bad, error) in [
            ("a", NameError::Length(1)),
            ("-ab", NameError::Hyphen),
            ("ab-", NameError::Hyphen),
            ("a--b", NameError::Hyphen),
            ("a.b", NameError::Character('.')),
            ("a/b", NameError::Character('/')),
            ("äb", NameError::Character('ä')),
            ("health", NameError::Reserved("health".into())),
        ] {
            assert_eq!(Name::parse(bad), Err(error), "{bad}");
        }
        assert_eq!(Name::parse(&"a".repeat(64)), Err(NameError::Length(64)));
        assert_eq!(Name::generated([0, 1, 2, 0xab, 0xcd, 0xef]).as_str(), "000102abcdef");
    }
}
