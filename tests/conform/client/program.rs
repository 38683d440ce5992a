//! `adit conform client` as a program, and `adit http` through the whole kit.

use std::process::{Command, Output};
use std::sync::Arc;

use adit::conform::client::{Launch, Settings, all, stage};
use adit::conform::run::run;
use serde_json::Value;

use super::{assert_none, complaint};

const ADIT: &str = env!("CARGO_BIN_EXE_adit");

/// Runs the kit from the command line.
fn kit(arguments: &[&str]) -> Output {
    Command::new(ADIT).args(["conform", "client"]).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_client_passes_all() {
    let line = |words: &str| Launch::Command(vec!["sh".into(), "-c".into(), format!("exec {ADIT} {words}")]);
    let settings = Settings {
        policy: Some(line("http {port} --allow 127.0.0.0/8")),
        tcp: Some(line("tcp {port}")),
        bulk: 20_000_000,
        ..Settings::new(Launch::Command([ADIT, "http", "{port}"].map(str::to_owned).to_vec()))
    };
    let settings = Arc::new(settings);
    let outcomes = run(&all(), 8, |case| stage(&settings, case), |_| {}).await;
    let failed = outcomes.iter().filter(|outcome| {
        outcome.result.as_ref().is_err_and(|ended| matches!(ended, adit::conform::Ended::Failed(_)))
    });
    assert_none(&failed.filter_map(complaint).collect::<Vec<_>>());
}

#[test]
fn a_client_that_passes_is_told_as_a_document_and_by_code_0() {
    let only =
        ["--only", "exchange,key-*", "--format", "json", "--", ADIT, "http", "{port}", "--relay", "{relay}"];
    let output = kit(&only);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["passed"]), (Some(0), &true.into()), "{told}");
    assert_eq!(told["cases"].as_array().unwrap().len(), 2);
    assert_eq!(told["cases"][1]["requirements"][0]["section"], "3", "{told}");
}

#[test]
fn a_client_that_fails_is_told_with_its_bytes_and_by_code_1() {
    let output = kit(&["--only", "close-1001", "--", ADIT, "http", "{port}", "--exit-on-disconnect"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for part in [
        "FAIL  close-1001",
        "expected the client to create its tunnel",
        "C-21 (protocol.md, section 3.1)",
        "close, ",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("Bearer kit_") && told.contains("Bearer ***"), "{told}");
}

#[test]
fn where_there_is_nothing_to_test_it_is_said_at_once_by_code_69() {
    for (command, part) in [
        (&["/no/such/program"][..], "cannot run /no/such/program"),
        (&["sh", "-c", "echo I need a --server; exit 3"], "I need a --server"),
        // Its last word may be read after its end was seen.
        (&["sh", "-c", "(sleep 0.1; echo I need a --server) & exit 3"], "I need a --server"),
    ] {
        let output = kit(&[&["--"], command].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{told}");
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn what_is_typed_wrong_is_told_by_code_2() {
    for (arguments, part) in [
        (&["--only", "exchnage", "--", "true"][..], "exchnage"),
        (&[], "--"),
        (&["--bulk", "much", "--", "true"], "100MB"),
    ] {
        let output = kit(arguments);
        let told = text(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains(part), "{told}");
    }
}

#[test]
fn the_list_names_cases_levels_and_requirements() {
    let told = text(&kit(&["--list"]).stdout);
    assert_eq!(told.lines().count(), all().len());
    assert!(
        told.lines().any(|line| line.starts_with("exchange ") && line.contains("required  C-14")),
        "{told}"
    );
}
