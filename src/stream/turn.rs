//! Giving way: those who move much let those who move little go first.

use std::pin::pin;
use std::task::Context;

/// Has the task polled again after the others that are ready, and after the sockets were looked at: a wake of its own
/// would come before whatever the sockets have to tell.
pub fn give_way(cx: &mut Context<'_>) {
    // Its first poll hands our waker to the runtime, which keeps it; without a runtime it wakes us at once.
    let _pending = pin!(tokio::task::yield_now()).poll(cx);
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Poll;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A wake of its own left the socket unseen for as many turns as the runtime takes without looking at sockets.
    #[test]
    fn a_socket_is_read_between_two_turns_of_one_who_moves_much() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().event_interval(10_000).build().unwrap();
        let turns = runtime.block_on(async {
            let (mut near, mut far) = tokio::net::UnixStream::pair().unwrap();
            let done = Arc::new(AtomicBool::new(false));
            let told = Arc::clone(&done);
            tokio::spawn(async move {
                near.read_u8().await.unwrap();
                told.store(true, Ordering::Relaxed);
            });
            tokio::task::yield_now().await;
            far.write_u8(7).await.unwrap();
            let mut turns = 0;
            let moving = tokio::spawn(poll_fn(move |cx| {
                turns += 1;
                if done.load(Ordering::Relaxed) {
                    return Poll::Ready(turns);
                }
                give_way(cx);
                Poll::Pending
            }));
            moving.await.unwrap()
        });
        assert!(turns < 100, "{turns} turns");
    }
}
