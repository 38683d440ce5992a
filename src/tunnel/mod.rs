//! Tunnels: named ways in, owned by a key, each with the session that serves it now.

mod create;
mod domains;
pub mod events;
mod lifetime;
mod members;
mod news;
pub mod policy;
mod ports;
mod pulses;
mod quota;
mod registry;
mod serving;
mod throttle;
mod traffic;

pub use create::{CreateError, RowError, Spec, seconds};
pub use domains::Domains;
pub use members::Picked;
pub use ports::{PortError, Ports};
pub use quota::{Quota, UsedUp, Viewing};
pub use registry::{Registry, WORKER, Wanted, drain_session};
pub use serving::{Arrival, Credential, TooMany};
pub use throttle::{Meter, Metered};
pub use traffic::Traffic;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::auth::Owner;
use crate::link::sockets::End;
use crate::proto::api::NEVER;
use crate::proto::limits::reservation;
use crate::store::{Activity, TunnelRow};
use crate::sync::lock;
use members::Members;
use pulses::Pulses;
use quota::Quotas;
use traffic::Counters;

/// One tunnel. Its id changes when it is created anew after its end; its name stays.
pub struct Tunnel {
    /// Names the control socket.
    pub id: Uuid,
    /// The name in the URL.
    pub name: String,
    /// The key that owns it.
    pub owner: Owner,
    /// What all tunnels of its owner may take.
    pub quota: Arc<Quota>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// What went through it.
    pub traffic: Traffic,
    /// Until when the name is reserved, as the store knows it; Unix milliseconds.
    reserved_saved: AtomicI64,
    spec: RwLock<Arc<Spec>>,
    life: Mutex<Life>,
    suspended: AtomicBool,
    members: Mutex<Members>,
    pulses: Mutex<Pulses>,
    /// Clients that have asked to serve it.
    arrivals: AtomicU64,
    /// Told when a session is attached.
    attached: Notify,
    /// Viewers that wait for a session.
    waiting: AtomicUsize,
    /// It was in use since it was looked after last, or is to be looked after anyway.
    awake: AtomicBool,
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
        quota: Arc<Quota>,
        created_at: i64,
        spec: Spec,
        expires_at: Option<i64>,
    ) -> Self {
        let life = Life {
            expiry: Expiry::at(expires_at),
            seen: Instant::now(),
            announced: None,
            running: CancellationToken::new(),
            ended: None,
        };
        Self {
            id,
            name,
            owner,
            quota,
            created_at,
            traffic: Traffic::default(),
            reserved_saved: AtomicI64::new(0),
            spec: RwLock::new(Arc::new(spec)),
            life: Mutex::new(life),
            suspended: AtomicBool::new(false),
            members: Mutex::default(),
            pulses: Mutex::default(),
            arrivals: AtomicU64::new(0),
            attached: Notify::new(),
            waiting: AtomicUsize::new(0),
            awake: AtomicBool::new(true),
        }
    }

    fn from_row(row: &TunnelRow, quotas: &Quotas) -> Result<Self, RowError> {
        let spec = Spec::from_row(row, None)?;
        let owner = Owner::from(row.owner.as_str());
        let quota = quotas.of(&owner);
        let tunnel = Self::new(row.id, row.name.clone(), owner, quota, row.created_at, spec, row.expires_at);
        tunnel.set_suspended(row.suspended);
        tunnel.traffic.learn(row);
        Ok(tunnel)
    }

    /// Takes up what another process has made of the tunnel.
    fn adopt(&self, row: &TunnelRow) -> Result<(), RowError> {
        self.replace_spec(Arc::new(Spec::from_row(row, Some(&self.spec()))?));
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

    /// What is not in the store yet; it counts as saved from now on, see [`Tunnel::not_saved`]. `None` where that is only a
    /// little of its reservation: a relay with thousands of idle clients leaves its disk alone.
    fn take_activity(&self) -> Option<Activity> {
        if self.is_worker() {
            return None;
        }
        let Counters { bytes_in, bytes_out, requests } = self.traffic.take();
        let (last_active, reserved_until) = (self.traffic.last_active(), self.reserved_until());
        let longer = reserved_until - self.reserved_saved.load(Ordering::Relaxed);
        if bytes_in == 0 && bytes_out == 0 && requests == 0 && longer < millis(reservation::SAVED_EVERY) {
            return None;
        }
        self.reserved_saved.store(reserved_until, Ordering::Relaxed);
        Some(Activity { id: self.id, bytes_in, bytes_out, requests, last_active, reserved_until })
    }

    /// What was taken could not be saved: it is part of the next time.
    fn not_saved(&self, taken: &Activity) {
        self.traffic.not_saved(taken);
        self.reserved_saved.store(0, Ordering::Relaxed);
    }

    fn reserved_until(&self) -> i64 {
        unix_ms() + millis(self.reserved_for().saturating_sub(self.unseen_for()))
    }

    /// What its owner asked for.
    pub fn spec(&self) -> Arc<Spec> {
        Arc::clone(&self.spec.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace_spec(&self, spec: Arc<Spec>) -> Arc<Spec> {
        std::mem::replace(&mut self.spec.write().unwrap_or_else(PoisonError::into_inner), spec)
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
            self.wake();
        }
    }

    fn expiry(&self) -> Expiry {
        lock(&self.life).expiry
    }

    fn expire_at(&self, expiry: Expiry) -> Expiry {
        let before = std::mem::replace(&mut lock(&self.life).expiry, expiry);
        self.wake();
        before
    }

    /// What is left of its time; `None`: it has no end.
    fn left(&self) -> Option<Duration> {
        lock(&self.life).expiry.at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// A viewer's request begins now.
    pub fn request(&self) {
        self.traffic.request();
        self.wake();
    }

    /// It is looked after within a second.
    fn wake(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }

    /// Whether [`Tunnel::wake`] was called since the last time.
    fn was_woken(&self) -> bool {
        self.awake.load(Ordering::Relaxed) && self.awake.swap(false, Ordering::Relaxed)
    }

    fn is_expired(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// Cancelled when exchanges under way have to end.
    pub fn running(&self) -> CancellationToken {
        lock(&self.life).running.clone()
    }

    /// How long ago the last viewer came, or the tunnel was created.
    pub fn unused_for(&self) -> Duration {
        let last = self.traffic.last_active().unwrap_or(self.created_at);
        Duration::from_millis(u64::try_from(unix_ms() - last).unwrap_or(0))
    }

    fn unseen_for(&self) -> Duration {
        if self.session().is_some() { Duration::ZERO } else { lock(&self.life).seen.elapsed() }
    }

    /// Whether it is a worker's of Taskcluster: by its path, of no key, and in no store.
    pub fn is_worker(&self) -> bool {
        self.name.starts_with(WORKER)
    }

    /// Whether its time is over, or nobody has served it for so long that it ends.
    fn is_over(&self) -> bool {
        self.is_expired() || self.is_forgotten()
    }

    fn is_forgotten(&self) -> bool {
        // No store would know that a worker is suspended.
        let is_kept = self.is_worker() && self.is_suspended();
        !is_kept && self.unseen_for() > self.reserved_for()
    }

    fn reserved_for(&self) -> Duration {
        if self.is_worker() {
            return reservation::WORKER;
        }
        if self.spec().chosen { reservation::CHOSEN } else { reservation::GENERATED }
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
