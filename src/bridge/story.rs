//! The closing record of a session: one line in the log, however it ends, and what is counted of it.

use std::sync::Arc;

use tokio::time::Instant;

use super::metrics::Counts;
use super::reach::Unreached;
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

/// The debug level from which on there are warnings.
const WARNINGS: u8 = 2;
/// That from which on there are records of sessions that end; above it, of those that begin.
const ENDS: u8 = 3;

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
    /// See [`super::Service::debug`].
    debug: u8,
}

impl Story {
    /// A session of `viewer` begins, whose debug level is that of its service.
    pub(super) fn begin(
        counts: &Arc<Counts>,
        viewer: String,
        path: String,
        target: String,
        secure: bool,
        debug: Option<u8>,
    ) -> Self {
        counts.begin();
        let debug = debug.unwrap_or(ENDS);
        match debug > ENDS {
            true => tracing::info!(viewer, path, to = target, secure, "session begins"),
            false => tracing::debug!(viewer, path, to = target, secure, "session begins"),
        }
        let (by, code, reason) = (By::Cut, None, String::new());
        let (counts, began) = (Arc::clone(counts), Instant::now());
        Self { counts, began, viewer, path, target, secure, by, code, reason, moved: Moved::default(), debug }
    }

    /// Which of several backends it is.
    pub(super) fn leads_to(&mut self, backend: String) {
        self.target = backend;
    }

    pub(super) fn not_connected(&mut self, error: &Unreached) {
        if self.debug >= WARNINGS {
            tracing::warn!(viewer = self.viewer, path = self.path, %error, "no connection to the target");
        }
        self.by = By::Dial;
    }

    pub(super) fn ended_by(&mut self, by: By) {
        self.by = by;
    }

    /// So much was moved until now. It is counted at once: a session may last for weeks, and may be dropped.
    pub(super) fn moved(&mut self, moved: Moved) {
        self.counts.moved(moved.outward - self.moved.outward, moved.inward - self.moved.inward);
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
        self.counts.end(self.by);
        if self.debug < ENDS {
            return;
        }
        // Each was asked for: however many there are, none is left out.
        tracing::info!(
            target: "adit::session",
            viewer,
            path,
            to = target,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_moves_is_counted_before_it_ends_and_once() {
        let counts = Arc::new(Counts::new());
        let mut story = Story::begin(&counts, String::new(), String::new(), String::new(), false, None);
        story.moved(Moved { outward: 10, inward: 1 });
        assert_eq!(counts.bytes(), (10, 1));
        story.moved(Moved { outward: 15, inward: 4 });
        drop(story);
        assert_eq!(counts.bytes(), (15, 4));
    }
}
