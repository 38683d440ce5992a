//! What streams do between two sessions of ours.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::time::Duration;

use super::*;
use crate::stream::splice::{HalfClose, Moved, splice};

/// Gives back all that comes on the streams of a session.
async fn echo(session: Session) {
    let mut streams = JoinSet::new();
    while let Some(stream) = session.accept().await {
        streams.spawn(async move {
            let (mut from, mut to) = split(stream);
            tokio::io::copy(&mut from, &mut to).await.unwrap();
            to.shutdown().await.unwrap();
        });
    }
}

/// Sends it all and ends, while the answer is read up to its end.
async fn ask(stream: Stream, data: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = split(stream);
    let mut got = Vec::new();
    let ask = async {
        to.write_all(data).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(ask, from.read_to_end(&mut got));
    read.unwrap();
    got
}

#[tokio::test]
async fn bytes_come_out_as_they_went_in_whatever_the_transport_and_the_windows_hold() {
    for (pipe, window, length) in
        [(1, 10, 300), (7, 1024, 3_000), (1000, 4096, 300_000), (1 << 20, 4 << 20, 9_000_000)]
    {
        let settings = Settings { window, ..Settings::default() };
        let pair = pair(pipe, &settings);
        let mut echoing = JoinSet::new();
        echoing.spawn(echo(pair.server.clone()));
        echoing.spawn(echo(pair.client.clone()));
        for session in [&pair.server, &pair.client] {
            let data = sample(length);
            assert!(ask(session.open().await.unwrap(), &data).await == data, "{pipe} {window}");
        }
    }
}

#[tokio::test]
async fn a_hundred_streams_are_served_beside_one_that_nobody_reads() {
    let pair = pair(64 * 1024, &Settings::default());
    let (mut stalled, _unread) = pair.stream().await;
    // As much as goes: the window, and what waits here.
    let mut written = 0;
    let block = vec![1; 64 * 1024];
    while let Ok(count) = tokio::time::timeout(Duration::from_millis(100), stalled.write(&block)).await {
        written += count.unwrap();
    }
    assert_eq!(written, (4 << 20) + (128 << 10));
    let mut echoing = JoinSet::new();
    echoing.spawn(echo(pair.client.clone()));
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        let session = pair.server.clone();
        asking.spawn(async move {
            let data = sample(50_000);
            assert!(ask(session.open().await.unwrap(), &data).await == data);
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
    assert_eq!(pair.client.held(), 4 << 20);
}

#[tokio::test]
async fn a_session_that_may_hold_little_is_read_again_whenever_some_was_taken() {
    let pair = pair(64 * 1024, &Settings { held: 10_000, window: 100_000, ..Settings::default() });
    let mut moving = JoinSet::new();
    for _ in 0..20 {
        let (mut near, mut far) = pair.stream().await;
        moving.spawn(async move {
            near.write_all(&sample(300_000)).await.unwrap();
        });
        moving.spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            assert!(got == sample(300_000));
        });
    }
    while let Some(moved) = moving.join_next().await {
        moved.unwrap();
    }
}

#[tokio::test]
async fn after_a_shutdown_the_other_direction_goes_on() {
    let pair = pair(1000, &Settings::default());
    let (mut near, mut far) = pair.stream().await;
    near.write_all(b"ask").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(near.write_all(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut got = String::new();
    far.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "ask");
    far.write_all(b"answer").await.unwrap();
    // Dropped, it sends what was written, and ends.
    drop(far);
    got.clear();
    near.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "answer");
    drop(near);
    while pair.server.streams() + pair.client.streams() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_session_that_is_dropped_sends_what_was_written_and_says_goodbye() {
    let Pair { server, client, driving } = pair(100, &Settings::default());
    let (opened, accepted) = tokio::join!(server.open(), client.accept());
    let (mut near, mut far) = (opened.unwrap(), accepted.unwrap());
    near.write_all(&sample(5000)).await.unwrap();
    near.shutdown().await.unwrap();
    drop(server);
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert!(got == sample(5000));
    let [server, other] = driving;
    assert_eq!(server.await.unwrap(), Ended::ByUs(1000, ""));
    assert_eq!(other.await.unwrap(), Ended::ByPeer(Some(1000)));
    assert!(client.accept().await.is_none());
    assert_eq!(client.open().await.unwrap_err(), OpenError::Over);
    assert_eq!(near.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_driver_that_is_dropped_leaves_nobody_waiting() {
    let Pair { server, client: _client, driving } = pair(100, &Settings::default());
    let opening = {
        let server = server.clone();
        tokio::spawn(async move { server.open().await })
    };
    let accepting = {
        let server = server.clone();
        tokio::spawn(async move { server.accept().await })
    };
    while server.streams() == 0 {
        tokio::task::yield_now().await;
    }
    driving[0].abort();
    assert_eq!(opening.await.unwrap().unwrap_err(), OpenError::Over);
    assert!(accepting.await.unwrap().is_none());
    assert_eq!(server.over().await, Ended::Broken(ErrorKind::ConnectionAborted));
}

#[tokio::test]
async fn bytes_are_moved_without_copying_where_both_sides_can() {
    let pair = pair(64 * 1024, &Settings::default());
    let (near, far) = pair.stream().await;
    let (mut in_front, in_front_end) = duplex(64 * 1024);
    let (mut behind, behind_end) = duplex(64 * 1024);
    let mut splicing = JoinSet::new();
    for (mut socket, mut stream) in [(in_front_end, near), (behind_end, far)] {
        splicing.spawn(async move {
            let idle = Duration::from_secs(10);
            splice(&mut socket, &mut stream, HalfClose::Kept, idle, &mut Moved::default()).await.unwrap();
        });
    }
    let data = sample(2_000_000);
    let sent = data.clone();
    let writing = tokio::spawn(async move {
        in_front.write_all(&sent).await.unwrap();
        in_front.shutdown().await.unwrap();
        let mut got = String::new();
        in_front.read_to_string(&mut got).await.unwrap();
        got
    });
    let mut got = Vec::new();
    behind.read_to_end(&mut got).await.unwrap();
    assert!(got == data);
    behind.write_all(b"thanks").await.unwrap();
    drop(behind);
    assert_eq!(writing.await.unwrap(), "thanks");
}

#[tokio::test]
async fn parts_of_a_vectored_write_come_in_order() {
    let pair = pair(100, &Settings::default());
    let (mut near, mut far) = pair.stream().await;
    let parts = [&b"one "[..], b"", b"two "].map(std::io::IoSlice::new);
    assert_eq!(near.write_vectored(&parts).await.unwrap(), 8);
    drop(near);
    let mut got = String::new();
    far.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "one two ");
    let chunk = poll_fn(|cx| far.poll_bytes(cx, 10)).await.unwrap();
    assert_eq!(chunk, None);
}

/// An end in order would make an answer that is cut short look whole.
#[tokio::test]
async fn streams_of_a_session_that_is_cut_do_not_end_as_if_they_were_whole() {
    let pair = pair(64 * 1024, &Settings::default());
    let (mut near, mut far) = pair.stream().await;
    far.write_all(b"half").await.unwrap();
    near.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(pair.client.cut(1000, "").await, Ended::ByUs(1000, ""));
    drop(far);
    assert_eq!(near.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(pair.server.over().await, Ended::ByPeer(Some(1000)));
}
