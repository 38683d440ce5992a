//! The client's end of a control session: what is heard and said, whether the relay lives, and how the session ended.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Output;
use super::relay::Timing;
use crate::proto::close;
use crate::proto::limits::client::{
    CLOSED_WAIT, LEAST_PING_EVERY, LEAST_PONG_WAIT, LONGEST, PING_EVERY, PONG_WAIT, WAKE_PONG_WAIT,
};
use crate::proto::message::{
    AuthResult, ClosedReason, Connection, Drain, Expiring, Level, Reject, ToClient, ToRelay, Welcome,
};

/// What is to be done about a message of the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The session has begun; told once.
    Welcome(Welcome),
    /// A viewer waits.
    Connection(Connection),
    /// The connection with this id is not wanted any more.
    Cancel(String),
    /// Hold so many standby sockets open.
    Standby(u32),
    /// Open a new control session, and serve this one to its end.
    Drain(Drain),
    /// Something ends soon.
    Expiring(Expiring),
    /// The answer to the first token that has none yet.
    Auth(AuthResult),
    /// The relay ends the session; nothing is heard any more.
    Closed(ClosedReason),
    /// The relay could not read a message of ours.
    Error(String),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The tunnel is over; the relay's words.
    Over(String),
    /// Another client of the same key has the tunnel.
    Replaced,
    /// A newer session of this same client has it.
    Succeeded,
    /// Anything after which one comes back; why, as a sentence.
    Lost(String),
    /// We ended it.
    Stopped,
}

/// One session. Its owner sends what [`ClientEnd::output`] gives, tells what comes and that time has passed, and stops
/// when [`ClientEnd::ended`] says so. What came is to be told before the time: after a stop of the process a pong may lie
/// there, as late as we are.
#[derive(Debug)]
pub struct ClientEnd {
    level: Level,
    timing: Timing,
    output: VecDeque<Output>,
    welcomed: bool,
    /// Bytes of one message to the relay.
    message_bytes: u64,
    next_ping: Instant,
    /// When the pong to the last ping must be there.
    pong_by: Option<Instant>,
    /// Tokens that have no answer yet.
    asked: u32,
    /// What the relay said before its close frame, and until when that must come.
    closed: Option<(ClosedReason, String, Instant)>,
    ended: Option<Ended>,
}

impl ClientEnd {
    /// A session at its start, with our own timing until the relay's welcome.
    pub fn new(now: Instant, level: Level) -> Self {
        Self {
            level,
            timing: Timing { ping_every: PING_EVERY, pong_wait: PONG_WAIT },
            output: VecDeque::new(),
            welcomed: false,
            message_bytes: u64::MAX,
            next_ping: now + PING_EVERY,
            pong_by: None,
            asked: 0,
            closed: None,
            ended: None,
        }
    }

    /// The level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// A message came. `None`: it is of a later version, or nonsense, and neither ends a session.
    pub fn heard(&mut self, now: Instant, message: &[u8]) -> Option<Heard> {
        if self.ended.is_some() || self.closed.is_some() {
            return None;
        }
        match (self.level, ToClient::from_json(message)) {
            (Level::Base, ToClient::Connection(Connection { id, .. })) => {
                Some(Heard::Connection(Connection { id, ..Connection::default() }))
            }
            (Level::Base, _) => None,
            (Level::Two, message) => self.take(now, message),
        }
    }

    fn take(&mut self, now: Instant, message: ToClient) -> Option<Heard> {
        Some(match message {
            ToClient::Welcome(welcome) => {
                if std::mem::replace(&mut self.welcomed, true) {
                    return None;
                }
                self.adopt(now, &welcome);
                Heard::Welcome(welcome)
            }
            ToClient::Connection(connection) => Heard::Connection(connection),
            ToClient::Cancel { id } => Heard::Cancel(id),
            ToClient::Standby { want } => Heard::Standby(want),
            ToClient::Drain(drain) => Heard::Drain(drain),
            ToClient::Expiring(expiring) => Heard::Expiring(expiring),
            ToClient::Auth(result) => {
                // An answer to nothing would be taken for that to a later token.
                self.asked = self.asked.checked_sub(1)?;
                Heard::Auth(result)
            }
            ToClient::Error { message } => Heard::Error(message),
            ToClient::Closed { reason, message } => {
                self.closed = Some((reason, message, now + CLOSED_WAIT));
                Heard::Closed(reason)
            }
            ToClient::Unknown => return None,
        })
    }

    /// We ping as often as the relay does if that is more often than we would, and are as strict; within bounds.
    fn adopt(&mut self, now: Instant, welcome: &Welcome) {
        let of = |ms: u64, ours: Duration, least: Duration| Duration::from_millis(ms).min(ours).max(least);
        self.timing = Timing {
            ping_every: of(welcome.ping_interval_ms, PING_EVERY, LEAST_PING_EVERY),
            pong_wait: of(welcome.pong_timeout_ms, PONG_WAIT, LEAST_PONG_WAIT),
        };
        self.next_ping = self.next_ping.min(now + self.timing.ping_every);
        if welcome.limits.control_message_bytes > 0 {
            self.message_bytes = welcome.limits.control_message_bytes;
        }
    }

    /// Says `message`; whether that is possible. At base level nothing is said. What is over the relay's limit would end
    /// the session, and is not said either; a rejection then goes without its words.
    pub fn say(&mut self, message: ToRelay) -> bool {
        if self.level == Level::Base || self.ended.is_some() || self.closed.is_some() {
            return false;
        }
        let fits = |text: &String| text.len() as u64 <= self.message_bytes;
        let text = Some(message.to_json()).filter(fits).or_else(|| match &message {
            ToRelay::Reject(reject) => {
                Some(ToRelay::Reject(Reject { message: None, ..reject.clone() }).to_json()).filter(fits)
            }
            _ => None,
        });
        let Some(text) = text else { return false };
        if matches!(message, ToRelay::Auth { .. }) {
            self.asked = self.asked.saturating_add(1);
        }
        self.output.push_back(Output::Text(text));
        true
    }

    /// A pong came. To which ping does not matter: the way there and back works.
    pub fn ponged(&mut self) {
        self.pong_by = None;
    }

    /// The machine slept: the relay may have given us up long ago, and shows within two seconds that it has not.
    pub fn woke(&mut self, now: Instant) {
        if self.ended.is_none() && self.closed.is_none() {
            self.ping(now);
            self.pong_by = Some(now + WAKE_PONG_WAIT);
        }
    }

    fn ping(&mut self, now: Instant) {
        self.next_ping = now + self.timing.ping_every;
        self.pong_by = Some(now + self.timing.pong_wait);
        self.output.push_back(Output::Ping(b""));
    }

    /// We want the session to end.
    pub fn stop(&mut self) {
        self.finish(Some(close::DONE), Ended::Stopped);
    }

    /// The socket ended: code and reason of the close frame, if there was one.
    pub fn closed(&mut self, frame: Option<(u16, String)>) {
        let ended = self.told().unwrap_or_else(|| ended_by(frame));
        // The answer to its goodbye.
        self.finish(Some(close::DONE), ended);
    }

    /// The socket is of no more use; why, as a sentence. There is nobody to say goodbye to.
    pub fn lost(&mut self, why: String) {
        let ended = self.told().unwrap_or(Ended::Lost(why));
        self.output.clear();
        self.finish(None, ended);
    }

    fn finish(&mut self, code: Option<u16>, ended: Ended) {
        if self.ended.is_none() {
            self.output.extend(code.map(|code| Output::Close(code, "")));
            self.ended = Some(ended);
        }
    }

    /// How the session ends by what the relay said; `None`: it said nothing that we know.
    fn told(&mut self) -> Option<Ended> {
        let (reason, message, _) = self.closed.take()?;
        let lost = |text: &str| Some(Ended::Lost(format!("{text}{}", in_brackets(&message))));
        match reason {
            ClosedReason::Expired | ClosedReason::Deleted => Some(Ended::Over(message)),
            ClosedReason::Replaced => Some(Ended::Replaced),
            ClosedReason::Succeeded => Some(Ended::Succeeded),
            ClosedReason::Revoked => lost(POLICY),
            ClosedReason::TokenExpired => Some(Ended::Lost("the token has expired".into())),
            ClosedReason::Restart => lost(ANEW),
            ClosedReason::Stale => lost("the relay has not heard from us for too long"),
            ClosedReason::ProtocolError | ClosedReason::MessageTooBig => {
                lost("the relay did not understand us")
            }
            ClosedReason::Unknown => None,
        }
    }

    /// When [`ClientEnd::wake`] has something to do.
    pub fn timeout(&self) -> Instant {
        match &self.closed {
            Some((.., by)) => *by,
            None => self.pong_by.unwrap_or(self.next_ping),
        }
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Instant) {
        if now < self.timeout() || self.ended.is_some() {
            return;
        }
        if self.closed.is_some() {
            self.lost("the relay closed the connection".into());
        } else if self.pong_by.is_some() {
            self.lost("the relay does not answer any more".into());
        } else {
            self.ping(now);
        }
    }

    /// What is to be sent next.
    pub fn output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Whether the session is over; what [`ClientEnd::output`] still has is the goodbye.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }
}

/// A relay's milliseconds as a time that may be added to others.
pub fn duration(ms: u64) -> Duration {
    Duration::from_millis(ms).min(LONGEST)
}

/// It restarts, or its operator has disconnected us, which its own words tell.
const ANEW: &str = "the relay asks for a new connection";
const POLICY: &str = "the relay does not accept this key any more";

/// What a close frame means on its own.
fn ended_by(frame: Option<(u16, String)>) -> Ended {
    let Some((code, reason)) = frame else { return Ended::Lost("the relay closed the connection".into()) };
    let text = match code {
        close::DONE if reason.contains("replaced") => return Ended::Replaced,
        close::DONE => return Ended::Over(reason),
        close::RESTART => ANEW,
        close::GOING_AWAY => "the relay went away",
        close::POLICY => POLICY,
        _ => &format!("the relay closed the connection with code {code}"),
    };
    Ended::Lost(format!("{text}{}", in_brackets(&reason)))
}

fn in_brackets(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(" ({words})") }
}
