//! Values of lighttpd's configuration, and how they are added.

use crate::proto::limits::bridge::lighttpd::VALUE_BYTES;

pub(super) const TOO_LONG: &str = "the value gets too long";

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    /// Elements in their order, those of a map with their keys.
    List(Vec<(Option<String>, Value)>),
}

impl Value {
    /// What `+` makes of two.
    pub(super) fn plus(self, other: Self) -> Result<Self, &'static str> {
        if self.size() + other.size() > VALUE_BYTES {
            return Err(TOO_LONG);
        }
        Ok(match (self, other) {
            (Self::Number(a), Self::Number(b)) => Self::Number(a.wrapping_add(b)),
            (Self::List(mut a), Self::List(b)) => {
                a.extend(b);
                Self::List(a)
            }
            (Self::List(_), _) | (_, Self::List(_)) => return Err("a list and something else are not added"),
            (a, b) => Self::Text(a.shown() + &b.shown()),
        })
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Number(_) => 1,
            Self::List(list) => {
                list.iter().map(|(key, value)| 1 + key.as_ref().map_or(0, String::len) + value.size()).sum()
            }
        }
    }

    /// A text, or a number as one; of a list nothing.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::List(_) => String::new(),
        }
    }

    /// A number, also one in quotes.
    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Self::Text(text) => text.trim().parse().ok(),
            Self::Number(number) => Some(*number),
            Self::List(_) => None,
        }
    }

    /// Whether it is lighttpd's yes.
    pub(super) fn is_on(&self) -> bool {
        matches!(self, Self::Text(text) if text == "enable" || text == "true")
            || matches!(self, Self::Number(1..))
    }

    /// The elements of a list; of anything else none.
    pub(super) fn list(&self) -> &[(Option<String>, Self)] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }

    /// The element of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.list().iter().find(|(name, _)| name.as_deref() == Some(key)).map(|(_, value)| value)
    }

    /// The texts of a list, or the one that it is.
    pub(super) fn texts(&self) -> Vec<String> {
        match self {
            Self::List(list) => list.iter().map(|(_, value)| value.shown()).collect(),
            one => vec![one.shown()],
        }
    }
}
