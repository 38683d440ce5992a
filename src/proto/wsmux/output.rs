//! What an end of a session has to send, in which order.

use bytes::BytesMut;

use super::ended::Ended;
use super::frame::Head;
use super::mux::{Event, Mux};
use super::stream::{Fin, Stage};
use crate::proto::limits::wsmux::{FRAME, UNSENT};

/// To be sent, in order.
#[derive(Debug)]
pub enum Output {
    /// A ping without payload.
    Ping,
    /// A binary message: the head, and behind it the payload.
    Frame(Head, BytesMut),
    /// The close frame; nothing follows.
    Close(u16, &'static str),
}

impl Mux {
    /// What is to be sent next. To be asked only when it can go out soon: until then nothing waits but the streams' own
    /// bytes, however much the other end makes us say. What is short goes first, and of each stream one frame at a time.
    pub fn output(&mut self) -> Option<Output> {
        if let Some(ended) = self.ended {
            return self.goodbye(ended);
        }
        if self.life.ping() {
            return Some(Output::Ping);
        }
        if let Some(head) = self.short() {
            return Some(Output::Frame(head, BytesMut::new()));
        }
        if let Some((head, payload)) = self.data() {
            return Some(Output::Frame(head, payload));
        }
        if let Some(closing) = self.closing
            && !self.streams.values().any(|stream| !stream.outbox.is_empty() || stream.fin_due())
        {
            let ended = Ended::ByUs(closing.code, closing.reason);
            self.finish(ended);
            return self.goodbye(ended);
        }
        None
    }

    fn goodbye(&mut self, ended: Ended) -> Option<Output> {
        if std::mem::replace(&mut self.goodbye_said, true) {
            return None;
        }
        ended.goodbye().map(|(code, reason)| Output::Close(code, reason))
    }

    /// The next SYN, ACK or FIN.
    fn short(&mut self) -> Option<Head> {
        while let Some(id) = self.urgent.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.in_urgent = false;
            if std::mem::take(&mut stream.greet) {
                if stream.ack_due() || stream.fin_due() {
                    stream.be_urgent(id, &mut self.urgent);
                }
                stream.be_ready(id, &mut self.ready);
                return Some(Head::ack(id, self.settings.window));
            }
            if stream.ack_due() {
                let owed = std::mem::take(&mut stream.owed);
                stream.window += owed;
                if stream.fin_due() {
                    stream.be_urgent(id, &mut self.urgent);
                }
                return Some(Head::ack(id, owed));
            }
            if stream.fin_due() {
                stream.fin = Fin::Sent;
                if stream.gone && stream.ended {
                    self.forget(id);
                }
                return Some(Head::fin(id));
            }
        }
        if self.unanswered < self.settings.unanswered {
            while let Some(id) = self.unsaid.pop_front() {
                let Some(stream) = self.streams.get_mut(&id) else { continue };
                stream.stage = Stage::Said { overdue: false };
                self.unanswered += 1;
                return Some(Head::syn(id));
            }
        }
        None
    }

    /// The next DAT.
    fn data(&mut self) -> Option<(Head, BytesMut)> {
        while let Some(id) = self.ready.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.in_ready = false;
            let most = FRAME.min(stream.credit as usize);
            if most == 0 {
                continue;
            }
            let Some(payload) = stream.outbox.take(most) else { continue };
            stream.credit -= payload.len() as u32;
            if stream.wants_room && stream.outbox.room() >= UNSENT / 2 {
                stream.wants_room = false;
                self.events.push(Event::Writable(id));
            }
            if stream.fin_due() {
                stream.be_urgent(id, &mut self.urgent);
            }
            stream.be_ready(id, &mut self.ready);
            return Some((Head::data(id), payload));
        }
        None
    }
}
