//! Where a request is led by its token, or what it is told.

use std::pin::Pin;
use std::sync::Arc;

use http::{Request, StatusCode};

use super::{Target, TokenError, Tokens};
use crate::bridge::refusal::Refusal;

/// Ready when a session's token is revoked.
pub(in crate::bridge) type Revoked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a token leads.
pub(in crate::bridge) struct Led {
    pub(in crate::bridge) target: Target,
    /// What a log may show of it.
    pub(in crate::bridge) shown: String,
    /// What tells that it leads there no more.
    pub(in crate::bridge) revoked: Option<Revoked>,
}

/// Where the request's token leads to.
pub(in crate::bridge) async fn lead<B>(tokens: &Arc<Tokens>, request: &Request<B>) -> Result<Led, Refusal> {
    let told = |token: &str, error: TokenError| {
        let status = match &error {
            TokenError::Missing => StatusCode::FORBIDDEN,
            TokenError::Unknown => StatusCode::NOT_FOUND,
            TokenError::Source(reason) => {
                tracing::error!(plugin = tokens.plugin(), %reason, "no token can be looked up");
                StatusCode::BAD_GATEWAY
            }
        };
        if error == TokenError::Unknown {
            tracing::info!(token = shown(token), "an unknown token");
        }
        Refusal::new(status, error.to_string())
    };
    let token = tokens.of(request).map_err(|error| told("", error))?;
    let changes = tokens.changes();
    let target = tokens.target(&token).await.map_err(|error| told(&token, error))?;
    let shown = tokens.shown(&token, &target);
    let revoked = changes.map(|changes| {
        let (tokens, target) = (Arc::clone(tokens), target.clone());
        Box::pin(async move { tokens.revoked(changes, &token, &target).await }) as Revoked
    });
    Ok(Led { target, shown, revoked })
}

/// What a log may show of a token, which is a secret as long as it leads somewhere: no more than its first half.
pub(super) fn shown(token: &str) -> String {
    let beginning = (token.chars().count() / 2).min(8);
    token.chars().take(beginning).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_shows_only_the_beginning_of_a_token() {
        for (token, expected) in
            [("0123456789abcdefgh", "01234567…"), ("12345678", "1234…"), ("désk1", "dé…"), ("x", "…")]
        {
            assert_eq!(shown(token), expected);
        }
    }
}
