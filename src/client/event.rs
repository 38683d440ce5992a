//! What a session tells its owner, and how it ended.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

pub use super::observe::Exchange;
use super::target::TargetError;
use crate::sync::lock;

/// Events that may wait for their reader.
const WAITING: usize = 64;
/// Of these, kept free for events other than requests.
const RESERVED: usize = 16;
/// The same trouble with the target is not told more often.
const TARGET_DOWN_EVERY: Duration = Duration::from_secs(3);

/// What happens to a session. Texts may hold the words of strangers, and must be escaped before a terminal
/// shows them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A try to reach the relay begins.
    Connecting,
    /// Viewers are served.
    Online {
        /// Where viewers go; the same for the whole session.
        url: String,
        /// Id of the tunnel; may change from one time to the next.
        id: String,
        /// Not the first time.
        again: bool,
    },
    /// The relay is not reached, or was lost.
    Offline {
        /// Why, as a sentence.
        reason: String,
        /// Until the next try.
        retry_in: Duration,
    },
    /// A viewer's request was answered, or cut off.
    Request(Exchange),
    /// A viewer's connection is over, of a tunnel whose bytes are not looked at.
    Connection(Connected),
    /// The target cannot be used; told at most once in three seconds.
    TargetDown {
        /// Why, and what helps.
        error: TargetError,
        /// Found before a viewer asked.
        at_start: bool,
    },
    /// Something ends soon.
    Expiring {
        /// `tunnel`, `token`, or a word of a later version.
        what: String,
        /// From now.
        left: Duration,
        /// The tunnel's name, by which it can be extended.
        name: String,
    },
    /// The relay's answer to a token that was given to the session.
    Auth {
        /// If not, the former one stays in force.
        accepted: bool,
        /// Until the token in force ends; `None`: it has no end, or the relay does not say.
        expires_in: Option<Duration>,
        /// Why not, for people.
        error: Option<String>,
    },
    /// About the token of a worker.
    Token(TokenNews),
    /// The session is over; nothing follows.
    Ended(End),
}

/// What there is to say about the token of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenNews {
    /// Nothing goes on without another one, for this reason.
    Needed(String),
    /// There is another one; it counts from the next registration on. Told only where connections are told.
    Fresh,
    /// There will be no other one. Told only where connections are told.
    Last,
}

/// A viewer's connection that was passed on as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Address and port of the viewer, where the relay tells.
    pub viewer: Option<String>,
    /// How long it was open.
    pub duration: Duration,
    /// Bytes from the viewer to the target.
    pub bytes_in: u64,
    /// Bytes from the target to the viewer.
    pub bytes_out: u64,
    /// It ended in order. Where not, what went over it may be whole all the same, as HTTP keeps connections.
    pub whole: bool,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Its owner stopped it; the tunnel is closed.
    Stopped,
    /// The relay says that the tunnel is over.
    Closed(String),
    /// Another client of the same key has taken over the tunnel.
    Replaced,
    /// The relay refuses the tunnel.
    Refused(String),
    /// The relay refuses the key.
    Unauthorised(String),
    /// The relay is not reached, and the session was not to wait.
    Unreachable(String),
    /// The session failed by an error of ours.
    Failed,
}

impl End {
    /// The exit code of a program that had just this session.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped | Self::Closed(_) | Self::Replaced => 0,
            Self::Refused(_) | Self::Failed => 1,
            Self::Unreachable(_) => 69,
            Self::Unauthorised(_) => 77,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("tunnel closed"),
            Self::Closed(reason) if reason.is_empty() => f.write_str("the tunnel expired or was closed"),
            Self::Closed(reason) => write!(f, "the tunnel expired or was closed: {reason}"),
            Self::Replaced => f.write_str(
                "another client with the same key has taken over this tunnel; to run both, give one another name, or start both with --replica",
            ),
            Self::Refused(text) | Self::Unauthorised(text) | Self::Unreachable(text) => f.write_str(text),
            Self::Failed => f.write_str("internal error: please report it"),
        }
    }
}

/// The sending end of a session's events. Nothing here ever waits: a reader that does not keep up misses events.
#[derive(Clone)]
pub(super) struct Events(Arc<Shared>);

struct Shared {
    sender: mpsc::Sender<Event>,
    per_second: u32,
    began: Instant,
    /// The running second in the upper half, the requests told in it in the lower one.
    told: AtomicU64,
    /// Shared with the session's handle, which must not keep the channel open.
    omitted: Omitted,
    target_down: Mutex<Option<Instant>>,
}

/// A count of requests that were not told as events.
#[derive(Debug, Clone, Default)]
pub(super) struct Omitted(Arc<AtomicU64>);

impl Omitted {
    /// Those since the last call.
    pub(super) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl Events {
    /// At most `per_second` requests are told; the others are counted.
    pub(super) fn new(per_second: u32) -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let shared = Shared {
            sender,
            per_second,
            began: Instant::now(),
            told: AtomicU64::new(0),
            omitted: Omitted::default(),
            target_down: Mutex::new(None),
        };
        (Self(Arc::new(shared)), receiver)
    }

    pub(super) fn send(&self, event: Event) {
        let _ = self.0.sender.try_send(event);
    }

    /// Whether requests are wanted at all.
    pub(super) fn wants_requests(&self) -> bool {
        self.0.per_second > 0 && !self.0.sender.is_closed()
    }

    /// Tells of a request, or counts it as omitted.
    pub(super) fn request(&self, exchange: Exchange) {
        self.one_of_many(Event::Request(exchange));
    }

    /// The same of a connection.
    pub(super) fn connection(&self, connected: Connected) {
        self.one_of_many(Event::Connection(connected));
    }

    fn one_of_many(&self, event: Event) {
        let shared = &*self.0;
        let second = shared.began.elapsed().as_secs() << 32;
        let count = |told: u64| if told >= second { told + 1 } else { second + 1 };
        let told = shared.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |told| Some(count(told)));
        let nth = count(told.unwrap_or_default()) as u32;
        if nth > shared.per_second || shared.sender.capacity() <= RESERVED {
            shared.omitted.0.fetch_add(1, Ordering::Relaxed);
        } else {
            self.send(event);
        }
    }

    /// The count of requests that were not told.
    pub(super) fn omitted(&self) -> Omitted {
        self.0.omitted.clone()
    }

    pub(super) fn target_down(&self, error: TargetError) {
        let mut last = lock(&self.0.target_down);
        if last.is_none_or(|last| last.elapsed() >= TARGET_DOWN_EVERY) {
            *last = Some(Instant::now());
            self.send(Event::TargetDown { error, at_start: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        Exchange {
            method: "GET".into(),
            path: "/".into(),
            status: Some(200),
            duration: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            whole: true,
        }
    }

    #[test]
    fn requests_beyond_the_rate_are_counted_and_leave_room_for_the_rest() {
        let (events, mut receiver) = Events::new(5);
        for _ in 0..20 {
            events.request(exchange());
        }
        // A new second may have begun meanwhile.
        let told = std::iter::from_fn(|| receiver.try_recv().ok()).count();
        assert!((5..=10).contains(&told), "{told}");
        assert_eq!(events.omitted().take() + told as u64, 20);
        assert_eq!(events.omitted().take(), 0);
        let (events, mut receiver) = Events::new(10_000);
        for _ in 0..100 {
            events.request(exchange());
        }
        events.send(Event::Connecting);
        assert_eq!(std::iter::from_fn(|| receiver.try_recv().ok()).count(), WAITING - RESERVED + 1);
    }
}
