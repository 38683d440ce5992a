//! Every rule of the tokens of workers.

use super::*;

const ID: &str = "fBW_6x~1.2-3%2F";

fn tokens(audience: Option<&str>) -> WorkerTokens {
    WorkerTokens { secrets: secrets(&["short", TWO]), audience: audience.map(Into::into) }
}

/// Good claims with some others; `null` takes one out.
fn token(changes: &Value) -> String {
    let claims = json!({"tid": ID, "nbf": NOW - 10, "exp": NOW + 10, "iat": NOW + DAY, "iss": "x", "sub": 7});
    let mut claims = claims.as_object().unwrap().clone();
    claims.extend(changes.as_object().unwrap().clone());
    claims.retain(|_, value| !value.is_null());
    let claims = Value::Object(claims).to_string();
    signed(hmac::HMAC_SHA256, "short", r#"{"alg":"HS256","typ":"JWT"}"#, &claims)
}

fn verify_at(audience: Option<&str>, token: &str, millis: i64) -> Result<(), TokenError> {
    let (tokens, now) = (tokens(audience), NOW * 1000 + millis);
    let verdict = tokens.verify(token, ID, now);
    let inspection = tokens.inspect(token, Some(ID), now);
    assert_eq!(inspection.is_valid(), verdict.is_ok(), "{inspection:?}");
    if let Err(error) = verdict {
        assert!(inspection.broken.contains(&error), "{error:?} is missing in {inspection:?}");
    }
    verdict
}

fn verify(changes: &Value) -> Result<(), TokenError> {
    verify_at(None, &token(changes), 0)
}

#[test]
fn a_token_of_either_secret_opens_its_id() {
    assert_eq!(verify(&json!({})), Ok(()));
    let claims = json!({"tid": ID, "nbf": NOW, "exp": NOW + 1}).to_string();
    let of = |algorithm, secret: &str, header: &str| {
        verify_at(None, &signed(algorithm, secret, header, &claims), 0)
    };
    assert_eq!(of(hmac::HMAC_SHA256, TWO, r#"{"alg":"HS256"}"#), Ok(()));
    assert_eq!(of(hmac::HMAC_SHA256, ONE, r#"{"alg":"HS256"}"#), Err(TokenError::Signature));
    assert_eq!(of(hmac::HMAC_SHA512, TWO, r#"{"alg":"HS512"}"#), Err(TokenError::Algorithm));
    assert_eq!(of(hmac::HMAC_SHA256, TWO, r#"{"alg":"none"}"#), Err(TokenError::Algorithm));
    assert_eq!(of(hmac::HMAC_SHA512, TWO, r#"{"alg":"HS256"}"#), Err(TokenError::Signature));
    let none = WorkerTokens::default();
    assert_eq!(none.verify(&token(&json!({})), ID, NOW * 1000), Err(TokenError::Signature));
}

#[test]
fn another_id_is_not_opened() {
    for tid in ["other", "fBW_6x~1.2-3%2f", "fBW_6x~1.2-3/"] {
        assert!(verify(&json!({"tid": tid})).is_err(), "{tid}");
    }
    assert_eq!(verify(&json!({"tid": "other"})), Err(TokenError::OtherWorker));
    assert_eq!(verify(&json!({"tid": null})), Err(TokenError::Missing("tid")));
    for bad in [json!(7), json!([ID]), json!("")] {
        let error = verify(&json!({"tid": bad})).unwrap_err();
        assert!(matches!(error, TokenError::Malformed { claim: "tid", .. }), "{error:?}");
    }
    let any = tokens(None).inspect(&token(&json!({"tid": "other"})), None, NOW * 1000);
    assert!(any.is_valid(), "{any:?}");
}

#[test]
fn both_times_are_needed_and_get_no_leeway() {
    for claim in ["exp", "nbf"] {
        assert_eq!(verify(&json!({claim: null})), Err(TokenError::Missing(claim)));
        let error = verify(&json!({claim: "1700000000"})).unwrap_err();
        assert!(matches!(error, TokenError::Malformed { .. }), "{error:?}");
    }
    assert_eq!(verify(&json!({"nbf": 0, "exp": NOW + 1})), Err(TokenError::Missing("nbf")));
    let at = |millis| verify_at(None, &token(&json!({})), millis);
    assert_eq!(at(-10_001), Err(TokenError::NotYetValid));
    assert_eq!(at(-10_000), Ok(()));
    assert_eq!(at(9_999), Ok(()));
    assert_eq!(at(10_000), Err(TokenError::Expired));
    let halves = token(&json!({"nbf": NOW as f64 - 0.5, "exp": NOW as f64 + 0.5}));
    assert_eq!(verify_at(None, &halves, 499), Ok(()));
    assert_eq!(verify_at(None, &halves, 500), Err(TokenError::Expired));
    assert_eq!(verify_at(None, &halves, -501), Err(TokenError::NotYetValid));
}

#[test]
fn a_worker_s_token_lives_for_31_days_at_most() {
    assert_eq!(verify(&json!({"nbf": NOW - DAY, "exp": NOW + 30 * DAY})), Ok(()));
    assert_eq!(verify(&json!({"nbf": NOW - DAY, "exp": NOW + 30 * DAY + 1})), Err(TokenError::Lifetime));
    assert_eq!(verify(&json!({"nbf": 1, "exp": NOW + 1})), Err(TokenError::Lifetime));
}

#[test]
fn an_audience_must_be_the_relay_s_and_without_one_there_is_none() {
    let with = |audience, aud: Value| verify_at(audience, &token(&json!({"aud": aud})), 0);
    for good in [json!("us"), json!(["other", "us"])] {
        assert_eq!(with(Some("us"), good), Ok(()));
    }
    for other in [json!("other"), json!("US"), json!([]), json!("")] {
        assert_eq!(with(Some("us"), other), Err(TokenError::OtherAudience));
    }
    assert_eq!(with(Some("us"), json!(null)), Err(TokenError::Missing("aud")));
    for bad in [json!(7), json!(["us", 7])] {
        assert!(matches!(with(Some("us"), bad), Err(TokenError::Malformed { claim: "aud", .. })));
    }
    for any in [json!("us"), json!([]), json!(7)] {
        assert_eq!(with(None, any), Err(TokenError::NoAudience));
    }
}

#[test]
fn what_is_minted_for_a_worker_counts_from_before_now() {
    let (now, ttl) = (NOW * 1000 + 999, Duration::from_secs(3600));
    for audience in [None, Some("us")] {
        let tokens = tokens(audience);
        let token = tokens.mint(ID, ttl, now).unwrap();
        for at in [now - 15 * 60_000, now, now + 3_599_000] {
            assert_eq!(tokens.verify(&token, ID, at), Ok(()));
        }
        assert_eq!(tokens.verify(&token, ID, now + 3_600_000), Err(TokenError::Expired));
        let longest = tokens.mint(ID, MAX_LIFETIME, now).unwrap();
        assert_eq!(tokens.verify(&longest, ID, now), Ok(()));
    }
    let tokens = tokens(None);
    assert_eq!(tokens.mint(ID, MAX_LIFETIME + Duration::from_secs(1), now).unwrap_err(), MintError::Lifetime);
    assert!(matches!(tokens.mint("a/b", ttl, now).unwrap_err(), MintError::Broken(_)));
    assert_eq!(WorkerTokens::default().mint(ID, ttl, now).unwrap_err(), MintError::NoSecret);
}
