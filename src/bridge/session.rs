//! One session: bytes both ways between a viewer's WebSocket and its target, and an end that both are told of.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, sleep_until, timeout};

use super::coded::NotText;
use super::config::Service;
use super::front::{Agreed, Onward};
use super::reach::Reached;
use super::shared::Shared;
use super::socket::{Connection, End, Socket};
use super::story::{By, Story};
use super::tokens::Revoked;
use super::traffic;
use crate::proto::close;
use crate::proto::limits::bridge::{
    GOODBYE, HALF_CLOSE, LAST_BYTES, LAST_GOODBYES, PONGS_MISSED, REST_AFTER,
};
use crate::stream::Duplex;
use crate::stream::any::AnyStream;
use crate::stream::splice::{HalfClose, Moved, Splice};

/// Carries the session to its end. `already` is what was read behind the handshake.
pub(super) async fn run<S: Connection>(shared: &Shared, io: S, already: BytesMut, agreed: Agreed) {
    let Agreed { served, coding, onward, mut story, present: _present, revoked, room: _room } = agreed;
    let mut socket = Socket::new(io, already, coding, served.config.max_frame);
    socket.tap = traffic::tap(shared);
    let mut revoked = revoked.unwrap_or_else(|| Box::pin(pending()));
    let dialled = match onward {
        Onward::Connected(reached) => Ok(Ok(reached)),
        Onward::Dial(way) => tokio::select! {
            // Boxed, so that a session holds no room for it.
            reached = Box::pin(served.reach(&way)) => Ok(reached),
            () = shared.ending.closing.cancelled() => Err(Verdict::Going),
            () = &mut revoked => Err(Verdict::Revoked),
            () = poll_fn(|cx| socket.poll_gone(cx)) => Err(Verdict::Ended(Ok(()))),
        },
    };
    let Reached { stream: mut target, backend, held } = match dialled {
        Ok(Ok(reached)) => reached,
        Ok(Err(error)) => {
            story.not_connected(&error);
            let reason = "Failed to connect to downstream server";
            return goodbye(&mut socket, &mut story, close::INTERNAL, reason).await;
        }
        Err(verdict) => return conclude(socket, story, false, verdict).await,
    };
    if let Some(backend) = backend {
        story.leads_to(backend);
    }
    let splice = Splice::new(HalfClose::Kept);
    let mut splice = if target.ends_by_drop() { splice.before_drop() } else { splice };
    let carrying = Carrying::new(&served.config, revoked);
    let verdict = carrying.carry(shared, &mut splice, &mut target, &mut socket, &mut story).await;
    story.moved(splice.moved);
    // The target need not wait for the goodbyes.
    drop((target, held));
    conclude(socket, story, splice.inward_ended(), verdict).await;
}

const GOING: &str = "the bridge is going away";

/// Why bytes are carried no longer.
enum Verdict {
    /// A direction failed, or both have ended.
    Ended(io::Result<()>),
    /// The target has ended, and the viewer's time is over.
    TargetEnded,
    /// The viewer has ended, and the target's time is over.
    ViewerEnded,
    /// Nothing moved for too long.
    Idle,
    /// The viewer answers no pings.
    Silent,
    /// The bridge ends.
    Going,
    /// The token leads to the target no more.
    Revoked,
}

async fn conclude<S: Connection>(
    mut socket: Socket<S>,
    mut story: Story,
    target_ended: bool,
    verdict: Verdict,
) {
    let (by, code, reason) = match (&socket.end, verdict) {
        (_, Verdict::Silent) => {
            story.ended_by(By::Heartbeat);
            return story.closed(None, "no pong");
        }
        (_, Verdict::Revoked) => (By::Token, Some(close::POLICY), "the token was revoked".to_owned()),
        (_, Verdict::Going) => (By::Bridge, Some(close::GOING_AWAY), GOING.to_owned()),
        (Some(End::Closed(code)), _) => (By::Viewer, *code, String::new()),
        (Some(End::Broke(code, reason)), _) => (By::Viewer, Some(*code), reason.clone()),
        (Some(End::Left | End::Failed(_)), _) => {
            story.ended_by(By::Viewer);
            story.closed(None, "no close frame");
            let _ = timeout(GOODBYE, poll_fn(|cx| socket.poll_goodbye(cx))).await;
            return;
        }
        (None, Verdict::Idle) => (By::Idle, Some(close::GOING_AWAY), "nothing moved for too long".to_owned()),
        (None, Verdict::Ended(Err(error))) if error.get_ref().is_some_and(|why| why.is::<NotText>()) => {
            (By::Target, Some(close::INTERNAL), NotText.to_string())
        }
        (None, Verdict::Ended(Err(error))) if !target_ended => {
            tracing::debug!(%error, "a target broke off");
            (By::Target, Some(close::INTERNAL), format!("Target failed: {}", error.kind()))
        }
        (None, _) => (By::Target, Some(close::DONE), "Target closed".to_owned()),
    };
    story.ended_by(by);
    match code {
        Some(code) => goodbye(&mut socket, &mut story, code, &reason).await,
        None => {
            socket.say_close(None, "");
            part(&mut socket, &mut story, None, &reason).await;
        }
    }
}

async fn goodbye<S: Connection>(socket: &mut Socket<S>, story: &mut Story, code: u16, reason: &str) {
    socket.say_close(Some(code), reason);
    part(socket, story, Some(code), reason).await;
}

/// Sends what is queued, the close frame last, and hears the viewer's answer: a connection that is dropped with something
/// unread in it is reset, and what was sent last may be lost.
async fn part<S: Connection>(socket: &mut Socket<S>, story: &mut Story, code: Option<u16>, reason: &str) {
    story.closed(code, reason);
    socket.end_follows();
    if let Ok(Ok(())) = timeout(LAST_BYTES, poll_fn(|cx| Pin::new(&mut *socket).poll_flush(cx))).await {
        let _ = timeout(GOODBYE, poll_fn(|cx| socket.poll_goodbye(cx))).await;
    }
}

/// The times of a session, all by one timer that is not touched while bytes move.
struct Carrying<'a> {
    config: &'a Service,
    /// The next look at what has moved.
    look: Instant,
    look_every: Duration,
    seen: Moved,
    moved_at: Instant,
    next_ping: Option<Instant>,
    seen_at_ping: Moved,
    heard_at_ping: u64,
    missed: u32,
    /// What was heard of the viewer, and when last.
    heard: (u64, Instant),
    /// What the viewer had taken, and when something was last taken or nothing waited.
    taken: (u64, Instant),
    /// One side has ended: until when the other may go on.
    last: Option<Instant>,
    revoked: Revoked,
    seen_at_last: Moved,
    /// It is not over at once.
    lasts: bool,
}

impl<'a> Carrying<'a> {
    fn new(config: &'a Service, revoked: Revoked) -> Self {
        let now = Instant::now();
        let limits = [config.idle, config.read_idle, config.write_idle];
        let look_every = limits.into_iter().flatten().fold(REST_AFTER, Duration::min);
        Self {
            config,
            look: now + look_every,
            look_every,
            seen: Moved::default(),
            moved_at: now,
            next_ping: config.heartbeat.map(|every| now + every),
            seen_at_ping: Moved::default(),
            heard_at_ping: 0,
            missed: 0,
            heard: (0, now),
            taken: (0, now),
            last: None,
            revoked,
            seen_at_last: Moved::default(),
            lasts: false,
        }
    }

    async fn carry<S: Connection>(
        mut self,
        shared: &Shared,
        splice: &mut Splice,
        target: &mut AnyStream,
        socket: &mut Socket<S>,
        story: &mut Story,
    ) -> Verdict {
        let mut timer = pin!(sleep_until(self.wake()));
        let mut closing = pin!(shared.ending.closing.cancelled());
        let mut going = false;
        loop {
            let one_ended = self.last.is_some();
            let turn = poll_fn(|cx| {
                let polled = splice.poll(cx, target, socket);
                socket.tell(splice);
                match polled {
                    Poll::Ready(ended) => Poll::Ready(Some(ended)),
                    Poll::Pending if !one_ended && (splice.inward_ended() || socket.end.is_some()) => {
                        Poll::Ready(None)
                    }
                    Poll::Pending => Poll::Pending,
                }
            });
            tokio::select! {
                biased;
                ended = turn => match ended {
                    Some(_) if going => return Verdict::Going,
                    Some(ended) => return Verdict::Ended(ended),
                    None => {
                        let Some(patience) = self.patience(splice, socket) else {
                            return if splice.inward_ended() { Verdict::TargetEnded } else { Verdict::ViewerEnded };
                        };
                        self.last = Some(Instant::now() + patience);
                        self.seen_at_last = splice.moved;
                    }
                },
                () = closing.as_mut(), if !going => {
                    // What the viewer sends until it answers still goes to the target.
                    going = true;
                    socket.say_close(Some(close::GOING_AWAY), GOING);
                    let _ = flush(socket).await;
                    self.last = Some(Instant::now() + LAST_GOODBYES);
                }
                () = &mut self.revoked => return Verdict::Revoked,
                () = timer.as_mut() => {
                    if !std::mem::replace(&mut self.lasts, true) {
                        // Five calls of the system that a short session is spared.
                        target.tune();
                    }
                    story.moved(splice.moved);
                    if let Some(verdict) = self.look(splice, socket, going).await {
                        return verdict;
                    }
                }
            }
            timer.as_mut().reset(self.wake());
        }
    }

    fn wake(&self) -> Instant {
        let times = [Some(self.look), self.next_ping, self.last];
        times.into_iter().flatten().min().unwrap_or(self.look)
    }

    /// How long the other side may go on after one has ended; `None`: not at all.
    fn patience<S>(&self, splice: &Splice, socket: &Socket<S>) -> Option<Duration> {
        match socket.end {
            // The target has yet to take what was sent before.
            Some(End::Closed(_) | End::Broke(..) | End::Failed(_)) => Some(LAST_BYTES),
            // Many that do not say goodbye are gone altogether.
            Some(End::Left) if splice.outward_waits() => Some(LAST_BYTES),
            Some(End::Left) => self.config.half_close.map(|patience| patience.max(HALF_CLOSE)),
            None => self.config.half_close,
        }
    }

    async fn look<S: Connection>(
        &mut self,
        splice: &Splice,
        socket: &mut Socket<S>,
        going: bool,
    ) -> Option<Verdict> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now >= last) {
            match &socket.end {
                _ if going => return Some(Verdict::Going),
                None => return Some(Verdict::TargetEnded),
                // The target still answers.
                Some(_) if splice.moved != self.seen_at_last => {
                    (self.last, self.seen_at_last) = (Some(now + HALF_CLOSE), splice.moved);
                }
                Some(_) => return Some(Verdict::ViewerEnded),
            }
        }
        if now >= self.look {
            self.look = now + self.look_every;
            if splice.moved != self.seen {
                (self.seen, self.moved_at) = (splice.moved, now);
            } else if !splice.outward_waits() {
                socket.rest();
            }
            let still = now.duration_since(self.moved_at);
            if self.config.idle.is_some_and(|idle| still >= idle)
                || self.one_side_stands_still(splice, socket, now)
            {
                return Some(Verdict::Idle);
            }
        }
        if self.next_ping.is_some_and(|next| now >= next) {
            self.next_ping = self.config.heartbeat.map(|every| now + every);
            return self.ping(splice, socket).await;
        }
        None
    }

    /// Whether the viewer says nothing, or takes nothing, for longer than it may.
    fn one_side_stands_still<S: Connection>(
        &mut self,
        splice: &Splice,
        socket: &Socket<S>,
        now: Instant,
    ) -> bool {
        // Whom the target keeps waiting is not heard.
        if socket.heard != self.heard.0 || splice.outward_waits() {
            self.heard = (socket.heard, now);
        }
        if splice.moved.inward != self.taken.0 || !socket.is_stuck() {
            self.taken = (splice.moved.inward, now);
        }
        let over =
            |limit: Option<Duration>, since| limit.is_some_and(|limit| now.duration_since(since) >= limit);
        over(self.config.read_idle, self.heard.1) || over(self.config.write_idle, self.taken.1)
    }

    async fn ping<S: Connection>(&mut self, splice: &Splice, socket: &mut Socket<S>) -> Option<Verdict> {
        // Whoever is kept waiting by the target is not heard, and who still takes what was sent before has not got the ping.
        let excused =
            splice.outward_waits() || (socket.is_stuck() && splice.moved.inward != self.seen_at_ping.inward);
        self.seen_at_ping = splice.moved;
        let heard = std::mem::replace(&mut self.heard_at_ping, socket.heard) != socket.heard;
        if heard || excused {
            self.missed = 0;
        } else {
            self.missed += 1;
        }
        // The first of them has no ping before it.
        if self.missed > PONGS_MISSED {
            return Some(Verdict::Silent);
        }
        if !socket.is_stuck() {
            socket.ping();
        }
        let _ = flush(socket).await;
        None
    }
}

/// Writes what can be written at once.
async fn flush<S: Connection>(socket: &mut Socket<S>) -> io::Result<()> {
    poll_fn(|cx| match Pin::new(&mut *socket).poll_flush(cx) {
        Poll::Ready(flushed) => Poll::Ready(flushed),
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await
}
