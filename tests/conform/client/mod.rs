//! The side that tests clients: a good client passes all, our own does, and each mutant is caught by its case.

mod mutant;
mod program;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use adit::conform::Ended;
use adit::conform::client::{Launch, Settings, all, stage};
use adit::conform::requirements;
use adit::conform::run::{Outcome, run};
use futures_util::FutureExt;

use crate::docs;
use mutant::{Defect, Kind, MUTANTS};

/// The mutant as the kit starts it.
fn launch(kind: Kind, defect: Option<Defect>) -> Launch {
    Launch::Here(Arc::new(move |start| mutant::run(start, kind, defect).boxed()))
}

/// What is quick in this process need not be waited for as long as a program.
fn settings(defect: Option<Defect>) -> Settings {
    Settings {
        policy: Some(launch(Kind::Policy, defect)),
        tcp: Some(launch(Kind::Tcp, defect)),
        bulk: 4_000_000,
        slow: true,
        start: Duration::from_secs(5),
        wait: Duration::from_secs(5),
        ping: Duration::from_secs(1),
        ..Settings::new(launch(Kind::Plain, defect))
    }
}

fn complaint(outcome: &Outcome) -> Option<String> {
    let ended = outcome.result.as_ref().err()?;
    Some(format!("{}: {ended:?}\n{}", outcome.name, outcome.trace.join("\n")))
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn each_case_has_a_mutant() {
    let names: BTreeSet<_> = all().iter().map(|case| case.name).collect();
    let with: BTreeSet<_> = MUTANTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), all().len(), "names are unique");
    assert_eq!(names.difference(&with).collect::<Vec<_>>(), Vec::<&&str>::new(), "without a mutant");
    assert_eq!(with.difference(&names).collect::<Vec<_>>(), Vec::<&&str>::new(), "of no case");
}

/// Each requirement of clients, and a case that tests it.
#[test]
fn each_requirement_of_clients_has_a_case() {
    let tested: BTreeSet<_> = all().iter().flat_map(|case| case.requirements.iter().copied()).collect();
    let known = requirements::all();
    let asked = known.iter().map(|requirement| requirement.id).filter(|id| id.starts_with('C'));
    let without: Vec<_> = asked.clone().filter(|id| !tested.contains(id)).collect();
    assert_eq!(without, Vec::<&str>::new(), "without a case");
    let asked: BTreeSet<_> = asked.collect();
    assert_eq!(tested.difference(&asked).collect::<Vec<_>>(), Vec::<&&str>::new(), "not in protocol.md");
}

/// The table in the docs, which is made of the cases.
#[test]
fn the_docs_say_which_case_tests_which_requirement() {
    docs::assert_tell("requirements of clients", 'C', &all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_defects_passes_all() {
    let settings = Arc::new(settings(None));
    let outcomes = run(&all(), 16, |case| stage(&settings, case), |_| {}).await;
    assert_none(&outcomes.iter().filter_map(complaint).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mutant_is_caught_by_its_case() {
    let of = |name: &str| MUTANTS.iter().find(|(case, _)| *case == name).map(|(_, defect)| *defect);
    let outcomes = run(&all(), 32, |case| stage(&Arc::new(settings(of(case.name))), case), |_| {}).await;
    let survived = outcomes.iter().filter(|outcome| !matches!(outcome.result, Err(Ended::Failed(_))));
    let told = |outcome: &Outcome| format!("{} survives: {:?}", outcome.name, outcome.result);
    assert_none(&survived.map(told).collect::<Vec<_>>());
}
