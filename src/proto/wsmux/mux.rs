//! One end of a session: what its users do with streams.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::frame::Breach;
use super::life::Life;
use super::stream::{Fin, Stage, Stream};
use crate::proto::close;
use crate::proto::frame::{FrameError, Role};
use crate::proto::limits::wsmux as limits;

/// What a session allows and how long it waits. The defaults fit what Taskcluster's programs do. A time under 1 ms or over
/// a year counts as that.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Bytes of one stream that may be on their way or wait here; from 1. It is what the other end is told when it opens a
    /// stream, which must then hold as much for us, and the most that it may take for itself when we open one. Default:
    /// 4 MiB, as Taskcluster's programs have it on both sides.
    pub window: u32,
    /// Bytes that wait here in all streams together. Beyond it nothing more is read from the WebSocket until some were taken;
    /// streams of which nothing is taken for a second meanwhile break, those first that hold the most, until half is free; after
    /// ten seconds the others do, too.
    /// What is held in memory for them is up to four times as much, as pieces keep what was read beside them. Default:
    /// 512 MiB.
    pub held: usize,
    /// Streams at the same time. One more that the other end opens ends the session with close code 1008; one of ours is
    /// refused. Default: 1024.
    pub streams: usize,
    /// Streams that the other end opened and that wait to be accepted here; one more ends the session with 1008. With 0 the
    /// other end may open none. Default: 200.
    pub unaccepted: usize,
    /// Streams that we opened and that wait to be accepted there; further ones wait for their turn; from 1. When all of them have
    /// waited in vain the session ends. Default: 128.
    pub unanswered: usize,
    /// Between two pings. An end that says nothing from one to the next is dead. Default: 20 s.
    pub ping_every: Duration,
    /// For a stream of ours to be accepted. Default: 30 s.
    pub open_wait: Duration,
    /// A WebSocket that takes nothing for this long is dead. Default: 20 s.
    pub write_wait: Duration,
    /// For a dropped stream to send what was written, and to hear the other end's last. Default: 60 s.
    pub linger: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: limits::WINDOW,
            held: limits::HELD,
            streams: limits::STREAMS,
            unaccepted: limits::UNACCEPTED,
            unanswered: limits::UNANSWERED,
            ping_every: limits::PING_EVERY,
            open_wait: limits::OPEN_WAIT,
            write_wait: limits::WRITE_WAIT,
            linger: limits::LINGER,
        }
    }
}

impl Settings {
    /// With numbers that make sense in place of those that would not.
    fn sane(mut self) -> Self {
        self.window = self.window.max(1);
        self.unanswered = self.unanswered.max(1);
        let times = [&mut self.ping_every, &mut self.open_wait, &mut self.write_wait, &mut self.linger];
        for time in times {
            *time = (*time).clamp(limits::SHORTEST, limits::LONGEST);
        }
        self
    }
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// We closed it, with this code and reason.
    #[error("closed here with code {0} {1}")]
    ByUs(u16, &'static str),
    /// The other end closed it, with its code if it gave one.
    #[error("closed by the other end{}", code(.0))]
    ByPeer(Option<u16>),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(ErrorKind),
    /// Nothing came from one ping to the next, or no pong for several.
    #[error("the other end does not answer pings")]
    Silent,
    /// The WebSocket took nothing for too long.
    #[error("the other end does not read any more")]
    Stuck,
    /// The other end broke the rules of WebSockets; close code 1002.
    #[error("the other end breaks the protocol: {0}")]
    Frame(FrameError),
    /// The other end broke the rules of wsmux; close code 1008.
    #[error("the other end breaks the protocol: {0}")]
    Breach(Breach),
}

fn code(code: &Option<u16>) -> String {
    code.map(|code| format!(" with code {code}")).unwrap_or_default()
}

impl Ended {
    /// Code and reason of the close frame, where one can be sent.
    pub fn goodbye(self) -> Option<(u16, &'static str)> {
        match self {
            Self::ByUs(code, reason) => Some((code, reason)),
            Self::ByPeer(code) => Some((code.unwrap_or(close::DONE), "")),
            Self::Broken(_) | Self::Stuck => None,
            Self::Silent => Some((close::GOING_AWAY, "no pong")),
            Self::Frame(_) => Some((close::PROTOCOL_ERROR, "protocol error")),
            Self::Breach(breach) => Some((close::POLICY, breach.reason())),
        }
    }
}

/// Why a stream is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The session is over.
    #[error("the wsmux session is over: {0}")]
    Over(Ended),
    /// The other end did not accept it in time.
    #[error("the other end did not accept the stream in time")]
    NotAccepted,
    /// The other end took a larger window than may be held here.
    #[error(
        "the other end's window is {0} bytes, more than this session holds of a stream; allow a larger window"
    )]
    Window(u32),
    /// Nothing was read from it while all streams together held too much.
    #[error("too much waited to be read from the streams of this session, and nobody read from this one")]
    Overfull,
    /// It was shut down for writing.
    #[error("the stream was shut down for writing")]
    Shut,
}

/// Why no stream can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The session is over, or is being closed.
    #[error("the wsmux session is over")]
    Over,
    /// There are as many streams as may be.
    #[error("the wsmux session has {0} streams, which is as many as it may have")]
    TooMany(usize),
}

/// How far the opening of a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The other end has not answered yet.
    Waiting,
    /// It may be used.
    Open,
    /// It never will.
    Failed(Broken),
}

/// What reading gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The next bytes; at least one.
    Bytes(Bytes),
    /// The other end has ended its direction, and all of it was read.
    End,
    /// Nothing yet.
    Nothing,
}

/// What has changed for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// There is something to read, or the end, or an error.
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
    pub(super) streams: HashMap<u32, Stream>,
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
    pub(super) held: usize,
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
            life: Life::new(now, settings.ping_every, settings.write_wait),
            settings,
            role,
            streams: HashMap::new(),
            next: if role == Role::Server { 0 } else { 1 },
            unsaid: VecDeque::new(),
            unanswered: 0,
            overdue: 0,
            last_accepted: now,
            unaccepted: VecDeque::new(),
            urgent: VecDeque::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            held: 0,
            full: None,
            events: Vec::new(),
            closing: None,
            ended: None,
            goodbye_said: false,
        }
    }

    /// Opens a stream; [`Mux::opening`] tells when it may be used.
    pub fn open(&mut self, now: Instant) -> Result<u32, Refused> {
        if self.is_closing() {
            return Err(Refused::Over);
        }
        if self.streams.len() >= self.settings.streams {
            return Err(Refused::TooMany(self.settings.streams));
        }
        while self.streams.contains_key(&self.next) {
            self.next = self.next.wrapping_add(2);
        }
        let id = self.next;
        self.next = id.wrapping_add(2);
        self.streams.insert(id, Stream::new(Stage::Unsaid));
        self.unsaid.push_back(id);
        self.set_timer(id, now + self.settings.open_wait);
        Ok(id)
    }

    /// How far [`Mux::open`] has come.
    pub fn opening(&self, id: u32) -> Opening {
        match self.streams.get(&id) {
            Some(Stream { broken: Some(broken), .. }) => Opening::Failed(*broken),
            Some(Stream { stage: Stage::Open, .. }) => Opening::Open,
            _ => self.ended.map_or(Opening::Waiting, |ended| Opening::Failed(Broken::Over(ended))),
        }
    }

    /// Accepts the stream that the other end has opened first, if there is one.
    pub fn accept(&mut self) -> Option<u32> {
        let id = self.unaccepted.pop_front()?;
        let stream = self.streams.get_mut(&id)?;
        stream.accepted(self.settings.window);
        stream.greet = true;
        self.be_urgent(id);
        Some(id)
    }

    /// The next bytes of a stream, at most so many. They are acknowledged by and by.
    pub fn read(&mut self, id: u32, most: usize) -> Result<Taken, Broken> {
        let over = self.ended.map(Broken::Over);
        let Some(stream) = self.streams.get_mut(&id) else { return Err(over.unwrap_or(Broken::Shut)) };
        if let Some(bytes) = stream.inbox.take(most) {
            self.held -= bytes.len();
            stream.owed += bytes.len() as u32;
            stream.touched = true;
            if stream.ack_due() {
                self.be_urgent(id);
            }
            self.look_for_room();
            return Ok(Taken::Bytes(bytes));
        }
        match stream.broken.or(if stream.ended { None } else { over }) {
            Some(broken) => Err(broken),
            None if stream.ended => Ok(Taken::End),
            None => Ok(Taken::Nothing),
        }
    }

    /// Takes as much of `data` as may wait to be sent: so many bytes. With none, [`Event::Writable`] tells when there is
    /// room again.
    pub fn write(&mut self, id: u32, data: &[u8]) -> Result<usize, Broken> {
        let stream = self.writable(id)?;
        let count = stream.outbox.push(data);
        stream.wants_room = count < data.len();
        self.be_ready(id);
        Ok(count)
    }

    /// How many bytes [`Mux::write_whole`] may take; with none, [`Event::Writable`] tells when there is room again.
    pub fn room(&mut self, id: u32) -> Result<usize, Broken> {
        let stream = self.writable(id)?;
        stream.wants_room |= stream.outbox.room() == 0;
        Ok(stream.outbox.room())
    }

    /// Takes all of `data`, for which there must be room, without copying it.
    pub fn write_whole(&mut self, id: u32, data: BytesMut) -> Result<(), Broken> {
        let stream = self.writable(id)?;
        stream.outbox.push_whole(data);
        self.be_ready(id);
        Ok(())
    }

    fn writable(&mut self, id: u32) -> Result<&mut Stream, Broken> {
        if let Some(ended) = self.ended {
            return Err(Broken::Over(ended));
        }
        match self.streams.get_mut(&id) {
            Some(Stream { broken: Some(broken), .. }) => Err(*broken),
            Some(stream) if stream.fin == Fin::No && !stream.gone => Ok(stream),
            _ => Err(Broken::Shut),
        }
    }

    /// Ends our direction behind what was written.
    pub fn shutdown(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.fin == Fin::No {
            stream.fin = Fin::Wanted;
            if stream.fin_due() {
                self.be_urgent(id);
            }
        }
    }

    /// Nobody holds the stream any more: what was written still goes out, with a FIN behind it, and what comes is thrown
    /// away.
    pub fn release(&mut self, now: Instant, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.gone = true;
        self.held -= stream.discard();
        let done = match stream.stage {
            Stage::Unsaid => {
                self.unsaid.retain(|unsaid| *unsaid != id);
                true
            }
            // Nothing may be said before its ACK, which is then answered by a FIN.
            Stage::Said { .. } => false,
            Stage::Unaccepted => false,
            Stage::Open => stream.ended && stream.fin == Fin::Sent,
        };
        if done || self.ended.is_some() {
            self.forget(id);
            return self.look_for_room();
        }
        let (ack, open) = (stream.ack_due(), stream.stage == Stage::Open);
        self.look_for_room();
        self.shutdown(id);
        if ack {
            self.be_urgent(id);
        }
        if open {
            self.set_timer(id, now + self.settings.linger);
        }
    }

    /// Closes the session: no more streams, and what was written has a short time to go out first.
    pub fn close(&mut self, now: Instant, code: u16, reason: &'static str) {
        if !self.is_closing() {
            self.closing = Some(Closing { by: now + limits::DRAIN, code, reason });
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
        self.held
    }

    /// Whether too much waits here: nothing more is to be read from the WebSocket until [`Event::Roomy`].
    pub fn is_full(&self) -> bool {
        self.full.is_some()
    }

    pub(super) fn look_for_room(&mut self) {
        let most = self.settings.held;
        if self.full.is_some() && self.held <= most - most / 4 {
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

    /// A short frame of the stream is due.
    pub(super) fn be_urgent(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.in_urgent, true)
        {
            self.urgent.push_back(id);
        }
    }

    /// Data of the stream may be due.
    pub(super) fn be_ready(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.data_due()
            && !std::mem::replace(&mut stream.in_ready, true)
        {
            self.ready.push_back(id);
        }
    }
}
