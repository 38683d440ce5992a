//! The end of a relay: what is under way finishes, clients are told, counters are saved.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::ending::Kind;
use super::{Relay, Shared, unix};
use crate::link::sockets::Pending;

/// For the goodbyes to clients.
const GOODBYE: Duration = Duration::from_secs(3);
/// After the time that clients were told to come back at: for the last of them to be at home at the successor.
const MOVING: Duration = Duration::from_secs(1);
/// Before the drain time ends: for short exchanges to end when nothing more begins.
const LAST_MOMENTS: Duration = Duration::from_secs(2);
/// For viewers without a response to be told so.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// How often connections that wait to be claimed are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

impl Relay {
    /// Stops: accepts nothing new, lets requests finish within the drain time, tells clients to reconnect, saves.
    pub async fn shutdown(self) {
        let Self { shared, sockets, tasks: _tasks, files, .. } = self;
        let (limits, ending) = (&shared.config.limits, &shared.ending);
        let deadline = Instant::now() + limits.drain;
        ending.begin(Kind::Stopping);
        shared.registry.drain_sessions(limits.drain);
        // Clients take up what they were told of over new connections, so these are let in until they have. What is
        // announced between the last look and the close is waited for as well.
        let claims = deadline.min(Instant::now() + limits.claim_wait);
        let _ = timeout_at(claims, all_claimed(&shared.pending)).await;
        shared.pending.close();
        let _ = timeout_at(claims, all_claimed(&shared.pending)).await;
        ending.deaf.cancel();
        ending.closing.cancel();
        files.into_iter().for_each(unix::File::remove);
        drop(sockets);
        finish(&shared, deadline).await;
    }

    /// Ends after a successor has taken over. What is under way here finishes within the drain time, and clients serve
    /// it, and viewers of the successor, until they are at home there.
    pub async fn retire(self) {
        let Self { shared, sockets, tasks: _tasks, .. } = self;
        drop(sockets);
        let (limits, ending) = (&shared.config.limits, &shared.ending);
        let deadline = Instant::now() + limits.drain;
        let last = LAST_MOMENTS.min(limits.drain / 4);
        let told = shared.registry.drain_sessions(limits.drain);
        shared.tasks.close();
        let finished = async {
            if let Some(spread) = told {
                sleep(spread + MOVING).await;
            }
            shared.tasks.wait().await;
            // Only through us can the successor ask it.
            shared.predecessor.ended().await;
        };
        let _ = timeout_at(deadline - last, finished).await;
        // Streams that the successor's viewers have of clients that cannot be told are mostly short, so few are under
        // way when the sessions end; whoever comes meanwhile waits at the successor until the client is back.
        ending.leaving.cancel();
        ending.closing.cancel();
        shared.questions.close();
        let _ = timeout_at(deadline.min(Instant::now() + last), shared.questions.wait()).await;
        finish(&shared, deadline).await;
    }
}

/// Waits for the viewers, then ends the sessions, then waits for what the successor has of them. What still runs at
/// `deadline` is cut.
async fn finish(shared: &Shared, deadline: Instant) {
    shared.tasks.close();
    shared.questions.close();
    until(shared, deadline, shared.tasks.wait()).await;
    shared.registry.end_sessions();
    shared.sessions.close();
    let _ = timeout(GOODBYE, shared.sessions.wait()).await;
    until(shared, deadline, shared.questions.wait()).await;
    shared.registry.save().await;
    if let Some(spans) = &shared.spans {
        spans.finish().await;
    }
}

async fn until(shared: &Shared, deadline: Instant, ended: impl Future<Output = ()>) {
    if timeout_at(deadline, ended).await.is_err() {
        let left = shared.tasks.len() + shared.questions.len();
        tracing::warn!(left, "not everything finished in time; the rest is cut");
        shared.ending.expire();
        shared.registry.stop_running();
        let _ = timeout(LAST_ANSWERS, shared.tasks.wait()).await;
        shared.ending.cut.cancel();
    }
}

/// Until no announced connection waits for its data socket.
async fn all_claimed(pending: &Pending) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while pending.waiting() > 0 {
        looks.tick().await;
    }
}
