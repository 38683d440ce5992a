//! From what was written to rules that can be kept: all that is wrong or contradicts itself is named at once.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use ipnet::IpNet;

use super::Policy;
use super::headers::{Changes, Direction};
use super::rate::{Limiter, Rate};
use super::signature::Signature;
use super::users::Users;
use crate::auth::password::PasswordError;
use crate::proto::api::Proto;
use crate::proto::limits::policy::{NETWORKS, PAGE_BYTES, SIGNED_BODY_MOST, TEXT_BYTES, USERS, VERIFY};
use crate::proto::networks::{Networks, network};
use crate::proto::policy::{self as written, HIDDEN, size};

/// What the rules are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// Requests of HTTP.
    #[default]
    Http,
    /// Whole connections, of which the relay sees no more than where they come from.
    Connections,
}

impl Scope {
    /// That of tunnels whose viewers speak `proto`.
    pub fn of(proto: Proto) -> Self {
        if proto.is_raw() { Self::Connections } else { Self::Http }
    }
}

/// What a policy is given to.
#[derive(Default)]
pub struct Given<'a> {
    /// What the tunnel carries.
    pub scope: Scope,
    /// The relay's own limit of bodies, in bytes.
    pub body_limit: Option<u64>,
    /// The tunnel asks for a user and a password of its own (`auth_user`).
    pub has_auth: bool,
    /// What was there before: what is the same keeps its state, and its secrets where they are written as `***`.
    pub before: Option<&'a Policy>,
}

/// Why a policy was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Sentences, each of which begins with the name of the rule.
    #[error("policy: {}", .0.join("; "))]
    Wrong(Vec<String>),
    /// What was stored cannot be read any more.
    #[error("the stored policy cannot be used: {0}; set it again")]
    Stored(String),
}

/// What can be said against a policy before its relay is asked.
pub fn complaints(policy: &written::Policy, given: &Given<'_>) -> Vec<String> {
    Draft::read(policy, given).err().unwrap_or_default()
}

impl Policy {
    /// Checks `policy`; `None` if it asks for nothing. New passwords are hashed, which takes tens of milliseconds each.
    pub fn check(policy: &written::Policy, given: &Given<'_>) -> Result<Option<Self>, PolicyError> {
        let mut policy = policy.clone();
        recall(&mut policy, given.before);
        let draft = Draft::read(&policy, given).map_err(PolicyError::Wrong)?;
        let before = given.before.and_then(|before| before.users.as_ref());
        let users = policy.auth.as_ref().map(|users| Users::hash(users, before)).transpose();
        let users = users.map_err(|error| PolicyError::Wrong(vec![format!("auth: {error}")]))?;
        let policy = draft.finish(users, given.before);
        Ok(Some(policy).filter(|policy| !policy.stored.is_empty()))
    }

    /// Takes up what was stored.
    pub(in crate::tunnel) fn restore(
        stored: &written::Policy,
        before: Option<&Self>,
    ) -> Result<Self, PolicyError> {
        let mut plain = stored.clone();
        plain.auth = None;
        let draft =
            Draft::read(&plain, &Given::default()).map_err(|wrong| PolicyError::Stored(wrong.join("; ")))?;
        let users = stored.auth.as_ref().map(|users| Users::restore(users)).transpose();
        let users = users.map_err(|error: PasswordError| PolicyError::Stored(error.to_string()))?;
        Ok(draft.finish(users, before))
    }
}

/// Puts stored secrets where `***` stands for them.
fn recall(policy: &mut written::Policy, before: Option<&Policy>) {
    let Some(before) = before else { return };
    let stored = before.stored.verify.iter().flatten();
    for verify in policy.verify.iter_mut().flatten() {
        if verify.secret.iter().any(|secret| secret == HIDDEN)
            && let Some(same) = stored.clone().find(|stored| stored.shown() == *verify)
        {
            verify.secret.clone_from(&same.secret);
        }
    }
}

/// Everything but the users, whose passwords are slow.
struct Draft {
    networks: Networks,
    rate: Option<Rate>,
    signatures: Vec<Signature>,
    request: Changes,
    response: Changes,
    max_body: Option<u64>,
    offline_page: Option<Bytes>,
    interstitial: bool,
    stored: written::Policy,
}

impl Draft {
    fn read(policy: &written::Policy, given: &Given<'_>) -> Result<Self, Vec<String>> {
        let mut wrong = policy.mistakes().to_vec();
        if given.scope == Scope::Connections {
            scope(policy, &mut wrong);
        }
        users(policy, given, &mut wrong);
        let networks = Networks {
            allow: list("allow", policy.allow.as_deref(), &mut wrong),
            deny: list("deny", policy.deny.as_deref(), &mut wrong),
        };
        wrong.extend(networks.contradiction().map(str::to_owned));
        let rate = policy
            .rate_limit
            .as_ref()
            .and_then(|rate| noted(Rate::read(&rate.rate, rate.burst, rate.per.as_deref()), &mut wrong));
        let signatures = signatures(policy, &mut wrong);
        let mut changes = |direction, texts: &Option<Vec<String>>| {
            let read = texts.as_ref().and_then(|texts| noted(Changes::read(direction, texts), &mut wrong));
            read.unwrap_or_default()
        };
        let (request, request_text) = changes(Direction::Request, &policy.request_headers);
        let (response, response_text) = changes(Direction::Response, &policy.response_headers);
        let max_body = max_body(policy, given, &mut wrong);
        let offline_page = policy.offline_page.as_ref().map(|html| page(html, &mut wrong));
        if policy.interstitial && policy.verify.is_some() {
            wrong.push(
                "interstitial and verify: no browser could sign what it sends after the page; choose one of them".to_owned(),
            );
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let text = |networks: &[IpNet]| {
            let some = !networks.is_empty();
            some.then(|| networks.iter().map(ToString::to_string).collect())
        };
        let mut stored = written::Policy::new().interstitial(policy.interstitial);
        stored.allow = text(&networks.allow);
        stored.deny = text(&networks.deny);
        stored.rate_limit = policy.rate_limit.as_ref().zip(rate).map(|(written, rate)| {
            let mut written = written.clone();
            (written.burst, written.per) = (Some(rate.burst()), Some(rate.per().to_owned()));
            written
        });
        stored.verify.clone_from(&policy.verify);
        stored.request_headers = Some(request_text).filter(|text| !text.is_empty());
        stored.response_headers = Some(response_text).filter(|text| !text.is_empty());
        stored.max_body = max_body.map(|bytes| bytes.to_string());
        stored.offline_page.clone_from(&policy.offline_page);
        let interstitial = policy.interstitial;
        Ok(Self {
            networks,
            rate,
            signatures,
            request,
            response,
            max_body,
            offline_page,
            interstitial,
            stored,
        })
    }

    /// What is the same as before goes on where it was: nobody gets a fresh rate by a change of something else.
    fn finish(mut self, users: Option<Users>, before: Option<&Policy>) -> Policy {
        self.stored.auth = users.as_ref().map(Users::stored);
        let limiter = self.rate.map(|rate| {
            let same = before.and_then(|before| before.limiter.as_ref()).filter(|same| same.rate == rate);
            same.map_or_else(|| Arc::new(Limiter::new(rate)), Arc::clone)
        });
        Policy {
            networks: self.networks,
            limiter,
            users,
            signatures: self.signatures,
            request: self.request,
            response: self.response,
            max_body: self.max_body,
            offline_page: self.offline_page,
            interstitial: self.interstitial,
            held: AtomicUsize::new(0),
            stored: self.stored,
        }
    }
}

fn noted<T>(read: Result<T, Vec<String>>, wrong: &mut Vec<String>) -> Option<T> {
    read.map_err(|errors| wrong.extend(errors)).ok()
}

/// Rules that need requests.
fn scope(policy: &written::Policy, wrong: &mut Vec<String>) {
    let of_requests: Vec<_> =
        policy.rules().into_iter().filter(|rule| !matches!(*rule, "allow" | "deny" | "rate_limit")).collect();
    if !of_requests.is_empty() {
        wrong.push(format!(
            "{}: for HTTP tunnels only; of other connections the relay sees no request, so there are allow, deny and \
             rate_limit",
            of_requests.join(", ")
        ));
    }
}

fn users(policy: &written::Policy, given: &Given<'_>, wrong: &mut Vec<String>) {
    let Some(users) = &policy.auth else { return };
    if given.has_auth {
        wrong.push(
            "auth: the tunnel asks for a user and a password already (auth_user, --auth); write all users in the policy, \
             or none"
                .to_owned(),
        );
    }
    if users.is_empty() {
        wrong.push("auth: the list is empty; leave it out, or nobody could come in".to_owned());
    }
    if users.len() > USERS {
        wrong.push(format!("auth: at most {USERS} users"));
    }
    let mut names: Vec<&str> = Vec::new();
    for (at, user) in users.iter().enumerate() {
        // No error shows what may be a password.
        let (place, read) = (at + 1, user.split_once(':'));
        match read.filter(|(name, password)| !name.is_empty() && !password.is_empty()) {
            None => wrong.push(format!("auth: user {place}: write USER:PASSWORD, neither of them empty")),
            Some(_) if user.len() > TEXT_BYTES => {
                wrong.push(format!("auth: user {place}: at most {TEXT_BYTES} bytes"));
            }
            Some(_) if user.chars().any(char::is_control) => {
                wrong.push(format!("auth: user {place}: no control characters"));
            }
            Some((name, HIDDEN))
                if given
                    .before
                    .and_then(|before| before.users.as_ref())
                    .is_none_or(|users| !users.has(name)) =>
            {
                wrong.push(format!(
                    "auth: user {place}: {HIDDEN} stands for a stored password, and there is none for this user; write \
                     the password"
                ));
            }
            Some((name, _)) if names.contains(&name) => {
                wrong.push(format!("auth: user {place}: this name stands there twice"));
            }
            Some((name, _)) => names.push(name),
        }
    }
}

fn list(rule: &str, texts: Option<&[String]>, wrong: &mut Vec<String>) -> Vec<IpNet> {
    let Some(texts) = texts else { return Vec::new() };
    if texts.is_empty() {
        wrong.push(format!("{rule}: the list is empty; leave it out"));
    }
    if texts.len() > NETWORKS {
        wrong.push(format!("{rule}: at most {NETWORKS} networks"));
        return Vec::new();
    }
    let read = |text: &String| network(text).map_err(|error| wrong.push(format!("{rule}: {error}"))).ok();
    texts.iter().filter_map(read).collect()
}

fn signatures(policy: &written::Policy, wrong: &mut Vec<String>) -> Vec<Signature> {
    let Some(rules) = &policy.verify else { return Vec::new() };
    // What could not be read is no empty list.
    if rules.is_empty() && !policy.mistakes().iter().any(|mistake| mistake.starts_with("verify ")) {
        wrong.push("verify: the list is empty; leave it out".to_owned());
    }
    if rules.len() > VERIFY {
        wrong.push(format!("verify: at most {VERIFY} signatures"));
        return Vec::new();
    }
    let mut read: Vec<(usize, Signature)> = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        match Signature::read(rule) {
            Ok(signature) => read.push((at + 1, signature)),
            Err(errors) => {
                wrong.extend(errors.into_iter().map(|error| format!("verify {}: {error}", at + 1)))
            }
        }
    }
    for (at, (second, other)) in read.iter().enumerate() {
        for (first, signature) in &read[..at] {
            if signature.contradicts(other) {
                wrong.push(format!(
                    "verify {first} and {second}: both read the same header, and no request could be signed by both; to \
                     take either secret, write both in one entry: secret = [\"…\", \"…\"]"
                ));
            }
        }
    }
    read.into_iter().map(|(_, signature)| signature).collect()
}

fn max_body(policy: &written::Policy, given: &Given<'_>, wrong: &mut Vec<String>) -> Option<u64> {
    let text = policy.max_body.as_ref()?;
    let Some(bytes) = size(text) else {
        let text: String = text.chars().take(40).collect();
        wrong.push(format!(
            "max_body: {text:?} is no size; write for example 10MB, 512KiB or a number of bytes"
        ));
        return None;
    };
    if let Some(limit) = given.body_limit.filter(|limit| bytes > *limit) {
        wrong.push(format!(
            "max_body: {bytes} bytes are more than the {limit} that this relay takes at most; write less, or leave it out"
        ));
    }
    if policy.verify.is_some() && bytes > SIGNED_BODY_MOST {
        wrong.push(format!(
            "max_body and verify: a signed body is held in memory until it was checked, so it has at most \
             {SIGNED_BODY_MOST} bytes"
        ));
    }
    Some(bytes)
}

fn page(html: &str, wrong: &mut Vec<String>) -> Bytes {
    if html.trim().is_empty() {
        wrong.push("offline_page: it is empty; leave it out".to_owned());
    }
    if html.len() > PAGE_BYTES {
        wrong.push(format!(
            "offline_page: it has {} bytes; at most {PAGE_BYTES} (64 KiB) are taken",
            html.len()
        ));
    }
    Bytes::copy_from_slice(html.as_bytes())
}
