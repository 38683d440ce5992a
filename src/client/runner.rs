//! The life of one tunnel: created, served, lost or moved, taken up again under the same URL, and closed.
//!
//! Mostly there is one control session. While a relay drains there are two, the old one and its successor; the newest
//! that lives is the current one, and only how that ends is the tunnel's concern.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::{Attempt, DELETE_WAIT, Failure, Known};
use super::connector;
use super::control::{Control, Ended};
use super::event::{End, Event, Events};
use super::live::{Live, Note};
use super::retry::Retry;
use super::serve::Server;
use super::session::Options;
use super::streams::Streams;
use crate::auth::Secret;
use crate::proto::api::Tunnel;
use crate::proto::message::{AuthResult, Expiring, Level, ToRelay};
use crate::sync::lock;

/// At a stop: for control sessions to say goodbye, and then for data streams to end by themselves.
const STREAMS_WAIT: Duration = Duration::from_secs(5);
/// Control sessions at the same time, all but one of them draining. A relay that drains again and again loses the oldest.
const MOST_ALIVE: usize = 3;
/// Messages that wait to be said on one control socket.
const SAY_QUEUE: usize = 64;
/// A relay that drains a session younger than this is not followed at once, or it would keep us busy with nothing else.
const HASTY_DRAIN: Duration = Duration::from_secs(10);
/// Characters of a relay's word that become part of an event.
const MAX_WORD: usize = 40;

type Tried = Result<(Control, Tunnel), Failure>;
type Trying = Pin<Box<dyn Future<Output = Tried> + Send>>;

/// A control session that lives.
struct Alive {
    level: Level,
    say: mpsc::Sender<ToRelay>,
    began: Instant,
    abort: AbortHandle,
    /// Another session was asked for since.
    followed: bool,
}

/// Where the tunnel stands. Dropping it ends everything at once.
pub(super) struct Runner {
    options: Arc<Options>,
    events: Events,
    stop: CancellationToken,
    streams: Streams,
    /// Control sockets on which goodbye is said.
    leaving: Streams,
    lives: JoinSet<(u64, Ended)>,
    /// By number; the last is the current one.
    alive: BTreeMap<u64, Alive>,
    count: u64,
    say_notes: mpsc::Sender<(u64, Note)>,
    notes: mpsc::Receiver<(u64, Note)>,
    tokens: watch::Receiver<Option<Secret>>,
    /// A token that has no answer yet.
    offered: Option<Secret>,
    retry: Retry,
    known: Option<Known>,
    /// The tunnel as last created.
    id: Arc<Mutex<Option<String>>>,
    /// The last session of level two, as its relay called it.
    predecessor: Option<String>,
    trying: Option<Trying>,
    next_try: Option<Instant>,
}

impl Runner {
    pub(super) fn new(
        options: Options,
        events: Events,
        stop: CancellationToken,
        tokens: watch::Receiver<Option<Secret>>,
    ) -> Self {
        let connector = options.connector.of_its_own();
        let target = options.target.clone().speaking(options.http2);
        let (say_notes, notes) = mpsc::channel(SAY_QUEUE);
        Self {
            options: Arc::new(Options { connector, target, ..options }),
            events,
            stop,
            streams: Streams::default(),
            leaving: Streams::default(),
            lives: JoinSet::new(),
            alive: BTreeMap::new(),
            count: 0,
            say_notes,
            notes,
            tokens,
            offered: None,
            retry: Retry::default(),
            known: None,
            id: Arc::default(),
            predecessor: None,
            trying: None,
            next_try: Some(Instant::now()),
        }
    }

    pub(super) async fn run(mut self) -> End {
        let end = self.live().await;
        let _ = timeout(STREAMS_WAIT, self.leaving.ended()).await;
        if end == End::Stopped && timeout(STREAMS_WAIT, self.streams.ended()).await.is_err() {
            tracing::debug!(streams = self.streams.count(), "streams cut off");
        }
        // A tunnel that the relay has ended is not there any more, or is another's; a bad key deletes nothing.
        let ours = !matches!(end, End::Closed(_) | End::Replaced | End::Unauthorised(_));
        let id = lock(&self.id).take();
        if let Some(id) = id.filter(|_| ours) {
            let connector = &self.options.connector;
            // Another client of ours may serve it by now.
            let _ = timeout(DELETE_WAIT, connector.leave(&id)).await;
        }
        self.events.send(Event::Ended(end.clone()));
        end
    }

    async fn live(&mut self) -> End {
        let (stop, mut woken) = (self.stop.clone(), self.options.connector.woken());
        loop {
            let waiting = self.trying.is_none().then_some(self.next_try).flatten();
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => return self.close().await,
                // Before its end what a session said.
                Some((number, note)) = self.notes.recv() => {
                    self.noted(number, note);
                    None
                }
                // One at a time, so that each answer is that to the one that was offered.
                Ok(()) = self.tokens.changed(), if self.offered.is_none() => {
                    let token = self.tokens.borrow_and_update().clone();
                    self.authenticate(token);
                    None
                }
                tried = poll_some(&mut self.trying) => {
                    self.trying = None;
                    woken.mark_unchanged();
                    self.tried(tried)
                }
                Some(joined) = self.lives.join_next() => {
                    woken.mark_unchanged();
                    self.joined(joined)
                }
                // The network may be there again, and nothing is gained by waiting.
                Ok(()) = woken.changed(), if waiting.is_some() && self.alive.is_empty() => {
                    self.attempt();
                    None
                }
                () = wait_until(waiting) => {
                    self.attempt();
                    None
                }
            };
            if let Some(end) = ended {
                return end;
            }
        }
    }

    /// At a stop: everything that can be ended in order is.
    async fn close(&mut self) -> End {
        let trying = self.trying.take();
        let tried = async {
            // What is being created shall be known by its id, to be deleted.
            match trying {
                Some(trying) => timeout(DELETE_WAIT, trying).await.ok(),
                None => None,
            }
        };
        let ended = timeout(STREAMS_WAIT, async { while self.lives.join_next().await.is_some() {} });
        match tokio::join!(tried, ended) {
            (Some(Err(Failure::Final(end))), _) => end,
            _ => End::Stopped,
        }
    }

    fn attempt(&mut self) {
        self.next_try = None;
        if let Some(mut current) = self.alive.last_entry() {
            current.get_mut().followed = true;
        }
        self.events.send(Event::Connecting);
        let attempt = Attempt {
            options: Arc::clone(&self.options),
            known: self.known.clone(),
            predecessor: self.predecessor.clone(),
            id: Arc::clone(&self.id),
        };
        self.trying = Some(Box::pin(attempt.run()));
    }

    fn tried(&mut self, tried: Tried) -> Option<End> {
        match tried {
            Ok((control, tunnel)) => {
                self.begin(control, tunnel);
                None
            }
            Err(Failure::Final(end)) => Some(end),
            Err(Failure::Passing(reason)) => self.again(reason, Duration::ZERO),
            Err(Failure::Later(reason, wait)) => self.again(reason, wait),
        }
    }

    /// Serves viewers by a new control session, which is the current one from now on.
    fn begin(&mut self, control: Control, tunnel: Tunnel) {
        let level = control.level();
        let (say, said) = mpsc::channel(SAY_QUEUE);
        let server = Server {
            connector: Arc::clone(&self.options.connector),
            target: self.options.target.clone(),
            raw: self.options.proto.is_raw(),
            events: self.events.clone(),
            tunnel: tunnel.id.clone(),
            level,
            say: say.clone(),
            welcome: OnceLock::new(),
        };
        self.count += 1;
        let number = self.count;
        self.next_try = None;
        let streams = (self.streams.clone(), self.leaving.clone());
        let live = Live::new(Arc::new(server), streams, number, self.say_notes.clone());
        let running = live.run(control, said, self.stop.clone(), self.options.connector.woken());
        let abort = self.lives.spawn(async move { (number, running.await) });
        self.alive.insert(number, Alive { level, say, began: Instant::now(), abort, followed: false });
        while self.alive.len() > MOST_ALIVE {
            self.alive.pop_first().inspect(|(_, oldest)| oldest.abort.abort());
        }
        if level == Level::Base {
            self.predecessor = None;
        }
        // The session before may be gone before it has answered.
        if let Some(token) = self.offered.take() {
            self.authenticate(Some(token));
        }
        let first = self.known.is_none();
        self.events.send(Event::Online { url: tunnel.public_url.clone(), id: tunnel.id, again: !first });
        // Of bytes each connection is a viewer's: some services count others as attacks, or take one and end.
        if first && self.options.probe && !self.options.proto.is_raw() {
            self.probe();
        }
        self.known = Some(Known { slug: tunnel.slug, url: tunnel.public_url, port: tunnel.remote_port });
    }

    fn joined(&mut self, joined: Result<(u64, Ended), JoinError>) -> Option<End> {
        match joined {
            Ok((number, ended)) => self.ended(number, ended),
            Err(error) if error.is_cancelled() => None,
            Err(_) => Some(End::Failed),
        }
    }

    /// A control session ended: whether the tunnel does.
    fn ended(&mut self, number: u64, ended: Ended) -> Option<End> {
        let gone = self.alive.remove(&number)?;
        if self.alive.keys().any(|other| *other > number) {
            tracing::debug!(?ended, "the session before ended");
            return None;
        }
        self.retry.after(gone.began.elapsed());
        if let Some(token) = self.offered.take_if(|_| self.alive.is_empty()) {
            self.adopt(&token);
        }
        match ended {
            Ended::Over(reason) => Some(End::Closed(reason)),
            Ended::Replaced => Some(End::Replaced),
            Ended::Stopped => Some(End::Stopped),
            // Its successor has reached the relay, and is about to hear so.
            Ended::Succeeded if self.trying.is_some() => None,
            // Nor has any of ours: somebody goes by its name.
            Ended::Succeeded if !gone.followed => Some(End::Replaced),
            Ended::Succeeded => {
                self.again("another session of this client has taken over".into(), Duration::ZERO)
            }
            Ended::Lost(reason) => self.again(reason, Duration::ZERO),
        }
    }

    /// There is no session where there should be one: when the next try comes. Its user need not know as long as the
    /// session before is there. `least` is what the relay asks to wait.
    fn again(&mut self, reason: String, least: Duration) -> Option<End> {
        let there = !self.alive.is_empty();
        if !there && self.options.exit_on_disconnect {
            return Some(End::Unreachable(reason));
        }
        if self.trying.is_none() && (!there || self.next_try.is_none()) {
            // A session that drained may have set a time already, and was lost before it.
            let retry_in = least + self.retry.next();
            self.next_try = Some(Instant::now() + retry_in);
        }
        if there {
            tracing::debug!(reason, "no new session yet");
        } else {
            let retry_in =
                self.next_try.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            self.events.send(Event::Offline { reason, retry_in });
        }
        None
    }

    /// Of sessions that are not the current one nothing is of interest any more.
    fn noted(&mut self, number: u64, note: Note) {
        let Some((current, alive)) = self.alive.last_key_value() else { return };
        if *current != number {
            return;
        }
        match note {
            Note::Named(session) => self.predecessor = Some(session),
            Note::Drain(reconnect) => {
                let hasty = alive.began.elapsed() < HASTY_DRAIN;
                let wait = if hasty { reconnect.max(self.retry.next()) } else { reconnect };
                self.next_try = Some(Instant::now() + wait);
            }
            Note::Expiring(Expiring { what, in_ms, .. }) => {
                let what = what.chars().take(MAX_WORD).collect();
                let name = self.known.as_ref().map(|known| known.slug.clone()).unwrap_or_default();
                self.events.send(Event::Expiring { what, left: Duration::from_millis(in_ms), name });
            }
            Note::Auth(AuthResult { accepted, expires_in_ms, error }) => {
                if let Some(token) = self.offered.take().filter(|_| accepted) {
                    self.adopt(&token);
                }
                let expires_in = expires_in_ms.map(Duration::from_millis);
                self.events.send(Event::Auth { accepted, expires_in, error });
            }
        }
    }

    /// Offers a token to the relay; one that cannot be asked finds out at the next connection.
    fn authenticate(&mut self, token: Option<Secret>) {
        let Some(token) = token else { return };
        let current = self.alive.last_key_value().filter(|(_, alive)| alive.level == Level::Two);
        let message = ToRelay::Auth { token: token.expose().to_owned() };
        match current.map(|(_, alive)| alive.say.try_send(message)) {
            Some(Ok(())) => self.offered = Some(token),
            _ => self.adopt(&token),
        }
    }

    fn adopt(&self, token: &Secret) {
        if let Ok(bearer) = connector::bearer(token.expose()) {
            self.options.connector.set_bearer(bearer);
        }
    }

    fn probe(&self) {
        let (target, events) = (self.options.target.clone(), self.events.clone());
        self.streams.spawn(async move {
            if let Err(error) = target.connect().await {
                events.send(Event::TargetDown { error, at_start: true });
            }
        });
    }
}

async fn poll_some(trying: &mut Option<Trying>) -> Tried {
    match trying {
        Some(trying) => trying.await,
        None => std::future::pending().await,
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
