//! One control session with what hangs on it: connections that are taken up, standby sockets, and what is announced.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::claims::Claims;
use super::control::{Control, Ended, Heard};
use super::serve::Server;
use super::standby;
use super::streams::Streams;
use super::text::visible;
use crate::proto::control::client::duration;
use crate::proto::limits::client::{DRAIN_MARGIN, STANDBY};
use crate::proto::message::{AuthResult, Drain, Expiring, Level, Reject, ToRelay};

/// What ends soon is not told more often than this, nor is what the relay could not read.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// Characters of the relay's words in a log record.
const MAX_WORDS: usize = 300;
/// Bytes of a connection's id; a UUID has 36.
const MAX_ID: usize = 128;
/// Characters of a session's name: it becomes part of a URL.
const MAX_SESSION: usize = 200;

/// What the tunnel has to know of a session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// How the relay calls it.
    Named(String),
    /// It is about to end: open another one after this time. Told once.
    Drain(Duration),
    /// Something ends soon.
    Expiring(Expiring),
    /// The answer to a token.
    Auth(AuthResult),
}

/// A session at level base or two. All of it is dropped at its end, but the streams.
pub(super) struct Live {
    server: Arc<Server>,
    streams: Streams,
    /// Goodbyes, for which nobody need wait.
    leaving: Streams,
    claims: Claims,
    number: u64,
    notes: mpsc::Sender<(u64, Note)>,
    /// How many standby sockets the relay wants.
    want: watch::Sender<usize>,
    /// When a draining session is over, whatever the relay does.
    until: watch::Sender<Option<Instant>>,
    expiring: Option<Instant>,
    error: Option<Instant>,
}

impl Live {
    /// The session `number` of its tunnel; `notes` come with this number. The streams of its connections go to the first
    /// of the two, and its goodbye to the second.
    pub(super) fn new(
        server: Arc<Server>,
        (streams, leaving): (Streams, Streams),
        number: u64,
        notes: mpsc::Sender<(u64, Note)>,
    ) -> Self {
        let (want, until) = (watch::Sender::new(0), watch::Sender::new(None));
        let (claims, expiring, error) = (Claims::default(), None, None);
        Self { server, streams, leaving, claims, number, notes, want, until, expiring, error }
    }

    /// Serves until the session ends.
    pub(super) async fn run(
        mut self,
        mut control: Control,
        mut said: mpsc::Receiver<ToRelay>,
        stop: CancellationToken,
        woken: watch::Receiver<u64>,
    ) -> Ended {
        let (want, mut until) = (self.want.subscribe(), self.until.subscribe());
        let (server, streams, claims) = (Arc::clone(&self.server), self.streams.clone(), self.claims.clone());
        let standby = standby::keep(&server, want, |id, remote, socket| {
            let claim = claims.enter(&id);
            let serving = Arc::clone(&server).serve_assigned(id.clone(), remote, socket, claim);
            if !streams.spawn(serving) {
                busy(&server, id);
            }
        });
        let overdue = async {
            let at = until.wait_for(Option::is_some).await.ok().and_then(|at| *at);
            match at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let leaving = self.leaving.clone();
        let ended = tokio::select! {
            ended = control.run(&stop, woken, &mut said, |heard| self.hear(heard)) => ended,
            () = overdue => Ended::Lost("the relay did not stop when it said".into()),
            // It does so only when nothing can be wanted any more.
            () = standby => Ended::Lost("internal error".into()),
        };
        leaving.spawn(control.goodbye());
        ended
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Welcome(welcome) => {
                tracing::debug!(relay = words(&welcome.relay), "level two");
                if welcome.session.len() <= MAX_SESSION {
                    self.note(Note::Named(welcome.session.clone()));
                }
                let _ = self.server.welcome.set(welcome);
            }
            Heard::Connection(connection) => self.take_up(connection.id, connection.remote_addr),
            Heard::Cancel(id) => self.claims.cancel(&id),
            Heard::Standby(want) => {
                let told = self.server.welcome.get().map_or(0, |welcome| welcome.limits.standby);
                let most = u64::from(want).min(told);
                let most = usize::try_from(most).unwrap_or(usize::MAX).min(STANDBY);
                self.want.send_replace(most);
            }
            Heard::Drain(drain) => self.drain(drain),
            Heard::Expiring(expiring) => {
                if is_due(&mut self.expiring) {
                    self.note(Note::Expiring(expiring));
                }
            }
            Heard::Auth(result) => self.note(Note::Auth(result)),
            Heard::Closed(reason) => tracing::debug!(?reason, "the relay closes the session"),
            Heard::Error(message) if is_due(&mut self.error) => {
                tracing::warn!(error = words(&message), "the relay could not read a message of ours");
            }
            Heard::Error(_) => {}
        }
    }

    /// Must not wait for those before it.
    fn take_up(&self, id: String, remote: Option<String>) {
        if id.len() > MAX_ID {
            return tracing::debug!("a connection with an id that is no id");
        }
        let claim = match self.server.level {
            Level::Base => None,
            Level::Two => match self.claims.enter(&id) {
                None => return tracing::debug!("a connection was announced twice"),
                claim => claim,
            },
        };
        if !self.streams.spawn(Arc::clone(&self.server).serve(id.clone(), remote, claim)) {
            busy(&self.server, id);
        }
    }

    fn drain(&self, drain: Drain) {
        if self.until.borrow().is_none() {
            let deadline = duration(drain.deadline_ms);
            self.until.send_replace(Some(Instant::now() + deadline + DRAIN_MARGIN));
            self.note(Note::Drain(duration(drain.reconnect_ms).min(deadline)));
        }
    }

    /// The tunnel reads these at once, and there are few; one that finds no room is of a relay that floods us.
    fn note(&self, note: Note) {
        let _ = self.notes.try_send((self.number, note));
    }
}

/// Whether it is time to tell again; if so, it is told now.
fn is_due(told: &mut Option<Instant>) -> bool {
    let due = told.is_none_or(|told| told.elapsed() >= TOLD_EVERY);
    if due {
        *told = Some(Instant::now());
    }
    due
}

/// The relay's words for a log.
fn words(text: &str) -> String {
    visible(text).chars().take(MAX_WORDS).collect()
}

/// A viewer for whom there is no room gets to know it, where that can be said.
fn busy(server: &Server, id: String) {
    if server.level == Level::Two {
        let message = Some("the client serves as many connections as it can: try again later".to_owned());
        let _ = server.say.try_send(ToRelay::Reject(Reject { id, reason: "busy".into(), message }));
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::client::dial::RelayIo;
    use crate::client::event::Events;
    use crate::client::{Connector, Dialer, Proxies, RelayUrl, Target};
    use crate::stream::any::AnyStream;

    /// Runs a session of level two to its end on a stopped clock: the relay says `message` and nothing else.
    async fn ended_after(message: &str) -> (Ended, Duration, mpsc::Receiver<(u64, Note)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let mut far = far.unwrap().0;
        let frame = [&[0x81, u8::try_from(message.len()).unwrap()], message.as_bytes()].concat();
        far.write_all(&frame).await.unwrap();
        let near = near.unwrap();
        near.readable().await.unwrap();
        let io = RelayIo::Plain(AnyStream::Tcp(near));
        let dialer = Dialer::new(RelayUrl::parse("http://127.0.0.1:1").unwrap(), Proxies::none());
        let (say, said) = mpsc::channel(1);
        let server = Server {
            connector: Connector::new(dialer, None).unwrap(),
            target: Target::port_here(1),
            raw: false,
            events: Events::new(0).0,
            tunnel: "t1".into(),
            level: Level::Two,
            say,
            welcome: std::sync::OnceLock::new(),
        };
        let (send, notes) = mpsc::channel(8);
        let live = Live::new(Arc::new(server), Default::default(), 7, send);
        let control = Control::new(io, BytesMut::new(), Level::Two).await;
        let (_woken, woken) = watch::channel(0);
        tokio::time::pause();
        let began = Instant::now();
        let ended = live.run(control, said, CancellationToken::new(), woken).await;
        (ended, began.elapsed(), notes)
    }

    #[tokio::test]
    async fn a_relay_that_drains_and_does_not_stop_is_left() {
        let drain = r#"{"type":"drain","deadline_ms":2000,"reconnect_ms":9000}"#;
        let (ended, after, mut notes) = ended_after(drain).await;
        assert!(matches!(ended, Ended::Lost(why) if why.contains("did not stop")));
        assert_eq!(after.as_secs(), 2 + DRAIN_MARGIN.as_secs());
        // The new session is not to come when the old one is over already.
        assert_eq!(notes.recv().await, Some((7, Note::Drain(Duration::from_secs(2)))));
    }
}
