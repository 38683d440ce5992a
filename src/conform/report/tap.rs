//! The report as TAP 14; an advised case that fails is a `TODO`, which fails nothing.

use std::fmt::Write;

use serde_json::Value;

use super::Run;
use crate::client::text::visible;
use crate::conform::case::{Ended, Weight};

pub(super) fn render(run: &Run<'_>) -> String {
    let mut text = format!("TAP version 14\n1..{}\n", run.outcomes.len());
    for (number, outcome) in run.outcomes.iter().enumerate() {
        let (number, name) = (number + 1, outcome.name);
        let _ = match (&outcome.result, outcome.weight) {
            (Ok(()), _) => writeln!(text, "ok {number} - {name}"),
            (Err(Ended::Skipped(why)), _) => {
                writeln!(text, "ok {number} - {name} # SKIP {}", visible(why))
            }
            (Err(Ended::Failed(_)), Weight::Required) => writeln!(text, "not ok {number} - {name}"),
            (Err(Ended::Failed(_)), Weight::Advised) => {
                writeln!(text, "not ok {number} - {name} # TODO advised")
            }
        };
        if let Err(Ended::Failed(failure)) = &outcome.result {
            // A string of JSON is one of YAML.
            let quoted = |text: &str| Value::from(text).to_string();
            let _ = writeln!(text, "  ---");
            let _ = writeln!(text, "  expected: {}", quoted(&failure.expected));
            let _ = writeln!(text, "  came: {}", quoted(&failure.came));
            let _ = writeln!(text, "  requirements: {}", Value::from(outcome.requirements.to_vec()));
            let _ = writeln!(text, "  wire:");
            for line in &outcome.trace {
                let _ = writeln!(text, "    - {}", quoted(line));
            }
            let _ = writeln!(text, "  ...");
        }
    }
    text
}
