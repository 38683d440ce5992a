//! Connections that wait for their data socket, as a table without sockets or clock: who may claim what, and once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::message::Level;

/// To whom a connection was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressee {
    /// The session: only it may reject.
    pub session: Uuid,
    /// Its level: at level two a key is asked for.
    pub level: Level,
    /// Name of the key that owns the tunnel.
    pub owner: Arc<str>,
    /// Name of the tunnel.
    pub tunnel: Arc<str>,
}

/// Who claims: the owner of the key that came along, and the one tunnel that it may be limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bearer<'a> {
    /// Name of the key.
    pub owner: &'a str,
    /// The key is good for this tunnel only.
    pub tunnel: Option<&'a str>,
}

/// Why a claim was refused. The id stays good for the right claimant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// No such id, or it was claimed already, or its time is over.
    #[error("connection not found or expired")]
    Unknown,
    /// At level two the data socket carries the key.
    #[error("a key is needed: send the header \"Authorization: Bearer KEY\", as on the control socket")]
    KeyNeeded,
    /// The bearer belongs to somebody else.
    #[error("this connection belongs to another key")]
    Foreign,
}

/// The table. `S` is what a claimant is given, `R` what a rejection goes to. An id is a capability: 122 random bits, good
/// for one claim.
#[derive(Debug)]
pub struct Table<S, R> {
    entries: HashMap<Uuid, Entry<S, R>>,
    closed: bool,
}

#[derive(Debug)]
struct Entry<S, R> {
    to: Addressee,
    until: Instant,
    /// Gone once it is claimed; the entry then stays for a rejection.
    waiting: Option<S>,
    reject: R,
}

impl<S, R> Default for Table<S, R> {
    fn default() -> Self {
        Self { entries: HashMap::new(), closed: false }
    }
}

impl<S, R> Table<S, R> {
    /// Adds a connection that may be claimed before `until`; with `waiting` as `None` it is claimed already (a standby
    /// socket) and may only be rejected. `false`: the id is taken, or the table closed to what waits.
    pub fn announce(
        &mut self,
        id: Uuid,
        to: Addressee,
        until: Instant,
        waiting: Option<S>,
        reject: R,
    ) -> bool {
        if self.entries.contains_key(&id) || (self.closed && waiting.is_some()) {
            return false;
        }
        self.entries.insert(id, Entry { to, until, waiting, reject });
        true
    }

    /// Takes up the connection `id`: the level of its session, and what waits for it. At base level no bearer need come, but one that does must be the right one.
    pub fn claim(
        &mut self,
        now: Instant,
        id: Uuid,
        bearer: Option<Bearer<'_>>,
    ) -> Result<(Level, S), ClaimError> {
        let entry = self.entries.get_mut(&id).ok_or(ClaimError::Unknown)?;
        if entry.waiting.is_none() || now >= entry.until {
            return Err(ClaimError::Unknown);
        }
        match bearer {
            None if entry.to.level == Level::Two => return Err(ClaimError::KeyNeeded),
            Some(bearer)
                if *bearer.owner != *entry.to.owner
                    || bearer.tunnel.is_some_and(|tunnel| *tunnel != *entry.to.tunnel) =>
            {
                return Err(ClaimError::Foreign);
            }
            _ => {}
        }
        Ok((entry.to.level, entry.waiting.take().ok_or(ClaimError::Unknown)?))
    }

    /// The client of `session` cannot serve `id`: where to say so, and who waits for the claim if it has not come.
    /// `None`: there is no such connection of this session.
    pub fn reject(&mut self, id: Uuid, session: Uuid) -> Option<(Option<S>, R)> {
        if self.entries.get(&id)?.to.session != session {
            return None;
        }
        self.entries.remove(&id).map(|entry| (entry.waiting, entry.reject))
    }

    /// Forgets a connection; whether it was still waiting for its claim.
    pub fn withdraw(&mut self, id: Uuid) -> bool {
        self.entries.remove(&id).is_some_and(|entry| entry.waiting.is_some())
    }

    /// Whether a connection has this id.
    pub fn knows(&self, id: Uuid) -> bool {
        self.entries.contains_key(&id)
    }

    /// From now on nothing more waits for a claim.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Connections that nobody has claimed yet.
    pub fn waiting(&self) -> usize {
        self.entries.values().filter(|entry| entry.waiting.is_some()).count()
    }

    /// Connections in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the table holds nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod orders;

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "any time is as good as another")]

    use std::time::Duration;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn addressee(level: Level) -> Addressee {
        Addressee { session: Uuid::from_u128(1), level, owner: "alice".into(), tunnel: "web".into() }
    }

    fn bearer(owner: &str) -> Option<Bearer<'_>> {
        Some(Bearer { owner, tunnel: None })
    }

    #[test]
    fn a_claim_is_good_once_and_in_time() {
        let (mut table, now, id) = (Table::default(), Instant::now(), Uuid::new_v4());
        assert!(table.announce(id, addressee(Level::Base), now + TEN, Some("stream"), ()));
        assert!(!table.announce(id, addressee(Level::Base), now + TEN, Some("another"), ()));
        assert_eq!(table.claim(now, Uuid::new_v4(), None), Err(ClaimError::Unknown));
        assert_eq!(table.claim(now + TEN, id, None), Err(ClaimError::Unknown), "late");
        assert_eq!(table.waiting(), 1);
        assert_eq!(table.claim(now + TEN - Duration::from_millis(1), id, None), Ok((Level::Base, "stream")));
        assert_eq!(table.claim(now, id, None), Err(ClaimError::Unknown), "twice");
        assert_eq!(table.waiting(), 0);
        assert!(!table.withdraw(id), "it was claimed");
        assert!(table.is_empty());
    }

    #[test]
    fn a_refused_claim_leaves_the_id_good() {
        let (mut table, now, id) = (Table::default(), Instant::now(), Uuid::new_v4());
        table.announce(id, addressee(Level::Two), now + TEN, Some(()), ());
        assert_eq!(table.claim(now, id, None), Err(ClaimError::KeyNeeded));
        assert_eq!(table.claim(now, id, bearer("bob")), Err(ClaimError::Foreign));
        let other = Some(Bearer { owner: "alice", tunnel: Some("other") });
        assert_eq!(table.claim(now, id, other), Err(ClaimError::Foreign));
        let right = Some(Bearer { owner: "alice", tunnel: Some("web") });
        assert_eq!(table.claim(now, id, right), Ok((Level::Two, ())));
    }

    #[test]
    fn at_base_level_a_bearer_is_not_needed_but_must_be_right() {
        let (mut table, now, id) = (Table::default(), Instant::now(), Uuid::new_v4());
        table.announce(id, addressee(Level::Base), now + TEN, Some(()), ());
        assert_eq!(table.claim(now, id, bearer("bob")), Err(ClaimError::Foreign));
        assert_eq!(table.claim(now, id, bearer("alice")), Ok((Level::Base, ())));
    }

    #[test]
    fn only_the_session_that_was_told_may_reject_before_and_after_the_claim() {
        let (mut table, now) = (Table::default(), Instant::now());
        for claimed in [false, true] {
            let id = Uuid::new_v4();
            table.announce(id, addressee(Level::Two), now + TEN, Some(()), "rejected");
            if claimed {
                table.claim(now, id, bearer("alice")).unwrap();
            }
            assert_eq!(table.reject(id, Uuid::from_u128(2)), None);
            let waiting = (!claimed).then_some(());
            assert_eq!(table.reject(id, Uuid::from_u128(1)), Some((waiting, "rejected")));
            assert_eq!(table.reject(id, Uuid::from_u128(1)), None);
            assert_eq!(table.claim(now, id, bearer("alice")), Err(ClaimError::Unknown));
        }
    }

    #[test]
    fn a_withdrawn_connection_is_told_apart_from_a_claimed_one() {
        let (mut table, now, id) = (Table::default(), Instant::now(), Uuid::new_v4());
        table.announce(id, addressee(Level::Two), now + TEN, Some(()), ());
        assert!(table.withdraw(id));
        assert!(!table.withdraw(id));
        table.announce(id, addressee(Level::Two), now + TEN, None, ());
        assert_eq!(
            table.claim(now, id, bearer("alice")),
            Err(ClaimError::Unknown),
            "a standby socket's own id"
        );
        assert!(!table.withdraw(id));
    }
}
