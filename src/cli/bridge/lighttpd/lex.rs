//! Words of lighttpd's configuration language, each with its line.

use std::fmt;

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// `"…"`: the text between the quotes.
    Text(String),
    Number(i64),
    /// A name: of a setting, a variable, or `else`, `include` and the like.
    Name(String),
    /// `$HTTP["url"]`: what is looked at.
    Subject(String),
    /// Operators and brackets.
    Sign(&'static str),
    /// Statements end with their lines.
    Line,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(text) | Self::Subject(text) => f.write_str(text),
            Self::Sign(sign) => f.write_str(sign),
            Self::Line => f.write_str("the end of the line"),
        }
    }
}

/// Longer ones before those that they begin with.
const SIGNS: [&str; 18] =
    ["=~", "!~", "==", "!=", "=^", "=$", "=>", "+=", ":=", "?=", "=", "+", "(", ")", "{", "}", ",", "\\"];

/// All words of `text`, or the line and what is wrong there.
pub(super) fn words(text: &str) -> Result<Vec<(usize, Word)>, String> {
    let mut words = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let word = match first {
            '\n' => {
                words.push((line, Word::Line));
                (line, rest) = (line + 1, &rest[1..]);
                continue;
            }
            first if first.is_whitespace() || first == '\0' => {
                rest = &rest[first.len_utf8()..];
                continue;
            }
            '#' => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            '"' => {
                let (text, after) =
                    quoted(&rest[1..]).ok_or(format!("line {line}: a text in quotes does not end"))?;
                let begin = line;
                line += text.matches('\n').count();
                rest = after;
                words.push((begin, Word::Text(text)));
                continue;
            }
            '$' => {
                let end = rest.find(']').ok_or(format!("line {line}: behind $ a condition is expected"))?;
                let subject: String = rest[..=end].chars().filter(|c| !c.is_whitespace()).collect();
                rest = &rest[end + 1..];
                Word::Subject(subject)
            }
            first
                if first.is_ascii_digit()
                    || (first == '-' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) =>
            {
                let end =
                    rest[1..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(rest.len(), |at| at + 1);
                let digits = &rest[..end];
                let number = match digits.strip_prefix("0x") {
                    Some(digits) => i64::from_str_radix(digits, 16),
                    None => digits.parse(),
                };
                rest = &rest[end..];
                Word::Number(number.map_err(|_| format!("line {line}: {digits} is no number"))?)
            }
            first if first.is_alphabetic() || first == '_' => {
                let part = |c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
                let end = rest.find(part).unwrap_or(rest.len());
                let name = rest[..end].to_owned();
                rest = &rest[end..];
                Word::Name(name)
            }
            first => {
                let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
                let sign = sign.ok_or_else(|| format!("line {line}: {first:?} is not expected here"))?;
                rest = &rest[sign.len()..];
                Word::Sign(sign)
            }
        };
        words.push((line, word));
    }
    words.push((line, Word::Line));
    Ok(words)
}

/// The text up to the closing quote, and what follows it. Of backslashes only that before a quote is one.
fn quoted(rest: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut from = 0;
    loop {
        let at = from + rest.get(from..)?.find('"')?;
        match rest[from..at].strip_suffix('\\') {
            Some(before) => text.extend([before, "\""]),
            None => {
                text += &rest[from..at];
                return Some((text, &rest[at + 1..]));
            }
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_falls_into_its_words() {
        let words = words("$HTTP[ \"url\" ] =~ \"\\.x\\\"y\" { # why\na.b-c += ( -5, 0x1f )").unwrap();
        let expected = [
            (1, Word::Subject("$HTTP[\"url\"]".into())),
            (1, Word::Sign("=~")),
            (1, Word::Text("\\.x\"y".into())),
            (1, Word::Sign("{")),
            (1, Word::Line),
            (2, Word::Name("a.b-c".into())),
            (2, Word::Sign("+=")),
            (2, Word::Sign("(")),
            (2, Word::Number(-5)),
            (2, Word::Sign(",")),
            (2, Word::Number(31)),
            (2, Word::Sign(")")),
            (2, Word::Line),
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn what_is_no_word_is_told_with_its_line() {
        for (text, line) in
            [("a = \"b", 1), ("\n$x", 2), ("a = 'x'", 1), ("\n\n5x", 3), ("99999999999999999999", 1)]
        {
            let error = words(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
        }
    }
}
