//! Reads a policy from any JSON value: nothing stops it, and what is wrong is remembered as sentences.

use serde_json::{Map, Value};

use super::text::SCHEMES;
use super::{Policy, RateLimit, Verify};

/// Names of the rules.
const RULES: [&str; 10] = [
    "auth",
    "allow",
    "deny",
    "rate_limit",
    "verify",
    "request_headers",
    "response_headers",
    "max_body",
    "offline_page",
    "interstitial",
];

/// The policy that `value` is.
pub(super) fn policy(value: Value) -> Policy {
    let mut policy = Policy::default();
    let Value::Object(rules) = value else {
        policy.wrong.push("write an object of rules, such as {\"allow\": [\"10.0.0.0/8\"]}".into());
        return policy;
    };
    // What is null is absent.
    for (name, value) in rules.into_iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            "auth" => policy.auth = texts(&mut policy.wrong, &name, value),
            "allow" => policy.allow = texts(&mut policy.wrong, &name, value),
            "deny" => policy.deny = texts(&mut policy.wrong, &name, value),
            "request_headers" => policy.request_headers = texts(&mut policy.wrong, &name, value),
            "response_headers" => policy.response_headers = texts(&mut policy.wrong, &name, value),
            "rate_limit" => policy.rate_limit = rate_limit(&mut policy.wrong, value),
            "verify" => policy.verify = Some(all_verify(&mut policy.wrong, value)),
            "max_body" => match value {
                Value::String(text) => policy.max_body = Some(text),
                Value::Number(number) if number.is_u64() => policy.max_body = Some(number.to_string()),
                _ => {
                    policy.wrong.push("max_body: write a size, such as \"10MB\", or a number of bytes".into())
                }
            },
            "offline_page" => policy.offline_page = text(&mut policy.wrong, &name, value),
            "interstitial" => match value {
                Value::Bool(ask) => policy.interstitial = ask,
                _ => policy.wrong.push("interstitial: write true or false".into()),
            },
            _ => policy.wrong.push(format!("{}: no such rule; {}", shown(&name), meant(&name))),
        }
    }
    policy
}

fn text(wrong: &mut Vec<String>, name: &str, value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => {
            wrong.push(format!("{name}: write a text in quotes"));
            None
        }
    }
}

fn texts(wrong: &mut Vec<String>, name: &str, value: Value) -> Option<Vec<String>> {
    let one = |value: Value| match value {
        Value::String(text) => Some(text),
        _ => None,
    };
    let read = match value {
        Value::Array(values) => values.into_iter().map(one).collect(),
        value => one(value).map(|text| vec![text]),
    };
    if read.is_none() {
        wrong.push(format!("{name}: write a list of texts in quotes"));
    }
    read
}

fn rate_limit(wrong: &mut Vec<String>, value: Value) -> Option<RateLimit> {
    let table = match value {
        Value::String(text) => {
            return RateLimit::parse(&text).map_err(|error| wrong.push(format!("rate_limit: {error}"))).ok();
        }
        Value::Object(table) => table,
        _ => {
            wrong.push("rate_limit: write a text such as \"100/s\", or rate, burst and per".into());
            return None;
        }
    };
    let mut read = RateLimit::default();
    let has_rate = table.contains_key("rate");
    for (key, value) in table.into_iter().filter(|(_, value)| !value.is_null()) {
        match key.as_str() {
            "rate" => read.rate = text(wrong, "rate_limit.rate", value).unwrap_or_default(),
            "per" => read.per = text(wrong, "rate_limit.per", value),
            "burst" => {
                read.burst = value.as_u64();
                if read.burst.is_none() {
                    wrong.push("rate_limit.burst: write a number".into());
                }
            }
            _ => {
                wrong.push(format!("rate_limit.{}: no such key; there are rate, burst and per", shown(&key)))
            }
        }
    }
    if !has_rate {
        wrong.push("rate_limit.rate is missing; write for example \"100/s\"".into());
        return None;
    }
    Some(read)
}

fn all_verify(wrong: &mut Vec<String>, value: Value) -> Vec<Verify> {
    let values = match value {
        Value::Array(values) => values,
        one => vec![one],
    };
    let mut all = Vec::new();
    for (at, value) in values.into_iter().enumerate() {
        let place = format!("verify {}", at + 1);
        match value {
            Value::String(text) => match Verify::parse(&text) {
                Ok(verify) => all.push(verify),
                Err(error) => wrong.push(format!("{place}: {error}")),
            },
            Value::Object(table) => all.extend(verify(wrong, &place, table)),
            _ => wrong.push(format!("{place}: write a text such as \"github:SECRET\", or secret, header …")),
        }
    }
    all
}

fn verify(wrong: &mut Vec<String>, place: &str, mut table: Map<String, Value>) -> Option<Verify> {
    let before = wrong.len();
    let scheme = match table.remove("scheme").filter(|scheme| !scheme.is_null()) {
        None => "hmac".to_owned(),
        Some(scheme) => text(wrong, &format!("{place}: scheme"), scheme).unwrap_or("hmac".into()),
    };
    let mut read = Verify::of_scheme(&scheme).unwrap_or_else(|| {
        wrong.push(format!(
            "{place}: {} is no scheme of signatures; there are {SCHEMES}",
            shown(&format!("{scheme:?}"))
        ));
        Verify::default()
    });
    match table.remove("secret").filter(|secret| !secret.is_null()) {
        None => wrong.push(format!("{place}: secret is missing")),
        Some(secret) => {
            read.secret = texts(wrong, &format!("{place}: secret"), secret).unwrap_or_default();
        }
    }
    for (key, value) in table.into_iter().filter(|(_, value)| !value.is_null()) {
        match read.place(&key) {
            Some(at) => {
                if let Some(value) = text(wrong, &format!("{place}: {key}"), value) {
                    *at = value;
                }
            }
            None => wrong.push(format!(
                "{place}: {}: no such key; there are scheme, secret, {}",
                shown(&key),
                Verify::KEYS
            )),
        }
    }
    (wrong.len() == before).then_some(read)
}

/// What was typed, as long as it is short.
fn shown(name: &str) -> String {
    name.chars().take(40).collect()
}

/// The rule whose name is nearest: another ending, or one letter more, less or other.
fn meant(name: &str) -> String {
    let wanted = name.to_ascii_lowercase().replace('-', "_");
    let near = |rule: &&&str| {
        rule.starts_with(&wanted) && wanted.len() > 2
            || wanted.starts_with(**rule)
            || one_apart(&wanted, rule)
    };
    match RULES.iter().find(near) {
        Some(rule) => format!("did you mean {rule}?"),
        None => format!("there are {}", RULES.join(", ")),
    }
}

fn one_apart(one: &str, other: &str) -> bool {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one.as_bytes()[same..], &other.as_bytes()[same..]);
    match (one, other) {
        ([_, a @ ..], [_, b @ ..]) if a == b => true,
        ([_, a @ ..], b) | (b, [_, a @ ..]) if a == b => true,
        (a, [_, b @ ..]) => a == b,
        _ => false,
    }
}
