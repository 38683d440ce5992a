//! What a run is told as: a table for people, or a document that a CI reads.

mod json;
mod junit;
mod table;
mod tap;

use std::time::Duration;

use super::run::{Outcome, Summary};

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// TAP 14 (<https://testanything.org>).
    Tap,
    /// One JSON document; `docs/conformance.md` has its fields.
    Json,
    /// The XML that most CI systems show.
    Junit,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run<'a> {
    /// `client` or `relay`.
    pub side: &'a str,
    /// The command or URL that was tested, without secrets.
    pub subject: &'a str,
    /// How each case ended.
    pub outcomes: &'a [Outcome],
    /// In all.
    pub took: Duration,
}

impl Run<'_> {
    /// The report, with a line end. Only a table has colours.
    pub fn render(&self, format: Format, colour: bool) -> String {
        match format {
            Format::Table => table::render(self, colour),
            Format::Tap => tap::render(self),
            Format::Json => json::render(self),
            Format::Junit => junit::render(self),
        }
    }

    fn summary(&self) -> Summary {
        Summary::of(self.outcomes)
    }
}

/// A time as seconds with one digit.
fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conform::case::{Ended, Weight};
    use crate::proto::message::Level;

    fn rendered(format: Format) -> String {
        let outcome = |name, weight, result| Outcome {
            name,
            about: "the bytes <arrive>",
            level: Level::Two,
            weight,
            requirements: &["C-0"],
            took: Duration::from_millis(1250),
            result,
            trace: vec!["     1 ms < data: \"#\"\\x00\"".into()],
        };
        let failed = || Err(Ended::failed("a pong", "none came: \"silence\" & so on\u{7}"));
        let outcomes = [
            outcome("fine", Weight::Required, Ok(())),
            outcome("broken", Weight::Required, failed()),
            outcome("impolite", Weight::Advised, failed()),
            outcome("unasked", Weight::Required, Err(Ended::Skipped("it needs --key2".into()))),
        ];
        let took = Duration::from_secs(3);
        Run { side: "client", subject: "./mine --port {port}", outcomes: &outcomes, took }
            .render(format, false)
    }

    #[test]
    fn a_table_tells_what_was_expected_and_what_came() {
        let text = rendered(Format::Table);
        for part in
            ["FAIL  broken", "expected a pong", "but      none came", "C-0", "1 ms < data", "it needs --key2"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("1 passed, 1 failed, 1 advised failed, 1 skipped in 3.0 s"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text}");
    }

    #[test]
    fn tap_counts_advice_as_to_do() {
        let text = rendered(Format::Tap);
        assert!(text.starts_with("TAP version 14\n1..4\nok 1 - fine\nnot ok 2 - broken\n  ---\n"), "{text}");
        assert!(text.contains("not ok 3 - impolite # TODO advised\n"), "{text}");
        assert!(text.contains("ok 4 - unasked # SKIP it needs --key2\n"), "{text}");
    }

    #[test]
    fn json_is_one_document() {
        let told: serde_json::Value = serde_json::from_str(&rendered(Format::Json)).unwrap();
        assert_eq!((&told["passed"], &told["counts"]["failed"]), (&false.into(), &1.into()));
        assert_eq!(told["cases"][1]["result"], "failed");
        assert_eq!(told["cases"][1]["expected"], "a pong");
        assert_eq!(told["cases"][3]["reason"], "it needs --key2");
    }

    #[test]
    fn junit_is_well_formed_whatever_was_seen() {
        let text = rendered(Format::Junit);
        assert!(text.contains(r#"tests="4" failures="1" errors="0" skipped="2""#), "{text}");
        assert!(text.contains("none came: &quot;silence&quot; &amp; so on"), "{text}");
        assert!(!text.contains('\u{7}'), "{text}");
    }
}
