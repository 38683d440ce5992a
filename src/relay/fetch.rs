//! How the head of a response is had, on which lane, and with which second tries.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::Shared;
use super::errors::Cause;
use super::exchange::{Exchange, NoHead, Upload};
use super::reach;
use crate::link::{Ask, Lane, Link};
use crate::proto::http1::ResponseHead;
use crate::proto::limits::reuse;
use crate::tunnel::Tunnel;

/// How a response head is had: from a waiting lane where one suits, with one retry where nothing is risked by it.
pub struct Fetch<'a> {
    /// The relay.
    pub shared: &'a Shared,
    /// Where it goes.
    pub tunnel: &'a Tunnel,
    /// What is asked of its client.
    pub ask: Ask,
    /// What a fresh lane begins with.
    pub greeting: Option<BytesMut>,
    /// Several clients may serve the tunnel.
    pub shares: bool,
}

/// A head, and the exchange that goes on behind it.
pub type Fetched = Result<(Exchange, ResponseHead), Cause>;

impl Fetch<'_> {
    /// The head, on the lane that is pinned to the viewer, one that waits, or a fresh one. `again` is the whole request where it
    /// may be sent a second time.
    pub async fn run(&self, pinned: Option<Lane>, upload: Upload, again: Option<BytesMut>) -> Fetched {
        if self.shares && pinned.is_none() {
            return Box::pin(self.among(upload, again)).await;
        }
        let waiting = pinned.or_else(|| self.tunnel.session()?.ready(self.ask));
        let Some(lane) = waiting else { return self.claimed(upload, again).await };
        let Some(again) = again else {
            if lane.waited.is_some() && !lane.reused {
                return Box::pin(self.claimed_head(self.exchange(lane, upload))).await;
            }
            return self.first_head(self.exchange(lane, upload)).await;
        };
        self.reused(lane, upload, again).await
    }

    /// The head on a lane that has carried a request before, or was opened in advance.
    pub(super) async fn reused(&self, lane: Lane, upload: Upload, again: BytesMut) -> Fetched {
        let mut exchange = self.exchange(lane, upload);
        match self.watched(&mut exchange, &again).await {
            Watched::Head(head) => {
                exchange.lane.answered(true);
                Ok((exchange, head))
            }
            Watched::Dead => {
                exchange.lane.answered(false);
                drop(exchange);
                // Boxed, like the race: what is rare must not make every request's future larger.
                Box::pin(self.fresh(Upload::of_head(again))).await
            }
            Watched::Overtaken(fetched) => {
                exchange.lane.answered(false);
                *fetched
            }
            Watched::Failed(cause) => Err(cause),
        }
    }

    /// The head on a lane that was opened in advance, for a request that must not be sent twice: a client that gives no
    /// sign of life within the time for a claim has not claimed it.
    async fn claimed_head(&self, mut exchange: Exchange) -> Fetched {
        match timeout(self.shared.config.limits.claim_wait, exchange.head(self.idle())).await {
            Ok(Ok(head)) => return Ok((exchange, head)),
            Ok(Err(error)) => return Err(cause_of(error)),
            Err(_) if exchange.has_input() || exchange.lane.stream.ponged() => {}
            Err(_) => return Err(Cause::NotClaimed),
        }
        self.first_head(exchange).await
    }

    /// The head on a fresh lane, and on another one where its client falls silent and the request may be sent again.
    async fn claimed(&self, upload: Upload, again: Option<BytesMut>) -> Fetched {
        let lane = reach::lane(self.shared, self.tunnel, self.ask).await?;
        let mut exchange = self.exchange(lane, upload);
        match (self.attended(&mut exchange).await, again) {
            (Ok(head), _) => Ok((exchange, head)),
            (Err(NoHead::Gone), Some(again)) => {
                drop(exchange);
                Box::pin(self.fresh(Upload::of_head(again))).await
            }
            (Err(error), _) => Err(cause_of(error)),
        }
    }

    pub(super) async fn fresh(&self, upload: Upload) -> Fetched {
        let lane = reach::lane(self.shared, self.tunnel, self.ask).await?;
        self.first_head(self.exchange(lane, upload)).await
    }

    pub(super) fn exchange(&self, mut lane: Lane, upload: Upload) -> Exchange {
        let upload = match &self.greeting {
            Some(greeting) if !std::mem::replace(&mut lane.greeted, true) => upload.behind(greeting),
            _ => upload,
        };
        Exchange::new(lane, upload, self.tunnel.quota.meter())
    }

    async fn first_head(&self, mut exchange: Exchange) -> Fetched {
        match self.attended(&mut exchange).await {
            Ok(head) => Ok((exchange, head)),
            Err(error) => Err(cause_of(error)),
        }
    }

    /// The head, for which the target may take its time, as long as the client is there: it is asked for a sign of life now
    /// and then.
    pub(super) async fn attended(&self, exchange: &mut Exchange) -> Result<ResponseHead, NoHead> {
        let (idle, wait) = (self.idle(), self.shared.config.limits.claim_wait);
        let (mut quiet, mut asked) = (Duration::ZERO, false);
        loop {
            let (before, step) = (exchange.upload.received, wait.min(idle.saturating_sub(quiet)));
            match exchange.head(step).await {
                Err(NoHead::Silent) => {}
                head => return head,
            }
            quiet = if exchange.upload.received == before { quiet + step } else { step };
            if quiet >= idle {
                return Err(NoHead::Silent);
            }
            if exchange.has_input() || !may_ask(exchange) {
                continue;
            }
            if asked && !exchange.lane.stream.ponged() {
                return Err(NoHead::Gone);
            }
            exchange.lane.stream.ping();
            asked = true;
            let _ = timeout(wait, exchange.lane.stream.flush()).await;
        }
    }

    pub(super) fn idle(&self) -> Duration {
        self.shared.config.limits.idle_exchange
    }

    /// Waits for the head on a lane that had waited. If the lane may be dead and shows no sign of life, a fresh claim
    /// is raced against it.
    async fn watched(&self, exchange: &mut Exchange, again: &BytesMut) -> Watched {
        let long = exchange.lane.waited.is_some_and(|waited| waited > reuse::PROBE_AFTER);
        if long || exchange.lane.trial {
            match timeout(reuse::PROBE_WAIT, exchange.head(self.idle())).await {
                Ok(head) => return Watched::from(head),
                Err(_) if exchange.has_input() || (!exchange.lane.trial && exchange.lane.stream.ponged()) => {
                }
                Err(_) => {
                    return tokio::select! {
                        head = exchange.head(self.idle()) => Watched::from(head),
                        fetched = Box::pin(self.fresh(Upload::of_head(again.clone()))) => Watched::Overtaken(Box::new(fetched)),
                    };
                }
            }
        }
        Watched::from(self.attended(exchange).await)
    }
}

/// Whether a client that gives no sign of life is gone. A target that does not read a body yet may hold up the question,
/// and of clients of the base level nobody knows whether they hear it: only one that was lost as well has no excuse.
fn may_ask(exchange: &Exchange) -> bool {
    let upload = &exchange.upload;
    let is_heard = upload.is_done() && upload.received <= reuse::HEARD_BEHIND;
    exchange.lane.is_lost() || exchange.lane.stream.half_closes() && is_heard
}

enum Watched {
    Head(ResponseHead),
    /// The lane was dead: nothing of a response came, so the request may go out again.
    Dead,
    /// The fresh claim was quicker.
    Overtaken(Box<Fetched>),
    Failed(Cause),
}

impl From<Result<ResponseHead, NoHead>> for Watched {
    fn from(head: Result<ResponseHead, NoHead>) -> Self {
        match head {
            Ok(head) => Self::Head(head),
            Err(NoHead::Nothing | NoHead::Gone) => Self::Dead,
            Err(error) => Self::Failed(cause_of(error)),
        }
    }
}

/// What the viewer is told of it.
pub fn cause_of(error: NoHead) -> Cause {
    tracing::debug!(%error, "no response");
    match error {
        NoHead::Nothing | NoHead::Cut(_) => Cause::TargetClosed,
        NoHead::Bad(_) => Cause::BadResponse,
        NoHead::Silent => Cause::TargetSilent,
        NoHead::Gone => Cause::NotClaimed,
        NoHead::Rejected(rejection) => Cause::Rejected(rejection),
        NoHead::Upload(error) => error.cause(),
    }
}
