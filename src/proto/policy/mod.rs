//! What an owner wants of viewers, as it is written in JSON, TOML and flags (`protocol.md`, section "Policy").

mod read;
mod text;

use std::fmt;

use serde::de::{Deserialize, Deserializer};
use serde::{Serialize, Serializer};
use serde_json::Value;

#[doc(hidden)]
pub use text::size;

/// Stands for a secret where a policy is shown. In a policy that replaces another one it stands for what that one has.
pub const HIDDEN: &str = "***";

/// What an owner wants of viewers. Every rule counts for every request; an absent one allows everything.
///
/// The same names stand in the REST API's JSON, in the TOML of `adit up` and in the flags of `adit http`. The relay checks
/// a policy when it is given, and names all that is wrong with it at once.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Policy {
    /// Users, each as `USER:PASSWORD`: viewers must give one of them (HTTP basic authentication). At most 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Vec<String>>,
    /// Networks or addresses: viewers from anywhere else get 403.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Networks or addresses: viewers from there get 403, also if they are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<Vec<String>>,
    /// Requests beyond it get 429 with `Retry-After`. As text: `100/s`, `10/m,burst=30` or `1000/h,per=tunnel`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Requests must be signed as each of these says; others get 401. As text: `github:SECRET`. At most 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Vec<Verify>>,
    /// Headers of requests: `Name: value` sets one, `+Name: value` adds it to those that are there, `-Name` removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<Vec<String>>,
    /// The same of responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<Vec<String>>,
    /// Longest body of a request, such as `10MB`, `512KiB` or a number of bytes; longer ones get 413.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<String>,
    /// HTML that browsers get while the client is away, at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline_page: Option<String>,
    /// Browsers are asked once whether they want to go on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub interstitial: bool,
    /// What was written and cannot be read, as sentences.
    #[serde(skip)]
    wrong: Vec<String>,
}

/// How many requests in which time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct RateLimit {
    /// Such as `100/s`, `10/m` or `1000/h`.
    pub rate: String,
    /// So many may come at once; absent: as many as the rate names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// `address` (absent means the same): each viewer's address has the rate for itself. `tunnel`: all have it together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
}

/// How requests are signed by their sender: an HMAC, in hex or Base64, in a header.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "relay", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Verify {
    /// The secret that sender and tunnel share; of several, which is how one is replaced, any counts. Is never shown.
    #[serde(serialize_with = "one_or_many")]
    pub secret: Vec<String>,
    /// Has the signature. It may be a list, separated by commas or spaces, of which one item has to be right.
    pub header: String,
    /// `sha256`, `sha1` or `sha512`.
    pub algorithm: String,
    /// `hex` or `base64`.
    pub encoding: String,
    /// Stands before the signature, such as `sha256=`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// What is signed: text with `{body}`, `{timestamp}` and `{header:NAME}`.
    pub payload: String,
    /// Has the time of the signature, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_header: Option<String>,
    /// Stands before the time of the signature, in the header of the signature, such as `t=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_prefix: Option<String>,
    /// The time of the signature may be so far from now, such as `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<String>,
    /// `text`, `hex` or `base64`: what the secret is written in.
    pub secret_encoding: String,
}

impl Policy {
    /// One without any rule.
    pub fn new() -> Self {
        Self::default()
    }

    /// Viewers must give this user and password, or another one of those named so.
    pub fn user(mut self, user: &str, password: &str) -> Self {
        self.auth.get_or_insert_default().push(format!("{user}:{password}"));
        self
    }

    /// Only viewers of this network or address, and of others named so, are let in.
    pub fn allow(mut self, network: impl Into<String>) -> Self {
        self.allow.get_or_insert_default().push(network.into());
        self
    }

    /// Viewers of this network or address are turned away.
    pub fn deny(mut self, network: impl Into<String>) -> Self {
        self.deny.get_or_insert_default().push(network.into());
        self
    }

    /// Limits requests, such as to `100/s`, `10/m,burst=30` or `1000/h,per=tunnel`.
    pub fn rate_limit(mut self, text: &str) -> Self {
        let read = RateLimit::parse(text);
        self.rate_limit = self.noted("rate_limit", read);
        self
    }

    /// Requests must be signed, such as by `github:SECRET`, `slack:SECRET`, `stripe:SECRET`, `standard:SECRET` or
    /// `hmac,header=X-Signature:SECRET`.
    pub fn verify(mut self, text: &str) -> Self {
        let read = Verify::parse(text);
        if let Some(verify) = self.noted("verify", read) {
            self.verify.get_or_insert_default().push(verify);
        }
        self
    }

    /// Changes the headers of requests: `Name: value`, `+Name: value` or `-Name`.
    pub fn request_header(mut self, change: impl Into<String>) -> Self {
        self.request_headers.get_or_insert_default().push(change.into());
        self
    }

    /// The same of responses.
    pub fn response_header(mut self, change: impl Into<String>) -> Self {
        self.response_headers.get_or_insert_default().push(change.into());
        self
    }

    /// Longest body of a request, such as `10MB`.
    pub fn max_body(mut self, size: impl Into<String>) -> Self {
        self.max_body = Some(size.into());
        self
    }

    /// HTML that browsers get while the client is away.
    pub fn offline_page(mut self, html: impl Into<String>) -> Self {
        self.offline_page = Some(html.into());
        self
    }

    /// Whether browsers are asked once if they want to go on.
    pub fn interstitial(mut self, ask: bool) -> Self {
        self.interstitial = ask;
        self
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What was written and could not be read, as sentences; the relay adds what is wrong between readable rules.
    pub fn mistakes(&self) -> &[String] {
        &self.wrong
    }

    /// The rules of this policy stand in the place of those of `other`, which keeps the rest.
    pub fn over(self, other: Self) -> Self {
        Self {
            auth: self.auth.or(other.auth),
            allow: self.allow.or(other.allow),
            deny: self.deny.or(other.deny),
            rate_limit: self.rate_limit.or(other.rate_limit),
            verify: self.verify.or(other.verify),
            request_headers: self.request_headers.or(other.request_headers),
            response_headers: self.response_headers.or(other.response_headers),
            max_body: self.max_body.or(other.max_body),
            offline_page: self.offline_page.or(other.offline_page),
            interstitial: self.interstitial || other.interstitial,
            wrong: [self.wrong, other.wrong].concat(),
        }
    }

    /// Names of the rules that it has.
    pub fn rules(&self) -> Vec<&'static str> {
        let rules = [
            ("auth", self.auth.is_some()),
            ("allow", self.allow.is_some()),
            ("deny", self.deny.is_some()),
            ("rate_limit", self.rate_limit.is_some()),
            ("verify", self.verify.is_some()),
            ("request_headers", self.request_headers.is_some()),
            ("response_headers", self.response_headers.is_some()),
            ("max_body", self.max_body.is_some()),
            ("offline_page", self.offline_page.is_some()),
            ("interstitial", self.interstitial),
        ];
        rules.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
    }

    /// The same without its secrets: passwords, hashes of them, and what signs requests.
    pub fn shown(&self) -> Self {
        let mut shown = self.clone();
        for user in shown.auth.iter_mut().flatten() {
            // What has no colon may be a password as a whole.
            *user = user.split_once(':').map_or(HIDDEN.to_owned(), |(name, _)| format!("{name}:{HIDDEN}"));
        }
        for verify in shown.verify.iter_mut().flatten() {
            *verify = verify.shown();
        }
        shown
    }

    fn noted<T>(&mut self, rule: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|error| self.wrong.push(format!("{rule}: {error}"))).ok()
    }
}

impl Verify {
    /// The same with hidden secrets.
    pub fn shown(&self) -> Self {
        Self { secret: self.secret.iter().map(|_| HIDDEN.to_owned()).collect(), ..self.clone() }
    }
}

/// Reads any JSON or TOML value: what cannot be read is kept as a sentence, so that all of it can be told at once.
impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(read::policy)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither passwords nor secrets, nor a page of many lines.
        f.debug_struct("Policy").field("rules", &self.rules()).field("wrong", &self.wrong.len()).finish()
    }
}

impl fmt::Debug for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify").field("header", &self.header).finish_non_exhaustive()
    }
}

fn one_or_many<S: Serializer>(texts: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    match texts {
        [one] => serializer.serialize_str(one),
        many => many.serialize(serializer),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Policy {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_policy_is_written_as_it_is_read() {
        let full = json!({
            "auth": ["ann:a:b", "bob:c"], "allow": ["10.0.0.0/8"], "deny": ["10.1.0.0/16"],
            "rate_limit": {"rate": "10/m", "burst": 30, "per": "tunnel"},
            "verify": [{"secret": ["one", "two"], "header": "X-Sig", "algorithm": "sha512", "encoding": "base64",
                "prefix": "v=", "payload": "{timestamp}.{body}", "timestamp_header": "X-Time", "tolerance": "1m",
                "secret_encoding": "text"}],
            "request_headers": ["X-A: b"], "response_headers": ["-Server"], "max_body": "10MB",
            "offline_page": "<p>away</p>", "interstitial": true
        });
        let policy = read(full.clone());
        assert_eq!(policy.mistakes(), &[] as &[String]);
        assert_eq!(serde_json::to_value(&policy).unwrap(), full);
        assert_eq!(policy.rules().len(), 10);
        assert!(read(json!({})).is_empty() && !policy.is_empty());
    }

    #[test]
    fn one_is_a_list_of_one_and_text_is_short_for_a_table() {
        let policy = read(
            json!({"allow": "::1", "rate_limit": "100/s,burst=5,per=tunnel", "verify": "github:x:y", "max_body": 5}),
        );
        assert_eq!(policy.mistakes(), &[] as &[String]);
        assert_eq!((policy.allow, policy.max_body), (Some(vec!["::1".into()]), Some("5".into())));
        let rate = policy.rate_limit.unwrap();
        assert_eq!((&*rate.rate, rate.burst, rate.per.as_deref()), ("100/s", Some(5), Some("tunnel")));
        let [github] = &policy.verify.unwrap()[..] else { panic!("one") };
        assert_eq!((&github.secret[..], &*github.header), (&["x:y".to_owned()][..], "X-Hub-Signature-256"));
    }

    #[test]
    fn all_that_cannot_be_read_is_told_at_once() {
        let policy = read(json!({
            "alow": [], "allow": [1], "deny": {}, "rate_limit": {"rat": 1, "burst": "x"}, "verify": [{"header": 3}, 7, "git:x"],
            "max_body": [], "offline_page": 1, "interstitial": "yes", "auth": null
        }));
        let wrong = policy.mistakes().join("\n");
        for part in [
            "alow: no such rule; did you mean allow?",
            "allow: write a list of texts",
            "deny: write",
            "rate_limit.rat: no such key",
            "rate_limit.burst: write a number",
            "rate_limit.rate is missing",
            "verify 1: header: write a text",
            "verify 1: secret is missing",
            "verify 2: write",
            "verify 3: \"git\" is no scheme",
            "max_body: write",
            "offline_page: write a text",
            "interstitial: write true or false",
        ] {
            assert!(wrong.contains(part), "{part} in\n{wrong}");
        }
        assert_eq!(policy.auth, None, "null is absent");
        assert_eq!(read(json!([1])).mistakes().len(), 1);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let policy = Policy::new().user("ann", "s3cret").verify("github:s3cret").verify("hmac:s3cret");
        let policy = Policy { auth: Some([policy.auth.unwrap(), vec!["s3cret".into()]].concat()), ..policy };
        let shown = serde_json::to_string(&policy.shown()).unwrap();
        assert!(shown.contains("ann:***") && !shown.contains("s3cret"), "{shown}");
        assert!(!format!("{policy:?} {:?}", policy.verify).contains("s3cret"));
    }
}
