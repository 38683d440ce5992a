//! What a session allows and how long it waits.

use std::time::Duration;

use super::budget::Budget;
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
    /// What is held in memory for them is up to five times as much, as pieces keep what was read beside them. Default:
    /// 512 MiB.
    pub held: usize,
    /// What several sessions may hold together: when it is used up, each of them is full from two windows on. Default: none.
    pub budget: Option<Budget>,
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
    /// For what was written to go out when the session is closed. Default: 5 s.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: limits::WINDOW,
            held: limits::HELD,
            budget: None,
            streams: limits::STREAMS,
            unaccepted: limits::UNACCEPTED,
            unanswered: limits::UNANSWERED,
            ping_every: limits::PING_EVERY,
            open_wait: limits::OPEN_WAIT,
            write_wait: limits::WRITE_WAIT,
            linger: limits::LINGER,
            drain: limits::DRAIN,
        }
    }
}

impl Settings {
    /// With numbers that make sense in place of those that would not.
    pub(super) fn sane(mut self) -> Self {
        self.window = self.window.max(1);
        self.unanswered = self.unanswered.max(1);
        let times = [
            &mut self.ping_every,
            &mut self.open_wait,
            &mut self.write_wait,
            &mut self.linger,
            &mut self.drain,
        ];
        for time in times {
            *time = (*time).clamp(limits::SHORTEST, limits::LONGEST);
        }
        self
    }
}
