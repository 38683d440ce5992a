//! What the other end of a session says.

use std::time::Instant;

use bytes::Bytes;

use super::ended::{Broken, Ended};
use super::frame::{Breach, Frame};
use super::mux::{Event, Mux};
use super::stream::{Fin, Stage, Stream};
use crate::proto::frame::Role;

impl Mux {
    /// The next piece of a binary message came; `last` is true for the one that ends it, which may be empty. A breach of
    /// the rules ends the session.
    pub fn piece(&mut self, now: Instant, piece: Bytes, last: bool) {
        if self.ended.is_some() {
            return;
        }
        let heard = match self.reader.piece(piece, last) {
            Ok(Some(frame)) => self.heard(now, frame),
            Ok(None) => Ok(()),
            Err(breach) => Err(breach),
        };
        if let Err(breach) = heard {
            self.finish(Ended::Breach(breach));
        }
    }

    fn heard(&mut self, now: Instant, frame: Frame) -> Result<(), Breach> {
        match frame {
            Frame::Data { stream, payload } => self.heard_data(now, stream, payload),
            Frame::Syn { stream } => self.heard_syn(stream),
            Frame::Ack { stream, bytes } => self.heard_ack(now, stream, bytes),
            Frame::Fin { stream } => self.heard_fin(stream),
        }
    }

    /// Bytes came, of whatever frame: the other end lives.
    pub fn lives(&mut self) {
        self.life.heard();
    }

    /// A pong came.
    pub fn ponged(&mut self, now: Instant) {
        self.life.ponged(now);
    }

    /// The WebSocket has taken some of what is to be sent, or not, and is `stuck` as it takes no more just now.
    pub fn wrote(&mut self, now: Instant, some: bool, stuck: bool) {
        self.life.wrote(now, some, stuck);
    }

    fn heard_syn(&mut self, id: u32) -> Result<(), Breach> {
        let odd = id % 2 == 1;
        if odd != (self.role == Role::Server) {
            return Err(Breach::Side);
        }
        if self.streams.contains_key(&id) {
            return Err(Breach::Duplicate);
        }
        if self.unaccepted.len() >= self.settings.unaccepted {
            return Err(Breach::TooManySyns);
        }
        if self.streams.len() >= self.settings.streams {
            return Err(Breach::TooManyStreams);
        }
        if !self.is_closing() {
            self.streams.insert(id, Stream::new(Stage::Unaccepted));
            self.unaccepted.push_back(id);
            self.events.push(Event::Acceptable);
        }
        Ok(())
    }

    fn heard_ack(&mut self, now: Instant, id: u32, bytes: u32) -> Result<(), Breach> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        match stream.stage {
            Stage::Unsaid | Stage::Unaccepted => return Err(Breach::Early),
            Stage::Open => {
                stream.credit = stream.credit.checked_add(bytes).ok_or(Breach::Credit)?;
                stream.be_ready(id, &mut self.ready);
            }
            Stage::Said { overdue } => {
                stream.accepted(bytes);
                if bytes > self.settings.window {
                    stream.fail(Broken::Window(bytes));
                }
                if let Some(at) = stream.timer.take() {
                    self.timers.remove(&(at, id));
                }
                self.unanswered -= 1;
                self.overdue -= usize::from(overdue);
                self.last_accepted = now;
                stream.be_ready(id, &mut self.ready);
                if stream.fin_due() {
                    stream.be_urgent(id, &mut self.urgent);
                }
                if stream.gone {
                    // Nobody waits for it any more.
                    self.set_timer(id, now + self.settings.linger);
                } else {
                    self.events.push(Event::Writable(id));
                }
            }
        }
        Ok(())
    }

    fn heard_data(&mut self, now: Instant, id: u32, payload: Bytes) -> Result<(), Breach> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if stream.ended && !stream.gone {
            return Err(Breach::AfterFin);
        }
        let bytes = u32::try_from(payload.len()).map_err(|_| Breach::Window)?;
        // Before it is accepted there is none.
        stream.window = stream.window.checked_sub(bytes).ok_or(Breach::Window)?;
        if stream.gone || stream.broken.is_some() {
            stream.owed += bytes;
            if stream.ack_due() {
                stream.be_urgent(id, &mut self.urgent);
            }
            return Ok(());
        }
        if stream.inbox.is_empty() {
            self.events.push(Event::Readable(id));
        }
        stream.inbox.push(payload);
        self.held.add(bytes as usize);
        if !self.is_full() && self.held() > self.most() {
            self.be_full(now, now);
        }
        Ok(())
    }

    fn heard_fin(&mut self, id: u32) -> Result<(), Breach> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        match stream.stage {
            Stage::Unsaid | Stage::Said { .. } => return Err(Breach::Early),
            // Whoever opened it does not want it any more.
            Stage::Unaccepted => {
                self.unaccepted.retain(|unaccepted| *unaccepted != id);
                self.forget(id);
            }
            Stage::Open if std::mem::replace(&mut stream.ended, true) && !stream.gone => {
                return Err(Breach::AfterFin);
            }
            Stage::Open if stream.gone && stream.fin == Fin::Sent => self.forget(id),
            Stage::Open => self.events.push(Event::Readable(id)),
        }
        Ok(())
    }
}
