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
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A wake of its own left the socket unseen for as many turns as the runtime takes without looking at sockets.
    #[test]
    fn a_socket_is_read_between_two_turns_of_one_who_moves_much() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(10_000).build();
        let (turns, done) = (Cell::new(0_u32), Cell::new(false));
        runtime.unwrap().block_on(async {
            let (mut near, mut far) = tokio::net::UnixStream::pair().unwrap();
            let reading = tokio::spawn(async move { near.read_u8().await.unwrap() });
            tokio::task::yield_now().await;
            far.write_u8(7).await.unwrap();
            let moving = poll_fn(|cx| {
                turns.set(turns.get() + 1);
                if done.get() {
                    return Poll::Ready(());
                }
                give_way(cx);
                Poll::Pending
            });
            let read = async {
                assert_eq!(reading.await.unwrap(), 7);
                done.set(true);
            };
            tokio::join!(read, moving);
        });
        assert!(turns.get() < 100, "{} turns", turns.get());
    }
}
