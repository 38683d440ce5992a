//! What the users of a session do with its streams.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::ended::{Broken, OpenError};
use super::mux::Mux;
use super::stream::{Fin, Stage, Stream};

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

impl Mux {
    /// Opens a stream; [`Mux::opening`] tells when it may be used.
    pub fn open(&mut self, now: Instant) -> Result<u32, OpenError> {
        if self.is_closing() {
            return Err(OpenError::Over);
        }
        if self.streams.len() >= self.settings.streams {
            return Err(OpenError::TooMany(self.settings.streams));
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
        stream.be_urgent(id, &mut self.urgent);
        Some(id)
    }

    /// The next bytes of a stream, at most so many. They are acknowledged by and by.
    pub fn read(&mut self, id: u32, most: usize) -> Result<Taken, Broken> {
        let over = self.ended.map(Broken::Over);
        let Some(stream) = self.streams.get_mut(&id) else { return Err(over.unwrap_or(Broken::Shut)) };
        if let Some(bytes) = stream.inbox.take(most) {
            self.held.take(bytes.len());
            stream.owed += bytes.len() as u32;
            stream.touched = true;
            if stream.ack_due() {
                stream.be_urgent(id, &mut self.urgent);
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

    /// Takes as much of `data` as may wait to be sent: so many bytes. With none, [`Event::Writable`](super::Event::Writable)
    /// tells when there is room again.
    pub fn write(&mut self, id: u32, data: &[u8]) -> Result<usize, Broken> {
        self.writable(id, |stream| {
            let count = stream.outbox.push(data);
            stream.wants_room = count < data.len();
            count
        })
    }

    /// How many bytes [`Mux::write_whole`] may take; with none, [`Event::Writable`](super::Event::Writable) tells when there
    /// is room again.
    pub fn room(&mut self, id: u32) -> Result<usize, Broken> {
        self.writable(id, |stream| {
            stream.wants_room |= stream.outbox.room() == 0;
            stream.outbox.room()
        })
    }

    /// Takes all of `data`, for which there must be room, without copying it.
    pub fn write_whole(&mut self, id: u32, data: BytesMut) -> Result<(), Broken> {
        self.writable(id, |stream| stream.outbox.push_whole(data))
    }

    /// Does something with a stream that may be written to, and has it sent what is then due.
    fn writable<T>(&mut self, id: u32, action: impl FnOnce(&mut Stream) -> T) -> Result<T, Broken> {
        if let Some(ended) = self.ended {
            return Err(Broken::Over(ended));
        }
        match self.streams.get_mut(&id) {
            Some(Stream { broken: Some(broken), .. }) => Err(*broken),
            Some(stream) if stream.fin == Fin::No && !stream.gone => {
                let value = action(stream);
                stream.be_ready(id, &mut self.ready);
                Ok(value)
            }
            _ => Err(Broken::Shut),
        }
    }

    /// Ends our direction behind what was written.
    pub fn shutdown(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.fin == Fin::No {
            stream.fin = Fin::Wanted;
            if stream.fin_due() {
                stream.be_urgent(id, &mut self.urgent);
            }
        }
    }

    /// Nobody holds the stream any more: what was written still goes out if the other end has accepted it, with a FIN behind
    /// it, and what comes is thrown away.
    pub fn release(&mut self, now: Instant, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.gone = true;
        self.held.take(stream.discard());
        let done = match stream.stage {
            Stage::Unsaid => {
                self.unsaid.retain(|unsaid| *unsaid != id);
                true
            }
            // Nothing may be said before its ACK, which is then answered by a FIN and by nothing else.
            Stage::Said { .. } => {
                stream.outbox.clear();
                false
            }
            // Nobody has held it yet.
            Stage::Unaccepted => false,
            Stage::Open => stream.ended && stream.fin == Fin::Sent,
        };
        if done || self.ended.is_some() {
            self.forget(id);
            return self.look_for_room();
        }
        if stream.fin == Fin::No {
            stream.fin = Fin::Wanted;
        }
        if stream.ack_due() || stream.fin_due() {
            stream.be_urgent(id, &mut self.urgent);
        }
        if stream.stage == Stage::Open {
            self.set_timer(id, now + self.settings.linger);
        }
        self.look_for_room();
    }
}
