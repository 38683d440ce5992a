//! What an owner wants of viewers, checked and ready: decisions only; what comes of them is the front's business.

mod check;
mod headers;
mod rate;
mod signature;
pub(super) mod stored;
mod users;

#[cfg(test)]
mod tests;

pub use check::{Given, PolicyError, Scope, complaints};
pub use headers::Changes;
pub use signature::{Claim, Signature};
pub use users::Users;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use crate::proto::limits::policy::{SIGNED_AT_ONCE, SIGNED_BODY, SIGNED_BODY_MOST};
use crate::proto::networks::Networks;
use crate::proto::policy as written;
use rate::Limiter;

/// The rules of one tunnel. A tunnel without any has none of these.
pub struct Policy {
    networks: Networks,
    limiter: Option<Arc<Limiter>>,
    /// Viewers must be one of them.
    pub users: Option<Users>,
    /// Requests must have all of them.
    pub signatures: Vec<Signature>,
    /// Changes of requests.
    pub request: Changes,
    /// Changes of the target's responses.
    pub response: Changes,
    /// Bytes of a body, beyond which it gets 413.
    pub max_body: Option<u64>,
    /// HTML for browsers while the client is away.
    pub offline_page: Option<Bytes>,
    /// Browsers are asked whether they want to go on.
    pub interstitial: bool,
    /// Bytes of bodies whose signature is not checked yet.
    held: AtomicUsize,
    /// As it is stored, with hashes and secrets.
    stored: written::Policy,
}

/// Why a viewer is turned away before it has said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Not from this address.
    Address,
    /// Not so often; there is room after this time.
    TooOften(Duration),
}

impl Policy {
    /// Whether a connection, or a request, of this viewer is let in; it counts for the rate. The address is the viewer's
    /// own, not that of a proxy.
    pub fn admit_connection(&self, viewer: IpAddr) -> Result<(), Refused> {
        if !self.networks.admit(viewer) {
            return Err(Refused::Address);
        }
        self.limiter.as_ref().map_or(Ok(()), |limiter| limiter.take(viewer)).map_err(Refused::TooOften)
    }

    /// Bytes of a body that is held until its signature was checked.
    pub fn signed_body(&self) -> u64 {
        self.max_body.unwrap_or(SIGNED_BODY).min(SIGNED_BODY_MOST)
    }

    /// Room for a body that is held.
    pub fn hold(self: &Arc<Self>) -> Holding {
        Holding { policy: Arc::clone(self), bytes: 0 }
    }

    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Names of its rules.
    pub fn rules(&self) -> Vec<&'static str> {
        self.stored.rules()
    }

    /// As its owner sees it: without secrets.
    pub fn shown(&self) -> written::Policy {
        self.stored.shown()
    }

    /// As it is stored, with hashes and secrets.
    pub(super) fn stored(&self) -> &written::Policy {
        &self.stored
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.stored == other.stored
    }
}

/// What one request holds of the room that a tunnel has for bodies, until dropped.
pub struct Holding {
    policy: Arc<Policy>,
    bytes: usize,
}

impl Holding {
    /// So much more; `false`: there is no room for it now.
    pub fn more(&mut self, bytes: usize) -> bool {
        let held = &self.policy.held;
        let more = |before: usize| before.checked_add(bytes).filter(|held| *held <= SIGNED_AT_ONCE);
        let room = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if room {
            self.bytes += bytes;
        }
        room
    }

    /// Takes out of trailers what the policy takes out of requests.
    pub fn strip(&self, trailers: &mut HeaderMap) {
        self.policy.request.strip(trailers);
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.policy.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
