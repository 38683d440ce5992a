//! The closing record of a session: one line in the log, however it ends, and what is counted of it.

use std::sync::Arc;

use tokio::time::Instant;

use super::dial::DialError;
use super::metrics::Counts;
use crate::stream::splice::Moved;

/// Who has ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The viewer closed it, left, or broke the rules.
    Viewer,
    /// The target closed it or failed.
    Target,
    /// The bridge ends.
    Bridge,
    /// Nothing moved for as long as is allowed.
    Idle,
    /// The viewer answered no pings.
    Heartbeat,
    /// Its token was revoked.
    Token,
    /// The target was not reached.
    Dial,
    /// The session was dropped under way.
    Cut,
}

impl By {
    /// As logs and metrics name it.
    pub(super) const ALL: [Self; 8] = [
        Self::Viewer,
        Self::Target,
        Self::Bridge,
        Self::Idle,
        Self::Heartbeat,
        Self::Token,
        Self::Dial,
        Self::Cut,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Target => "target",
            Self::Bridge => "bridge",
            Self::Idle => "idle",
            Self::Heartbeat => "heartbeat",
            Self::Token => "token",
            Self::Dial => "dial",
            Self::Cut => "cut",
        }
    }
}

/// What is known of a session; written when it is dropped.
pub(super) struct Story {
    counts: Arc<Counts>,
    began: Instant,
    viewer: String,
    path: String,
    target: String,
    secure: bool,
    by: By,
    code: Option<u16>,
    reason: String,
    moved: Moved,
}

impl Story {
    /// A session of `viewer` begins.
    pub(super) fn begin(
        counts: &Arc<Counts>,
        viewer: String,
        path: String,
        target: String,
        secure: bool,
    ) -> Self {
        counts.begin();
        tracing::debug!(viewer, path, target, secure, "session begins");
        let (by, code, reason) = (By::Cut, None, String::new());
        let (counts, began) = (Arc::clone(counts), Instant::now());
        Self { counts, began, viewer, path, target, secure, by, code, reason, moved: Moved::default() }
    }

    pub(super) fn not_connected(&mut self, error: &DialError) {
        tracing::warn!(viewer = self.viewer, path = self.path, %error, "no connection to the target");
        self.by = By::Dial;
    }

    pub(super) fn ended_by(&mut self, by: By) {
        self.by = by;
    }

    pub(super) fn moved(&mut self, moved: Moved) {
        self.moved = moved;
    }

    /// What the close frame says; without a code there was none, or it had none.
    pub(super) fn closed(&mut self, code: Option<u16>, reason: &str) {
        self.code = code;
        reason.clone_into(&mut self.reason);
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        let Self { viewer, path, target, secure, code, reason, moved, .. } = self;
        self.counts.end(self.by, *moved);
        // Each was asked for: however many there are, none is left out.
        tracing::info!(
            target: "adit::session",
            viewer,
            path,
            target,
            secure,
            by = self.by.as_str(),
            code,
            reason,
            received = moved.outward,
            sent = moved.inward,
            seconds = self.began.elapsed().as_secs_f64(),
            "session ended"
        );
    }
}
