//! User and password of a tunnel (basic authentication, RFC 7617), hashed slowly and once per credential.

use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, LazyLock, Mutex};

use aws_lc_rs::{constant_time, pbkdf2};
use http::HeaderValue;
use tokio::sync::Semaphore;

use super::{NoRandom, hex, random, sha256, unbase64, unhex};
use crate::sync::lock;

/// Rounds for new hashes: some 20 to 50 ms of one core.
const ROUNDS: NonZeroU32 = match NonZeroU32::new(100_000) {
    Some(rounds) => rounds,
    None => NonZeroU32::MIN,
};
/// Rounds that a stored text may ask for; a damaged one must not hold a core for minutes.
const MAX_ROUNDS: u32 = 10_000_000;
/// Accepted headers that are remembered. One credential has one form in practice; some clients write another.
const REMEMBERED: usize = 8;
/// Viewers of one tunnel that may wait for the slow hash at the same time.
const WAITING: usize = 64;
/// Name of the method, the first field of the text.
const METHOD: &str = "pbkdf2-sha256";

/// Why a password cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// RFC 7617: the first colon ends the user.
    #[error("a user has no colon and no control character")]
    User,
    /// It could not be typed into a browser's dialogue.
    #[error("a password has no control character")]
    Password,
    /// [`BasicAuth::from_text`] was given something that [`hash`] did not write.
    #[error("this is no stored password; set it again")]
    Text,
    /// See [`NoRandom`].
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// What a look at the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The right user and password.
    Accepted,
    /// None, unreadable ones, or wrong ones (401).
    Refused,
    /// Not known yet: [`BasicAuth::verify_slow`] can tell. From [`BasicAuth::verify`]: too many are waiting
    /// (503).
    Unchecked,
}

/// The text to keep of a user and a password, `pbkdf2-sha256$ROUNDS$SALT$HASH` in hex. It covers both. Takes
/// as long as [`BasicAuth::verify_slow`]; not for an async thread.
pub fn hash(user: &str, password: &str) -> Result<String, PasswordError> {
    if user.contains(|c: char| c == ':' || c.is_control()) {
        return Err(PasswordError::User);
    }
    if password.contains(|c: char| c.is_control()) {
        return Err(PasswordError::Password);
    }
    let salt = random::<16>()?;
    let mut hash = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        ROUNDS,
        &salt,
        format!("{user}:{password}").as_bytes(),
        &mut hash,
    );
    Ok(format!("{METHOD}${ROUNDS}${}${}", hex(&salt), hex(&hash)))
}

/// The stored user and password of one tunnel, with the headers that were accepted lately.
pub struct BasicAuth {
    rounds: NonZeroU32,
    salt: Vec<u8>,
    hash: Vec<u8>,
    /// SHA-256 of accepted header values, the latest last.
    accepted: Mutex<VecDeque<[u8; 32]>>,
    room: Semaphore,
}

impl BasicAuth {
    /// Reads what [`hash`] wrote.
    pub fn from_text(text: &str) -> Result<Self, PasswordError> {
        let mut fields = text.split('$');
        let (Some(METHOD), Some(rounds), Some(salt), Some(hash), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(PasswordError::Text);
        };
        let rounds: NonZeroU32 = rounds.parse().map_err(|_| PasswordError::Text)?;
        let salt = unhex(salt).filter(|salt| salt.len() == 16).ok_or(PasswordError::Text)?;
        let hash = unhex(hash).filter(|hash| hash.len() == 32).ok_or(PasswordError::Text)?;
        if rounds.get() > MAX_ROUNDS {
            return Err(PasswordError::Text);
        }
        let (accepted, room) = (Mutex::default(), Semaphore::new(WAITING));
        Ok(Self { rounds, salt, hash, accepted, room })
    }

    /// What [`hash`] wrote.
    pub fn to_text(&self) -> String {
        format!("{METHOD}${}${}${}", self.rounds, hex(&self.salt), hex(&self.hash))
    }

    /// Whether it was made of this user and password. Slow, as [`BasicAuth::verify_slow`].
    pub fn matches(&self, user: &str, password: &str) -> bool {
        let credentials = format!("{user}:{password}");
        pbkdf2::verify(
            pbkdf2::PBKDF2_HMAC_SHA256,
            self.rounds,
            &self.salt,
            credentials.as_bytes(),
            &self.hash,
        )
        .is_ok()
    }

    /// A quick look: a header that was accepted before is accepted, one that cannot be right is refused.
    pub fn check(&self, authorization: Option<&HeaderValue>) -> Verdict {
        let Some(value) = authorization else {
            return Verdict::Refused;
        };
        let digest = sha256(value.as_bytes());
        let accepted = lock(&self.accepted);
        // All of them are compared, each in constant time.
        let known = accepted.iter().fold(false, |known, entry| {
            known | constant_time::verify_slices_are_equal(entry, &digest).is_ok()
        });
        match credentials(value) {
            _ if known => Verdict::Accepted,
            Some(_) => Verdict::Unchecked,
            None => Verdict::Refused,
        }
    }

    /// The slow and certain check; an accepted header is remembered. For `spawn_blocking`, not for an async
    /// thread.
    pub fn verify_slow(&self, value: &HeaderValue) -> bool {
        let Some(credentials) = credentials(value) else {
            return false;
        };
        // Compares in constant time.
        let method = pbkdf2::PBKDF2_HMAC_SHA256;
        let good = pbkdf2::verify(method, self.rounds, &self.salt, &credentials, &self.hash).is_ok();
        if good {
            let digest = sha256(value.as_bytes());
            let mut accepted = lock(&self.accepted);
            if !accepted.contains(&digest) {
                if accepted.len() == REMEMBERED {
                    accepted.pop_front();
                }
                accepted.push_back(digest);
            }
        }
        good
    }

    /// Viewers that wait for the slow hash, and the one whose turn it is.
    pub fn waiting(&self) -> usize {
        WAITING - self.room.available_permits()
    }

    /// Both checks for an async caller: the slow one when it is its `turn`. Answers [`Verdict::Unchecked`] when too many
    /// wait for it already; that is a 503.
    pub async fn verify(self: &Arc<Self>, authorization: Option<&HeaderValue>, turn: &Turn) -> Verdict {
        let (verdict, Some(value)) = (self.check(authorization), authorization) else {
            return Verdict::Refused;
        };
        if verdict != Verdict::Unchecked {
            return verdict;
        }
        let Ok(_room) = self.room.try_acquire() else {
            return Verdict::Unchecked;
        };
        let (this, value) = (Arc::clone(self), value.clone());
        // A page asks for many files at once: the first has found the answer for all.
        let slow = move || this.check(Some(&value)) == Verdict::Accepted || this.verify_slow(&value);
        match turn.run(slow).await {
            Some(true) => Verdict::Accepted,
            Some(false) => Verdict::Refused,
            None => Verdict::Unchecked,
        }
    }
}

/// Slow hashes of all owners together. Each takes a core for a while, and some cores are for everything else.
static CORES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Arc::new(Semaphore::new((cores / 2).max(1)))
});

/// The turns of one owner: one slow hash at a time, so that guessing at its tunnels, or creating many, takes one core at
/// most, and its next one comes after those of others.
pub struct Turn(Arc<Semaphore>);

impl Default for Turn {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turn {
    /// Runs `slow` on a thread for blocking work when it is its turn; `None`: it panicked.
    pub async fn run<T: Send + 'static>(&self, slow: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let core = Arc::clone(&CORES).acquire_owned().await.ok()?;
        // They go along: a caller that leaves does not stop the hash, and must not make room for another.
        let slow = move || {
            let _held = (turn, core);
            slow()
        };
        tokio::task::spawn_blocking(slow).await.ok()
    }
}

/// The user that a `Basic` header names.
pub fn user_of(value: &HeaderValue) -> Option<Vec<u8>> {
    let mut credentials = credentials(value)?;
    let colon = credentials.iter().position(|byte| *byte == b':')?;
    credentials.truncate(colon);
    Some(credentials)
}

/// `user:password` of a `Basic` header.
fn credentials(value: &HeaderValue) -> Option<Vec<u8>> {
    let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
    let bytes = unbase64(token.trim_start().trim_end_matches('='), *b"+/")?;
    (scheme.eq_ignore_ascii_case("basic") && bytes.contains(&b':')).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // base64 of "ann:secret", "ann:wrong", "bob:secret" and "ann:"
    const GOOD: &str = "Basic YW5uOnNlY3JldA==";
    const WRONG: [&str; 3] = ["Basic YW5uOndyb25n", "Basic Ym9iOnNlY3JldA==", "Basic YW5uOg=="];

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

    fn auth() -> Arc<BasicAuth> {
        Arc::new(BasicAuth::from_text(&hash("ann", "secret").unwrap()).unwrap())
    }

    #[test]
    fn a_text_holds_neither_user_nor_password_and_differs_each_time() {
        let (one, two) = (hash("ann", "secret").unwrap(), hash("ann", "secret").unwrap());
        assert_ne!(one, two);
        assert!(one.starts_with("pbkdf2-sha256$100000$"), "{one}");
        assert!(!one.contains("ann") && !one.contains("secret"));
        assert_eq!(hash("a:b", "c"), Err(PasswordError::User));
        assert_eq!(hash("a", "b\n"), Err(PasswordError::Password));
    }

    #[test]
    fn the_right_credential_is_checked_slowly_once() {
        let auth = auth();
        let good = header(GOOD);
        assert_eq!(auth.check(Some(&good)), Verdict::Unchecked);
        assert!(auth.verify_slow(&good));
        assert_eq!(auth.check(Some(&good)), Verdict::Accepted);
        // Written otherwise, but the same.
        let other = header("basic YW5uOnNlY3JldA");
        assert_eq!(auth.check(Some(&other)), Verdict::Unchecked);
        assert!(auth.verify_slow(&other));
    }

    #[test]
    fn wrong_credentials_are_never_accepted() {
        let auth = auth();
        for wrong in WRONG {
            let value = header(wrong);
            assert_eq!(auth.check(Some(&value)), Verdict::Unchecked);
            assert!(!auth.verify_slow(&value), "{wrong}");
            assert_eq!(auth.check(Some(&value)), Verdict::Unchecked, "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_a_credential_costs_no_hash() {
        let auth = auth();
        assert_eq!(auth.check(None), Verdict::Refused);
        for bad in ["", "Basic", "Basic ", "Basic !!!!", "Basic YW5u", "Basic Y", "Bearer YW5uOnNlY3JldA=="] {
            assert_eq!(auth.check(Some(&header(bad))), Verdict::Refused, "{bad:?}");
        }
        let binary = HeaderValue::from_bytes(b"Basic \xff").unwrap();
        assert_eq!(auth.check(Some(&binary)), Verdict::Refused);
    }

    #[test]
    fn the_memory_of_accepted_headers_is_bounded() {
        let auth = auth();
        for spaces in 1..=REMEMBERED + 2 {
            assert!(auth.verify_slow(&header(&GOOD.replace(' ', &" ".repeat(spaces)))));
        }
        assert_eq!(auth.accepted.lock().unwrap().len(), REMEMBERED);
        assert_eq!(auth.check(Some(&header(GOOD))), Verdict::Unchecked);
    }

    #[tokio::test]
    async fn many_requests_at_once_cost_one_slow_check() {
        let auth = auth();
        let (good, turn) = (header(GOOD), Turn::default());
        // Polled in order on one thread: the first takes the turn, the others wait for it.
        let all = futures_util::future::join_all((0..40).map(|_| auth.verify(Some(&good), &turn))).await;
        assert!(all.iter().all(|verdict| *verdict == Verdict::Accepted));
        assert_eq!(auth.accepted.lock().unwrap().len(), 1);
        assert_eq!(auth.verify(Some(&header(WRONG[0])), &turn).await, Verdict::Refused);
        let _all = auth.room.try_acquire_many(64).unwrap();
        assert_eq!(auth.verify(Some(&header(WRONG[0])), &turn).await, Verdict::Unchecked);
        assert_eq!(auth.verify(None, &turn).await, Verdict::Refused);
    }

    #[tokio::test]
    async fn one_owners_many_hashes_do_not_hold_up_anothers() {
        let (alice, bob) = (Turn::default(), Turn::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let mut wait = Some(wait);
        let mut calls = Vec::new();
        for owner in ["alice"; 10].into_iter().chain(["bob"]) {
            let (order, first) = (Arc::clone(&order), wait.take());
            let turn = if owner == "bob" { &bob } else { &alice };
            calls.push(turn.run(move || {
                if let Some(first) = first {
                    first.recv().unwrap();
                }
                lock(&order).push(owner);
            }));
        }
        // Polled in order on one thread: all of them have asked before the first one ends.
        let all = futures_util::future::join_all(calls);
        tokio::join!(all, async { go.send(()).unwrap() });
        let order = lock(&order);
        let bobs = order.iter().position(|owner| *owner == "bob").unwrap();
        assert!(bobs <= 2, "{order:?}");
    }

    #[test]
    fn texts_that_were_not_written_here_are_refused() {
        let good = hash("ann", "secret").unwrap();
        for bad in [
            String::new(),
            "secret".into(),
            good.replace("sha256", "sha1"),
            good.replace("100000", "0"),
            good.replace("100000", "99999999"),
            good[..good.len() - 2].into(),
            good[..good.len() - 1].into(),
            format!("{good}$"),
            good.replace(&good[good.len() - 1..], "g"),
        ] {
            assert!(BasicAuth::from_text(&bad).is_err(), "{bad}");
        }
    }
}
