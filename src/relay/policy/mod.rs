//! A tunnel's policy kept on each request: what is refused is refused before a byte of it goes to the client.

mod body;
mod page;

pub use body::{Body, verified};
pub use page::{Asked, Interstitial, offline};

use std::net::IpAddr;

use http::{HeaderMap, header};

use super::errors::Cause;
use crate::auth::password::Verdict;
use crate::tunnel::policy::{Policy, Refused};
use crate::tunnel::{Quota, Spec};

/// What can be said by the address alone, and then by the login.
pub async fn admit(policy: &Policy, quota: &Quota, viewer: IpAddr, headers: &HeaderMap) -> Result<(), Cause> {
    admit_connection(policy, viewer)?;
    let Some(users) = &policy.users else { return Ok(()) };
    match users.verify(headers.get(header::AUTHORIZATION), &quota.hashing).await {
        Verdict::Accepted => Ok(()),
        Verdict::Refused => Err(Cause::AuthRequired),
        Verdict::Unchecked => Err(Cause::AuthBusy),
    }
}

/// What can be said by the address alone.
pub fn admit_connection(policy: &Policy, viewer: IpAddr) -> Result<(), Cause> {
    policy.admit_connection(viewer).map_err(|refused| match refused {
        Refused::Address => Cause::Forbidden,
        Refused::TooOften(wait) => Cause::RateLimited(wait),
    })
}

/// Whether the viewer's `Authorization` is for the relay, and so not for the target.
pub fn is_guarded(spec: &Spec) -> bool {
    spec.auth.is_some() || spec.policy.as_ref().is_some_and(|policy| policy.users.is_some())
}

/// A client that is away is told of by the owner's own page, if there is one.
pub fn told(spec: &Spec, cause: Cause) -> Cause {
    let page = spec.policy.as_ref().and_then(|policy| policy.offline_page.clone());
    match (page, &cause) {
        (Some(page), Cause::ClientOffline | Cause::ClientGone | Cause::NotClaimed) => {
            Cause::Told(Box::new(cause), page)
        }
        _ => cause,
    }
}
