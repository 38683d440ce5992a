//! Notices that the machine slept: the wall clock has then run ahead of the monotonic one, which stands still.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::proto::limits::client::SLEEP_JUMP;

/// Between two looks at the clocks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One task for a whole process; the number grows by one after each sleep.
pub(super) fn watch() -> (watch::Receiver<u64>, AbortOnDropHandle<()>) {
    let (woken, receiver) = watch::channel(0);
    let task = tokio::spawn(async move {
        let mut clocks = Clocks { wall: SystemTime::now(), monotonic: Instant::now() };
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if clocks.jumped(SystemTime::now(), Instant::now()) {
                woken.send_modify(|count| *count += 1);
            }
        }
    });
    (receiver, AbortOnDropHandle::new(task))
}

struct Clocks {
    wall: SystemTime,
    monotonic: Instant,
}

impl Clocks {
    /// Whether the wall clock ran ahead since the last look. Somebody who sets it does no harm: a ping is sent.
    fn jumped(&mut self, wall: SystemTime, monotonic: Instant) -> bool {
        // A wall clock that was set back yields an error, and is no jump ahead.
        let by_wall = wall.duration_since(self.wall).unwrap_or_default();
        let by_monotonic = monotonic.duration_since(self.monotonic);
        (self.wall, self.monotonic) = (wall, monotonic);
        by_wall > by_monotonic + SLEEP_JUMP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_jump_ahead_is_sleep() {
        let (wall, monotonic) = (SystemTime::now(), Instant::now());
        let mut clocks = Clocks { wall, monotonic };
        let second = Duration::from_secs(1);
        assert!(!clocks.jumped(wall + second, monotonic + second));
        assert!(clocks.jumped(wall + 60 * second, monotonic + 2 * second));
        assert!(!clocks.jumped(wall + 61 * second, monotonic + 3 * second), "each sleep counts once");
        assert!(!clocks.jumped(wall, monotonic + 4 * second), "the clock was set back");
        assert!(!clocks.jumped(wall + 90 * second, monotonic + 94 * second), "a stopped process is no sleep");
    }
}
