//! Who is logged in: random tokens, kept as their hashes, in memory alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::{NoRandom, hex, random, sha256};
use crate::proto::limits::admin::{LINK, LINKS, SESSION, SESSIONS};
use crate::sync::lock;

/// All sessions, by the hash of their token: the time of a look-up says nothing of it.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<[u8; 32], Arc<Session>>>);

/// One operator's login.
pub struct Session {
    used: Mutex<Instant>,
    /// Cancelled when it ends; streams end with it.
    pub over: CancellationToken,
}

impl Session {
    fn is_good(&self, now: Instant) -> bool {
        now - *lock(&self.used) < SESSION
    }

    /// It is in use.
    pub fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }
}

impl Sessions {
    /// Begins one: its token, 128 random bits. There is room for a bounded number; who was idle longest goes.
    pub fn begin(&self) -> Result<String, NoRandom> {
        let token = hex(&random::<16>()?);
        let now = Instant::now();
        let mut sessions = lock(&self.0);
        sessions.retain(|_, session| session.is_good(now) || end(session));
        if sessions.len() >= SESSIONS
            && let Some(idle) =
                sessions.iter().min_by_key(|(_, session)| *lock(&session.used)).map(|(hash, _)| *hash)
            && let Some(session) = sessions.remove(&idle)
        {
            end(&session);
        }
        let session = Session { used: Mutex::new(now), over: CancellationToken::new() };
        sessions.insert(sha256(token.as_bytes()), Arc::new(session));
        Ok(token)
    }

    /// The session of a token; its time begins anew.
    pub fn find(&self, token: &[u8]) -> Option<Arc<Session>> {
        let session =
            lock(&self.0).get(&sha256(token)).filter(|session| session.is_good(Instant::now())).cloned()?;
        session.touch();
        Some(session)
    }

    /// How many there are, with those that ended by themselves and were not taken out yet.
    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }

    /// Ends the session of a token.
    pub fn end(&self, token: &[u8]) {
        if let Some(session) = lock(&self.0).remove(&sha256(token)) {
            end(&session);
        }
    }
}

/// `false`, for those who keep what is good.
fn end(session: &Session) -> bool {
    session.over.cancel();
    false
}

/// Tokens that log in once.
#[derive(Default)]
pub struct Links(Mutex<Vec<([u8; 32], Instant)>>);

impl Links {
    /// Another one, 128 random bits.
    pub fn make(&self) -> Result<String, NoRandom> {
        let token = hex(&random::<16>()?);
        let now = Instant::now();
        let mut links = lock(&self.0);
        links.retain(|(_, made)| now - *made < LINK);
        if links.len() == LINKS {
            links.remove(0);
        }
        links.push((sha256(token.as_bytes()), now));
        Ok(token)
    }

    /// Whether a token is good; from now on it is not.
    pub fn take(&self, token: &str) -> bool {
        let (hash, now) = (sha256(token.as_bytes()), Instant::now());
        let mut links = lock(&self.0);
        let found = links.iter().position(|(known, made)| *known == hash && now - *made < LINK);
        found.map(|at| links.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_session_lasts_as_long_as_it_is_used_and_half_a_day_more() {
        let sessions = Sessions::default();
        let token = sessions.begin().unwrap();
        for _ in 0..3 {
            advance(SESSION - MOMENT).await;
            assert!(sessions.find(token.as_bytes()).is_some());
        }
        let session = sessions.find(token.as_bytes()).unwrap();
        advance(SESSION).await;
        assert!(sessions.find(token.as_bytes()).is_none());
        sessions.begin().unwrap();
        assert!(session.over.is_cancelled() && lock(&sessions.0).len() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_the_one_goes_that_was_idle_longest() {
        let sessions = Sessions::default();
        let mut tokens = Vec::new();
        for _ in 0..SESSIONS {
            tokens.push(sessions.begin().unwrap());
            advance(MOMENT).await;
        }
        let second = sessions.find(tokens[1].as_bytes()).unwrap();
        sessions.find(tokens[0].as_bytes()).unwrap();
        advance(MOMENT).await;
        sessions.find(tokens[0].as_bytes()).unwrap();
        lock(&sessions.0).get(&sha256(tokens[1].as_bytes())).unwrap().touch();
        advance(MOMENT).await;
        sessions.begin().unwrap();
        assert!(sessions.find(tokens[2].as_bytes()).is_none());
        assert!(sessions.find(tokens[0].as_bytes()).is_some() && !second.over.is_cancelled());
        assert_eq!(lock(&sessions.0).len(), SESSIONS);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_token_of_a_session_opens_nothing() {
        let sessions = Sessions::default();
        let token = sessions.begin().unwrap();
        assert_eq!(token.len(), 32);
        for forged in [
            "",
            "0",
            &token[1..],
            &token.to_uppercase(),
            &format!("{token} "),
            &hex(&sha256(token.as_bytes())),
        ] {
            // A token of decimal digits alone is its own upper case.
            assert!(forged == token || sessions.find(forged.as_bytes()).is_none(), "{forged:?}");
        }
        let session = sessions.find(token.as_bytes()).unwrap();
        sessions.end(token.as_bytes());
        assert!(session.over.is_cancelled() && sessions.find(token.as_bytes()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_good_once_and_for_ten_minutes() {
        let links = Links::default();
        let (used, old) = (links.make().unwrap(), links.make().unwrap());
        assert!(!links.take("") && !links.take(&used[1..]));
        advance(LINK - MOMENT).await;
        assert!(links.take(&used) && !links.take(&used));
        advance(MOMENT).await;
        assert!(!links.take(&old));
        let many: Vec<_> = (0..=LINKS).map(|_| links.make().unwrap()).collect();
        assert!(!links.take(&many[0]) && links.take(&many[1]) && links.take(&many[LINKS]));
    }
}
