//! The relay's end of a control session: what is said when, whether the client lives, and how the session ends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Output;
use crate::proto::close;
use crate::proto::message::{
    AuthResult, ClosedReason, Connection, Expiring, Level, Reject, ToClient, ToRelay, Welcome,
};

/// A replaced session that answers a ping in this time is another live process.
const REPLACED_PONG_WAIT: Duration = Duration::from_secs(5);
/// Payload of that ping, so that an earlier pong does not count.
const REPLACED_PING: &[u8] = b"replaced?";
/// A token's end is announced this long before, or when half of its time is over if that is later.
const EXPIRING_BEFORE: Duration = Duration::from_secs(60);
/// Whoever is later than this was stopped itself: what came meanwhile lies there unread, and gets this much time.
const LATE: Duration = Duration::from_secs(5);
/// Messages that cannot be read are answered this often; a client that sends nothing else learns nothing new.
const ERRORS_TOLD: u32 = 10;

/// Why the relay ends a session; decides the close code that the client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The tunnel expired.
    Expired,
    /// The tunnel was deleted.
    Deleted,
    /// A newer control socket of the same key has the tunnel. The old one is pinged once: if it answers, it is
    /// another live process and is closed for good; if not, it is a dead connection.
    Replaced,
    /// The newer control socket is of the same client.
    Succeeded,
    /// The key was revoked.
    Revoked,
    /// The token's time is over, and no fresh one came.
    TokenExpired,
    /// The relay shuts down.
    Restart,
    /// The relay's operator wants it to connect anew.
    Disconnected,
}

impl End {
    /// Close code and reason.
    pub fn close(self) -> (u16, &'static str) {
        match self {
            Self::Expired => (close::DONE, "tunnel expired"),
            Self::Deleted => (close::DONE, "tunnel deleted"),
            Self::Replaced => (close::DONE, "replaced by a newer client of the same key"),
            Self::Succeeded => (close::DONE, "succeeded by a newer session of this client"),
            Self::Revoked => (close::POLICY, "key revoked"),
            Self::TokenExpired => (close::POLICY, "token expired"),
            Self::Restart => (close::RESTART, "relay restarting"),
            Self::Disconnected => (close::RESTART, "disconnected by the operator"),
        }
    }

    fn reason(self) -> ClosedReason {
        match self {
            Self::Expired => ClosedReason::Expired,
            Self::Deleted => ClosedReason::Deleted,
            Self::Replaced => ClosedReason::Replaced,
            Self::Succeeded => ClosedReason::Succeeded,
            Self::Revoked => ClosedReason::Revoked,
            Self::TokenExpired => ClosedReason::TokenExpired,
            Self::Restart | Self::Disconnected => ClosedReason::Restart,
        }
    }
}

/// How a control session ended, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// We ended it.
    ByUs(End),
    /// The client closed it.
    ByClient,
    /// The connection broke.
    Lost,
    /// No pong, or a message not taken, for too long.
    Silent,
    /// The client broke RFC 6455.
    Protocol,
    /// A text message of the client was no UTF-8.
    NotText,
    /// A message of the client was over the limit.
    TooBig,
}

impl Ended {
    /// The close frame, and what is said before it at level two.
    fn goodbye(self) -> (u16, &'static str, Option<ClosedReason>) {
        match self {
            Self::ByUs(end) => {
                let (code, reason) = end.close();
                (code, reason, Some(end.reason()))
            }
            // If it reads this at all, it must not take it for the end of its tunnel.
            Self::ByClient | Self::Lost => (close::GOING_AWAY, "", None),
            Self::Silent => (close::GOING_AWAY, "no pong", Some(ClosedReason::Stale)),
            Self::Protocol => (close::PROTOCOL_ERROR, "protocol error", Some(ClosedReason::ProtocolError)),
            Self::NotText => (close::NOT_TEXT, "text that is no UTF-8", Some(ClosedReason::ProtocolError)),
            Self::TooBig => (close::TOO_BIG, "message too big", Some(ClosedReason::MessageTooBig)),
        }
    }
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It cannot serve a connection.
    Reject(Reject),
    /// A fresh token, to be judged; the answer goes to [`RelayEnd::judged`].
    Auth(String),
}

/// When a token ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEnd {
    /// By the monotonic clock.
    pub at: Instant,
    /// RFC 3339.
    pub shown: String,
}

/// How often a client is pinged, and when it is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two pings.
    pub ping_every: Duration,
    /// Without a pong.
    pub pong_wait: Duration,
}

/// One session. Its owner sends what [`RelayEnd::output`] gives, tells what comes and that time has passed, and stops
/// when [`RelayEnd::ended`] says so.
#[derive(Debug)]
pub struct RelayEnd {
    level: Level,
    timing: Timing,
    output: VecDeque<Output>,
    next_ping: Instant,
    last_pong: Instant,
    /// A pong must come by then to tell a live process from a dead connection.
    replaced_by: Option<Instant>,
    token: Option<TokenEnd>,
    /// When the end of the token is to be announced; `None` when that was done.
    announce: Option<Instant>,
    errors: u32,
    ended: Option<Ended>,
}

impl RelayEnd {
    /// A session at its start. `welcome` is said first, at level two.
    pub fn new(now: Instant, level: Level, timing: Timing, welcome: Welcome) -> Self {
        let mut end = Self {
            level,
            timing,
            output: VecDeque::new(),
            // At once: a client learns early that the way back works.
            next_ping: now,
            last_pong: now,
            replaced_by: None,
            token: None,
            announce: None,
            errors: 0,
            ended: None,
        };
        end.say(ToClient::Welcome(welcome));
        end
    }

    /// The token of the session ends then; `None`: it has none, or one without an end.
    pub fn set_token(&mut self, now: Instant, token: Option<TokenEnd>) {
        self.announce = token.as_ref().map(|token| {
            let left = token.at.saturating_duration_since(now);
            token.at - EXPIRING_BEFORE.min(left / 2)
        });
        self.token = token;
    }

    /// Says `message`. A base client hears of connections only, by their ids.
    pub fn say(&mut self, message: ToClient) {
        if self.ended.is_some() {
            return;
        }
        let message = match (self.level, message) {
            (Level::Two, message) => message,
            (Level::Base, ToClient::Connection(Connection { id, .. })) => {
                ToClient::Connection(Connection { id, ..Connection::default() })
            }
            (Level::Base, _) => return,
        };
        self.output.push_back(Output::Text(message.to_json()));
    }

    /// A message came. A base client says nothing; what it says is ignored.
    pub fn heard(&mut self, message: &[u8]) -> Option<Asked> {
        if self.level == Level::Base || self.ended.is_some() {
            return None;
        }
        match ToRelay::from_json(message) {
            Ok(ToRelay::Reject(reject)) => Some(Asked::Reject(reject)),
            Ok(ToRelay::Auth { token }) => Some(Asked::Auth(token)),
            Ok(ToRelay::Unknown) => None,
            Err(error) => {
                self.errors += 1;
                if self.errors <= ERRORS_TOLD {
                    self.say(ToClient::Error { message: format!("this message cannot be read: {error}") });
                }
                None
            }
        }
    }

    /// A fresh token was judged: when it ends, or why it was refused. A refused one changes nothing.
    pub fn judged(&mut self, now: Instant, verdict: Result<Option<TokenEnd>, String>) {
        let (accepted, error) = match verdict {
            Ok(token) => {
                self.set_token(now, token);
                (true, None)
            }
            Err(error) => (false, Some(error)),
        };
        let left = self.token.as_ref().map(|token| ms(token.at.saturating_duration_since(now)));
        self.say(ToClient::Auth(AuthResult { accepted, expires_in_ms: left, error }));
    }

    /// A pong came.
    pub fn ponged(&mut self, now: Instant, payload: &[u8]) {
        self.last_pong = now;
        if self.replaced_by.is_some() && payload == REPLACED_PING {
            self.finish(Ended::ByUs(End::Replaced));
        }
    }

    /// Somebody wants the session to end.
    pub fn end(&mut self, now: Instant, end: End) {
        if end == End::Replaced {
            if self.ended.is_none() && self.replaced_by.is_none() {
                self.replaced_by = Some(now + REPLACED_PONG_WAIT);
                self.output.push_back(Output::Ping(REPLACED_PING));
            }
        } else {
            self.finish(Ended::ByUs(end));
        }
    }

    /// The socket ended, or must.
    pub fn finish(&mut self, ended: Ended) {
        if self.ended.is_some() {
            return;
        }
        let (code, text, reason) = ended.goodbye();
        if let Some(reason) = reason {
            self.say(ToClient::Closed { reason, message: text.to_owned() });
        }
        self.output.push_back(Output::Close(code, text));
        self.ended = Some(ended);
    }

    /// When [`RelayEnd::wake`] has something to do.
    pub fn timeout(&self) -> Instant {
        let dead = self.last_pong + self.timing.pong_wait;
        let token = self.announce.or(self.token.as_ref().map(|token| token.at));
        [Some(self.next_ping), self.replaced_by, token].into_iter().flatten().fold(dead, Instant::min)
    }

    /// Time has passed.
    pub fn wake(&mut self, now: Instant) {
        if now >= self.last_pong + self.timing.pong_wait + LATE
            && let Some(last_pong) = (now + LATE).checked_sub(self.timing.pong_wait)
        {
            (self.last_pong, self.next_ping) = (last_pong, now);
        }
        if now >= self.last_pong + self.timing.pong_wait || self.replaced_by.is_some_and(|by| now >= by) {
            return self.finish(Ended::Silent);
        }
        if let Some(token) = &self.token {
            if now >= token.at {
                return self.finish(Ended::ByUs(End::TokenExpired));
            }
            if self.announce.take_if(|at| now >= *at).is_some() {
                let expiring = Expiring {
                    what: "token".to_owned(),
                    at: token.shown.clone(),
                    in_ms: ms(token.at.saturating_duration_since(now)),
                };
                self.say(ToClient::Expiring(expiring));
            }
        }
        if now >= self.next_ping {
            self.next_ping = now + self.timing.ping_every;
            self.output.push_back(Output::Ping(b""));
        }
    }

    /// What is to be sent next.
    pub fn output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Whether the session is over; what [`RelayEnd::output`] still has is the goodbye.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
