//! The report as the XML of JUnit, as CI systems read it; an advised case that fails is shown as skipped, with the reason.

use std::fmt::Write;

use super::Run;
use crate::conform::case::{Ended, Failure, Weight};
use crate::conform::requirements;
use crate::conform::run::Outcome;

pub(super) fn render(run: &Run<'_>) -> String {
    let counts = run.summary();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    let _ = writeln!(
        text,
        r#"  <testsuite name="adit conform {}" tests="{}" failures="{}" errors="0" skipped="{}" time="{:.3}">"#,
        run.side,
        run.outcomes.len(),
        counts.failed,
        counts.skipped + counts.advised,
        run.took.as_secs_f64(),
    );
    for outcome in run.outcomes {
        let Outcome { name, level, took, .. } = outcome;
        let (class, took) = (format!("{}.{}", run.side, level.as_str()), took.as_secs_f64());
        let _ = write!(text, r#"    <testcase classname="{class}" name="{name}" time="{took:.3}""#);
        let _ = match (&outcome.result, outcome.weight) {
            (Ok(()), _) => writeln!(text, "/>"),
            (Err(Ended::Skipped(why)), _) => {
                writeln!(text, "><skipped message=\"{}\"/></testcase>", xml(why))
            }
            (Err(Ended::Failed(failure)), Weight::Required) => {
                let (message, details) = (xml(&message(failure)), xml(&details(outcome)));
                writeln!(text, "><failure message=\"{message}\">{details}</failure></testcase>")
            }
            (Err(Ended::Failed(failure)), Weight::Advised) => {
                let (message, details) = (xml(&message(failure)), xml(&details(outcome)));
                writeln!(
                    text,
                    "><skipped message=\"advised: {message}\"/><system-out>{details}</system-out></testcase>"
                )
            }
        };
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn message(failure: &Failure) -> String {
    format!("expected {}, but {}", failure.expected, failure.came)
}

fn details(outcome: &Outcome) -> String {
    let see = requirements::named(outcome.requirements);
    format!("{}\n{see}\n{}\n", outcome.about, outcome.trace.join("\n"))
}

/// `text` for contents and quoted attributes. XML 1.0 has no way to write most control characters.
fn xml(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
        safe
    })
}
