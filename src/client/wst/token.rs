//! What a token says of itself. Nothing here verifies it: the relay does.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::auth::unbase64;

/// Whether the time of `token` is over, as far as it says so and can be read.
pub(super) fn has_expired(token: &str, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    expires_at(token).is_some_and(|until| now >= until)
}

/// Its `exp`, in seconds since 1970.
fn expires_at(token: &str) -> Option<f64> {
    let claims = token.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&unbase64(claims, *b"-_")?).ok()?;
    claims.get("exp")?.as_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_has_expired_when_it_says_so() {
        // {"tid":"a","exp":1700000000.5}
        let token = "e30.eyJ0aWQiOiJhIiwiZXhwIjoxNzAwMDAwMDAwLjV9.x";
        let at = |millis| has_expired(token, UNIX_EPOCH + Duration::from_millis(millis));
        assert!(!at(1_700_000_000_499) && at(1_700_000_000_500));
        for unreadable in ["", "a", "a.b.c", "e30.e30.x", "a.bnVsbA.c", "nbk_1"] {
            assert!(!has_expired(unreadable, SystemTime::now()), "{unreadable}");
        }
    }
}
