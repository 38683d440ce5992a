//! What happens in a session as time passes.

use std::time::Instant;

use super::ended::{Broken, Ended};
use super::frame::Breach;
use super::mux::{Event, Full, Mux};
use super::stream::{Fin, Stage};
use crate::proto::limits::wsmux::{FULL_WAIT, ROOM_WAIT};

impl Mux {
    /// When [`Mux::wake`] has something to do.
    pub fn timeout(&self) -> Instant {
        let streams = self.timers.first().map(|(at, _)| *at);
        let closing = self.closing.map(|closing| closing.by);
        let full = self.full.map(|full| full.look);
        [streams, closing, full].into_iter().flatten().fold(self.life.timeout(), Instant::min)
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Instant) {
        if self.ended.is_some() {
            return;
        }
        while let Some(&(at, id)) = self.timers.first()
            && now >= at
        {
            self.timers.pop_first();
            self.expire(id);
        }
        let in_vain =
            self.overdue >= self.settings.unanswered && now >= self.last_accepted + self.settings.open_wait;
        if in_vain {
            return self.finish(Ended::Breach(Breach::Unaccepting));
        }
        if let Some(closing) = self.closing.filter(|closing| now >= closing.by) {
            return self.finish(Ended::ByUs(closing.code, closing.reason));
        }
        if let Some(full) = self.full {
            // We do not listen, so nothing can be heard.
            self.life.heard();
            if now >= full.look {
                self.make_room(now, full.since);
            }
        }
        if let Err(ended) = self.life.wake(now) {
            self.finish(ended);
        }
    }

    /// The time of a stream is over.
    fn expire(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.timer = None;
        match stream.stage {
            Stage::Unsaid => {
                stream.fail(Broken::NotAccepted);
                self.unsaid.retain(|unsaid| *unsaid != id);
                self.events.push(Event::Writable(id));
            }
            // It stays, as its ACK may still come, and must be answered then.
            Stage::Said { .. } => {
                stream.stage = Stage::Said { overdue: true };
                self.overdue += 1;
                stream.fail(Broken::NotAccepted);
                self.events.push(Event::Writable(id));
            }
            Stage::Open if stream.gone => {
                // The other end takes no more of what is left, or does not end its own direction.
                stream.outbox.clear();
                stream.ended = true;
                if stream.fin == Fin::Sent {
                    self.streams.remove(&id);
                } else {
                    stream.be_urgent(id, &mut self.urgent);
                }
            }
            Stage::Open | Stage::Unaccepted => {}
        }
    }

    /// From now on it counts who takes something.
    pub(super) fn be_full(&mut self, now: Instant, since: Instant) {
        self.full = Some(Full { since, look: now + ROOM_WAIT });
        for stream in self.streams.values_mut() {
            stream.touched = false;
        }
    }

    /// Of those from which nobody took anything, the fullest make room until half is free; of all, when those who read take
    /// so little that the others would wait for ever.
    fn make_room(&mut self, now: Instant, since: Instant) {
        let all = now >= since + FULL_WAIT;
        let still = self.streams.iter().filter(|(_, stream)| all || !stream.touched);
        let still = still.filter(|(_, stream)| !stream.inbox.is_empty());
        let mut still: Vec<(usize, u32)> = still.map(|(id, stream)| (stream.inbox.len(), *id)).collect();
        still.sort_unstable();
        while self.held() > self.most() / 2
            && let Some((_, id)) = still.pop()
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.fail(Broken::Overfull);
            self.held.take(stream.discard());
            self.events.extend([Event::Readable(id), Event::Writable(id)]);
        }
        self.look_for_room();
        if self.is_full() {
            self.be_full(now, since);
        }
    }
}
