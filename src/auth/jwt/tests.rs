//! Every rule of tokens, each with tokens that keep and that break it.

use aws_lc_rs::hmac;
use serde_json::json;

use super::*;

#[cfg(test)]
mod worker;

/// 2023-11-14T22:13:20Z.
const NOW: i64 = 1_700_000_000;
const DAY: i64 = 24 * 3600;
const ONE: &str = "one-one-one-one-one-one-one-one-one";
const TWO: &str = "two-two-two-two-two-two-two-two-two";

fn secrets(texts: &[&str]) -> Secrets {
    Secrets::new(texts.iter().map(|text| Secret::new(*text)).collect())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().zip([16, 8, 0]).fold(0_u32, |bits, (byte, shift)| bits | u32::from(*byte) << shift);
        for shift in [18, 12, 6, 0].into_iter().take(group.len() + 1) {
            text.push(char::from(DIGITS[(bits >> shift & 63) as usize]));
        }
    }
    text
}

/// A token with any header and claims, signed by hand.
fn signed(algorithm: hmac::Algorithm, secret: &str, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", base64(header.as_bytes()), base64(claims.as_bytes()));
    let signature = hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), message.as_bytes());
    format!("{message}.{}", base64(signature.as_ref()))
}

fn of_header(header: &str) -> String {
    signed(hmac::HMAC_SHA256, ONE, header, &good().to_string())
}

fn of_claims(claims: &str) -> String {
    signed(hmac::HMAC_SHA256, ONE, r#"{"alg":"HS256","typ":"JWT"}"#, claims)
}

fn good() -> Value {
    json!({"sub": "ci", "nbf": NOW - 10, "exp": NOW + 10})
}

/// The good claims with some others.
fn with(changes: Value) -> String {
    let mut claims = good();
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    of_claims(&claims.to_string())
}

/// The good claims without one.
fn without(claim: &str) -> String {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(claim);
    of_claims(&claims.to_string())
}

fn verify(token: &str) -> Result<Claims, TokenError> {
    let (secrets, now) = (secrets(&[ONE, TWO]), NOW * 1000);
    let verdict = secrets.verify(token, now);
    let inspection = secrets.inspect(token, now);
    assert_eq!(inspection.is_valid(), verdict.is_ok(), "{inspection:?}");
    if let Err(error) = verdict {
        assert!(inspection.broken.contains(&error), "{error:?} is missing in {inspection:?}");
    }
    verdict
}

fn malformed(verdict: Result<Claims, TokenError>) -> &'static str {
    match verdict {
        Err(TokenError::Malformed { claim, .. }) => claim,
        verdict => panic!("{verdict:?}"),
    }
}

// ---- whole tokens ----

#[test]
fn a_good_token_names_its_owner_and_its_end() {
    let claims = Claims { owner: "ci".into(), tunnel: None, expires_at: (NOW + 10) * 1000 };
    assert_eq!(verify(&of_claims(&good().to_string())), Ok(claims.clone()));
    let limited = Claims { tunnel: Name::parse("web").ok(), ..claims };
    assert_eq!(verify(&with(json!({"tid": "Web", "iss": 7, "jti": null}))), Ok(limited));
}

#[test]
fn what_is_minted_is_valid_from_now_to_its_end() {
    let secrets = secrets(&[ONE]);
    let (now, tid) = (NOW * 1000 + 999, Name::parse("web").unwrap());
    let token = secrets.mint("ci", Some(&tid), MAX_LIFETIME, now).unwrap();
    let inspection = secrets.inspect(&token, now);
    assert!(inspection.is_valid(), "{inspection:?}");
    assert_eq!(inspection.header, json!({"alg": "HS256", "typ": "JWT"}).as_object().cloned());
    let claims = json!({"sub": "ci", "aud": "adit", "tid": "web", "nbf": NOW, "exp": NOW + 31 * DAY});
    assert_eq!(inspection.claims, claims.as_object().cloned());
    assert_eq!(
        verify(&secrets.mint("ci", None, Duration::from_secs(60), now).unwrap()).unwrap().tunnel,
        None
    );
}

#[test]
fn what_no_relay_would_take_is_not_minted() {
    let second = Duration::from_secs(1);
    let mint =
        |secrets: &Secrets, sub: &str, lifetime| secrets.mint(sub, None, lifetime, NOW * 1000).unwrap_err();
    let one = secrets(&[ONE]);
    assert_eq!(mint(&Secrets::default(), "ci", second), MintError::NoSecret);
    assert_eq!(mint(&one, "ci", Duration::from_millis(999)), MintError::Lifetime);
    assert_eq!(mint(&one, "ci", MAX_LIFETIME + second), MintError::Lifetime);
    assert!(matches!(
        mint(&one, "a b", second),
        MintError::Broken(TokenError::Malformed { claim: "sub", .. })
    ));
}

/// As Taskcluster's proxy signs them: with the names of its own claims, and nobody whose tunnels these would be.
#[test]
fn a_taskcluster_token_is_not_valid_here() {
    let token = of_claims(&json!({"tid": "web", "nbf": NOW - 10, "exp": NOW + 10}).to_string());
    assert_eq!(verify(&token), Err(TokenError::Missing("sub")));
}

#[test]
fn what_is_no_token_is_not_readable() {
    let good = of_claims(&good().to_string());
    let broken = [
        String::new(),
        "..".into(),
        "a.b".into(),
        "a.b.c.d".into(),
        format!("{good}."),
        format!(" {good}"),
        good.replacen('.', "=.", 1),
        good.replacen("e", "+", 1),
        "e30e3.e30.".into(),
        of_header("[]"),
        of_header(""),
        of_header(r#"{"alg":"HS256""#),
        of_claims("[]"),
        of_claims("null"),
        of_claims("{}x"),
        of_claims(r#"{"sub":"ci","nbf":0,"exp":NaN}"#),
        of_claims(r#"{"sub":"ci","nbf":0,"exp":1e999}"#),
        of_claims(&format!("{{\"x\":{}{}}}", "[".repeat(2000), "]".repeat(2000))),
    ];
    for token in broken {
        assert_eq!(verify(&token), Err(TokenError::Unreadable), "{token}");
    }
}

#[test]
fn a_token_over_8_kib_is_refused_before_it_is_looked_at() {
    let of_size = |size: usize| {
        let token = with(json!({"x": ""}));
        let token = with(json!({"x": "x".repeat((size - token.len()) * 3 / 4)}));
        assert!(token.len().abs_diff(size) < 4, "{}", token.len());
        token
    };
    assert!(verify(&of_size(MAX_TOKEN - 4)).is_ok());
    assert_eq!(verify(&of_size(MAX_TOKEN + 4)), Err(TokenError::TooLong));
    assert_eq!(verify(&"x".repeat(MAX_TOKEN + 1)), Err(TokenError::TooLong));
}

#[test]
fn a_bearer_of_three_base64url_parts_looks_like_a_token() {
    for token in ["a.b.c", "a.b.", "eyJ-_9.x.y"] {
        assert!(looks_like(token), "{token}");
    }
    for other in ["", "nbk_1", "a.b", ".b.c", "a..c", "a.b.c.d", "a.b.c=", "a.b.c d", "a:b.c.d"] {
        assert!(!looks_like(other), "{other}");
    }
}

// ---- signatures and headers ----

#[test]
fn both_secrets_count_while_one_replaces_the_other() {
    let old = secrets(&[ONE]).mint("ci", None, MAX_LIFETIME, NOW * 1000).unwrap();
    let new = secrets(&[TWO, ONE]).mint("ci", None, MAX_LIFETIME, NOW * 1000).unwrap();
    let signature = |texts: &[&str], token: &str| secrets(texts).inspect(token, NOW * 1000).signature;
    assert_eq!(signature(&[TWO, ONE], &old), Signature::Fits(1));
    assert_eq!(signature(&[TWO, ONE], &new), Signature::Fits(0), "the first signs");
    assert_eq!(signature(&[TWO], &old), Signature::FitsNone);
    assert_eq!(signature(&[], &old), Signature::NoSecret);
    for none in [secrets(&[TWO]), secrets(&[])] {
        assert_eq!(none.verify(&old, NOW * 1000), Err(TokenError::Signature));
        assert!(!none.inspect(&old, NOW * 1000).is_valid());
    }
}

#[test]
fn a_signature_is_of_this_header_and_these_claims() {
    let token = of_claims(&good().to_string());
    let other = with(json!({"sub": "root"}));
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (mine, theirs) = (parts(&token), parts(&other));
    for forged in [
        [&mine[0], &theirs[1], &mine[2]],
        [&base64(br#"{"typ":"JWT","alg":"HS256"}"#), &mine[1], &mine[2]],
        [&mine[0], &mine[1], &theirs[2]],
        [&mine[0], &mine[1], &mine[2][..40].to_owned()],
        [&mine[0], &mine[1], &String::new()],
    ] {
        let forged = forged.map(String::as_str).join(".");
        assert_eq!(verify(&forged), Err(TokenError::Signature), "{forged}");
    }
}

/// A guess at the owner must not be told apart by the answer.
#[test]
fn claims_are_not_judged_before_the_signature() {
    let token = signed(hmac::HMAC_SHA256, "guessed", r#"{"alg":"HS256"}"#, r#"{"exp":1}"#);
    assert_eq!(verify(&token), Err(TokenError::Signature));
}

#[test]
fn only_hs256_is_taken_whatever_the_signature() {
    let claims = good().to_string();
    let none = format!("{}.{}.", base64(br#"{"alg":"none"}"#), base64(claims.as_bytes()));
    assert_eq!(verify(&none), Err(TokenError::Algorithm));
    let hs512 = signed(hmac::HMAC_SHA512, ONE, r#"{"alg":"HS512"}"#, &claims);
    assert_eq!(verify(&hs512), Err(TokenError::Algorithm));
    // HS256 by the secret below a header that names another; RS256 with the "public key" as secret is the classic.
    for alg in
        [r#""none""#, r#""RS256""#, r#""ES256""#, r#""HS384""#, r#""HS512""#, r#""hs256""#, "null", "256"]
    {
        assert_eq!(verify(&of_header(&format!(r#"{{"alg":{alg}}}"#))), Err(TokenError::Algorithm), "{alg}");
    }
    assert_eq!(verify(&of_header(r#"{"typ":"JWT"}"#)), Err(TokenError::Algorithm));
    // And a longer hash below a header that says HS256.
    let longer = signed(hmac::HMAC_SHA512, ONE, r#"{"alg":"HS256"}"#, &claims);
    assert_eq!(verify(&longer), Err(TokenError::Signature));
}

#[test]
fn a_header_with_crit_is_refused() {
    for crit in [r#"["exp"]"#, r#"["b64"]"#, "[]", "null", r#""exp""#] {
        let token = of_header(&format!(r#"{{"alg":"HS256","crit":{crit},"b64":false}}"#));
        assert_eq!(verify(&token), Err(TokenError::Critical), "{crit}");
    }
}

#[test]
fn what_else_a_header_says_of_keys_counts_for_nothing() {
    let header = json!({
        "alg": "HS256", "kid": "../../dev/null", "jku": "https://evil.example/jwks", "x5u": "https://evil.example",
        "x5c": ["AA=="], "jwk": {"kty": "oct", "k": base64(TWO.as_bytes())}, "typ": "at+jwt", "cty": 5, "enc": "x"
    });
    assert!(verify(&of_header(&header.to_string())).is_ok());
    let forged = signed(hmac::HMAC_SHA256, "known to the sender", &header.to_string(), &good().to_string());
    assert_eq!(verify(&forged), Err(TokenError::Signature));
}

// ---- claims ----

#[test]
fn sub_is_required_and_a_key_name() {
    assert_eq!(verify(&without("sub")), Err(TokenError::Missing("sub")));
    for bad in
        [json!(""), json!("a b"), json!("a/b"), json!("é"), json!("x".repeat(65)), json!(7), json!(null)]
    {
        assert_eq!(malformed(verify(&with(json!({"sub": bad})))), "sub", "{bad}");
    }
    assert!(verify(&with(json!({"sub": "A.b_c-9"}))).is_ok());
}

#[test]
fn tid_is_a_name_of_a_tunnel_or_absent() {
    for bad in [json!(null), json!(""), json!("a"), json!("../x"), json!("health"), json!(["web"]), json!(7)]
    {
        assert_eq!(malformed(verify(&with(json!({"tid": bad})))), "tid", "{bad}");
    }
}

#[test]
fn exp_and_nbf_are_required_numbers() {
    for claim in ["exp", "nbf"] {
        assert_eq!(verify(&without(claim)), Err(TokenError::Missing(claim)));
        for bad in [
            json!((NOW + 1).to_string()),
            json!("NaN"),
            json!(null),
            json!(true),
            json!([NOW]),
            json!({}),
            json!(-1),
            json!(-0.5),
            json!(1e300),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(253_402_300_800_i64),
        ] {
            assert_eq!(malformed(verify(&with(json!({claim: bad})))), claim, "{claim} {bad}");
        }
    }
    let halves = json!({"nbf": NOW as f64 - 0.5, "exp": NOW as f64 + 0.5});
    assert_eq!(verify(&with(halves)).unwrap().expires_at, NOW * 1000 + 500);
}

#[test]
fn a_token_lives_for_31_days_at_most() {
    let of = |nbf: i64, exp: i64| verify(&with(json!({"nbf": nbf, "exp": exp})));
    assert!(of(NOW, NOW + 31 * DAY).is_ok());
    assert_eq!(of(NOW, NOW + 31 * DAY + 1), Err(TokenError::Lifetime));
    assert_eq!(of(NOW, NOW + 32 * DAY), Err(TokenError::Lifetime));
    assert_eq!(of(0, 253_402_300_799), Err(TokenError::Lifetime));
    // It would count in the minute of leeway only.
    assert_eq!(of(NOW + 30, NOW + 20), Err(TokenError::Lifetime));
    assert_eq!(of(NOW + 30, NOW + 30), Err(TokenError::Lifetime));
}

#[test]
fn a_token_counts_from_a_minute_before_nbf_and_until_exp() {
    let secrets = secrets(&[ONE]);
    let token = of_claims(&good().to_string());
    let at = |millis: i64| secrets.verify(&token, NOW * 1000 + millis).err();
    assert_eq!(at(-70_001), Some(TokenError::NotYetValid));
    assert_eq!(at(-70_000), None);
    assert_eq!(at(9_999), None);
    assert_eq!(at(10_000), Some(TokenError::Expired));
}

#[test]
fn an_audience_has_us_in_it() {
    for good in [json!("adit"), json!(["adit"]), json!(["other", "adit"])] {
        assert!(verify(&with(json!({"aud": good}))).is_ok(), "{good}");
    }
    for other in [json!("other"), json!("ADIT"), json!(""), json!([]), json!(["other", "adit2"])] {
        assert_eq!(verify(&with(json!({"aud": other}))), Err(TokenError::Audience), "{other}");
    }
    for bad in [json!(null), json!(7), json!({"adit": true}), json!(["adit", 7])] {
        assert_eq!(malformed(verify(&with(json!({"aud": bad})))), "aud", "{bad}");
    }
}

// ---- inspection ----

#[test]
fn an_inspection_names_every_broken_rule() {
    let claims = json!({"nbf": "soon", "exp": 1, "tid": 7, "aud": "other"}).to_string();
    let token = signed(hmac::HMAC_SHA256, "unknown", r#"{"alg":"HS512","crit":["x"]}"#, &claims);
    let inspection = secrets(&[ONE]).inspect(&token, NOW * 1000);
    let broken: Vec<_> = inspection
        .broken
        .iter()
        .map(|error| match error {
            TokenError::Malformed { claim, .. } | TokenError::Missing(claim) => claim,
            TokenError::Algorithm => "alg",
            TokenError::Signature => "signature",
            TokenError::Audience => "audience",
            TokenError::Expired => "expired",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(broken, ["alg", "signature", "sub", "tid", "nbf", "audience", "expired"]);
    let inspection = secrets(&[ONE]).inspect(&of_header("{"), NOW * 1000);
    assert_eq!((inspection.header, inspection.broken), (None, vec![TokenError::Unreadable]));
    assert!(inspection.claims.is_some(), "what can be read is shown");
}

#[test]
fn no_error_shows_anything_of_the_token() {
    let mark = "\u{1b}[31ms3cret";
    let claims = json!({"sub": mark, "tid": mark, "aud": mark, "nbf": mark, "exp": mark}).to_string();
    for error in secrets(&[ONE]).inspect(&of_claims(&claims), NOW * 1000).broken {
        let text = format!("{error} {error:?}");
        assert!(!text.contains("s3cret") && !text.contains('\u{1b}'), "{text}");
    }
}
