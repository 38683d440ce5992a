//! A TOML file by its keys, each with its line, and what is wrong with it.

use std::fmt::Display;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::cli::nearest::nearest;
use crate::proto::duration;

/// One key and its value.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) line: usize,
    value: &'a DeValue<'a>,
}

impl Entry<'_> {
    /// Whether it switches something off.
    pub(super) fn is_false(&self) -> bool {
        self.value.as_bool() == Some(false)
    }
}

/// The text of the file, and what was wrong until now.
pub(super) struct Reader<'a> {
    text: &'a str,
    errors: Vec<(usize, String)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, errors: Vec::new() }
    }

    /// What was read, or all that was wrong, in the order of the lines.
    pub(super) fn done<T>(mut self, read: T) -> Result<T, Vec<String>> {
        self.errors.sort();
        let errors: Vec<_> = self.errors.iter().map(|(line, what)| format!("line {line}: {what}")).collect();
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }

    pub(super) fn line_at(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    pub(super) fn wrong(&mut self, line: usize, what: impl Display) {
        self.errors.push((line, what.to_string()));
    }

    /// The keys of a table, by their lines.
    pub(super) fn entries(&self, table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
        let entry = |(key, value): (&'a toml::Spanned<_>, &'a toml::Spanned<_>)| {
            let text: &std::borrow::Cow<'a, str> = key.get_ref();
            Entry { key: text, line: self.line_at(key.span().start), value: value.get_ref() }
        };
        let mut entries: Vec<_> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.line);
        entries
    }

    /// A key that there is not.
    pub(super) fn unknown<'k>(
        &mut self,
        entry: &Entry<'_>,
        known: impl IntoIterator<Item = &'k str>,
        otherwise: &str,
    ) {
        let wanted = entry.key.to_ascii_lowercase().replace('_', "-");
        let what = match nearest(&wanted, known) {
            Some(known) => format!("there is no key {}; did you mean {known}?", entry.key),
            None => format!("there is no key {}; {otherwise}", entry.key),
        };
        self.wrong(entry.line, what);
    }

    fn expected<T>(&mut self, entry: &Entry<'_>, what: &str) -> Option<T> {
        self.wrong(entry.line, format!("{}: write {what}", entry.key));
        None
    }

    /// A text; a number and a truth are one, too, as on the command line.
    pub(super) fn text(&mut self, entry: &Entry<'_>) -> Option<String> {
        shown(entry.value).or_else(|| self.expected(entry, "a text in quotes"))
    }

    /// A list of texts, or one.
    pub(super) fn texts(&mut self, entry: &Entry<'_>) -> Option<Vec<String>> {
        let texts = match entry.value {
            DeValue::Array(list) => list.iter().map(|value| shown(value.get_ref())).collect(),
            one => shown(one).map(|one| vec![one]),
        };
        texts.or_else(|| self.expected(entry, "a list of texts, such as [\"a\", \"b\"]"))
    }

    pub(super) fn truth(&mut self, entry: &Entry<'_>) -> Option<bool> {
        entry.value.as_bool().or_else(|| self.expected(entry, "true or false"))
    }

    /// A whole number within `from` and `to`.
    pub(super) fn number(&mut self, entry: &Entry<'_>, from: i64, to: i64) -> Option<i64> {
        let number = entry.value.as_integer();
        let number = number.and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
        let number = number.filter(|number| (from..=to).contains(number));
        number.or_else(|| self.expected(entry, &format!("a number from {from} to {to}")))
    }

    /// A time: `"1m30s"`, or a number of seconds.
    pub(super) fn time(&mut self, entry: &Entry<'_>) -> Option<Duration> {
        let text = shown(entry.value).map(|text| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text + "s",
            false => text,
        });
        let time = text.and_then(|text| duration::parse(&text).ok());
        time.or_else(|| self.expected(entry, "a time, such as 30, \"30s\" or \"1h30m\""))
    }

    /// Texts by names.
    pub(super) fn pairs(&mut self, entry: &Entry<'a>) -> Option<Vec<(String, String)>> {
        let pairs = entry.value.as_table().and_then(|table| {
            let pair = |entry: &Entry<'_>| Some((entry.key.to_owned(), shown(entry.value)?));
            self.entries(table).iter().map(pair).collect()
        });
        pairs.or_else(|| self.expected(entry, "names and texts, such as { LANG = \"C\" }"))
    }

    /// Tables below a name in two brackets, or one in one.
    pub(super) fn tables(&mut self, entry: &Entry<'a>) -> Vec<(usize, Vec<Entry<'a>>)> {
        let tables = match entry.value {
            DeValue::Table(table) => Some(vec![(entry.line, self.entries(table))]),
            DeValue::Array(list) => {
                let table = |value: &'a toml::Spanned<DeValue<'a>>| {
                    let entries = self.entries(value.get_ref().as_table()?);
                    Some((self.line_at(value.span().start), entries))
                };
                list.iter().map(table).collect()
            }
            _ => None,
        };
        let tables = tables.or_else(|| self.expected(entry, &format!("[[{}]] and keys below it", entry.key)));
        tables.unwrap_or_default()
    }

    /// What `read` makes of a text.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        entry: &Entry<'_>,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(entry)?;
        let parsed = read(&text).map_err(|error| self.wrong(entry.line, format!("{}: {error}", entry.key)));
        parsed.ok()
    }

    /// The same of each text of a list.
    pub(super) fn all_parsed<T, E: Display>(
        &mut self,
        entry: &Entry<'_>,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let mut all = Vec::new();
        for text in self.texts(entry).unwrap_or_default() {
            match read(&text) {
                Ok(one) => all.push(one),
                Err(error) => self.wrong(entry.line, format!("{}: {error}", entry.key)),
            }
        }
        all
    }
}

fn shown(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    }
}
