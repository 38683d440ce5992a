//! The report as one JSON document; its fields are promised in `docs/conformance.md`.

use serde_json::{Value, json};

use super::Run;
use crate::client::text::visible_json;
use crate::conform::case::Ended;
use crate::conform::requirements;
use crate::conform::run::Outcome;

pub(super) fn render(run: &Run<'_>) -> String {
    let counts = run.summary();
    let document = json!({
        "kit": concat!("adit/", env!("CARGO_PKG_VERSION")),
        "side": run.side,
        "subject": run.subject,
        "passed": counts.is_pass(),
        "counts": {
            "passed": counts.passed,
            "failed": counts.failed,
            "advised": counts.advised,
            "skipped": counts.skipped,
        },
        "seconds": run.took.as_secs_f64(),
        "cases": run.outcomes.iter().map(case).collect::<Vec<_>>(),
    });
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    format!("{}\n", visible_json(&text))
}

fn case(outcome: &Outcome) -> Value {
    let requirement = |id: &&str| json!({ "id": id, "section": requirements::section_of(id) });
    let mut told = json!({
        "name": outcome.name,
        "about": outcome.about,
        "level": outcome.level.as_str(),
        "weight": outcome.weight.as_str(),
        "requirements": outcome.requirements.iter().map(requirement).collect::<Vec<_>>(),
        "seconds": outcome.took.as_secs_f64(),
    });
    match &outcome.result {
        Ok(()) => told["result"] = "passed".into(),
        Err(Ended::Skipped(why)) => {
            told["result"] = "skipped".into();
            told["reason"] = why.as_str().into();
        }
        Err(Ended::Failed(failure)) => {
            told["result"] = "failed".into();
            told["expected"] = failure.expected.as_str().into();
            told["came"] = failure.came.as_str().into();
            told["wire"] = outcome.trace.clone().into();
        }
    }
    told
}
