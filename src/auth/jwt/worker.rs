//! The rules for the tokens of workers, as Taskcluster's websocktunnel has them: a token opens one id and no tunnel.

use std::time::Duration;

use serde_json::Value;

use super::claims::{MAX_LIFETIME, time};
use super::{Inspection, MintError, Object, Secrets, TokenError, sign};

/// A token that is minted counts from so long ago, as it does at Taskcluster: nobody gives it any leeway.
const BEFORE: Duration = Duration::from_secs(15 * 60);

/// What verifies the tokens of workers.
#[derive(Debug, Clone, Default)]
pub struct WorkerTokens {
    /// At most two: the one that signs, and another that is good as well. Their length is not ours to choose.
    pub secrets: Secrets,
    /// What a token must have in `aud`. Without one, a token must have no `aud`.
    pub audience: Option<String>,
}

impl WorkerTokens {
    /// Whether `token` lets its holder register as `id` at `now` (Unix milliseconds). Its claims are read only when its
    /// signature is right: HS256 by one of the secrets. `exp` and `nbf` must be there and mean what they say to the
    /// millisecond, 31 days apart at most; `tid` must be `id`. `iat`, `iss` and `sub` may say anything.
    pub fn verify(&self, token: &str, id: &str, now: i64) -> Result<(), TokenError> {
        let claims = self.secrets.signed_claims(token)?;
        self.broken(&claims, Some(id), now).next().map_or(Ok(()), Err)
    }

    /// Looks at a token as [`WorkerTokens::verify`] does, but goes on after the first rule that it breaks. Without an
    /// `id` any is right.
    pub fn inspect(&self, token: &str, id: Option<&str>, now: i64) -> Inspection {
        self.secrets.inspect_by(token, |claims| self.broken(claims, id, now).collect())
    }

    /// A token of the newest secret for the worker `id`, valid from a little before `now` (Unix milliseconds) until
    /// `lifetime` after it, both cut to seconds.
    pub fn mint(&self, id: &str, lifetime: Duration, now: i64) -> Result<String, MintError> {
        let secret = self.secrets.0.first().ok_or(MintError::NoSecret)?;
        if lifetime < Duration::from_secs(1) || lifetime > MAX_LIFETIME {
            return Err(MintError::Lifetime);
        }
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let iat = now.div_euclid(1000);
        let exp = iat.saturating_add(seconds(lifetime));
        let nbf = iat.saturating_sub(seconds(BEFORE)).max(exp.saturating_sub(seconds(MAX_LIFETIME)));
        let mut claims = Object::new();
        claims.insert("tid".into(), id.into());
        claims.insert("iat".into(), iat.into());
        claims.insert("nbf".into(), nbf.into());
        claims.insert("exp".into(), exp.into());
        if let Some(audience) = &self.audience {
            claims.insert("aud".into(), audience.as_str().into());
        }
        match self.broken(&claims, None, iat.saturating_mul(1000)).next() {
            Some(error) => Err(error.into()),
            None => sign(secret, &claims),
        }
    }

    /// Every rule that the claims break at `now`.
    fn broken(&self, claims: &Object, id: Option<&str>, now: i64) -> impl Iterator<Item = TokenError> {
        let until = time(claims, "exp");
        // Zero is what a Go program writes where it has none.
        let from = time(claims, "nbf").and_then(|from| match from {
            0 => Err(TokenError::Missing("nbf")),
            from => Ok(from),
        });
        let most = i64::try_from(MAX_LIFETIME.as_millis()).unwrap_or(i64::MAX);
        let lifetime = match (&from, &until) {
            (Ok(from), Ok(until)) if until.saturating_sub(*from) > most => Some(TokenError::Lifetime),
            _ => None,
        };
        let until = until.and_then(|until| if now < until { Ok(()) } else { Err(TokenError::Expired) });
        let from = from.and_then(|from| if now >= from { Ok(()) } else { Err(TokenError::NotYetValid) });
        let each = [until.err(), from.err(), worker(claims, id).err(), lifetime, self.audience(claims).err()];
        each.into_iter().flatten()
    }

    fn audience(&self, claims: &Object) -> Result<(), TokenError> {
        let expected = "a string or a list of strings";
        let (aud, audience) = match (claims.get("aud"), &self.audience) {
            (None, None) => return Ok(()),
            (None, Some(_)) => return Err(TokenError::Missing("aud")),
            (Some(_), None) => return Err(TokenError::NoAudience),
            (Some(aud), Some(audience)) => (aud, audience),
        };
        let is_us = match aud {
            Value::String(name) => name == audience,
            Value::Array(names) if names.iter().all(Value::is_string) => {
                names.iter().any(|name| name == audience.as_str())
            }
            _ => return Err(TokenError::Malformed { claim: "aud", expected }),
        };
        if is_us { Ok(()) } else { Err(TokenError::OtherAudience) }
    }
}

/// Whether the claims are for `id`; without one, whether they are for any.
fn worker(claims: &Object, id: Option<&str>) -> Result<(), TokenError> {
    let expected = "the id of a worker, of letters, digits, '_', '~', '.', '%' and '-'";
    match claims.get("tid").ok_or(TokenError::Missing("tid"))? {
        Value::String(tid) if !crate::proto::worker::is_worker_id(tid) => {
            Err(TokenError::Malformed { claim: "tid", expected })
        }
        Value::String(tid) if id.is_none_or(|id| id == tid) => Ok(()),
        Value::String(_) => Err(TokenError::OtherWorker),
        _ => Err(TokenError::Malformed { claim: "tid", expected }),
    }
}
