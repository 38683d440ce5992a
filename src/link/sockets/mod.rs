//! The link of the two-socket protocol: a control socket that notifies, data sockets that carry. A session with all its
//! streams in one WebSocket is one of these too, which is asked otherwise.

mod control;
mod demand;
mod idle;
mod mux;
mod pending;
pub mod pulse;
mod resting;
mod standby;
mod tally;

#[cfg(test)]
mod lanes;

pub use control::{Judge, run as run_control};
pub use mux::run as run_mux;
pub use pending::{Bearer, Claim, ClaimError, Pending};
pub use standby::{Admitted, StandbyError, is_recent};
pub use tally::{Outcome, Tally, end_name};

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Ask, Home, Lane, Link, OpenError, Opening, Rejection, Speaks};
pub use crate::proto::control::relay::{End, Ended};
use crate::proto::limits::{Limits, replicas, standby::SAID_BESIDE};
use crate::proto::message::{Connection, Drain, Level, Reject, ToClient};
use crate::proto::pending::Addressee;
use crate::stream::{Duplex, wsmux};
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
    /// What its client speaks.
    pub speaks: Speaks,
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
        let speaks = Speaks::Sockets(level);
        let identity = pulse::Identity { address: [127, 0, 0, 1].into(), agent: None, speaks };
        let pulse = Arc::new(Pulse::new(identity, id));
        Self { speaks, owner: "alice".into(), tunnel: "web".into(), reuse: true, recent: false, id, pulse }
    }
}

/// How a client is asked for a stream.
enum Way {
    /// It is told on its control socket, and opens a data socket.
    Told {
        addressee: Addressee,
        /// Boxed: the queue allocates 32 places at once, in each of thousands of idle sessions.
        say: mpsc::Sender<Box<ToClient>>,
        standby: Mutex<Standby>,
    },
    /// It accepts a stream in its one WebSocket.
    Mux(wsmux::Session),
}

/// One control socket with everything that belongs to it. A new control socket is a new session; what belonged to the
/// old one ends with it.
pub struct Session {
    /// Itself, for the lanes that come home.
    this: Weak<Session>,
    id: Uuid,
    speaks: Speaks,
    way: Way,
    end: Mutex<Option<End>>,
    /// Cancelled when somebody wants the session to end.
    ending: CancellationToken,
    /// Cancelled when the control socket is gone.
    gone: CancellationToken,
    /// Its client gave no sign of life any more.
    lost: AtomicBool,
    pending: Arc<Pending>,
    waiting: AtomicUsize,
    idle: Mutex<IdleLanes>,
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
    /// A session, and the queue that its control socket drains; the client speaks the protocol of `level`.
    pub fn new(
        opened: Opened,
        level: Level,
        pending: Arc<Pending>,
        limits: &Limits,
    ) -> (Arc<Self>, mpsc::Receiver<Box<ToClient>>) {
        let (say, said) = mpsc::channel(limits.waiting_per_tunnel.max(1) + SAID_BESIDE);
        let standby = Mutex::new(Standby::new(limits, opened.recent));
        let Opened { owner, tunnel, id, .. } = &opened;
        let addressee =
            Addressee { session: *id, level, owner: Arc::clone(owner), tunnel: Arc::clone(tunnel) };
        let reuse = match level {
            Level::Base => Reuse::Untried,
            // The protocol says that these copy bytes, however many requests they are.
            Level::Two => Reuse::Proven,
        };
        let session = Self::of(opened, Way::Told { addressee, say, standby }, reuse, pending, limits);
        session.ask_standby();
        (session, said)
    }

    /// A session whose streams are in one WebSocket.
    pub fn over_mux(
        opened: Opened,
        mux: wsmux::Session,
        pending: Arc<Pending>,
        limits: &Limits,
    ) -> Arc<Self> {
        // Clients join a stream to a connection of their target, or serve HTTP on it: both take more than one request. It is
        // tried all the same, as nothing says so.
        Self::of(opened, Way::Mux(mux), Reuse::Untried, pending, limits)
    }

    fn of(opened: Opened, way: Way, reuse: Reuse, pending: Arc<Pending>, limits: &Limits) -> Arc<Self> {
        let Opened { speaks, id, pulse, .. } = opened;
        let reuse = if opened.reuse { reuse } else { Reuse::Off };
        pending.tally.begin(speaks);
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            id,
            speaks,
            way,
            end: Mutex::new(None),
            ending: CancellationToken::new(),
            gone: CancellationToken::new(),
            lost: AtomicBool::new(false),
            _counted: pending.sessions.hold(),
            pending,
            waiting: AtomicUsize::new(0),
            idle: Mutex::new(IdleLanes::default()),
            reuse: AtomicU8::new(reuse as u8),
            claim_wait: limits.claim_wait,
            waiting_most: limits.waiting_per_tunnel,
            load: AtomicUsize::new(0),
            ailing: AtomicU64::new(0),
            born: Instant::now(),
            pulse,
            kept: OnceLock::new(),
        })
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
        self.id
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
        self.lost.store(ended == Ended::Silent, Ordering::Relaxed);
        self.pending.tally.end(ended);
        if self.pulse.ended(self.id(), tally::left(ended)) {
            self.pending.tally.missed.increment();
        }
    }

    /// What its client speaks.
    pub fn speaks(&self) -> Speaks {
        self.speaks
    }

    #[cfg(test)]
    fn addressee(&self) -> Addressee {
        match &self.way {
            Way::Told { addressee, .. } => addressee.clone(),
            Way::Mux(_) => panic!("nobody is told of anything"),
        }
    }

    /// The data sockets that wait for their first viewer, where the client knows these.
    fn standby(&self) -> Option<&Mutex<Standby>> {
        match &self.way {
            Way::Told { addressee, standby, .. } if addressee.level == Level::Two => Some(standby),
            _ => None,
        }
    }

    /// Tells the client something. What finds no room in the queue is dropped: such a client does not read, and its end
    /// is near.
    pub fn say(&self, message: ToClient) {
        if let Way::Told { say, .. } = &self.way {
            let _ = say.try_send(Box::new(message));
        }
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
        if let Some(standby) = self.standby() {
            lock(standby).drain();
        }
        self.ask_standby();
        self.say(ToClient::Drain(drain));
    }

    /// Data sockets that wait to be used again.
    pub fn idle_lanes(&self) -> usize {
        lock(&self.idle).len()
    }

    /// Data sockets that wait for their first viewer.
    pub fn standby_lanes(&self) -> usize {
        self.standby().map_or(0, |standby| lock(standby).len())
    }

    /// Messages that the client has not been sent yet.
    pub fn unsaid(&self) -> usize {
        match &self.way {
            Way::Told { say, .. } => say.max_capacity() - say.capacity(),
            Way::Mux(_) => 0,
        }
    }

    /// Whether the control socket is gone, or about to be.
    pub fn is_gone(&self) -> bool {
        self.gone.is_cancelled() || self.ending.is_cancelled()
    }

    /// Pings and weeds the waiting data sockets, and asks for as many standby ones as are justified; to be called about
    /// once a second. Whether there are none, and none is wanted.
    pub fn tend(&self) -> bool {
        let mut rests = lock(&self.idle).tend();
        if let Some(standby) = self.standby() {
            rests &= lock(standby).tend();
        }
        self.ask_standby();
        rests
    }

    /// Asks to add a standby socket with this id.
    pub fn admit_standby(self: Arc<Self>, id: &str) -> Result<Admitted, StandbyError> {
        if self.is_gone() {
            return Err(StandbyError::NoSession);
        }
        Admitted::ask(self, id)
    }

    fn ask_standby(&self) {
        if let (Some(standby), Way::Told { say, .. }) = (self.standby(), &self.way) {
            // The lock is held while it is said, so that the last number said is the last one meant.
            let mut standby = lock(standby);
            if let Some(want) = standby.ask(&self.pending)
                && say.try_send(Box::new(ToClient::Standby { want })).is_ok()
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

    /// Why it is to end, once it is.
    pub fn end_reason(&self) -> Option<End> {
        *lock(&self.end)
    }

    fn forget_lanes(&self) {
        self.reuse.store(Reuse::Off as u8, Ordering::Relaxed);
        let lanes = std::mem::take(&mut *lock(&self.idle));
        drop(lanes);
        if let Some(standby) = self.standby() {
            lock(standby).clear();
        }
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
        let Way::Told { addressee, .. } = &self.way else { return None };
        let taken = lock(self.standby()?).take();
        self.ask_standby();
        let (id, mut stream, waited) = taken?;
        let ticket = self.pending.assign(&self.this, id, addressee.clone())?;
        self.pending.tally.open(Outcome::Standby);
        stream.say(&announcement(&ticket, ask).to_json());
        // Whether anybody is there shows by the pong: the target may take its time.
        stream.ping();
        let rejected = Some(Box::pin(ticket) as _);
        Some(Lane { waited: Some(waited), rejected, ..Lane::new(stream, self.home()) })
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
        let (claimed, ticket): (Opening<'_, _>, _) = match &self.way {
            Way::Told { addressee, say, .. } => {
                let (ticket, claimed) =
                    self.pending.announce(&self.this, addressee.clone(), self.claim_wait)?;
                say.try_send(Box::new(announcement(&ticket, ask))).map_err(|error| match error {
                    TrySendError::Full(_) => OpenError::TooManyWaiting,
                    TrySendError::Closed(_) => OpenError::ClientGone,
                })?;
                (Box::pin(claimed), Some((ticket, addressee.level)))
            }
            Way::Mux(mux) => (Box::pin(mux::open(mux)), None),
        };
        let stream = tokio::select! {
            biased;
            // What is delivered in the last moment is used: the client has dialled for it.
            stream = claimed => stream?,
            // A newer session serves the viewer better than one that may be dead.
            () = self.ending.cancelled() => return Err(OpenError::ClientGone),
            () = self.gone.cancelled() => return Err(OpenError::ClientGone),
            () = tokio::time::sleep(self.claim_wait) => return Err(OpenError::NotClaimed),
        };
        // Until here the ticket lives, whatever the level: without it nothing can be claimed.
        let rejected =
            ticket.filter(|(_, level)| *level == Level::Two).map(|(ticket, _)| Box::pin(ticket) as _);
        Ok(Lane { rejected, ..Lane::new(stream, self.home()) })
    }
}

/// What the client is told of a connection.
fn announcement(ticket: &Ticket, ask: Ask) -> ToClient {
    ToClient::Connection(Connection {
        id: ticket.id().to_string(),
        proto: Some(ask.proto.as_str().to_owned()),
        remote_addr: Some(ask.remote.to_string()),
    })
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

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    fn reuse_answered(&self, answered: bool) {
        match (answered, self.reuse()) {
            (true, Reuse::Untried) => self.reuse.store(Reuse::Proven as u8, Ordering::Relaxed),
            (false, Reuse::Untried) => self.forget_lanes(),
            _ => {}
        }
    }
}
