//! Who somebody is: the keys and tokens of clients, and the passwords that viewers of a tunnel give.

pub mod jwt;
pub mod keys;
pub mod password;

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;

pub use keys::{Keys, Refused, StaticKey};

use crate::proto::name::Name;

/// A text that must not be shown: it prints as `***`, in logs and in panics too.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

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
}

impl Principal {
    /// Whoever has a key of this owner.
    pub fn of_key(owner: Owner) -> Self {
        Self { owner, tunnel: None, expires_at: None }
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
        Self { owner: claims.owner, tunnel: claims.tunnel, expires_at: Some(claims.expires_at) }
    }
}

/// The system gave no random bytes: nothing secret can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandom;

/// Bytes that nobody can guess.
fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Base64 of RFC 4648 without padding; `last` are the digits 62 and 63. Small enough to need no crate.
fn unbase64(digits: &str, last: [u8; 2]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            digit if digit == last[0] => 62,
            digit if digit == last[1] => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    // One digit alone holds no byte.
    (digits.len() % 4 != 1).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("nbk_1");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "nbk_1");
    }

    #[test]
    fn base64_is_read_in_both_alphabets() {
        assert_eq!(unbase64("YW5u-_8", *b"-_"), Some(b"ann\xfb\xff".to_vec()));
        assert_eq!(unbase64("YW5u+/8", *b"+/"), Some(b"ann\xfb\xff".to_vec()));
        for bad in ["YW5u+/8", "YW5uYW5uY", "YW5=", " YW5"] {
            assert_eq!(unbase64(bad, *b"-_"), None, "{bad}");
        }
    }

    #[test]
    fn a_principal_without_a_limit_may_use_every_tunnel() {
        let all = Principal::of_key("alice".into());
        let one = Principal { tunnel: Name::parse("web").ok(), expires_at: Some(1), ..all.clone() };
        assert!(all.may_use("web") && all.may_use("other") && !all.is_token());
        assert!(one.may_use("web") && !one.may_use("other") && !one.may_use("") && one.is_token());
    }
}
