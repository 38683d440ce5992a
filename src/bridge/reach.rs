//! Where a session leads, and how that is reached: a target that something else has chosen, or the backends of a route.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use super::backends::{ConnectError, Visit};
use super::refusal::Refusal;
use super::shared::Served;
use super::{DialError, Target};
use crate::proto::proxy_header::Ends;
use crate::stream::any::AnyStream;
use crate::sync::Held;

/// The way of one session.
#[derive(Debug)]
pub(super) struct Way {
    /// `None`: to the backends of the route.
    pub(super) target: Option<Target>,
    /// What a log may show of it.
    pub(super) shown: String,
    /// What the target is told.
    pub(super) ends: Option<Ends>,
    /// What backends are chosen by.
    pub(super) path: String,
    pub(super) authority: String,
    pub(super) address: IpAddr,
}

/// A target that was reached.
pub(super) struct Reached {
    pub(super) stream: AnyStream,
    /// Which of several it is.
    pub(super) backend: Option<String>,
    /// To be kept as long as the stream: the backend is busy with it.
    pub(super) held: Option<Held>,
}

/// Why none was.
pub(super) type Unreached = ConnectError<DialError>;

impl Served {
    /// Whether a session gets anywhere without a target that something else chooses.
    pub(super) fn leads_somewhere(&self) -> bool {
        self.config.target.is_some() || self.backends.is_some()
    }

    /// Goes the way.
    pub(super) async fn reach(&self, way: &Way) -> Result<Reached, Unreached> {
        let wait = self.config.dialling.wait;
        match (&way.target, &self.backends) {
            (None, Some(backends)) => {
                let visit = Visit { path: &way.path, authority: &way.authority, address: way.address };
                let connected = backends
                    .connect(visit, wait, |target, part| self.dialer.dial(target, way.ends, part))
                    .await?;
                let backend = Some(connected.target.to_string());
                Ok(Reached { stream: connected.stream, backend, held: Some(connected.held) })
            }
            (Some(target), _) => {
                let dialled = self.dialer.dial(target, way.ends, wait).await;
                let stream = dialled.map_err(|error| ConnectError::Failed(error.shown_as(&way.shown)))?;
                Ok(Reached { stream, backend: None, held: None })
            }
            // Nobody sets out on it; what is asked for without a way is refused before.
            (None, None) => Err(ConnectError::Down { again_in: Duration::MAX }),
        }
    }
}

/// Which target it was, and why it failed, is for the log alone.
pub(super) fn unreached(error: &Unreached) -> Refusal {
    match error {
        ConnectError::Down { again_in } => {
            let seconds = again_in.as_millis().div_ceil(1000).max(1);
            let refusal =
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "every backend is down; try again soon");
            match HeaderValue::try_from(seconds.to_string()) {
                Ok(seconds) => refusal.with(header::RETRY_AFTER, seconds),
                Err(_) => refusal,
            }
        }
        ConnectError::Failed(DialError::Late { .. }) => {
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the target does not answer in time")
        }
        ConnectError::Failed(_) => Refusal::new(StatusCode::BAD_GATEWAY, "the target cannot be reached"),
    }
}
