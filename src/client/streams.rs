//! The streams of a tunnel: owned by it and not by the control session that announced them, which they may outlive.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use crate::sync::lock;

/// Streams that are open at the same time. Beyond it the relay's viewers are rejected, or at base level wait and get 504;
/// the relay's own limits are lower.
const MOST: usize = 4096;

/// They end when the last handle is dropped.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Mutex<JoinSet<()>>>);

impl Streams {
    /// Starts one; `false`: there are too many. `stream` must not hold a handle of these.
    pub(super) fn spawn(&self, stream: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut streams = lock(&self.0);
        while streams.try_join_next().is_some() {}
        let room = streams.len() < MOST;
        if room {
            streams.spawn(stream);
        } else {
            tracing::warn!("{MOST} connections are open: one more was not taken up");
        }
        room
    }

    /// Waits for the end of all.
    pub(super) async fn ended(&self) {
        while poll_fn(|cx| lock(&self.0).poll_join_next(cx)).await.is_some() {}
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        lock(&self.0).len()
    }
}
