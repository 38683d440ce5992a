//! Tests of whole policies: contradictions, what is stored and shown, and what goes on over a change.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::auth::password::{Turn, Verdict};

fn read(value: serde_json::Value) -> written::Policy {
    serde_json::from_value(value).unwrap()
}

fn checked(value: serde_json::Value) -> Policy {
    Policy::check(&read(value), &Given::default()).unwrap().unwrap()
}

fn wrong(value: serde_json::Value, given: &Given<'_>) -> Vec<String> {
    match Policy::check(&read(value), given) {
        Err(PolicyError::Wrong(wrong)) => wrong,
        Err(error) => panic!("{error}"),
        Ok(_) => Vec::new(),
    }
}

#[test]
fn a_policy_that_asks_for_nothing_is_none() {
    for nothing in [json!({}), json!({"interstitial": false, "allow": null})] {
        assert!(Policy::check(&read(nothing), &Given::default()).unwrap().is_none());
    }
}

#[test]
fn contradictions_are_named_all_at_once() {
    let given = Given { body_limit: Some(1000), has_auth: true, ..Given::default() };
    let wrong = wrong(
        json!({
            "auth": ["ann", "bob:x", "bob:y", ":z", "eve:***"],
            "allow": ["10.0.0.0/8"], "deny": ["10.0.0.0/8", "nowhere"],
            "rate_limit": "0/s",
            "verify": ["github:a", "github:b", {"secret": "c", "algorithm": "md5"}],
            "request_headers": ["Host: x", "-Connection"], "response_headers": [],
            "max_body": "10MB", "offline_page": " ", "interstitial": true, "alow": 1
        }),
        &given,
    );
    for part in [
        "alow: no such rule",
        "auth: the tunnel asks",
        "auth: user 1: write USER:PASSWORD",
        "auth: user 3: this name",
        "auth: user 4: write",
        "auth: user 5: *** stands for",
        "deny: \"nowhere\" is no network",
        "allow and deny: every network",
        "rate_limit: \"0/s\" is no rate",
        "verify 3: algorithm must be",
        "verify 1 and 2: both read the same header",
        "request_headers: host cannot be changed",
        "request_headers: connection cannot be changed",
        "response_headers: the list is empty",
        "max_body: 10000000 bytes are more than the 1000",
        "max_body and verify",
        "offline_page: it is empty",
        "interstitial and verify",
    ] {
        assert!(wrong.iter().any(|line| line.starts_with(part)), "{part} in {wrong:#?}");
    }
    assert_eq!(wrong.len(), 18, "{wrong:#?}");
}

#[test]
fn lists_have_an_end() {
    let many =
        |count: usize| (0..count).map(|at| format!("10.0.{}.{}", at / 256, at % 256)).collect::<Vec<_>>();
    assert!(wrong(json!({"allow": many(256)}), &Given::default()).is_empty());
    for (policy, part) in [
        (json!({"allow": many(257)}), "allow: at most 256"),
        (json!({"auth": (0..17).map(|at| format!("u{at}:p")).collect::<Vec<_>>()}), "auth: at most 16"),
        (
            json!({"verify": ["github:a", "slack:a", "stripe:a", "standard:YQ==", "hmac:a"]}),
            "verify: at most 4",
        ),
        (json!({"offline_page": "x".repeat(64 * 1024 + 1)}), "65537 bytes; at most 65536"),
        (json!({"auth": []}), "auth: the list is empty"),
        (json!({"allow": []}), "allow: the list is empty"),
        (json!({"verify": []}), "verify: the list is empty"),
    ] {
        let wrong = wrong(policy, &Given::default());
        assert!(wrong.len() == 1 && wrong[0].contains(part), "{part}: {wrong:?}");
    }
}

#[test]
fn of_connections_the_relay_knows_the_address_alone() {
    let given = Given { scope: Scope::Connections, ..Given::default() };
    assert!(wrong(json!({"allow": "::1", "deny": "::2", "rate_limit": "1/s"}), &given).is_empty());
    let wrong = wrong(json!({"allow": "::1", "max_body": 1, "interstitial": true}), &given);
    assert!(
        wrong.len() == 1 && wrong[0].starts_with("max_body, interstitial: for HTTP tunnels only"),
        "{wrong:?}"
    );
}

#[test]
fn what_is_stored_is_taken_up_as_it_was_and_shows_no_secret() {
    let policy = checked(json!({
        "auth": ["ann:s3cret"], "allow": ["10.0.0.0/8", "::ffff:192.0.2.1"], "deny": ["10.1.0.0/16"], "rate_limit": "10/m",
        "verify": ["stripe:s3cret"], "request_headers": ["X-Name: Value"], "response_headers": ["-Server"],
        "max_body": "1MiB", "offline_page": "<p>away"
    }));
    let text = serde_json::to_string(policy.stored()).unwrap();
    let again = Policy::restore(&serde_json::from_str(&text).unwrap(), None).unwrap();
    assert!(again == policy && again.rules() == policy.rules());
    assert!(text.contains("pbkdf2-sha256$") && text.contains("\"ann:"));
    let shown = serde_json::to_value(again.shown()).unwrap();
    assert_eq!((&shown["auth"], &shown["allow"][1]), (&json!(["ann:***"]), &json!("192.0.2.1/32")));
    assert_eq!((&shown["max_body"], &shown["rate_limit"]["burst"]), (&json!("1048576"), &json!(10)));
    assert!(!shown.to_string().contains("s3cret") && !shown.to_string().contains("pbkdf2"), "{shown}");
}

#[test]
fn a_damaged_policy_is_an_error_and_no_open_door() {
    for text in ["[]", "{\"allow\":[\"x\"]}", "{\"auth\":[\"ann:x\"]}", "{\"alow\":[\"::1\"]}"] {
        assert!(Policy::restore(&serde_json::from_str(text).unwrap(), None).is_err(), "{text}");
    }
}

#[tokio::test]
async fn what_is_shown_can_be_given_back_and_keeps_its_secrets_and_its_rate() {
    let before = checked(json!({"auth": ["ann:secret"], "verify": "github:k", "rate_limit": "1/h"}));
    let viewer = "192.0.2.1".parse().unwrap();
    before.admit_connection(viewer).unwrap();
    let mut shown = before.shown();
    shown.deny = Some(vec!["192.0.2.2".into()]);
    let given = Given { before: Some(&before), ..Given::default() };
    let after = Policy::check(&shown, &given).unwrap().unwrap();
    assert_eq!(after.stored().auth, before.stored().auth);
    assert_eq!(after.stored().verify, before.stored().verify);
    assert!(matches!(after.admit_connection(viewer), Err(Refused::TooOften(_))), "the rate goes on");
    let right = HeaderValue::from_static("Basic YW5uOnNlY3JldA==");
    assert_eq!(after.users.as_ref().unwrap().verify(Some(&right), &Turn::default()).await, Verdict::Accepted);
    // The same password keeps its hash, so that a client that comes back changes nothing.
    let again = read(json!({"auth": ["ann:secret"], "verify": "github:k", "rate_limit": "1/h"}));
    assert!(Policy::check(&again, &given).unwrap().unwrap() == before);
    // A secret goes with the rest of its rule.
    let other = read(json!({"verify": {"secret": "***", "header": "X-Other"}}));
    assert!(matches!(Policy::check(&other, &given), Err(PolicyError::Wrong(_))));
}

#[tokio::test]
async fn any_of_the_users_is_let_in_by_its_own_password() {
    let policy = checked(json!({"auth": ["ann:secret", "bob:s2"]}));
    let users = policy.users.as_ref().unwrap();
    let turn = Turn::default();
    // ann:secret, bob:s2, then ann:s2, bob:secret, eve:secret
    for (token, verdict) in [
        ("YW5uOnNlY3JldA==", Verdict::Accepted),
        ("Ym9iOnMy", Verdict::Accepted),
        ("YW5uOnMy", Verdict::Refused),
        ("Ym9iOnNlY3JldA==", Verdict::Refused),
        ("ZXZlOnNlY3JldA==", Verdict::Refused),
    ] {
        let value = HeaderValue::from_str(&format!("Basic {token}")).unwrap();
        assert_eq!(users.verify(Some(&value), &turn).await, verdict, "{token}");
    }
    assert_eq!(users.verify(None, &turn).await, Verdict::Refused);
}

#[test]
fn refusals_of_addresses_do_not_count_for_the_rate() {
    let policy = checked(json!({"allow": "10.0.0.0/8", "rate_limit": "1/h,per=tunnel"}));
    assert_eq!(policy.admit_connection("192.0.2.1".parse().unwrap()), Err(Refused::Address));
    assert_eq!(policy.admit_connection("10.0.0.1".parse().unwrap()), Ok(()));
    let Err(Refused::TooOften(wait)) = policy.admit_connection("10.0.0.2".parse().unwrap()) else { panic!() };
    assert!(wait > Duration::from_secs(3590) && wait <= Duration::from_secs(3600), "{wait:?}");
}

#[test]
fn held_bodies_have_a_limit_together() {
    let policy = Arc::new(checked(json!({"verify": "github:k"})));
    let (mut one, mut other) = (policy.hold(), policy.hold());
    assert!(one.more(20 << 20) && !other.more(20 << 20) && other.more(12 << 20) && !other.more(1));
    drop(one);
    assert!(other.more(20 << 20));
    drop(other);
    assert_eq!(policy.held(), 0);
}

fn anything() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        "[ -~]{0,20}".prop_map(|value| json!(value)),
        "(10.0.0.0/8|::/0|ann:b|github:k|-Server|X-A: b|100/s|10MB|hex)".prop_map(|value| json!(value)),
    ];
    let keys = "(auth|allow|deny|rate_limit|verify|request_headers|response_headers|max_body|offline_page|interstitial|secret|header|rate|burst|per|x)";
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| json!(values)),
            prop::collection::btree_map(keys, inner, 0..6).prop_map(|values| json!(values)),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_written_is_refused_in_words_or_can_be_stored(value in anything()) {
        let mut policy = read(value);
        // Hashing takes too long for hundreds of tries.
        policy.auth = None;
        match Policy::check(&policy, &Given::default()) {
            Ok(Some(checked)) => {
                let text = serde_json::to_string(checked.stored()).unwrap();
                let again = Policy::restore(&serde_json::from_str(&text).unwrap(), None).unwrap();
                prop_assert!(again == checked);
                prop_assert!(!checked.rules().is_empty());
            }
            Ok(None) => prop_assert!(policy.is_empty()),
            Err(PolicyError::Wrong(wrong)) => prop_assert!(!wrong.is_empty() && wrong.iter().all(|line| line.len() < 400)),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
