//! The last step of every log record: one line without anything that steers a terminal.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking};
use tracing_subscriber::fmt::MakeWriter;

use crate::client::text::{visible, visible_json};
use crate::proto::limits::log::LINE_BYTES;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Text,
    /// Text with colours.
    Colour,
}

/// Makes the writer of each record.
#[derive(Clone)]
pub(super) struct Lines {
    form: Form,
    out: NonBlocking,
    unread: ErrorCounter,
    /// Of the records that `unread` counts, those that were told of.
    unread_told: Arc<AtomicUsize>,
}

impl Lines {
    /// Records in this form, written to `out`.
    pub(super) fn new(form: Form, out: NonBlocking) -> Self {
        Self { form, unread: out.error_counter(), unread_told: Arc::default(), out }
    }

    /// How many were left out since the last call as those before them could not be written in time.
    pub(super) fn unread(&self) -> usize {
        let now = self.unread.dropped_lines();
        now.saturating_sub(self.unread_told.swap(now, Ordering::Relaxed))
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Record;

    fn make_writer(&'a self) -> Record {
        Record(self.form, self.out.clone())
    }
}

/// Takes one record, as a whole.
pub(super) struct Record(Form, NonBlocking);

impl Write for Record {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let line = line(self.0, &String::from_utf8_lossy(record));
        self.1.write_all(line.as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line of a record.
fn line(form: Form, record: &str) -> String {
    let record = record.trim_end_matches('\n');
    let mut line = match form {
        Form::Json if record.len() <= LINE_BYTES => visible_json(record).into_owned(),
        Form::Json => visible_json(&shortened(record)).into_owned(),
        Form::Text => visible(cut(record, LINE_BYTES)).into_owned(),
        Form::Colour => coloured(cut(record, LINE_BYTES)),
    };
    // Letter by letter only where one is in it: each record comes by here.
    if line.contains('\n') {
        line.retain(|c| c != '\n');
    }
    line.push('\n');
    line
}

/// The formatter has taken the escape character out of every value, so the colours that are left are its own.
fn coloured(record: &str) -> String {
    let mut line = String::with_capacity(record.len());
    let mut rest = record;
    while let Some(at) = rest.find("\x1b[") {
        let (before, sequence) = rest.split_at(at);
        line += &visible(before);
        let parameters =
            sequence[2..].find(|c: char| !c.is_ascii_digit() && c != ';').map_or(0, |end| end + 2);
        let end = if sequence[parameters..].starts_with('m') { parameters + 1 } else { 2 };
        match end {
            2 => line += &visible(&sequence[..2]),
            end => line += &sequence[..end],
        }
        rest = &sequence[end..];
    }
    line + &visible(rest)
}

/// A JSON object with its long texts cut.
fn shortened(record: &str) -> String {
    const MOST: usize = LINE_BYTES / 8;
    let Ok(Value::Object(mut fields)) = serde_json::from_str(record) else { return "{}".to_owned() };
    for value in fields.values_mut() {
        if let Value::String(text) = value
            && text.len() > MOST
        {
            *text = cut(text, MOST).to_owned() + "…";
        }
    }
    Value::Object(fields).to_string()
}

/// The beginning of `text`, of at most so many bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\x1b[2Jb\r\nc\u{9b}31md\u{202e}e\u{7f}f\u{0}g\u{2028}h";

    fn is_harmless(line: &str) -> bool {
        let (text, end) = line.split_at(line.len() - 1);
        end == "\n" && !text.chars().any(|c| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c))
    }

    #[test]
    fn a_record_is_one_line_that_steers_nothing() {
        for form in [Form::Text, Form::Colour] {
            let line = line(form, &format!("INFO {HOSTILE}\n"));
            assert!(is_harmless(&line), "{line:?}");
            assert!(line.contains("a\\u{1b}[2Jb\\r\\nc\\u{9b}"), "{line:?}");
        }
    }

    #[test]
    fn json_stays_json_with_the_same_value() {
        let record = serde_json::json!({ "path": HOSTILE, "level": "INFO" });
        let line = line(Form::Json, &format!("{record}\n"));
        assert!(is_harmless(&line), "{line:?}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), record);
    }

    #[test]
    fn only_colours_are_kept_of_escape_sequences() {
        let kept = "\x1b[2m12:00\x1b[0m \x1b[1;32mINFO\x1b[0m ok\n";
        assert_eq!(line(Form::Colour, kept), kept);
        for (sequence, shown) in [
            ("\x1b[2Jx", "\\u{1b}[2Jx"),
            ("\x1b[", "\\u{1b}["),
            ("\x1b[1;2", "\\u{1b}[1;2"),
            ("\x1b]0;t\x07", "\\u{1b}]0;t\\u{7}"),
        ] {
            assert_eq!(line(Form::Colour, sequence), format!("{shown}\n"));
        }
    }

    #[test]
    fn what_is_very_long_is_cut() {
        let long = "é".repeat(LINE_BYTES);
        assert!(line(Form::Text, &long).len() <= LINE_BYTES + 1);
        let record = serde_json::json!({ "message": "kept", "path": long });
        let line = line(Form::Json, &record.to_string());
        let read: Value = serde_json::from_str(&line).unwrap();
        assert!(line.len() < LINE_BYTES && read["message"] == "kept", "{line}");
    }
}
