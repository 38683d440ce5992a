//! Whether a request was signed by whom the owner expects, by an HMAC over its body and what goes with it.

use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use http::{HeaderMap, HeaderName};

use crate::auth::{unbase64, unhex};
use crate::proto::duration;
use crate::proto::limits::policy::{SECRETS, SIGNATURES, TEXT_BYTES, TOLERANCE};
use crate::proto::policy::{HIDDEN, Verify};

/// Digits of a time in seconds; more are no time.
const TIME_DIGITS: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Hex,
    Base64,
}

/// A part of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Body,
    Timestamp,
    Header(HeaderName),
}

/// Where the time of a signature stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TimeAt {
    Header(HeaderName),
    /// An item of the signature's own header that begins so.
    Prefix(String),
}

/// How requests are signed.
pub struct Signature {
    header: HeaderName,
    encoding: Encoding,
    prefix: String,
    payload: Vec<Part>,
    time: Option<(TimeAt, Duration)>,
    keys: Vec<hmac::Key>,
}

/// What the head of a request claims; the body has to bear it out.
pub struct Claim<'a> {
    signature: &'a Signature,
    headers: &'a HeaderMap,
    time: &'a str,
    tags: Vec<Vec<u8>>,
}

impl Signature {
    /// Checks how requests are to be signed; all that is wrong at once.
    pub(super) fn read(rule: &Verify) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let mut name = |what: &str, text: &str| {
            let read = HeaderName::from_bytes(text.trim().as_bytes());
            read.map_err(|_| wrong.push(format!("{what}: {:?} is no header's name", short(text)))).ok()
        };
        let header = name("header", &rule.header);
        let time_header = rule.timestamp_header.as_deref().map(|text| name("timestamp_header", text));
        let algorithm = match rule.algorithm.as_str() {
            "sha1" => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            "sha256" => Some(hmac::HMAC_SHA256),
            "sha512" => Some(hmac::HMAC_SHA512),
            _ => {
                wrong.push("algorithm must be sha256, sha512 or sha1".to_owned());
                None
            }
        };
        let encoding = match rule.encoding.as_str() {
            "hex" => Some(Encoding::Hex),
            "base64" => Some(Encoding::Base64),
            _ => {
                wrong.push("encoding must be hex or base64".to_owned());
                None
            }
        };
        let prefixes = [Some(&rule.prefix), rule.timestamp_prefix.as_ref()];
        if prefixes.into_iter().flatten().any(|prefix| prefix.contains([',', ' '])) {
            wrong.push(
                "prefix and timestamp_prefix have no comma or space, as these separate signatures".to_owned(),
            );
        }
        let texts = [&rule.prefix, &rule.payload].into_iter().chain(&rule.timestamp_prefix);
        if texts.chain(&rule.secret).any(|text| text.len() > TEXT_BYTES) {
            wrong.push(format!("secret, prefix and payload have at most {TEXT_BYTES} bytes each"));
        }
        let payload = payload(&rule.payload).map_err(|error| wrong.push(error)).unwrap_or_default();
        let time = time(rule, time_header.flatten(), &payload, &mut wrong);
        let keys = secrets(rule, &mut wrong);
        let (Some(header), Some(algorithm), Some(encoding), true) =
            (header, algorithm, encoding, wrong.is_empty())
        else {
            return Err(wrong);
        };
        let keys = keys.iter().map(|secret| hmac::Key::new(algorithm, secret)).collect();
        Ok(Self { header, encoding, prefix: rule.prefix.clone(), payload, time, keys })
    }

    /// Why no request could be signed in both ways.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        let apart = !self.prefix.starts_with(&other.prefix) && !other.prefix.starts_with(&self.prefix);
        self.header == other.header && !apart
    }

    /// What the head claims, if it can be true at `now`, in Unix seconds. Nothing of the body is needed for that.
    pub fn claimed<'a>(&'a self, headers: &'a HeaderMap, now: u64) -> Option<Claim<'a>> {
        let lines = headers.get_all(&self.header).iter();
        let items: Vec<&str> = lines
            .flat_map(|line| line.to_str().unwrap_or_default().split([',', ' ']))
            .filter(|item| !item.is_empty())
            .take(SIGNATURES + 1)
            .collect();
        if items.len() > SIGNATURES {
            return None;
        }
        let time = match &self.time {
            None => "",
            Some((at, tolerance)) => {
                let time = match at {
                    TimeAt::Header(name) => single(headers, name)?.trim(),
                    TimeAt::Prefix(prefix) => {
                        let mut times = items.iter().filter_map(|item| item.strip_prefix(prefix.as_str()));
                        times.next().filter(|_| times.next().is_none())?
                    }
                };
                let digits = !time.is_empty()
                    && time.len() <= TIME_DIGITS
                    && time.bytes().all(|byte| byte.is_ascii_digit());
                let at: u64 = digits.then(|| time.parse().ok()).flatten()?;
                if now.abs_diff(at) > tolerance.as_secs() {
                    return None;
                }
                time
            }
        };
        let there = |part: &Part| !matches!(part, Part::Header(name) if single(headers, name).is_none());
        let length = self.keys.first()?.algorithm().digest_algorithm().output_len();
        let decode = |item: &str| {
            let text = item.strip_prefix(self.prefix.as_str())?;
            let tag = match self.encoding {
                Encoding::Hex => unhex(text),
                Encoding::Base64 => unbase64(text.trim_end_matches('='), *b"+/"),
            };
            tag.filter(|tag| tag.len() == length)
        };
        let tags: Vec<_> = items.into_iter().filter_map(decode).collect();
        (!tags.is_empty() && self.payload.iter().all(there)).then_some(Claim {
            signature: self,
            headers,
            time,
            tags,
        })
    }
}

impl Claim<'_> {
    /// Whether the body bears it out. Every signature is compared with every secret, each in constant time.
    pub fn holds(&self, body: &[u8]) -> bool {
        self.signature.keys.iter().fold(false, |held, key| {
            let mut context = hmac::Context::with_key(key);
            for part in &self.signature.payload {
                match part {
                    Part::Text(text) => context.update(text.as_bytes()),
                    Part::Body => context.update(body),
                    Part::Timestamp => context.update(self.time.as_bytes()),
                    Part::Header(name) => {
                        context.update(single(self.headers, name).unwrap_or_default().as_bytes())
                    }
                }
            }
            let expected = context.sign();
            self.tags.iter().fold(held, |held, tag| {
                held | constant_time::verify_slices_are_equal(expected.as_ref(), tag).is_ok()
            })
        })
    }
}

/// The one value of a header; of several it is not clear which was signed.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

/// Reads the template of what is signed.
fn payload(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (before, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let Some(inner) = after.strip_prefix('{') else { break };
        let known = "payload: there are {body}, {timestamp} and {header:NAME}";
        let (what, behind) = inner.split_once('}').ok_or_else(|| known.to_owned())?;
        parts.push(match what.split_once(':') {
            None if what == "body" => Part::Body,
            None if what == "timestamp" => Part::Timestamp,
            Some(("header", name)) => Part::Header(
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| format!("payload: {:?} is no header's name", short(name)))?,
            ),
            _ => return Err(known.to_owned()),
        });
        rest = behind;
    }
    if !parts.contains(&Part::Body) {
        return Err("payload: without {body} anybody could send another body with a signature that was seen"
            .to_owned());
    }
    Ok(parts)
}

fn time(
    rule: &Verify,
    header: Option<HeaderName>,
    payload: &[Part],
    wrong: &mut Vec<String>,
) -> Option<(TimeAt, Duration)> {
    let at = match (&rule.timestamp_header, &rule.timestamp_prefix) {
        (Some(_), Some(_)) => {
            wrong.push("timestamp_header and timestamp_prefix: write one of them".to_owned());
            None
        }
        (Some(_), None) => header.map(TimeAt::Header),
        (None, Some(prefix)) if prefix.is_empty() => {
            wrong.push("timestamp_prefix is empty; write what stands before the time, such as t=".to_owned());
            None
        }
        (None, Some(prefix)) => Some(TimeAt::Prefix(prefix.clone())),
        (None, None) => None,
    };
    let has_time = rule.timestamp_header.is_some() || rule.timestamp_prefix.is_some();
    let signed = payload.contains(&Part::Timestamp);
    if has_time && !signed && !payload.is_empty() {
        wrong.push(
            "the time of the signature is not signed: payload needs {timestamp}, or anybody could renew it"
                .to_owned(),
        );
    }
    if signed && !has_time {
        wrong.push(
            "payload has {timestamp}; say by timestamp_header or timestamp_prefix where it stands".to_owned(),
        );
    }
    let tolerance = match &rule.tolerance {
        None => Some(Duration::from_secs(300)),
        Some(_) if !has_time => {
            wrong.push("tolerance needs timestamp_header or timestamp_prefix".to_owned());
            None
        }
        Some(text) => {
            let read = duration::parse(text).ok();
            let read = read.filter(|read| read.subsec_nanos() == 0 && !read.is_zero() && *read <= TOLERANCE);
            if read.is_none() {
                wrong.push("tolerance must be whole seconds, 1s to 24h, such as 5m".to_owned());
            }
            read
        }
    };
    at.zip(tolerance)
}

fn secrets(rule: &Verify, wrong: &mut Vec<String>) -> Vec<Vec<u8>> {
    if !(1..=SECRETS).contains(&rule.secret.len()) {
        wrong.push(format!("secret: give one, or a list of up to {SECRETS} of which any counts"));
    }
    let decode = |text: &String| match rule.secret_encoding.as_str() {
        "text" => Some(text.clone().into_bytes()),
        "hex" => unhex(text),
        // Standard webhooks write it with a prefix.
        "base64" => unbase64(text.strip_prefix("whsec_").unwrap_or(text).trim_end_matches('='), *b"+/"),
        _ => None,
    };
    if !["text", "hex", "base64"].contains(&&*rule.secret_encoding) {
        wrong.push("secret_encoding must be text, hex or base64".to_owned());
        return Vec::new();
    }
    let mut secrets = Vec::new();
    for text in &rule.secret {
        match decode(text) {
            _ if text == HIDDEN => {
                wrong.push(format!("secret: {HIDDEN} stands for a stored secret, and there is none for this rule; write the secret"));
            }
            // No error shows it.
            None => wrong.push(format!(
                "secret: it is not written in {}, as secret_encoding says",
                rule.secret_encoding
            )),
            Some(bytes) if bytes.is_empty() => wrong.push("secret: it is empty".to_owned()),
            Some(bytes) => secrets.push(bytes),
        }
    }
    secrets
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

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
        let check = |header: &str| {
            accepts(&stripe, &[("Stripe-Signature", header)], 1_700_000_100, "{\"id\":\"evt_1\"}")
        };
        assert!(check(&header("1700000000")));
        assert!(!check(&header("1700000001")), "another time than was signed");
        assert!(!check(&format!("t=1700000000,{}", header("1700000000"))), "two times");
        assert!(!check(&format!("v1={good}")), "no time");
        assert!(!check(&format!("t=1700000000,v0={good}")), "another scheme");
        let many = format!("t=1700000000{},v1={good}", format!(",v1={old}").repeat(SIGNATURES));
        assert!(!check(&many), "more than are looked at");

        for (how, algorithm) in [("sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), ("sha512", hmac::HMAC_SHA512)]
        {
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
}
