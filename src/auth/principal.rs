//! Whose something is, and what somebody who was let in may do.

use std::fmt;
use std::sync::Arc;

use super::jwt;
use crate::proto::name::Name;

/// The name of the key, or the `sub` of the token, that owns a tunnel. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(Arc<str>);

impl Owner {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Owner {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<String> for Owner {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl std::borrow::Borrow<str> for Owner {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Somebody who was let in, and what that is limited to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Whose tunnels.
    pub owner: Owner,
    /// The only tunnel that may be used; `None` is all of the owner's.
    pub tunnel: Option<Name>,
    /// When that ends, in Unix milliseconds: a token's `exp`. `None` is a key, which counts until it is revoked.
    pub expires_at: Option<i64>,
    /// When the key was created, in Unix milliseconds, which tells it from another one of its name; 0: it stands in the
    /// configuration, or is a token.
    pub since: i64,
}

impl Principal {
    /// Whoever has the key of this owner that was created then, or, if that is 0, stands in the configuration.
    pub fn of_key(owner: Owner, since: i64) -> Self {
        Self { owner, tunnel: None, expires_at: None, since }
    }

    /// Whether the tunnel of this name may be used, if it is the owner's.
    pub fn may_use(&self, tunnel_name: &str) -> bool {
        self.tunnel.as_ref().is_none_or(|only| only.as_str() == tunnel_name)
    }

    /// Whether it came with a token, not a key.
    pub fn is_token(&self) -> bool {
        self.expires_at.is_some()
    }
}

impl From<jwt::Claims> for Principal {
    fn from(claims: jwt::Claims) -> Self {
        Self { owner: claims.owner, tunnel: claims.tunnel, expires_at: Some(claims.expires_at), since: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_without_a_limit_may_use_every_tunnel() {
        let all = Principal::of_key("alice".into(), 0);
        let one = Principal { tunnel: Name::parse("web").ok(), expires_at: Some(1), ..all.clone() };
        assert!(all.may_use("web") && all.may_use("other") && !all.is_token());
        assert!(one.may_use("web") && !one.may_use("other") && !one.may_use("") && one.is_token());
    }
}
