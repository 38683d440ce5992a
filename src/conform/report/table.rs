//! The report for people: a line for each case, and below those that failed all that helps to mend them.

use std::fmt::Write;

use super::{Run, seconds};
use crate::client::text::visible;
use crate::conform::case::{Ended, Failure, Weight};
use crate::conform::requirements;
use crate::conform::run::Outcome;

const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";
const DIM: &str = "2";

pub(super) fn render(run: &Run<'_>, colour: bool) -> String {
    let paint = |code: &str, text: &str| match colour {
        true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        false => text.to_owned(),
    };
    let width = run.outcomes.iter().map(|outcome| outcome.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut skipped: Vec<(&str, Vec<&str>)> = Vec::new();
    for outcome in run.outcomes {
        let Outcome { name, took, about, .. } = outcome;
        let (word, code) = match (&outcome.result, outcome.weight) {
            (Ok(()), _) => ("ok", GREEN),
            (Err(Ended::Failed(_)), Weight::Required) => ("FAIL", RED),
            (Err(Ended::Failed(_)), Weight::Advised) => ("warn", YELLOW),
            (Err(Ended::Skipped(why)), _) => {
                match skipped.iter_mut().find(|(other, _)| other == why) {
                    Some((_, names)) => names.push(name),
                    None => skipped.push((why, vec![name])),
                }
                continue;
            }
        };
        let (word, took) = (paint(code, &format!("{word:<5}")), format!("{:>7}", seconds(*took)));
        let _ = writeln!(text, "{word} {name:width$} {took}  {}", paint(DIM, about));
        if let Err(Ended::Failed(failure)) = &outcome.result {
            failed(&mut text, outcome, failure);
        }
    }
    for (why, names) in skipped {
        let which = match names[..] {
            [.., _, _, _, _] => format!("{} cases", names.len()),
            _ => names.join(", "),
        };
        let _ = writeln!(text, "{} {which}: {}", paint(DIM, "skip "), visible(why));
    }
    let counts = run.summary();
    let advised =
        if counts.advised > 0 { format!(", {} advised failed", counts.advised) } else { String::new() };
    let skipped = if counts.skipped > 0 { format!(", {} skipped", counts.skipped) } else { String::new() };
    let line = format!(
        "{} passed, {} failed{advised}{skipped} in {}",
        counts.passed,
        counts.failed,
        seconds(run.took)
    );
    let _ = writeln!(text, "{}", paint(if counts.is_pass() { GREEN } else { RED }, &line));
    text
}

fn failed(text: &mut String, outcome: &Outcome, failure: &Failure) {
    let _ = writeln!(text, "        expected {}", visible(&failure.expected));
    let _ = writeln!(text, "        but      {}", visible(&failure.came));
    if !outcome.requirements.is_empty() {
        let _ = writeln!(text, "        see      {}", requirements::named(outcome.requirements));
    }
    for line in &outcome.trace {
        let _ = writeln!(text, "      | {line}");
    }
}
