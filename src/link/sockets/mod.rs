//! The link of the two-socket protocol: a control socket that notifies, data sockets that carry.

mod control;
mod demand;
mod idle;
mod pending;
pub mod pulse;
mod resting;
mod standby;
mod tally;

#[cfg(test)]
mod lanes;

pub use control::{Judge, run as run_control};
pub use pending::{Bearer, Claim, ClaimError, Pending};
pub use standby::{Admitted, StandbyError, is_recent};
pub use tally::{Outcome, Tally, end_name};

use std::any::Any;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Ask, Home, Lane, Link, OpenError, Opening, Rejection};
pub use crate::proto::control::relay::{End, Ended};
use crate::proto::limits::{Limits, replicas, standby::SAID_BESIDE};
use crate::proto::message::{Connection, Drain, Level, Reject, ToClient};
use crate::proto::pending::Addressee;
use crate::stream::Duplex;
use crate::sync::{Counted, Held, lock};
use idle::IdleLanes;
use pending::Ticket;
use pulse::Pulse;
use standby::Standby;

/// Whether the client serves more than one request a data socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Reuse {
    /// Not seen yet: only requests that are safe to resend may try.
    Untried = 0,
    /// It does.
    Proven = 1,
    /// It does not, or its owner does not want it.
    Off = 2,
}

/// What a session is opened with.
pub struct Opened {
    /// The protocol that its client speaks.
    pub level: Level,
    /// Name of the key that owns the tunnel.
    pub owner: Arc<str>,
    /// Name of the tunnel.
    pub tunnel: Arc<str>,
    /// Whether a data socket may carry more than one request.
    pub reuse: bool,
    /// The tunnel is new, or was in use of late.
    pub recent: bool,
    /// Its id.
    pub id: Uuid,
    /// What operators see of its client.
    pub pulse: Arc<Pulse>,
}

#[cfg(test)]
impl Opened {
    /// Of the tunnel `web` of `alice`.
    pub fn of_tests(level: Level) -> Self {
        let id = Uuid::new_v4();
        let identity = pulse::Identity { address: [127, 0, 0, 1].into(), agent: None, level };
        let pulse = Arc::new(Pulse::new(identity, id));
        Self { level, owner: "alice".into(), tunnel: "web".into(), reuse: true, recent: false, id, pulse }
    }
}

/// One control socket with everything that belongs to it. A new control socket is a new session; what belonged to the
/// old one ends with it.
pub struct Session {
    /// Itself, for the lanes that come home.
    this: Weak<Session>,
    addressee: Addressee,
    /// Boxed: the queue allocates 32 places at once, in each of thousands of idle sessions.
    say: mpsc::Sender<Box<ToClient>>,
    end: Mutex<Option<End>>,
    /// Cancelled when somebody wants the session to end.
    ending: CancellationToken,
    /// Cancelled when the control socket is gone.
    gone: CancellationToken,
    pending: Arc<Pending>,
    waiting: AtomicUsize,
    idle: Mutex<IdleLanes>,
    standby: Mutex<Standby>,
    reuse: AtomicU8,
    claim_wait: Duration,
    waiting_most: usize,
    /// Viewers that it serves, as far as somebody counts them.
    load: AtomicUsize,
    /// Until when others are asked before it, in milliseconds after `born`.
    ailing: AtomicU64,
    born: Instant,
    /// What operators see of its client.
    pulse: Arc<Pulse>,
    /// What a front keeps for as long as the session lives.
    kept: OnceLock<Arc<dyn Any + Send + Sync>>,
    /// Counts it among all sessions.
    _counted: Held,
}

impl Session {
    /// A session, and the queue that its control socket drains.
    pub fn new(
        opened: Opened,
        pending: Arc<Pending>,
        limits: &Limits,
    ) -> (Arc<Self>, mpsc::Receiver<Box<ToClient>>) {
        let (say, said) = mpsc::channel(limits.waiting_per_tunnel.max(1) + SAID_BESIDE);
        let reuse = match opened.level {
            _ if !opened.reuse => Reuse::Off,
            Level::Base => Reuse::Untried,
            // The protocol says that these copy bytes, however many requests they are.
            Level::Two => Reuse::Proven,
        };
        let Opened { level, owner, tunnel, recent, id, pulse, .. } = opened;
        pending.tally.begin(level);
        let session = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            addressee: Addressee { session: id, level, owner, tunnel },
            say,
            end: Mutex::new(None),
            ending: CancellationToken::new(),
            gone: CancellationToken::new(),
            _counted: pending.sessions.hold(),
            pending,
            waiting: AtomicUsize::new(0),
            idle: Mutex::new(IdleLanes::default()),
            standby: Mutex::new(Standby::new(limits, recent)),
            reuse: AtomicU8::new(reuse as u8),
            claim_wait: limits.claim_wait,
            waiting_most: limits.waiting_per_tunnel,
            load: AtomicUsize::new(0),
            ailing: AtomicU64::new(0),
            born: Instant::now(),
            pulse,
            kept: OnceLock::new(),
        });
        session.ask_standby();
        (session, said)
    }

    /// Counts a viewer until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Load {
        self.load.fetch_add(1, Ordering::Relaxed);
        Load(Arc::clone(self))
    }

    /// Viewers that count.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Whether it has failed a viewer of late.
    pub fn is_ailing(&self) -> bool {
        self.ailing.load(Ordering::Relaxed) > self.age()
    }

    /// It has failed a viewer: for a while others are asked before it.
    pub fn ail(&self) {
        self.ailing.store(self.age() + replicas::AILING.as_millis() as u64, Ordering::Relaxed);
    }

    /// In milliseconds; never 0.
    fn age(&self) -> u64 {
        self.born.elapsed().as_millis() as u64 + 1
    }

    /// What a front keeps of this session, which goes with it: `make` makes it for whoever asks first. It must not hold the
    /// session in turn. `None`: something of another type is kept.
    pub fn keep<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        Arc::clone(self.kept.get_or_init(|| Arc::new(make()))).downcast().ok()
    }

    /// Names it among all sessions.
    pub fn id(&self) -> Uuid {
        self.addressee.session
    }

    /// What operators see of its client.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    fn pinged(&self) {
        let tally = &self.pending.tally;
        tally.pings.increment();
        if self.pulse.pinged(self.id()) {
            tally.missed.increment();
        }
    }

    fn ponged(&self) {
        if let Some(round_trip) = self.pulse.ponged(self.id()) {
            self.pending.tally.pongs.increment();
            self.pending.tally.round_trip.record(round_trip);
        }
    }

    /// The control socket is gone.
    fn over(&self, ended: Ended) {
        self.pending.tally.end(ended);
        if self.pulse.ended(self.id(), tally::left(ended)) {
            self.pending.tally.missed.increment();
        }
    }

    /// The protocol that its client speaks.
    pub fn level(&self) -> Level {
        self.addressee.level
    }

    /// Tells the client something. What finds no room in the queue is dropped: such a client does not read, and its end
    /// is near.
    pub fn say(&self, message: ToClient) {
        let _ = self.say.try_send(Box::new(message));
    }

    /// Asks the control socket to end; the first reason stays.
    pub fn end(&self, reason: End) {
        lock(&self.end).get_or_insert(reason);
        if reason != End::Replaced {
            self.forget_lanes();
        }
        self.ending.cancel();
    }

    /// Tells the client that the relay is about to stop. A base client is told nothing.
    pub fn drain(&self, drain: Drain) {
        lock(&self.standby).drain();
        self.ask_standby();
        self.say(ToClient::Drain(drain));
    }

    /// Data sockets that wait to be used again.
    pub fn idle_lanes(&self) -> usize {
        lock(&self.idle).len()
    }

    /// Data sockets that wait for their first viewer.
    pub fn standby_lanes(&self) -> usize {
        lock(&self.standby).len()
    }

    /// Messages that the client has not been sent yet.
    pub fn unsaid(&self) -> usize {
        self.say.max_capacity() - self.say.capacity()
    }

    /// Whether the control socket is gone, or about to be.
    pub fn is_gone(&self) -> bool {
        self.gone.is_cancelled() || self.ending.is_cancelled()
    }

    /// Pings and weeds the waiting data sockets, and asks for as many standby ones as are justified; to be called about
    /// once a second.
    pub fn tend(&self) {
        lock(&self.idle).tend();
        lock(&self.standby).tend();
        self.ask_standby();
    }

    /// Asks to add a standby socket with this id.
    pub fn admit_standby(self: Arc<Self>, id: &str) -> Result<Admitted, StandbyError> {
        if self.level() == Level::Base || self.is_gone() {
            return Err(StandbyError::NoSession);
        }
        Admitted::ask(self, id)
    }

    fn ask_standby(&self) {
        if self.level() == Level::Two {
            // The lock is held while it is said, so that the last number said is the last one meant.
            let mut standby = lock(&self.standby);
            if let Some(want) = standby.ask(&self.pending)
                && self.say.try_send(Box::new(ToClient::Standby { want })).is_ok()
            {
                standby.told(want);
            }
        }
    }

    /// The client cannot serve a connection.
    fn rejected(&self, reject: Reject) {
        let short = |text: String, most: usize| text.chars().take(most).collect::<String>();
        let rejection = Rejection {
            reason: short(reject.reason, 40),
            message: reject.message.map(|message| short(message, 1000)),
        };
        self.pending.reject(&reject.id, self.id(), rejection);
    }

    fn end_reason(&self) -> Option<End> {
        *lock(&self.end)
    }

    fn forget_lanes(&self) {
        self.reuse.store(Reuse::Off as u8, Ordering::Relaxed);
        let lanes = std::mem::take(&mut *lock(&self.idle));
        drop(lanes);
        lock(&self.standby).clear();
    }

    fn reuse(&self) -> Reuse {
        match self.reuse.load(Ordering::Relaxed) {
            0 => Reuse::Untried,
            1 => Reuse::Proven,
            _ => Reuse::Off,
        }
    }

    fn home(&self) -> Option<Arc<dyn Home>> {
        self.this.upgrade().map(|session| session as Arc<dyn Home>)
    }

    fn idle(&self, ask: Ask) -> Option<Lane> {
        let reuse = self.reuse();
        if ask.unused || reuse == Reuse::Off || (reuse == Reuse::Untried && !ask.resendable) {
            return None;
        }
        let (stream, waited) = lock(&self.idle).take(ask.resendable)?;
        self.pending.tally.open(Outcome::Reused);
        let trial = reuse == Reuse::Untried;
        Some(Lane { waited: Some(waited), reused: true, trial, ..Lane::new(stream, self.home()) })
    }

    fn spare(&self, ask: Ask) -> Option<Lane> {
        if self.level() == Level::Base {
            return None;
        }
        let taken = lock(&self.standby).take();
        self.ask_standby();
        let (id, mut stream, waited) = taken?;
        let ticket = self.pending.assign(&self.this, id, self.addressee.clone())?;
        self.pending.tally.open(Outcome::Standby);
        stream.say(&self.announcement(&ticket, ask).to_json());
        // Whether anybody is there shows by the pong: the target may take its time.
        stream.ping();
        let rejected = Some(Box::pin(ticket) as _);
        Some(Lane { waited: Some(waited), rejected, ..Lane::new(stream, self.home()) })
    }

    fn announcement(&self, ticket: &Ticket, ask: Ask) -> ToClient {
        ToClient::Connection(Connection {
            id: ticket.id().to_string(),
            proto: Some(ask.proto.as_str().to_owned()),
            remote_addr: Some(ask.remote.to_string()),
        })
    }

    /// Claims, and counts what comes of it, also if nobody waits for it any more.
    async fn claim(&self, ask: Ask) -> Result<Lane, OpenError> {
        let mut counted = tally::Claiming::new(&self.pending.tally);
        let claimed = self.claimed(ask).await;
        counted.came_to(&claimed);
        claimed
    }

    async fn claimed(&self, ask: Ask) -> Result<Lane, OpenError> {
        let _waiting = Counted::enter(&self.waiting, self.waiting_most).ok_or(OpenError::TooManyWaiting)?;
        let (ticket, claimed) = self.pending.announce(&self.this, self.addressee.clone(), self.claim_wait)?;
        self.say.try_send(Box::new(self.announcement(&ticket, ask))).map_err(|error| match error {
            TrySendError::Full(_) => OpenError::TooManyWaiting,
            TrySendError::Closed(_) => OpenError::ClientGone,
        })?;
        let stream = tokio::select! {
            biased;
            // What is delivered in the last moment is used: the client has dialled for it.
            stream = claimed => stream?,
            // A newer session serves the viewer better than one that may be dead.
            () = self.ending.cancelled() => return Err(OpenError::ClientGone),
            () = self.gone.cancelled() => return Err(OpenError::ClientGone),
            () = tokio::time::sleep(self.claim_wait) => return Err(OpenError::NotClaimed),
        };
        let rejected = (self.level() == Level::Two).then(|| Box::pin(ticket) as _);
        Ok(Lane { rejected, ..Lane::new(stream, self.home()) })
    }
}

/// A viewer among those of its session, until dropped.
pub struct Load(Arc<Session>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link for Session {
    fn ready(&self, ask: Ask) -> Option<Lane> {
        self.idle(ask).or_else(|| self.spare(ask))
    }

    fn open(&self, ask: Ask) -> Opening<'_> {
        Box::pin(self.claim(ask))
    }
}

impl Home for Session {
    fn take_back(&self, mut stream: Box<dyn Duplex>, keep: Duration) {
        if self.reuse() == Reuse::Off || self.is_gone() || keep.is_zero() {
            return stream.dismiss();
        }
        stream.rest();
        lock(&self.idle).put(stream, keep);
    }

    fn is_open(&self) -> bool {
        !self.is_gone()
    }

    fn reuse_answered(&self, answered: bool) {
        match (answered, self.reuse()) {
            (true, Reuse::Untried) => self.reuse.store(Reuse::Proven as u8, Ordering::Relaxed),
            (false, Reuse::Untried) => self.forget_lanes(),
            _ => {}
        }
    }
}
