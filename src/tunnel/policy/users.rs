//! The users of a tunnel, of whom viewers must be one.

use std::sync::Arc;

use http::HeaderValue;

use crate::auth::password::{self, BasicAuth, PasswordError, Turn, Verdict};

/// A name, and what was stored of name and password together.
#[derive(Clone)]
struct User {
    name: String,
    auth: Arc<BasicAuth>,
}

/// Some users, at least one.
#[derive(Clone)]
pub struct Users(Vec<User>);

impl Users {
    /// Reads `NAME:HASH` each.
    pub(super) fn restore(stored: &[String]) -> Result<Self, PasswordError> {
        let read = |text: &String| {
            let (name, hash) = text.split_once(':').ok_or(PasswordError::Text)?;
            Ok(User { name: name.to_owned(), auth: Arc::new(BasicAuth::from_text(hash)?) })
        };
        stored.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Hashes `NAME:PASSWORD` each, which takes tens of milliseconds, unless `before` knows the user and the password.
    pub(super) fn hash(given: &[String], before: Option<&Self>) -> Result<Self, PasswordError> {
        let of = |text: &String| {
            let (name, password) = text.split_once(':').ok_or(PasswordError::User)?;
            let known = before.and_then(|before| before.user(name.as_bytes()));
            let auth = match known {
                Some(known)
                    if password == crate::proto::policy::HIDDEN || known.auth.matches(name, password) =>
                {
                    Arc::clone(&known.auth)
                }
                _ => Arc::new(BasicAuth::from_text(&password::hash(name, password)?)?),
            };
            Ok(User { name: name.to_owned(), auth })
        };
        given.iter().map(of).collect::<Result<_, _>>().map(Self)
    }

    /// As [`Users::restore`] reads it.
    pub(super) fn stored(&self) -> Vec<String> {
        self.0.iter().map(|user| format!("{}:{}", user.name, user.auth.to_text())).collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.user(name.as_bytes()).is_some()
    }

    fn user(&self, name: &[u8]) -> Option<&User> {
        self.0.iter().find(|user| user.name.as_bytes() == name)
    }

    /// Whether the header names one of them with the right password. Whom it does not know costs the same time as whom it
    /// does, so names cannot be found out.
    pub async fn verify(&self, authorization: Option<&HeaderValue>, turn: &Turn) -> Verdict {
        let named = authorization.and_then(password::user_of).and_then(|name| self.user(&name));
        match named.or(self.0.first()) {
            Some(user) => user.auth.verify(authorization, turn).await,
            None => Verdict::Refused,
        }
    }

    /// Viewers that wait for the slow hash.
    pub fn waiting(&self) -> usize {
        self.0.iter().map(|user| user.auth.waiting()).sum()
    }
}
