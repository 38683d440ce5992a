//! Tunnels: named ways in, owned by a key, each with the session that serves it now.

mod create;
mod lifetime;
mod news;
mod registry;
mod traffic;

pub use create::{CreateError, Spec};
pub use registry::{Registry, drain_session};
pub use traffic::Traffic;

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::auth::Owner;
use crate::auth::password::PasswordError;
use crate::link::sockets::{End, Session};
use crate::proto::api::NEVER;
use crate::proto::limits::reservation;
use crate::proto::message::{Expiring, ToClient};
use crate::store::{Activity, TunnelRow};
use crate::sync::lock;
use traffic::Counters;

/// A client is told of the end of its tunnel this long before.
const EXPIRING_BEFORE: Duration = Duration::from_secs(60);

/// One tunnel. Its id changes when it is created anew after its end; its name stays.
pub struct Tunnel {
    /// Names the control socket.
    pub id: Uuid,
    /// The name in the URL.
    pub name: String,
    /// The key that owns it.
    pub owner: Owner,
    /// Unix milliseconds.
    pub created_at: i64,
    /// What went through it.
    pub traffic: Traffic,
    spec: RwLock<Arc<Spec>>,
    life: Mutex<Life>,
    suspended: AtomicBool,
    session: Mutex<Option<Arc<Session>>>,
    /// Told when a session is attached.
    attached: Notify,
    /// Viewers that wait for a session.
    waiting: AtomicUsize,
}

/// How the client of a session has shown who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// By a key, found good at this time in Unix milliseconds.
    Key(i64),
    /// By a token, which no change of the keys revokes.
    Token,
}

/// When a tunnel ends; `None` is never.
#[derive(Debug, Clone, Copy)]
struct Expiry {
    /// Judged by the monotonic clock, so that a jump of the wall clock ends nothing.
    at: Option<Instant>,
    /// The same for display and for the store, in Unix milliseconds.
    shown: Option<i64>,
}

impl Expiry {
    /// At that time of the wall clock, by the time that is left until then.
    fn at(unix: Option<i64>) -> Self {
        let left = |at: i64| Duration::from_millis(u64::try_from(at - unix_ms()).unwrap_or(0));
        Self { at: unix.map(|at| Instant::now() + left(at)), shown: unix }
    }

    fn after(ttl: Option<Duration>) -> Self {
        Self { at: ttl.map(|ttl| Instant::now() + ttl), shown: ttl.map(|ttl| unix_ms() + millis(ttl)) }
    }
}

struct Life {
    expiry: Expiry,
    /// When a session was last attached.
    seen: Instant,
    /// What the session was opened with, or has shown since.
    credential: Credential,
    /// The end that the client was told of.
    announced: Option<Instant>,
    /// Cancelled when what is under way has to end: deletion, expiry, suspension, a revoked key.
    running: CancellationToken,
    /// It is over: a control socket that was let in just before is told so.
    ended: Option<End>,
}

impl Tunnel {
    fn new(
        id: Uuid,
        name: String,
        owner: Owner,
        created_at: i64,
        spec: Spec,
        expires_at: Option<i64>,
    ) -> Self {
        let life = Life {
            expiry: Expiry::at(expires_at),
            seen: Instant::now(),
            credential: Credential::Key(0),
            announced: None,
            running: CancellationToken::new(),
            ended: None,
        };
        Self {
            id,
            name,
            owner,
            created_at,
            traffic: Traffic::default(),
            spec: RwLock::new(Arc::new(spec)),
            life: Mutex::new(life),
            suspended: AtomicBool::new(false),
            session: Mutex::new(None),
            attached: Notify::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    fn from_row(row: &TunnelRow) -> Result<Self, PasswordError> {
        let spec = Spec::from_row(row)?;
        let owner = Owner::from(row.owner.as_str());
        let tunnel = Self::new(row.id, row.name.clone(), owner, row.created_at, spec, row.expires_at);
        tunnel.set_suspended(row.suspended);
        tunnel.traffic.learn(row);
        Ok(tunnel)
    }

    /// Takes up what another process has made of the tunnel.
    fn adopt(&self, row: &TunnelRow) -> Result<(), PasswordError> {
        self.set_spec(Spec::from_row(row)?);
        if self.is_suspended() != row.suspended {
            self.set_suspended(row.suspended);
        }
        if self.expires_at() != row.expires_at {
            self.expire_at(Expiry::at(row.expires_at));
        }
        Ok(())
    }

    fn to_row(&self, closed: bool) -> TunnelRow {
        let saved = self.traffic.saved();
        TunnelRow {
            name: self.name.clone(),
            owner: self.owner.as_str().to_owned(),
            created_at: self.created_at,
            expires_at: self.expires_at(),
            suspended: self.is_suspended(),
            closed,
            bytes_in: saved.bytes_in,
            bytes_out: saved.bytes_out,
            requests: saved.requests,
            last_active: self.traffic.last_active(),
            reserved_until: self.reserved_until(),
            ..self.spec().to_row(self.id)
        }
    }

    /// What is not in the store yet. It counts as saved from now on, see [`Traffic::not_saved`].
    fn take_activity(&self) -> Activity {
        let Counters { bytes_in, bytes_out, requests } = self.traffic.take();
        let (last_active, reserved_until) = (self.traffic.last_active(), self.reserved_until());
        Activity { id: self.id, bytes_in, bytes_out, requests, last_active, reserved_until }
    }

    fn reserved_until(&self) -> i64 {
        unix_ms() + millis(self.reserved_for().saturating_sub(self.unseen_for()))
    }

    /// What its owner asked for.
    pub fn spec(&self) -> Arc<Spec> {
        Arc::clone(&self.spec.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_spec(&self, spec: Spec) {
        *self.spec.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(spec);
    }

    /// Whether viewers are turned away.
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }

    fn set_suspended(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Relaxed);
        if suspended {
            self.stop_running();
        }
    }

    /// Ends the exchanges under way; those that begin later get a token of their own.
    fn stop_running(&self) {
        std::mem::take(&mut lock(&self.life).running).cancel();
    }

    /// When it ends, in Unix milliseconds.
    pub fn expires_at(&self) -> Option<i64> {
        lock(&self.life).expiry.shown
    }

    /// Sets the end to `ttl` from now: the end before that.
    fn expire_after(&self, ttl: Option<Duration>) -> Expiry {
        self.expire_at(Expiry::after(ttl))
    }

    /// Puts the end off to `ttl` from now, unless it is later already.
    fn expire_no_earlier(&self, ttl: Option<Duration>) {
        let expiry = Expiry::after(ttl);
        let current = &mut lock(&self.life).expiry;
        if let Some(end) = current.at
            && expiry.at.is_none_or(|at| at > end)
        {
            *current = expiry;
        }
    }

    fn expire_at(&self, expiry: Expiry) -> Expiry {
        std::mem::replace(&mut lock(&self.life).expiry, expiry)
    }

    fn is_expired(&self) -> bool {
        lock(&self.life).expiry.at.is_some_and(|at| Instant::now() >= at)
    }

    /// Cancelled when exchanges under way have to end.
    pub fn running(&self) -> CancellationToken {
        lock(&self.life).running.clone()
    }

    /// The session that serves it, if a client is connected.
    pub fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone().filter(|session| !session.is_gone())
    }

    /// The session, waiting until `deadline` for one where there is none; of those that wait at most `most` do. An error
    /// says that more wait already.
    pub async fn session_by(&self, deadline: Instant, most: usize) -> Result<Option<Arc<Session>>, TooMany> {
        if let Some(session) = self.session() {
            return Ok(Some(session));
        }
        let counted = Counted::enter(&self.waiting);
        if counted.before >= most {
            return Err(TooMany);
        }
        loop {
            let mut attached = pin!(self.attached.notified());
            attached.as_mut().enable();
            if let Some(session) = self.session() {
                return Ok(Some(session));
            }
            if timeout_at(deadline, attached).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Makes `session` the one that serves the tunnel; the newest wins, and an older one is told. `successor_of` is the
    /// session that its client had before.
    pub fn attach(&self, session: Arc<Session>, credential: Credential, successor_of: Option<Uuid>) {
        let mut current = lock(&self.session);
        let mut life = lock(&self.life);
        life.seen = Instant::now();
        if let Some(reason) = life.ended {
            session.end(reason);
            return;
        }
        life.credential = credential;
        life.announced = None;
        if let Some(before) = current.replace(session) {
            before.end(if successor_of == Some(before.id()) { End::Succeeded } else { End::Replaced });
        }
        self.attached.notify_waiters();
    }

    /// The client of `session` has shown who it is anew.
    pub fn renew(&self, session: &Arc<Session>, credential: Credential) {
        let current = lock(&self.session);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            lock(&self.life).credential = credential;
        }
    }

    /// The right of `session` to serve the tunnel is over, and so is what runs through it.
    pub fn cut(&self, session: &Arc<Session>) {
        let current = lock(&self.session);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            self.stop_running();
        }
    }

    /// Looks after the session; to be called about once a second.
    fn tend(&self) {
        let Some(session) = self.session() else { return };
        session.tend();
        let expiring = {
            let mut life = lock(&self.life);
            let soon = life
                .expiry
                .at
                .filter(|at| *at <= Instant::now() + EXPIRING_BEFORE && life.announced.as_ref() != Some(at));
            soon.inspect(|at| life.announced = Some(*at)).zip(life.expiry.shown)
        };
        if let Some((at, shown)) = expiring {
            let left = at.saturating_duration_since(Instant::now());
            session.say(ToClient::Expiring(Expiring {
                what: "tunnel".to_owned(),
                at: rfc3339(shown),
                in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            }));
        }
    }

    /// Takes `session` off the tunnel, unless a newer one has its place.
    pub fn detach(&self, session: &Arc<Session>) {
        let mut current = lock(&self.session);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
            lock(&self.life).seen = Instant::now();
        }
    }

    /// Ends the session and what runs.
    fn end(&self, reason: End) {
        let mut current = lock(&self.session);
        let mut life = lock(&self.life);
        life.ended = Some(reason);
        life.running.cancel();
        if let Some(session) = current.take() {
            session.end(reason);
        }
    }

    /// Ends the session and what runs if its key was revoked: the owner has no live key, or only one that was made
    /// (`live_since`) after the session's was checked. In the same millisecond counts as after: a session too many
    /// that connects anew harms less than one that outlives its key.
    fn end_if_revoked(&self, live_since: Option<i64>) -> bool {
        let Some(session) = self.session() else { return false };
        match lock(&self.life).credential {
            Credential::Token => return false,
            Credential::Key(checked_at) if live_since.is_some_and(|since| since < checked_at) => {
                return false;
            }
            Credential::Key(_) => {}
        }
        session.end(End::Revoked);
        self.stop_running();
        true
    }

    /// How long ago the last viewer came, or the tunnel was created.
    pub fn unused_for(&self) -> Duration {
        let last = self.traffic.last_active().unwrap_or(self.created_at);
        Duration::from_millis(u64::try_from(unix_ms() - last).unwrap_or(0))
    }

    fn unseen_for(&self) -> Duration {
        if self.session().is_some() { Duration::ZERO } else { lock(&self.life).seen.elapsed() }
    }

    fn reserved_for(&self) -> Duration {
        if self.spec().chosen { reservation::CHOSEN } else { reservation::GENERATED }
    }
}

/// As many viewers wait for the client as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

/// Counts a waiting viewer until dropped.
struct Counted<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Counted<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A time in Unix milliseconds as RFC 3339, in UTC.
pub fn rfc3339(unix_ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| NEVER.to_owned())
}

/// The wall clock in Unix milliseconds, for display and for the store.
pub fn unix_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
