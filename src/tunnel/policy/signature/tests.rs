//! Signatures as others make them, and what is taken for one.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::proto::policy::{HIDDEN, Verify};

fn rule(text: &str) -> Signature {
    Signature::read(&Verify::parse(text).unwrap()).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
    lines.iter().map(|(key, value)| (name(key), HeaderValue::from_str(value).unwrap())).collect()
}

fn accepts(rule: &Signature, lines: &[(&str, &str)], now: u64, body: &str) -> bool {
    let headers = headers(lines);
    rule.claimed(&headers, now).is_some_and(|claim| claim.holds(body.as_bytes()))
}

/// `printf %s BODY | openssl dgst -sha256 -hmac SECRET`, with `-binary | base64` for the last.
#[test]
fn what_openssl_signed_as_github_slack_and_standard_webhooks_is_accepted() {
    let github = rule("github:s3cret");
    let signature = "sha256=5910e62016ef5034272c926c27071992a465c2335cecf41851bda071577f4f6d";
    assert!(accepts(&github, &[("X-Hub-Signature-256", signature)], 0, "{\"a\":1}"));
    assert!(!accepts(&github, &[("X-Hub-Signature-256", signature)], 0, "{\"a\":2}"));
    assert!(!accepts(&github, &[("X-Hub-Signature-256", &signature[7..])], 0, "{\"a\":1}"), "no prefix");
    assert!(!accepts(&github, &[], 0, "{\"a\":1}"));

    let slack = rule("slack:s3cret");
    let signed = [
        ("X-Slack-Signature", "v0=5be1c864561d846c0b9fb22b9f35c08a55fa81f858d857471c23aa0f9a2c08c5"),
        ("X-Slack-Request-Timestamp", "1700000000"),
    ];
    for (now, good) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
        let now = 1_700_000_000u64.saturating_add_signed(now);
        assert_eq!(accepts(&slack, &signed, now, "text=hi"), good, "{now}");
    }
    let renewed = [signed[0], ("X-Slack-Request-Timestamp", "1700000301")];
    assert!(!accepts(&slack, &renewed, 1_700_000_301, "text=hi"), "another time than was signed");

    let standard = rule("standard:whsec_czNjcmV0LXMzY3JldA==");
    let signed = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", "v1,bm90aGluZw== v1,FkTB4ahdpd+yAB8L7ANOulsWpboYm/U3M8o/SFEo4Qk="),
    ];
    assert!(accepts(&standard, &signed, 1_700_000_000, "{\"a\":1}"));
    assert!(!accepts(&standard, &signed[1..], 1_700_000_000, "{\"a\":1}"), "without its id");
}

#[test]
fn stripes_lists_and_other_algorithms_and_encodings_are_read() {
    let stripe = rule("stripe:whsec_test");
    // `printf '1700000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test`
    let good = "c89214b5b5da833daed6f0b8c5bb6bd58cea9022bd80ccc78230f3942d632925";
    let old = "0".repeat(64);
    let header = |time: &str| format!("t={time},v1={old},v1={good},v0={old}");
    let check =
        |header: &str| accepts(&stripe, &[("Stripe-Signature", header)], 1_700_000_100, "{\"id\":\"evt_1\"}");
    assert!(check(&header("1700000000")));
    assert!(!check(&header("1700000001")), "another time than was signed");
    assert!(!check(&format!("t=1700000000,{}", header("1700000000"))), "two times");
    assert!(!check(&format!("v1={good}")), "no time");
    assert!(!check(&format!("t=1700000000,v0={good}")), "another scheme");
    let many = format!("t=1700000000{},v1={good}", format!(",v1={old}").repeat(SIGNATURES));
    assert!(!check(&many), "more than are looked at");

    for (how, algorithm) in [("sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), ("sha512", hmac::HMAC_SHA512)] {
        let tag = hmac::sign(&hmac::Key::new(algorithm, b"k"), b"body");
        let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        let plain = rule(&format!("hmac,algorithm={how},header=X-Sig:k"));
        assert!(accepts(&plain, &[("X-Sig", &tag)], 0, "body"), "{how}");
        assert!(!accepts(&plain, &[("X-Sig", &tag)], 0, "body "), "{how}");
    }
}

#[test]
fn any_of_two_secrets_counts() {
    let both = Verify { secret: vec!["new".into(), "old".into()], ..Verify::parse("hmac:x").unwrap() };
    let both = Signature::read(&both).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    for (secret, good) in [("new", true), ("old", true), ("x", false)] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), b"b");
        let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(accepts(&both, &[("x-signature", &tag)], 0, "b"), good, "{secret}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_and_no_secret_with_it() {
    let bad = Verify {
        secret: vec!["s3cret!".into(), HIDDEN.into(), String::new()],
        header: "a b".into(),
        algorithm: "md5".into(),
        encoding: "binary".into(),
        prefix: "a,b".into(),
        payload: "{body".into(),
        timestamp_header: Some("x y".into()),
        timestamp_prefix: Some("t=".into()),
        tolerance: Some("soon".into()),
        secret_encoding: "hex".into(),
        ..Verify::default()
    };
    let wrong = Signature::read(&bad).err().unwrap();
    assert_eq!(wrong.len(), 11, "{wrong:#?}");
    assert!(!wrong.iter().any(|line| line.contains("s3cret")), "{wrong:#?}");
    for (text, part) in [
        ("hmac,payload={timestamp}:x", "{body}"),
        ("hmac,payload={timestamp}{body}:x", "where it stands"),
        ("hmac,timestamp_header=X-Time:x", "is not signed"),
        ("hmac,tolerance=5m:x", "needs timestamp_header"),
        ("slack,tolerance=0:x", "1s to 24h"),
        ("slack,tolerance=25h:x", "1s to 24h"),
        ("hmac:", "empty"),
        ("hmac,payload={bodies}:x", "there are {body}"),
    ] {
        let wrong = Signature::read(&Verify::parse(text).unwrap()).err().unwrap();
        assert!(wrong.len() == 1 && wrong[0].contains(part), "{text}: {wrong:?}");
    }
    for (one, other, contradict) in [
        ("github:a", "github:b", true),
        ("github:a", "hmac,header=x-hub-signature-256:a", true),
        ("github:a", "hmac,header=X-Hub-Signature-256,prefix=sha1=,algorithm=sha1:a", false),
        ("github:a", "slack:b", false),
    ] {
        assert_eq!(rule(one).contradicts(&rule(other)), contradict, "{one} {other}");
    }
}

proptest! {
    #[test]
    fn what_was_signed_is_accepted_and_nothing_else_is(
        body in prop::collection::vec(any::<u8>(), 0..200),
        time in 0u64..4_000_000_000,
        off in -900i64..900,
        at in any::<prop::sample::Index>(),
        flip in 0u8..8,
        base64 in any::<bool>(),
    ) {
        let encoding = if base64 { "base64" } else { "hex" };
        let rule = rule(&format!("hmac,encoding={encoding},prefix=v=,timestamp_header=x-time,payload={{timestamp}}.{{body}}:key"));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let tag = hmac::sign(&key, &[time.to_string().as_bytes(), b".", &body].concat()).as_ref().to_vec();
        let written = |tag: &[u8]| if base64 { base64_of(tag) } else { tag.iter().map(|byte| format!("{byte:02x}")).collect() };
        let now = time.saturating_add_signed(off);
        let check = |tag: &[u8], time: u64, body: &[u8]| {
            let headers = headers(&[("x-signature", &format!("v={}", written(tag))), ("x-time", &time.to_string())]);
            rule.claimed(&headers, now).is_some_and(|claim| claim.holds(body))
        };
        prop_assert_eq!(check(&tag, time, &body), now.abs_diff(time) <= 300);
        let mut other = tag.clone();
        other[at.index(tag.len())] ^= 1 << flip;
        prop_assert!(!check(&other, time, &body));
        prop_assert!(!check(&tag[1..], time, &body));
        prop_assert!(!check(&tag, time + 1, &body));
        let mut changed = body.clone();
        changed.push(flip);
        prop_assert!(!check(&tag, time, &changed));
        if !body.is_empty() {
            let mut changed = body.clone();
            changed[at.index(body.len())] ^= 1 << flip;
            prop_assert!(!check(&tag, time, &changed));
        }
    }

    #[test]
    fn no_header_makes_a_claim_panic(signature in "[ -~]{0,60}", time in "[ -~]{0,20}") {
        for rule in ["github:k", "stripe:k", "slack:k", "standard:a2V5"].map(rule) {
            let headers = headers(&[
                ("x-hub-signature-256", &signature), ("stripe-signature", &signature), ("x-slack-signature", &signature),
                ("webhook-signature", &signature), ("x-slack-request-timestamp", &time), ("webhook-timestamp", &time), ("webhook-id", &time),
            ]);
            prop_assert!(!rule.claimed(&headers, 1_700_000_000).is_some_and(|claim| claim.holds(b"x")));
        }
    }
}

fn base64_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            text.push(if digit <= group.len() {
                DIGITS[(bits >> (18 - 6 * digit) & 63) as usize] as char
            } else {
                '='
            });
        }
    }
    text
}
