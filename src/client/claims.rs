//! The connections of a session that are being taken up, so that the relay can call each of them off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::sync::lock;

/// By their ids. Each is in it as long as its [`Claim`] lives.
#[derive(Clone, Default)]
pub(super) struct Claims(Arc<Mutex<HashMap<String, CancellationToken>>>);

/// One of them.
pub(super) struct Claim {
    claims: Claims,
    id: String,
    token: CancellationToken,
}

impl Claims {
    /// Enters a connection; `None`: this id is being taken up already.
    pub(super) fn enter(&self, id: &str) -> Option<Claim> {
        let mut claims = lock(&self.0);
        if claims.contains_key(id) {
            return None;
        }
        let token = CancellationToken::new();
        claims.insert(id.to_owned(), token.clone());
        Some(Claim { claims: self.clone(), id: id.to_owned(), token })
    }

    /// Nobody waits for it any more.
    pub(super) fn cancel(&self, id: &str) {
        if let Some(token) = lock(&self.0).get(id) {
            token.cancel();
        }
    }
}

impl Claim {
    /// Waits until it is called off.
    pub(super) async fn cancelled(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claims.0).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_can_be_called_off_as_long_as_it_is_being_taken_up() {
        let claims = Claims::default();
        let claim = claims.enter("a").unwrap();
        assert!(claims.enter("a").is_none());
        claims.cancel("b");
        claims.cancel("a");
        claim.cancelled().await;
        drop(claim);
        claims.cancel("a");
        assert!(claims.enter("a").is_some_and(|claim| !claim.token.is_cancelled()));
    }
}
