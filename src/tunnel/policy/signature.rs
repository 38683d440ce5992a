//! Whether a request was signed by whom the owner expects, by an HMAC over its body and what goes with it.

mod rule;

use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use http::{HeaderMap, HeaderName};

use crate::auth::{unbase64, unhex};
use crate::proto::limits::policy::SIGNATURES;

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

#[cfg(test)]
mod tests;
