//! The life of one worker: registered, served, lost, and registered again with whatever token there is then.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::carry::Carrier;
use super::register::{NotRegistered, register};
use super::token::has_expired;
use super::{WorkerOptions, WorkerToken};
use crate::client::connect::Failure;
use crate::client::dial::RelayIo;
use crate::client::event::{End, Event, Events, TokenNews};
use crate::client::retry::Retry;
use crate::client::streams::Streams;
use crate::proto::close;
use crate::proto::frame::Role;
use crate::proto::limits::worker::{LONGEST_RETRY, SHORT_SESSION, SHORT_SESSIONS, STOP_WAIT, STREAMS};
use crate::stream::handshake::Opened;
use crate::stream::wsmux::{Ended, Session, Settings};

/// A token that comes within this is not asked for.
const MOMENT: Duration = Duration::from_secs(1);

/// Where a worker stands. Dropping it ends everything at once.
pub(super) struct Runner {
    options: WorkerOptions,
    carrier: Arc<Carrier>,
    events: Events,
    stop: CancellationToken,
    /// Also those of sessions that are over, which end by themselves.
    streams: Streams,
    retry: Retry,
    /// It was registered once.
    again: bool,
    /// A token that the relay does not take, and its reason.
    refused: Option<(WorkerToken, String)>,
    /// Sessions in a row that the relay has ended soon after they began.
    short: u32,
}

/// What comes after a session or a try.
enum Next {
    End(End),
    /// Another token.
    Token,
    /// Another try: why, and what to wait at least.
    Retry(String, Duration),
}

impl Runner {
    pub(super) fn new(options: WorkerOptions, events: Events, stop: CancellationToken) -> Self {
        let carrier = Arc::new(Carrier::new(options.target.clone(), events.clone()));
        Self {
            options,
            carrier,
            events,
            stop,
            streams: Streams::default(),
            retry: Retry::default(),
            again: false,
            refused: None,
            short: 0,
        }
    }

    pub(super) async fn run(mut self) -> End {
        let end = self.live().await;
        self.events.send(Event::Ended(end.clone()));
        end
    }

    async fn live(&mut self) -> End {
        let stop = self.stop.clone();
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stopped,
                opened = self.open() => opened,
            };
            let next = match next {
                Ok(opened) => self.serve(opened).await,
                Err(next) => next,
            };
            match next {
                Next::End(end) => return end,
                Next::Token => {}
                Next::Retry(reason, least) => {
                    let retry_in = least + self.retry.next();
                    self.events.send(Event::Offline { reason, retry_in });
                    let mut woken = self.options.connector.woken();
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return End::Stopped,
                        // The network may be there again, and nothing is gained by waiting.
                        _ = woken.changed() => {}
                        () = sleep(retry_in) => {}
                    }
                }
            }
        }
    }

    /// Registers, as soon as there is a token that may do.
    async fn open(&mut self) -> Result<Opened<RelayIo>, Next> {
        let token = self.token().await.map_err(Next::End)?;
        self.events.send(Event::Connecting);
        let options = &self.options;
        match register(&options.connector, &options.id, &token, self.again).await {
            Ok((opened, url)) => {
                let (id, again) = (options.id.as_str().to_owned(), self.again);
                self.events.send(Event::Online { url, id, again });
                self.again = true;
                Ok(opened)
            }
            // The first token that there ever was is wrong, which its user is to know at once.
            Err(NotRegistered::Token(reason)) if !self.again => Err(Next::End(End::Unauthorised(reason))),
            Err(NotRegistered::Token(reason)) => {
                self.refused = Some((token, reason));
                Err(Next::Token)
            }
            Err(NotRegistered::Failed(Failure::Final(end))) => Err(Next::End(end)),
            Err(NotRegistered::Failed(Failure::Passing(reason))) => Err(Next::Retry(reason, Duration::ZERO)),
            Err(NotRegistered::Failed(Failure::Later(reason, wait))) => Err(Next::Retry(reason, wait)),
        }
    }

    /// The newest token, when it may do; the end, when none will.
    async fn token(&mut self) -> Result<WorkerToken, End> {
        let tokens = &mut self.options.tokens;
        loop {
            let token = tokens.borrow_and_update().clone();
            let reason = match (token, &self.refused) {
                (None, _) => "there is none".to_owned(),
                (Some(token), Some((refused, reason))) if refused.expose() == token.expose() => {
                    reason.clone()
                }
                (Some(token), _) if has_expired(token.expose(), SystemTime::now()) => {
                    "it has expired".to_owned()
                }
                (Some(token), _) => return Ok(token),
            };
            let last = End::Unauthorised(format!(
                "the token: {reason}, and no other one will come: give a good one by --token, or as a line of stdin"
            ));
            if tokens.has_changed().is_err() {
                return Err(last);
            }
            let changed = match timeout(MOMENT, tokens.changed()).await {
                Ok(changed) => changed,
                Err(_) => {
                    self.events.send(Event::Token(TokenNews::Needed(reason)));
                    tokens.changed().await
                }
            };
            changed.map_err(|_| last)?;
        }
    }

    /// Serves the streams of one session until it ends, or until the worker is to stop.
    async fn serve(&mut self, opened: Opened<RelayIo>) -> Next {
        let began = Instant::now();
        // They are accepted as they come, but many may come in one go.
        let settings = Settings { streams: STREAMS, unaccepted: STREAMS, ..Settings::default() };
        let (session, driver) = Session::with_already(opened.io, Role::Client, opened.already, settings);
        let driving = AbortOnDropHandle::new(tokio::spawn(driver.run()));
        let mut tokens = self.options.tokens.clone();
        // Where there are none any more that is no news.
        let mut more_tokens = tokens.has_changed().is_ok();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.part(&session).await;
                    let _ = driving.await;
                    return Next::End(End::Stopped);
                }
                news = next_token(&mut tokens), if more_tokens => {
                    more_tokens = news == TokenNews::Fresh;
                    if self.events.wants_requests() {
                        self.events.send(Event::Token(news));
                    }
                }
                stream = session.accept() => {
                    let Some(stream) = stream else { break };
                    let carrier = Arc::clone(&self.carrier);
                    self.streams.spawn(async move { carrier.carry(stream).await });
                }
            }
        }
        match driving.await {
            Ok(ended) => self.after(ended, began.elapsed()),
            Err(_) => Next::End(End::Failed),
        }
    }

    /// At a stop: streams get their time, and the relay is told.
    async fn part(&mut self, session: &Session) {
        if timeout(STOP_WAIT, self.streams.ended()).await.is_err() {
            tracing::debug!(streams = self.streams.count(), "streams cut off");
            // Before the streams are dropped: each of them would end as if it were whole.
            session.cut(close::DONE, "").await;
            self.streams = Streams::default();
        }
        session.close(close::DONE, "").await;
    }

    fn after(&mut self, ended: Ended, lasted: Duration) -> Next {
        self.retry.after(lasted);
        let id = self.options.id.as_str();
        if ended == Ended::ByPeer(Some(close::DONE)) {
            let reason = format!("by the relay (1000), as when another client takes over the id {id}");
            return Next::End(End::Closed(reason));
        }
        let by_relay = matches!(ended, Ended::ByPeer(_) | Ended::Broken(_));
        // One that restarts says so.
        let restarts = ended == Ended::ByPeer(Some(close::RESTART));
        self.short = if by_relay && !restarts && lasted < SHORT_SESSION { self.short + 1 } else { 0 };
        let reason = format!("the session is lost: {ended}");
        if self.short < SHORT_SESSIONS {
            return Next::Retry(reason, Duration::ZERO);
        }
        let doublings = (self.short - SHORT_SESSIONS).min(16);
        let wait = self.retry.refused().saturating_mul(1 << doublings).min(LONGEST_RETRY);
        let times = self.short;
        let reason = format!(
            "the relay has ended {times} sessions in a row soon after they began, as when another client registers with \
             the id {id}: give each an id of its own"
        );
        Next::Retry(reason, wait)
    }
}

/// Waits for news of tokens that come while a session runs.
async fn next_token(tokens: &mut watch::Receiver<Option<WorkerToken>>) -> TokenNews {
    match tokens.changed().await {
        Ok(()) => TokenNews::Fresh,
        Err(_) => TokenNews::Last,
    }
}
