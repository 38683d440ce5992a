//! A session beside an end that the test writes by hand: bytes at the wire, and an end that behaves badly.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::BytesMut;

use super::*;
use crate::proto::frame::{Decoder, Event, HeaderBytes, Opcode, apply_mask};
use crate::proto::wsmux::Head;

/// The client of a WebSocket.
struct Hand {
    io: DuplexStream,
    decoder: Decoder,
    buffer: BytesMut,
}

/// What came of the session.
#[derive(Debug, PartialEq)]
enum Said {
    Message(Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    Close(u16, String),
    Gone,
}

impl Hand {
    async fn frame(&mut self, opcode: Opcode, fin: bool, payload: &[u8]) {
        let mask = [1, 2, 3, 4];
        let mut frame = HeaderBytes::new(opcode, fin, payload.len(), Some(mask)).as_ref().to_vec();
        let start = frame.len();
        frame.extend_from_slice(payload);
        apply_mask(&mut frame[start..], mask, 0);
        // A session that is over takes no more.
        let _ = self.io.write_all(&frame).await;
    }

    async fn send(&mut self, head: Head, payload: &[u8]) {
        self.frame(Opcode::Binary, true, &[head.as_ref(), payload].concat()).await;
    }

    /// What comes next; pings are left out, as they come whenever they do.
    async fn hear(&mut self) -> Said {
        loop {
            match self.hear_all().await {
                Said::Ping => {}
                said => return said,
            }
        }
    }

    async fn hear_all(&mut self) -> Said {
        let mut message = Vec::new();
        loop {
            let before = self.buffer.clone();
            match self.decoder.next(&mut self.buffer).unwrap() {
                Some(Event::Data(data)) => {
                    message.extend_from_slice(&data);
                    if self.decoder.at_rest() {
                        return Said::Message(message);
                    }
                }
                Some(Event::Ping(_)) => return Said::Ping,
                Some(Event::Pong(payload)) => return Said::Pong(payload.to_vec()),
                Some(Event::Close(code)) => {
                    // The reason, which the decoder does not keep.
                    let reason = String::from_utf8(before[4..before.len() - self.buffer.len()].to_vec());
                    return Said::Close(code.unwrap(), reason.unwrap());
                }
                Some(event) => panic!("{event:?}"),
                None => {
                    if self.io.read_buf(&mut self.buffer).await.unwrap() == 0 {
                        return Said::Gone;
                    }
                }
            }
        }
    }
}

/// A session of the server's side, and the end that the test writes.
fn beside(pipe: usize, settings: Settings) -> (Session, Hand, JoinHandle<Ended>) {
    let (near, far) = duplex(pipe);
    let (session, driver) = Session::new(near, Role::Server, settings);
    let hand = Hand { io: far, decoder: Decoder::new(Role::Client), buffer: BytesMut::new() };
    (session, hand, tokio::spawn(driver.run()))
}

fn message(head: Head, payload: &[u8]) -> Said {
    Said::Message([head.as_ref(), payload].concat())
}

#[tokio::test]
async fn an_exchange_byte_by_byte() {
    let (session, mut hand, driving) = beside(1000, Settings::default());
    assert_eq!(hand.hear_all().await, Said::Ping);
    let opening = {
        let session = session.clone();
        tokio::spawn(async move { session.open().await })
    };
    assert_eq!(hand.hear().await, Said::Message(vec![1, 0, 0, 0, 0]));
    hand.frame(Opcode::Binary, true, &[2, 0, 0, 0, 0, 0x10, 0, 0, 0]).await;
    let mut stream = opening.await.unwrap().unwrap();
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(hand.hear().await, Said::Message(b"\0\0\0\0\0hello".to_vec()));
    // In three fragments, with a ping between.
    hand.frame(Opcode::Binary, false, b"\0\0\0").await;
    hand.frame(Opcode::Ping, true, b"there?").await;
    hand.frame(Opcode::Continuation, false, b"\0\0wor").await;
    hand.frame(Opcode::Continuation, true, b"ld").await;
    assert_eq!(hand.hear().await, Said::Pong(b"there?".to_vec()));
    let mut got = [0; 5];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"world");
    // What was taken is acknowledged, in one frame or in two.
    let mut told = 0;
    while told < 5 {
        let Said::Message(ack) = hand.hear().await else { panic!("no ACK") };
        assert_eq!((&ack[..5], ack.len()), (&[2, 0, 0, 0, 0][..], 9));
        told += ack[5];
    }
    stream.shutdown().await.unwrap();
    assert_eq!(hand.hear().await, Said::Message(vec![3, 0, 0, 0, 0]));
    hand.frame(Opcode::Binary, true, &[3, 0, 0, 0, 0]).await;
    assert_eq!(stream.read(&mut got).await.unwrap(), 0);
    drop((stream, session));
    assert_eq!(hand.hear().await, Said::Close(1000, String::new()));
    drop(hand);
    assert_eq!(driving.await.unwrap(), Ended::ByUs(1000, ""));
}

#[tokio::test(start_paused = true)]
async fn each_breach_is_told_by_its_close_code_and_reason_and_the_socket_is_closed() {
    for (opcode, payload, code, reason) in [
        (Opcode::Text, &b"hello"[..], 1008, "unexpected non-binary websocket message"),
        (Opcode::Text, b"", 1008, "unexpected non-binary websocket message"),
        (Opcode::Binary, b"", 1008, "malformed header"),
        (Opcode::Binary, b"\x09\0\0\0\0", 1008, "malformed header"),
        (Opcode::Binary, b"\x02\0\0\0\0\0", 1008, "malformed payload"),
        (Opcode::Binary, b"\x01\0\0\0\0", 1008, "SYN with an id of the other side"),
        (Opcode::Continuation, b"x", 1002, "protocol error"),
    ] {
        let (session, mut hand, driving) = beside(1000, Settings::default());
        hand.frame(opcode, true, payload).await;
        assert_eq!(hand.hear().await, Said::Close(code, reason.to_owned()));
        assert_eq!(hand.hear().await, Said::Gone);
        assert_eq!(session.open().await.unwrap_err(), OpenError::Over);
        // It waits shortly for the other end to go first.
        let ended = driving.await.unwrap();
        assert_eq!(ended.goodbye(), Some((code, reason)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_streams_ends_only_its_own_session() {
    let (session, mut hand, driving) = beside(1000, Settings::default());
    let (other, mut its_hand, _driving) = beside(1000, Settings::default());
    let flood = tokio::spawn(async move {
        for at in 0..300 {
            hand.send(Head::syn(2 * at + 1), b"").await;
        }
        hand.hear().await
    });
    assert_eq!(session.over().await, Ended::Breach(Breach::TooManySyns));
    drop(session);
    assert_eq!(
        flood.await.unwrap(),
        Said::Close(1008, "too many un-accepted new incoming streams".to_owned())
    );
    assert_eq!(driving.await.unwrap(), Ended::Breach(Breach::TooManySyns));
    its_hand.send(Head::syn(1), b"").await;
    assert_eq!(other.accept().await.unwrap().id(), 1);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_window_ends_the_session_and_no_more_than_the_window_is_held() {
    let (session, mut hand, _driving) = beside(100_000, Settings { window: 1000, ..Settings::default() });
    hand.send(Head::syn(1), b"").await;
    let mut stream = session.accept().await.unwrap();
    assert_eq!(hand.hear().await, message(Head::ack(1, 1000), b""));
    // One message of 100 MB that never ends: what is over the window is not waited for.
    hand.io
        .write_all(HeaderBytes::new(Opcode::Binary, true, 100_000_000, Some([0; 4])).as_ref())
        .await
        .unwrap();
    hand.io.write_all(&[Head::data(1).as_ref(), &sample(1001)].concat()).await.unwrap();
    assert_eq!(session.over().await, Ended::Breach(Breach::Window));
    assert!(session.held() <= 1000);
    assert_eq!(hand.hear().await, Said::Close(1008, "more data than the window allows".to_owned()));
    let error = loop {
        match stream.read(&mut [0; 100]).await {
            Ok(count) => assert!(count > 0),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
}

#[tokio::test(start_paused = true)]
async fn whoever_answers_no_ping_is_told_and_left() {
    let (session, mut hand, driving) = beside(1000, Settings::default());
    let mut pings = 0;
    let said = loop {
        match hand.hear_all().await {
            Said::Ping => pings += 1,
            said => break said,
        }
    };
    assert_eq!((pings, said), (1, Said::Close(1001, "no pong".to_owned())));
    drop(hand);
    assert_eq!((session.over().await, driving.await.unwrap()), (Ended::Silent, Ended::Silent));
}

#[tokio::test(start_paused = true)]
async fn whoever_answers_pings_is_kept_for_hours() {
    let (session, mut hand, _driving) = beside(1000, Settings::default());
    for _ in 0..1000 {
        assert_eq!(hand.hear_all().await, Said::Ping);
        hand.frame(Opcode::Pong, true, b"any").await;
    }
    hand.send(Head::syn(1), b"").await;
    assert!(session.accept().await.is_some());
}

/// An end that reads nothing, not even pings, and sends: all of it is taken, though nothing can be sent.
#[tokio::test(start_paused = true)]
async fn reading_does_not_wait_for_writing_and_a_stopped_reader_is_left_in_time() {
    let (session, mut hand, driving) = beside(1000, Settings::default());
    hand.send(Head::syn(1), b"").await;
    let stream = session.accept().await.unwrap();
    assert_eq!(hand.hear().await, message(Head::ack(1, 4 << 20), b""));
    let (mut from, mut to) = split(stream);
    let writing = tokio::spawn(async move { to.write_all(&[7; 1_000_000]).await });
    let data = sample(3_000_000);
    let reading = tokio::spawn(async move {
        let mut got = vec![0; 3_000_000];
        from.read_exact(&mut got).await.map(|_| got)
    });
    for part in data.chunks(100_000) {
        hand.send(Head::data(1), part).await;
    }
    assert!(reading.await.unwrap().unwrap() == data);
    let begun = tokio::time::Instant::now();
    assert_eq!(driving.await.unwrap(), Ended::Stuck);
    assert!(begun.elapsed() <= Duration::from_secs(21), "{:?}", begun.elapsed());
    assert_eq!(writing.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_accepted_fails_alone_and_is_ended_when_it_is_after_all() {
    let settings = Settings { ping_every: Duration::from_secs(3600), ..Settings::default() };
    let (session, mut hand, _driving) = beside(1000, settings);
    let begun = tokio::time::Instant::now();
    assert_eq!(session.open().await.unwrap_err(), OpenError::NotAccepted);
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(hand.hear().await, message(Head::syn(0), b""));
    hand.send(Head::ack(0, 100), b"").await;
    assert_eq!(hand.hear().await, message(Head::fin(0), b""));
    // The next one is another one.
    let opening = {
        let session = session.clone();
        tokio::spawn(async move { session.open().await })
    };
    assert_eq!(hand.hear().await, message(Head::syn(2), b""));
    hand.send(Head::ack(2, 100), b"").await;
    assert_eq!(opening.await.unwrap().unwrap().id(), 2);
}

#[tokio::test]
async fn an_opening_that_is_dropped_says_nothing_before_its_ack() {
    let (session, mut hand, _driving) = beside(1000, Settings::default());
    {
        let mut opening = std::pin::pin!(session.open());
        assert!(futures_util::poll!(opening.as_mut()).is_pending());
        assert_eq!(hand.hear().await, message(Head::syn(0), b""));
    }
    hand.frame(Opcode::Ping, true, b"").await;
    assert_eq!(hand.hear().await, Said::Pong(Vec::new()));
    hand.send(Head::ack(0, 100), b"").await;
    assert_eq!(hand.hear().await, message(Head::fin(0), b""));
    hand.send(Head::fin(0), b"").await;
    while session.streams() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_close_frame_is_answered_and_the_socket_closed() {
    let (session, mut hand, driving) = beside(1000, Settings::default());
    hand.frame(Opcode::Close, true, &1001_u16.to_be_bytes()).await;
    assert_eq!(hand.hear().await, Said::Close(1001, String::new()));
    assert_eq!(hand.hear().await, Said::Gone);
    drop(hand);
    assert_eq!(driving.await.unwrap(), Ended::ByPeer(Some(1001)));
    assert!(session.accept().await.is_none());
}

#[tokio::test]
async fn a_connection_that_ends_without_a_word_is_an_error_for_its_streams() {
    let (session, mut hand, driving) = beside(1000, Settings::default());
    hand.send(Head::syn(1), b"").await;
    let mut stream = session.accept().await.unwrap();
    hand.send(Head::data(1), b"half of it").await;
    drop(hand);
    let mut got = Vec::new();
    assert_eq!(stream.read_to_end(&mut got).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(got, b"half of it");
    assert!(matches!(driving.await.unwrap(), Ended::Broken(_)));
}

/// What comes in tiny pieces for many streams must not be answered by a frame each.
#[tokio::test]
async fn many_pings_are_answered_by_few_pongs_and_the_last_one_is_among_them() {
    let (_session, mut hand, _driving) = beside(100_000, Settings::default());
    let mut flood = Vec::new();
    for at in 0..5000_u16 {
        flood.extend_from_slice(HeaderBytes::new(Opcode::Ping, true, 2, Some([0; 4])).as_ref());
        flood.extend_from_slice(&at.to_be_bytes());
    }
    hand.io.write_all(&flood).await.unwrap();
    let mut pongs = 0;
    loop {
        pongs += 1;
        if hand.hear().await == Said::Pong(4999_u16.to_be_bytes().to_vec()) {
            break;
        }
    }
    assert!(pongs < 200, "{pongs}");
}
