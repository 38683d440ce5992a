//! The features as a test: what each of them brings along, by `cargo tree`.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::process::Command;

/// Crates of the relay alone. `ipnet` is none of them: reading `NO_PROXY` takes it.
const RELAY: &[&str] = &[
    "aws-lc-rs",
    "axum",
    "dashmap",
    "h2",
    "hickory-resolver",
    "instant-acme",
    "jsonwebtoken",
    "prometheus-client",
    "rcgen",
    "rusqlite",
    "time",
    "utoipa",
    "x509-parser",
];
/// Crates of the program alone.
const PROGRAM: &[&str] = &["anyhow", "clap", "clap_complete", "clap_mangen", "toml", "tracing-subscriber"];
/// Crates of builds that send spans.
const SPANS: &[&str] =
    &["opentelemetry", "opentelemetry-http", "opentelemetry-otlp", "opentelemetry_sdk", "prost"];
/// Crates of whoever speaks TLS.
const TLS: &[&str] = &["rustls", "rustls-native-certs", "tokio-rustls"];

/// Names of the crates that a build with `arguments` is made of.
fn crates(arguments: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{p}"]).args(arguments);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Crates of a library with `features` and nothing else.
fn only(features: &str) -> BTreeSet<String> {
    crates(&["-e", "normal", "--no-default-features", "--features", features])
}

fn assert_without(found: &BTreeSet<String>, unwanted: &[&[&str]]) {
    let there: Vec<_> = unwanted.concat().into_iter().filter(|name| found.contains(*name)).collect();
    assert!(there.is_empty(), "{there:?}");
}

#[test]
fn a_client_brings_nothing_of_the_relay_or_the_program() {
    let found = only("client");
    assert!(found.contains("hyper") && found.contains("rustls"), "{found:?}");
    // rustls brings its own.
    let relay: Vec<_> = RELAY.iter().copied().filter(|name| *name != "aws-lc-rs").collect();
    assert_without(&found, &[&relay, PROGRAM]);
}

#[test]
fn a_relay_brings_nothing_of_the_program() {
    let found = only("relay");
    assert!(found.contains("axum") && found.contains("rustls"), "{found:?}");
    assert_without(&found, &[PROGRAM]);
}

#[test]
fn a_bridge_brings_nothing_of_the_program_and_no_database() {
    let found = only("bridge");
    assert!(found.contains("hyper") && found.contains("rustls"), "{found:?}");
    assert_without(
        &found,
        &[PROGRAM, &["axum", "hickory-resolver", "instant-acme", "rcgen", "rusqlite", "utoipa"]],
    );
}

#[test]
fn spans_are_for_who_asks_for_them_and_bring_no_other_client_of_http() {
    assert_without(&crates(&["-e", "normal"]), &[SPANS]);
    let found = only("otlp");
    assert!(SPANS.iter().all(|name| found.contains(*name)), "{found:?}");
    assert_without(&found, &[&["clap", "reqwest", "tonic", "ring", "openssl-sys", "native-tls"]]);
}

#[test]
fn the_protocol_alone_brings_neither() {
    assert_without(&only(""), &[RELAY, TLS, PROGRAM]);
}

#[test]
fn there_is_one_crypto_provider_and_one_tls() {
    let all = crates(&["-e", "normal,build,dev", "--all-features"]);
    assert!(all.contains("aws-lc-rs"));
    assert_without(&all, &[&["ring", "openssl-sys", "native-tls"]]);
}
