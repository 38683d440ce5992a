//! How the owner says that requests are signed, read and checked.

use std::time::Duration;

use aws_lc_rs::hmac;
use http::HeaderName;

use super::{Encoding, Part, Signature, TimeAt};
use crate::auth::{unbase64, unhex};
use crate::proto::duration;
use crate::proto::limits::policy::{SECRETS, TEXT_BYTES, TOLERANCE};
use crate::proto::policy::{HIDDEN, Verify};

impl Signature {
    /// Checks how requests are to be signed; all that is wrong at once.
    pub(in crate::tunnel::policy) fn read(rule: &Verify) -> Result<Self, Vec<String>> {
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
