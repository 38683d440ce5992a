//! Who somebody is: the keys and tokens of clients, and the passwords that viewers of a tunnel give.

mod base64;
#[cfg(any(feature = "relay", feature = "bridge"))]
mod bytes;
#[cfg(feature = "relay")]
pub mod jwt;
#[cfg(feature = "relay")]
pub mod keys;
#[cfg(feature = "relay")]
#[doc(hidden)]
pub mod password;
#[cfg(feature = "relay")]
mod principal;
mod secret;
#[cfg(feature = "bridge")]
#[doc(hidden)]
pub mod signed;

pub use secret::Secret;

#[cfg(feature = "relay")]
pub use {
    bytes::NoRandom,
    keys::{Keys, Refused, StaticKey},
    principal::{Owner, Principal},
};

pub(crate) use base64::unbase64;
#[cfg(feature = "bridge")]
pub(crate) use bytes::same;
#[cfg(feature = "relay")]
pub(crate) use bytes::{hex, random, sha256, unhex};
