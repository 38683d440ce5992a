//! The relay side: the real relay passes all cases, and what a proxy in front of it breaks is caught by the case for that.

mod mutants;
mod program;
mod proxy;
mod rig;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::docs;
use adit::conform::Ended;
use adit::conform::relay::cases;
use adit::conform::report::{Format, Run};
use adit::conform::requirements;
use adit::conform::run::{Outcome, Summary};
use mutants::MUTANTS;
use proxy::Proxy;
use rig::Rig;
use tokio::task::JoinSet;

fn assert_all_passed(outcomes: &[Outcome]) {
    let Summary { failed, advised, skipped, .. } = Summary::of(outcomes);
    let report = Run { side: "relay", subject: "ours", outcomes, took: Duration::ZERO };
    assert_eq!((failed, advised, skipped), (0, 0, 0), "{}", report.render(Format::Table, false));
}

/// At the relay's own times, as somebody else's relay is tested.
#[tokio::test(flavor = "multi_thread")]
async fn our_relay_passes_all_cases() {
    let rig = Rig::start(|_| {}).await;
    assert_all_passed(&rig.run(rig.settings(rig.address).await).await);
}

/// Whatever a viewer can see of an end by TLS.
#[tokio::test(flavor = "multi_thread")]
async fn over_tls_our_relay_passes_what_is_quick() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["relay.test".into(), "*.relay.test".into()]).unwrap();
    let (certificate, key) = (dir.path().join("relay.crt"), dir.path().join("relay.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let rig = Rig::start(|config| {
        rig::hurry(config);
        (config.tls_cert, config.tls_key) = (vec![certificate], vec![key]);
    })
    .await;
    let url = format!("https://{}", rig.address);
    let settings = rig.settings_of(&url, Duration::from_secs(5), 2_000_000).await;
    assert_all_passed(&rig.run_some(settings, |case| case.seconds <= 40).await);
}

/// So nothing but what it breaks makes a mutant fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_breaks_nothing_passes_all_cases() {
    let rig = Rig::start(rig::hurry).await;
    let proxy = Proxy::start(rig.address, None).await;
    assert_all_passed(&rig.run(rig.settings(proxy.address).await).await);
}

/// Which quotas an owner has, only the operator knows.
const NOT_SEEN: &[&str] = &["R-57"];

#[test]
fn each_requirement_of_relays_has_a_case() {
    let tested: BTreeSet<_> = cases().iter().flat_map(|case| case.requirements).copied().collect();
    let asked: BTreeSet<_> =
        requirements::all().into_iter().map(|one| one.id).filter(|id| id.starts_with("R-")).collect();
    assert!(!asked.is_empty());
    assert_eq!(asked.difference(&tested).copied().collect::<Vec<_>>(), NOT_SEEN, "without a case");
    assert_eq!(tested.difference(&asked).collect::<Vec<_>>(), Vec::<&&str>::new(), "not in the protocol");
}

/// The table in the docs, which is made of the cases.
#[test]
fn the_docs_say_which_case_tests_which_requirement() {
    docs::assert_tell("requirements of relays", 'R', &cases());
}

#[test]
fn each_case_has_one_mutant() {
    let names: BTreeSet<_> = cases().iter().map(|case| case.name).collect();
    let mutants: BTreeSet<_> = MUTANTS.iter().map(|(case, _)| *case).collect();
    assert_eq!(names.difference(&mutants).collect::<Vec<_>>(), Vec::<&&str>::new(), "without a mutant");
    assert_eq!(mutants.difference(&names).collect::<Vec<_>>(), Vec::<&&str>::new(), "of no case");
    assert_eq!((cases().len(), MUTANTS.len()), (names.len(), names.len()), "a name is there twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mutant_is_caught_by_its_case() {
    let rig = std::sync::Arc::new(Rig::start(rig::hurry).await);
    let (mut running, mut survivors) = (JoinSet::new(), Vec::new());
    let mut keep = |outcome: Outcome| {
        if !matches!(outcome.result, Err(Ended::Failed(_))) {
            survivors.push(format!("{}: {:?}", outcome.name, outcome.result));
        }
    };
    for (case, spoil) in MUTANTS {
        if running.len() >= 24 {
            keep(running.join_next().await.unwrap().unwrap());
        }
        let rig = std::sync::Arc::clone(&rig);
        running.spawn(async move { rig.mutant(case, *spoil).await });
    }
    while let Some(outcome) = running.join_next().await {
        keep(outcome.unwrap());
    }
    assert!(survivors.is_empty(), "{} survive:\n{}", survivors.len(), survivors.join("\n"));
}
