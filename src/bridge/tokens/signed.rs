//! Tokens that hold their target themselves, signed by who made them (`JWTTokenApi`).

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::{Target, TokenError};
use crate::auth::signed::Key;

/// The file of the key, which is read for each token: a new key needs no restart.
pub(super) struct Signed {
    file: PathBuf,
}

impl Signed {
    pub(super) fn new(file: PathBuf) -> Result<Self, String> {
        let signed = Self { file };
        signed.key().map(|_| signed)
    }

    fn key(&self) -> Result<Key, String> {
        let read = fs::read(&self.file).map_err(|error| error.to_string());
        let key = read.and_then(|text| Key::read(&text).map_err(|error| error.to_string()));
        key.map_err(|error| format!("{}: {error}", self.file.display()))
    }

    /// What `token` says, if it is signed and in its time; waits for the disk.
    pub(super) fn target(&self, token: &str) -> Result<Target, TokenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let key = self.key().map_err(TokenError::Source)?;
        let claims = key.claims(token, i64::try_from(now).unwrap_or(i64::MAX)).map_err(|error| {
            tracing::info!(%error, "a token is refused");
            TokenError::Unknown
        })?;
        target(&claims).ok_or_else(|| {
            tracing::warn!("a token is signed, but has no claims \"host\" and \"port\" that can be used");
            TokenError::Unknown
        })
    }
}

/// The target that JSON with `host` and `port` names; a port may be a text.
pub(super) fn target(object: &Map<String, Value>) -> Option<Target> {
    let host = object.get("host")?.as_str()?;
    let port = match object.get("port")? {
        Value::Number(port) => port.to_string(),
        Value::String(port) => port.clone(),
        _ => return None,
    };
    format!("{host}:{port}").parse().ok().filter(|target| matches!(target, Target::Tcp { .. }))
}
