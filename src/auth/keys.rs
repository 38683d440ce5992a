//! API keys: how they are made, hashed and checked against the configured and the stored ones; and who a bearer is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

use super::jwt::{self, Secrets, TokenError};
use super::{NoRandom, Owner, Principal, Secret, hex, random, sha256};
use crate::store::{KeyRow, Store, StoreError};
use crate::sync::lock;

/// Keys remembered for the time in which the store cannot be asked. Each is known to be good, so this bounds
/// memory and nothing else.
const REMEMBERED: usize = 10_000;

/// A key from the configuration. Several may have one name, so that a secret can be changed without a gap.
#[derive(Debug, Clone)]
pub struct StaticKey {
    /// Name of the key, which owns its tunnels; the same name in the store is the same owner.
    pub name: String,
    /// What clients send as bearer token.
    pub secret: Secret,
}

/// Why a request was not let in; the text is for whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// No `Authorization` (401).
    #[error("a key is needed: send the header \"Authorization: Bearer KEY\"")]
    Missing,
    /// Another scheme than `Bearer`, no token, or characters that no key has (401).
    #[error("the Authorization header is not readable: write \"Bearer\", a space and the key")]
    Malformed,
    /// No live key has this secret (401).
    #[error("this key is unknown or was revoked: check it, or ask the operator of the relay for a new one")]
    Unknown,
    /// It is a token, and not valid (401).
    #[error("{0}")]
    Token(#[from] TokenError),
    /// The store cannot be asked, and this key was not seen before (503).
    #[error("keys cannot be checked at present: try again in a few seconds")]
    Unavailable,
}

/// Whether a key may have this name: it is printed, logged, written in `ADIT_KEYS` and claimed by tokens.
pub fn is_key_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// SHA-256 of a key: all that is stored of it. Keys are long and random, so a fast hash is enough.
pub fn hash_key(key: &str) -> [u8; 32] {
    sha256(key.as_bytes())
}

/// A new key: `nbk_` and 48 hex digits, 192 random bits. Tools that look for leaked secrets know the prefix.
pub fn generate_key() -> Result<Secret, NoRandom> {
    Ok(Secret::new(format!("nbk_{}", hex(&random::<24>()?))))
}

/// The keys that are let in: those of the configuration, the live ones of the store, and tokens, in one space
/// of names.
pub struct Keys {
    store: Arc<dyn Store>,
    fixed: HashMap<[u8; 32], Owner>,
    tokens: Secrets,
    /// Stored keys that were good when last checked, for when the store does not answer.
    known: Mutex<HashMap<[u8; 32], Known>>,
    /// The store did not answer last time; so that this is logged once and not for each request.
    down: AtomicBool,
}

#[derive(Clone)]
struct Known {
    owner: Owner,
    /// When the key was created. Never compared with a clock, which may be set back.
    since: i64,
}

impl Keys {
    /// Keys of `store` together with those of the configuration.
    pub fn new(store: Arc<dyn Store>, static_keys: Vec<StaticKey>) -> Self {
        let fixed = static_keys
            .into_iter()
            .map(|key| (hash_key(key.secret.expose()), Owner::from(key.name)))
            .collect();
        let (known, down) = (Mutex::default(), AtomicBool::new(false));
        Self { store, fixed, tokens: Secrets::default(), known, down }
    }

    /// Takes tokens of these secrets, too.
    pub fn with_tokens(mut self, secrets: Vec<Secret>) -> Self {
        self.tokens = Secrets::new(secrets);
        self
    }

    /// Who sent a request with this `Authorization` header; see [`Keys::authenticate_bearer`].
    pub async fn authenticate(&self, authorization: Option<&HeaderValue>) -> Result<Principal, Refused> {
        self.authenticate_bearer(bearer(authorization)?).await
    }

    /// Whose key or token this is. Stored keys are looked up each time, so that one created or revoked by another
    /// process counts at once. What is written like a token is no stored key, unless there are no tokens here.
    pub async fn authenticate_bearer(&self, bearer: &str) -> Result<Principal, Refused> {
        let hash = hash_key(bearer);
        // By hash: the time of the look-up says nothing of the secret.
        if let Some(owner) = self.fixed.get(&hash) {
            return Ok(Principal::of_key(owner.clone(), 0));
        }
        if !self.tokens.is_empty() && jwt::looks_like(bearer) {
            return Ok(self.tokens.verify(bearer, now())?.into());
        }
        self.stored(hash).await.map(|known| Principal::of_key(known.owner, known.since))
    }

    async fn stored(&self, hash: [u8; 32]) -> Result<Known, Refused> {
        let found = self.store.find_key(hash).await;
        self.note(found.as_ref().err());
        let mut known = lock(&self.known);
        match found {
            Ok(Some(key)) => {
                if known.len() >= REMEMBERED && !known.contains_key(&hash) {
                    known.clear();
                }
                let found = Known { owner: Owner::from(key.name), since: key.created_at };
                known.insert(hash, found.clone());
                Ok(found)
            }
            Ok(None) => {
                known.remove(&hash);
                Err(Refused::Unknown)
            }
            Err(_) => known.get(&hash).cloned().ok_or(Refused::Unavailable),
        }
    }

    /// Everybody who has a live key, and since when, in Unix milliseconds (0 for keys of the configuration). Sessions
    /// of others are to be closed, and those of another key of the same name: it was revoked since. Call it when
    /// [`Store::changed`] says so.
    pub async fn live_owners(&self) -> Result<HashMap<Owner, i64>, StoreError> {
        let keys = self.store.keys().await;
        self.note(keys.as_ref().err());
        let live: HashMap<_, _> = keys?
            .into_iter()
            .filter(|key| key.revoked_at.is_none())
            .map(|key| (key.name, key.created_at))
            .collect();
        // What is remembered must not outlive its key, nor pass for a newer key of the same name.
        lock(&self.known).retain(|_, known| live.get(known.owner.as_str()) == Some(&known.since));
        let live = live.into_iter().map(|(name, since)| (Owner::from(name), since));
        Ok(live.chain(self.fixed.values().map(|owner| (owner.clone(), 0))).collect())
    }

    /// The stored keys that are live, by name.
    pub(crate) async fn live(&self) -> Result<Vec<KeyRow>, StoreError> {
        let mut keys = self.store.keys().await?;
        keys.retain(|key| key.revoked_at.is_none());
        Ok(keys)
    }

    /// Revokes a stored key; who looks after sessions is to be told. `false`: there is no live one of that name.
    pub(crate) async fn revoke(&self, name: &str) -> Result<bool, StoreError> {
        self.store.revoke_key(name.to_owned()).await
    }

    /// Stored keys that are remembered.
    pub(crate) fn remembered(&self) -> usize {
        lock(&self.known).len()
    }

    fn note(&self, error: Option<&StoreError>) {
        let was_down = self.down.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_down => tracing::error!(%error, "stored keys cannot be checked"),
            None if was_down => tracing::info!("stored keys can be checked again"),
            _ => {}
        }
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750); the scheme is read without regard to case (RFC
/// 9110).
fn bearer(authorization: Option<&HeaderValue>) -> Result<&str, Refused> {
    let value = authorization.ok_or(Refused::Missing)?.to_str().map_err(|_| Refused::Malformed)?.trim();
    let (scheme, token) = value.split_once(' ').ok_or(Refused::Malformed)?;
    let token = token.trim_start();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains([' ', '\t']) {
        return Err(Refused::Malformed);
    }
    Ok(token)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::name::Name;
    use crate::store::{Activity, CertificateRow, KeyRow, Put, Reply, Sqlite, TunnelRow};

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    fn keys(store: Arc<dyn Store>) -> Keys {
        let fixed = StaticKey { name: "alice".into(), secret: Secret::new("nbk_alice") };
        Keys::new(store, vec![fixed])
    }

    async fn ask(keys: &Keys, text: &str) -> Result<Owner, Refused> {
        keys.authenticate(Some(&header(text))).await.map(|principal| principal.owner)
    }

    /// A store that fails while it is told to.
    struct Flaky(Sqlite, AtomicBool);

    impl Flaky {
        fn check<T: Send + 'static>(&self, reply: impl FnOnce(&Sqlite) -> Reply<'_, T>) -> Reply<'_, T> {
            if self.1.load(Ordering::Relaxed) {
                return Box::pin(std::future::ready(Err(StoreError::Unavailable("told to".into()))));
            }
            reply(&self.0)
        }
    }

    impl Store for Flaky {
        fn begin(&self) -> Reply<'_, i64> {
            self.check(Store::begin)
        }
        fn load_tunnels(&self) -> Reply<'_, Vec<TunnelRow>> {
            self.check(Store::load_tunnels)
        }
        fn put_tunnel(&self, row: TunnelRow) -> Reply<'_, Put> {
            self.check(|store| store.put_tunnel(row))
        }
        fn certificates(&self) -> Reply<'_, Vec<CertificateRow>> {
            self.check(Store::certificates)
        }
        fn put_certificate(&self, row: CertificateRow) -> Reply<'_, ()> {
            self.check(|store| store.put_certificate(row))
        }
        fn acme_account(&self, directory: String) -> Reply<'_, Option<String>> {
            self.check(|store| store.acme_account(directory))
        }
        fn put_acme_account(&self, directory: String, credentials: String) -> Reply<'_, ()> {
            self.check(|store| store.put_acme_account(directory, credentials))
        }
        fn save_activity(&self, rows: Vec<Activity>) -> Reply<'_, ()> {
            self.check(|store| store.save_activity(rows))
        }
        fn create_key(&self, name: String, hash: [u8; 32]) -> Reply<'_, bool> {
            self.check(|store| store.create_key(name, hash))
        }
        fn revoke_key(&self, name: String) -> Reply<'_, bool> {
            self.check(|store| store.revoke_key(name))
        }
        fn keys(&self) -> Reply<'_, Vec<KeyRow>> {
            self.check(Store::keys)
        }
        fn find_key(&self, hash: [u8; 32]) -> Reply<'_, Option<KeyRow>> {
            self.check(|store| store.find_key(hash))
        }
        fn changed(&self) -> Reply<'_, bool> {
            self.check(Store::changed)
        }
    }

    fn flaky() -> Arc<Flaky> {
        Arc::new(Flaky(Sqlite::memory().unwrap(), AtomicBool::new(false)))
    }

    #[test]
    fn a_generated_key_has_192_random_bits() {
        let (one, two) = (generate_key().unwrap(), generate_key().unwrap());
        assert_ne!(one.expose(), two.expose());
        let digits = one.expose().strip_prefix("nbk_").unwrap();
        assert_eq!(digits.len(), 48);
        assert!(digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')));
    }

    #[tokio::test]
    async fn the_header_is_read_strictly_and_its_scheme_in_any_case() {
        let keys = keys(flaky());
        for good in ["Bearer nbk_alice", "bearer nbk_alice", "BEARER  nbk_alice "] {
            assert_eq!(ask(&keys, good).await, Ok("alice".into()), "{good:?}");
        }
        for bad in
            ["", "Bearer", "Bearer ", "nbk_alice", "Basic nbk_alice", "Bearer nbk_alice x", "Bearernbk_alice"]
        {
            assert_eq!(ask(&keys, bad).await, Err(Refused::Malformed), "{bad:?}");
        }
        let binary = HeaderValue::from_bytes(b"Bearer \xff").unwrap();
        assert_eq!(keys.authenticate(Some(&binary)).await, Err(Refused::Malformed));
        assert_eq!(keys.authenticate(None).await, Err(Refused::Missing));
        assert_eq!(ask(&keys, "Bearer nbk_alicia").await, Err(Refused::Unknown));
    }

    /// Keys of one name are told apart by the millisecond of their creation.
    fn next_millisecond() {
        let begun = now();
        while now() <= begun {
            std::hint::spin_loop();
        }
    }

    #[tokio::test]
    async fn a_stored_key_counts_from_its_creation_to_its_revocation() {
        let store = flaky();
        let keys = keys(store.clone());
        assert_eq!(ask(&keys, "Bearer nbk_bob").await, Err(Refused::Unknown));
        store.create_key("bob".into(), hash_key("nbk_bob")).await.unwrap();
        assert_eq!(ask(&keys, "Bearer nbk_bob").await, Ok("bob".into()));
        let since = keys.live_owners().await.unwrap();
        assert!(since[&Owner::from("alice")] == 0 && since[&Owner::from("bob")] > 0, "{since:?}");
        store.revoke_key("bob".into()).await.unwrap();
        assert_eq!(ask(&keys, "Bearer nbk_bob").await, Err(Refused::Unknown));
        assert_eq!(keys.live_owners().await, Ok(HashMap::from([("alice".into(), 0)])));
    }

    #[tokio::test]
    async fn a_token_is_verified_and_never_looked_up() {
        let secret = || vec![Secret::new("a secret of tokens, 32 bytes long")];
        let store = flaky();
        let keys = keys(store.clone()).with_tokens(secret());
        let (hour, web) = (std::time::Duration::from_secs(3600), Name::parse("web").unwrap());
        let token = Secrets::new(secret()).mint("bob", Some(&web), hour, now()).unwrap();
        let old = Secrets::new(secret()).mint("bob", None, hour, now() - 7_200_000).unwrap();
        for stored in [token.as_str(), &old, "x.y.z"] {
            store.create_key(stored.len().to_string(), hash_key(stored)).await.unwrap();
        }
        let bob = keys.authenticate_bearer(&token).await.unwrap();
        assert_eq!((bob.owner.as_str(), &bob.tunnel), ("bob", &Some(web)));
        assert!(bob.is_token() && bob.expires_at > Some(now()));
        assert_eq!(keys.authenticate_bearer(&old).await, Err(Refused::Token(TokenError::Expired)));
        assert_eq!(keys.authenticate_bearer("x.y.z").await, Err(Refused::Token(TokenError::Unreadable)));
        let alice = Ok(Principal::of_key("alice".into(), 0));
        assert_eq!(keys.authenticate_bearer("nbk_alice").await, alice);
        store.1.store(true, Ordering::Relaxed);
        assert_eq!(keys.authenticate_bearer(&token).await, Ok(bob), "whether the store answers or not");
    }

    #[tokio::test]
    async fn a_key_may_be_written_like_a_token() {
        let fixed = StaticKey { name: "alice".into(), secret: Secret::new("a.b.c") };
        let store = flaky();
        store.create_key("bob".into(), hash_key("d.e.f")).await.unwrap();
        let keys = Keys::new(store, vec![fixed]);
        assert_eq!(ask(&keys, "Bearer d.e.f").await, Ok("bob".into()), "without secrets there are no tokens");
        let keys = keys.with_tokens(vec![Secret::new("s".repeat(32))]);
        assert_eq!(ask(&keys, "Bearer a.b.c").await, Ok("alice".into()));
    }

    #[tokio::test]
    async fn keys_seen_before_are_let_in_while_the_store_fails() {
        let store = flaky();
        let keys = keys(store.clone());
        for name in ["seen", "unseen", "revoked", "renewed"] {
            store.create_key(name.into(), hash_key(name)).await.unwrap();
        }
        for name in ["seen", "revoked", "renewed"] {
            ask(&keys, &format!("Bearer {name}")).await.unwrap();
        }
        store.revoke_key("revoked".into()).await.unwrap();
        store.revoke_key("renewed".into()).await.unwrap();
        next_millisecond();
        store.create_key("renewed".into(), hash_key("other")).await.unwrap();
        keys.live_owners().await.unwrap();

        store.1.store(true, Ordering::Relaxed);
        assert_eq!(ask(&keys, "Bearer nbk_alice").await, Ok("alice".into()));
        assert_eq!(ask(&keys, "Bearer seen").await, Ok("seen".into()));
        for gone in ["unseen", "revoked", "renewed"] {
            assert_eq!(ask(&keys, &format!("Bearer {gone}")).await, Err(Refused::Unavailable), "{gone}");
        }
        assert!(keys.live_owners().await.is_err());
        store.1.store(false, Ordering::Relaxed);
        assert_eq!(ask(&keys, "Bearer unseen").await, Ok("unseen".into()));
    }
}
