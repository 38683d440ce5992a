//! One end of a session: its state, and what its owner asks of it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::budget::Held;
use super::ended::Ended;
use super::frame::Reader;
use super::ids::ByStream;
use super::life::Life;
use super::settings::Settings;
use super::stream::{Stage, Stream};
use crate::proto::frame::Role;
use crate::proto::limits::wsmux::LITTLE;

/// What has changed for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// There is something to read where there was nothing, or the end, or an error.
    Readable(u32),
    /// There is room to write, or the stream has been accepted, or has failed.
    Writable(u32),
    /// There is a stream to accept.
    Acceptable,
    /// The WebSocket may be read again; see [`Mux::is_full`].
    Roomy,
    /// The session is over; everybody who waits is to look again.
    Ended,
}

/// A session that is being closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    pub(super) by: Instant,
    pub(super) code: u16,
    pub(super) reason: &'static str,
}

/// A session that holds too much.
#[derive(Debug, Clone, Copy)]
pub(super) struct Full {
    /// Since then.
    pub(super) since: Instant,
    /// Streams of which nothing was taken by then make room.
    pub(super) look: Instant,
}

/// One end of a session. Its owner sends what [`Mux::output`] gives, tells what comes and that time has passed, wakes whom
/// [`Mux::event`] names, and stops when [`Mux::ended`] says so. A stream is named by its id, from [`Mux::open`] or
/// [`Mux::accept`] until [`Mux::release`].
#[derive(Debug)]
pub struct Mux {
    pub(super) settings: Settings,
    pub(super) role: Role,
    pub(super) reader: Reader,
    pub(super) streams: ByStream<Stream>,
    /// Where the next free id is looked for.
    pub(super) next: u32,
    /// Streams of ours whose SYN waits.
    pub(super) unsaid: VecDeque<u32>,
    /// Our SYNs without an ACK; `overdue` of them for too long.
    pub(super) unanswered: usize,
    pub(super) overdue: usize,
    pub(super) last_accepted: Instant,
    /// Streams of the other end that nobody has accepted.
    pub(super) unaccepted: VecDeque<u32>,
    /// Streams with an ACK or FIN to send.
    pub(super) urgent: VecDeque<u32>,
    /// Streams with data to send, each one frame at a time.
    pub(super) ready: VecDeque<u32>,
    pub(super) timers: BTreeSet<(Instant, u32)>,
    /// Bytes in all inboxes.
    pub(super) held: Held,
    /// They are too many.
    pub(super) full: Option<Full>,
    pub(super) life: Life,
    pub(super) events: Vec<Event>,
    pub(super) closing: Option<Closing>,
    pub(super) ended: Option<Ended>,
    pub(super) goodbye_said: bool,
}

impl Mux {
    /// A session at its start, of this end of the WebSocket.
    pub fn new(now: Instant, role: Role, settings: Settings) -> Self {
        let settings = settings.sane();
        Self {
            held: Held::new(settings.budget.clone()),
            life: Life::new(now, settings.ping_every, settings.write_wait),
            settings,
            role,
            reader: Reader::default(),
            streams: ByStream::default(),
            next: if role == Role::Server { 0 } else { 1 },
            unsaid: VecDeque::new(),
            unanswered: 0,
            overdue: 0,
            last_accepted: now,
            unaccepted: VecDeque::new(),
            urgent: VecDeque::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            full: None,
            events: Vec::new(),
            closing: None,
            ended: None,
            goodbye_said: false,
        }
    }

    /// Closes the session: no more streams, and what was written has a short time to go out first.
    pub fn close(&mut self, now: Instant, code: u16, reason: &'static str) {
        if !self.is_closing() {
            self.closing = Some(Closing { by: now + self.settings.drain, code, reason });
        }
    }

    /// The session is over.
    pub fn finish(&mut self, ended: Ended) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(ended);
        self.streams.retain(|_, stream| !stream.gone && stream.stage != Stage::Unaccepted);
        for stream in self.streams.values_mut() {
            stream.outbox.clear();
        }
        self.unaccepted.clear();
        self.timers.clear();
        self.urgent.clear();
        self.ready.clear();
        self.unsaid.clear();
        self.events.push(Event::Ended);
    }

    /// Whether [`Mux::output`] may have something that it had not when it was asked last.
    pub fn has_output(&self) -> bool {
        let syn = !self.unsaid.is_empty() && self.unanswered < self.settings.unanswered;
        syn || !self.urgent.is_empty() || !self.ready.is_empty() || self.is_closing()
    }

    /// How the session ended; what [`Mux::output`] still has is the goodbye.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Whether no stream may be opened any more.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some() || self.ended.is_some()
    }

    /// What has changed; to be asked until there is nothing, after each call that lets something happen.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Streams that there are, also those that nobody holds any more.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Bytes that wait to be read in all streams.
    pub fn held(&self) -> usize {
        self.held.bytes()
    }

    /// Whether so little waits here that it may be kept in memory with all that was read beside it.
    pub fn holds_little(&self) -> bool {
        self.held() <= self.settings.held / LITTLE
    }

    /// Whether too much waits here: nothing more is to be read from the WebSocket until [`Event::Roomy`].
    pub fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// What may be held now.
    pub(super) fn most(&self) -> usize {
        match self.held.is_budget_used_up() {
            true => self.settings.held.min(2 * self.settings.window as usize),
            false => self.settings.held,
        }
    }

    pub(super) fn look_for_room(&mut self) {
        if self.full.is_none() {
            return;
        }
        let most = self.most();
        if self.held() <= most - most / 4 {
            self.full = None;
            // The other end may have spoken while we did not listen.
            self.life.heard();
            self.events.push(Event::Roomy);
        }
    }

    pub(super) fn forget(&mut self, id: u32) {
        self.clear_timer(id);
        self.streams.remove(&id);
    }

    pub(super) fn set_timer(&mut self, id: u32, at: Instant) {
        self.clear_timer(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.timer = Some(at);
            self.timers.insert((at, id));
        }
    }

    pub(super) fn clear_timer(&mut self, id: u32) {
        if let Some(at) = self.streams.get_mut(&id).and_then(|stream| stream.timer.take()) {
            self.timers.remove(&(at, id));
        }
    }
}
