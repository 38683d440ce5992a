//! A request to one of several clients of its tunnel: who is asked next, and when that does no harm.

use bytes::BytesMut;
use tokio::time::timeout;
use uuid::Uuid;

use super::errors::Cause;
use super::exchange::{Exchange, NoHead, Upload};
use super::fetch::{Fetch, Fetched, cause_of};
use super::reach;
use crate::link::Lane;
use crate::proto::http1::ResponseHead;
use crate::proto::limits::reuse;
use crate::tunnel::Picked;

impl Fetch<'_> {
    /// The head from one of several clients. The next one is asked where nothing can have come of the request: as one is
    /// gone, does not take it up or does not reach its target; or where that does no harm.
    pub(super) async fn among(&self, mut upload: Upload, again: Option<BytesMut>) -> Fetched {
        let (resendable, viewer) = (again.is_some(), self.ask.remote.ip());
        let (mut tried, mut failed, mut waiting) = (Vec::new(), None, true);
        upload.keep();
        loop {
            let Some(picked) = self.tunnel.pick(viewer, &tried) else {
                return match failed {
                    Some(cause) if self.tunnel.clients() > 0 => Err(cause),
                    // Nobody is there: they are waited for.
                    _ => self.fresh(upload).await,
                };
            };
            let lane = match self.lane_of(picked, waiting, &mut tried).await {
                Ok(lane) => lane,
                Err(Cause::ClientGone) => return self.fresh(upload).await,
                Err(cause) => return Err(failed.unwrap_or(cause)),
            };
            if let (true, Some(again)) = (lane.trial, &again) {
                return self.reused(lane, upload, again.clone()).await;
            }
            let stale = lane.waited.is_some();
            let mut exchange = self.exchange(lane, upload);
            let error = match self.lively(&mut exchange, resendable).await {
                Ok(head) => {
                    exchange.lane.answered(true);
                    return Ok((exchange, head));
                }
                Err(error) => error,
            };
            // A target closes what waits when it likes: its client may be asked once more.
            let stale = stale && resendable && matches!(error, NoHead::Nothing);
            let harmless = matches!(error, NoHead::Rejected(_))
                || resendable && matches!(error, NoHead::Nothing | NoHead::Gone);
            let cause = cause_of(error);
            if !harmless {
                return Err(cause);
            }
            if stale {
                tried.pop();
                waiting = false;
            } else {
                self.ail(&tried);
            }
            let Some(rewound) = exchange.upload.rewound() else { return Err(cause) };
            (upload, failed) = (rewound, Some(cause));
        }
    }

    /// A lane of `picked`, or of one that is asked after it; the last of those that were `tried` has given it. `waiting`: one
    /// that waits will do.
    async fn lane_of(&self, picked: Picked, waiting: bool, tried: &mut Vec<Uuid>) -> Result<Lane, Cause> {
        let id = picked.session.id();
        let ready = if waiting { picked.ready(self.ask) } else { Err(picked) };
        let picked = match ready {
            Ok(lane) => {
                tried.push(id);
                return Ok(lane);
            }
            Err(picked) => picked,
        };
        let _waiting = self.tunnel.quota.wait().map_err(Cause::WaitingOfKey)?;
        let _promise = self.shared.room.promise().ok_or(Cause::Full)?;
        let wait = self.shared.config.limits.claim_wait;
        Ok(reach::among(self.tunnel, self.ask, wait, picked, tried).await?)
    }

    /// The last one that was tried has failed.
    fn ail(&self, tried: &[Uuid]) {
        if let Some(session) = tried.last().and_then(|id| self.tunnel.session_of(*id)) {
            session.ail();
        }
    }

    /// The head on a lane of any kind; an error if its client gives no sign of life.
    async fn lively(&self, exchange: &mut Exchange, resendable: bool) -> Result<ResponseHead, NoHead> {
        if exchange.lane.waited.is_some() {
            let wait = if resendable { reuse::PROBE_WAIT } else { self.shared.config.limits.claim_wait };
            match timeout(wait, exchange.head(self.idle())).await {
                Ok(head) => return head,
                Err(_) if exchange.has_input() || exchange.lane.stream.ponged() => {}
                Err(_) => return Err(NoHead::Gone),
            }
        }
        self.attended(exchange).await
    }
}
