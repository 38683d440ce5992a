//! The sessions that serve a tunnel at the same time, and which of them gets the next viewer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::serving::Credential;
use crate::link::sockets::{Load, Session};
use crate::link::{Ask, Lane, Link, OpenError};
use crate::proto::api::Balance;

/// One of those that serve.
pub(super) struct Member {
    pub(super) session: Arc<Session>,
    pub(super) credential: Credential,
    /// Whether it asked to share the tunnel.
    pub(super) shares: bool,
    /// Grows from one that asked to serve the tunnel to the next.
    pub(super) number: u64,
}

/// All of them, the newest last. Mostly there is one.
#[derive(Default)]
pub(super) struct Members {
    list: Vec<Member>,
    /// How they share viewers.
    pub(super) balance: Option<Balance>,
    /// Where the look for the least busy one begins, so that those that are equal take turns.
    next: usize,
}

impl Members {
    /// Adds one; those that do not share with it are given back.
    pub(super) fn add(&mut self, member: Member, successor_of: Option<Uuid>) -> Vec<Member> {
        let shares = member.shares;
        let goes = |other: &mut Member| !(shares && other.shares) || successor_of == Some(other.session.id());
        let gone = self.list.extract_if(.., goes).collect();
        self.list.push(member);
        gone
    }

    /// Takes it out; `false`: it was not here.
    pub(super) fn remove(&mut self, session: &Arc<Session>) -> bool {
        let before = self.list.len();
        self.list.retain(|member| !Arc::ptr_eq(&member.session, session));
        self.list.len() < before
    }

    /// Takes all out.
    pub(super) fn take(&mut self) -> Vec<Member> {
        std::mem::take(&mut self.list)
    }

    pub(super) fn of(&mut self, session: &Arc<Session>) -> Option<&mut Member> {
        self.list.iter_mut().find(|member| Arc::ptr_eq(&member.session, session))
    }

    /// Those whose control socket is there.
    pub(super) fn alive(&self) -> impl DoubleEndedIterator<Item = &Member> {
        self.list.iter().filter(|member| !member.session.is_gone())
    }

    /// The one that gets the next viewer, who comes from `viewer`; not one that was `tried`.
    pub(super) fn pick(&mut self, viewer: IpAddr, tried: &[Uuid]) -> Option<Picked> {
        if let [only] = &self.list[..] {
            let may = !only.session.is_gone() && !tried.contains(&only.session.id());
            return may.then(|| Picked::of(only));
        }
        let count = self.list.len();
        let from = self.next;
        let inorder = (0..count).map(|step| (from + step) % count);
        let candidates = inorder.filter(|at| {
            let session = &self.list[*at].session;
            !session.is_gone() && !tried.contains(&session.id())
        });
        let chosen = match self.balance {
            Some(Balance::Sticky) => candidates.min_by_key(|at| {
                let session = &self.list[*at].session;
                // Each address has an order of its own, in which only those change places that come or go.
                let mut hasher = DefaultHasher::new();
                (viewer, session.id()).hash(&mut hasher);
                (session.is_ailing(), hasher.finish())
            }),
            _ => candidates.min_by_key(|at| {
                let session = &self.list[*at].session;
                (session.is_ailing(), session.load())
            }),
        }?;
        self.next = (chosen + 1) % count;
        Some(Picked::of(&self.list[chosen]))
    }
}

/// A session that gets a viewer.
pub struct Picked {
    /// The session.
    pub session: Arc<Session>,
    /// Counts the viewer, where that matters.
    pub load: Option<Load>,
}

impl Picked {
    fn of(member: &Member) -> Self {
        let load = member.shares.then(|| member.session.begin());
        Self { session: Arc::clone(&member.session), load }
    }

    /// A stream that waits, and suits `ask`; else the session for one of its own.
    pub fn ready(self, ask: Ask) -> Result<Lane, Self> {
        match self.session.ready(ask) {
            Some(lane) => Ok(lane.counted(self.load)),
            None => Err(self),
        }
    }

    /// A stream of its own.
    pub async fn open(self, ask: Ask) -> Result<Lane, OpenError> {
        Ok(self.session.open(ask).await?.counted(self.load))
    }
}
