//! The rules for the claims of a token (RFC 7519, section 4.1), apart from who signed them.

use std::time::Duration;

use serde_json::Value;

use super::{AUDIENCE, Object, TokenError};
use crate::auth::Owner;
use crate::auth::keys::is_key_name;
use crate::proto::name::Name;

/// Longest time from `nbf` to `exp`: as tokens cannot be revoked one by one, a leaked one dies of age.
pub const MAX_LIFETIME: Duration = Duration::from_secs(31 * 24 * 3600);

/// A token counts this much before its `nbf`, as the clocks of two machines differ. Nothing is added to `exp`: whoever
/// wants a token to live longer writes a later one.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// The last second of the year 9999, the last that RFC 3339 can write.
const LAST_SECOND: i64 = 253_402_300_799;

const A_TIME: &str = "a number of seconds since 1970";

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: the owner of the tunnels, of the same names as keys.
    pub owner: Owner,
    /// `tid`: the only tunnel that the token is for.
    pub tunnel: Option<Name>,
    /// `exp` in Unix milliseconds.
    pub expires_at: i64,
}

/// What the claims say, or the first rule that they break at `now`, in Unix milliseconds.
pub(super) fn check(claims: &Object, now: i64) -> Result<Claims, TokenError> {
    let (owner, tunnel) = (owner(claims)?, tunnel(claims)?);
    let (from, to) = (time(claims, "nbf")?, time(claims, "exp")?);
    audience(claims)?;
    match times(from, to, now).next() {
        Some(error) => Err(error),
        None => Ok(Claims { owner, tunnel, expires_at: to }),
    }
}

/// Every rule that the claims break at `now`, in Unix milliseconds.
pub(super) fn broken(claims: &Object, now: i64) -> Vec<TokenError> {
    let (from, to) = (time(claims, "nbf"), time(claims, "exp"));
    let each = [
        owner(claims).err(),
        tunnel(claims).err(),
        from.as_ref().err().copied(),
        to.as_ref().err().copied(),
        audience(claims).err(),
    ];
    // Without one of the two, the other still says whether the time is over or to come.
    let (from, to) = (from.unwrap_or(now), to.unwrap_or(i64::MAX));
    let lifetime_unknown = each[2].is_some() || each[3].is_some();
    let times = times(from, to, now).filter(|error| !lifetime_unknown || *error != TokenError::Lifetime);
    each.into_iter().flatten().chain(times).collect()
}

fn owner(claims: &Object) -> Result<Owner, TokenError> {
    let expected = "the name of an owner: 1 to 64 letters, digits, '.', '_' and '-'";
    match claims.get("sub").ok_or(TokenError::Missing("sub"))? {
        Value::String(name) if is_key_name(name) => Ok(Owner::from(name.as_str())),
        _ => Err(TokenError::Malformed { claim: "sub", expected }),
    }
}

fn tunnel(claims: &Object) -> Result<Option<Name>, TokenError> {
    let error = TokenError::Malformed { claim: "tid", expected: "a name that a tunnel can have" };
    match claims.get("tid") {
        None => Ok(None),
        // `null` is not absent: a limit that cannot be read must not pass for none.
        Some(Value::String(name)) => Name::parse(name).map(Some).map_err(|_| error),
        Some(_) => Err(error),
    }
}

fn audience(claims: &Object) -> Result<(), TokenError> {
    let expected = "a string or a list of strings";
    let is_us = match claims.get("aud") {
        None => true,
        Some(Value::String(name)) => name == AUDIENCE,
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
            names.iter().any(|name| name == AUDIENCE)
        }
        Some(_) => return Err(TokenError::Malformed { claim: "aud", expected }),
    };
    if is_us { Ok(()) } else { Err(TokenError::Audience) }
}

/// A `NumericDate` in Unix milliseconds: a JSON number, perhaps with a fraction.
pub(super) fn time(claims: &Object, claim: &'static str) -> Result<i64, TokenError> {
    let error = TokenError::Malformed { claim, expected: A_TIME };
    let Value::Number(seconds) = claims.get(claim).ok_or(TokenError::Missing(claim))? else {
        return Err(error);
    };
    let millis = match (seconds.as_i64(), seconds.as_f64()) {
        (Some(seconds), _) => seconds.checked_mul(1000),
        // Small enough that a double has the milliseconds.
        (None, Some(seconds)) if (0.0..=LAST_SECOND as f64).contains(&seconds) => {
            Some((seconds * 1000.0) as i64)
        }
        _ => None,
    };
    millis.filter(|millis| (0..=LAST_SECOND * 1000).contains(millis)).ok_or(error)
}

/// What is wrong between these times, in Unix milliseconds.
fn times(from: i64, to: i64, now: i64) -> impl Iterator<Item = TokenError> {
    let millis = |wait: Duration| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    let lifetime = (1..=millis(MAX_LIFETIME)).contains(&to.saturating_sub(from));
    let rules = [
        (lifetime, TokenError::Lifetime),
        // On the second itself it is over (RFC 7519, section 4.1.4).
        (now < to, TokenError::Expired),
        (from <= now.saturating_add(millis(LEEWAY)), TokenError::NotYetValid),
    ];
    rules.into_iter().filter(|(kept, _)| !kept).map(|(_, error)| error)
}
