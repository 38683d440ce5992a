//! What streams do while both ends keep the rules.

use super::*;
use crate::proto::limits::wsmux::{FRAME, OPEN_WAIT, UNSENT};

/// Sends all of `data` from one end to the other, with the reader taking all at once whenever something has come.
fn send(pair: &mut Pair, from: usize, id: u32, data: &[u8]) -> Vec<u8> {
    let (mut sent, mut got, mut turns) = (0, Vec::new(), 0);
    while got.len() < data.len() {
        sent += pair.ends[from].mux.write(id, &data[sent..]).unwrap();
        pair.talk();
        got.extend(pair.ends[1 - from].read(id));
        turns += 1;
        assert!(turns < 1_000_000, "{} of {} bytes came", got.len(), data.len());
    }
    got
}

#[test]
fn bytes_go_both_ways_through_windows_of_every_size() {
    for window in [1, 2, 10, 1023, 1024, 4096, 100_000, 4 * 1024 * 1024] {
        for piece in [1, 7, 4096, usize::MAX] {
            let mut pair = Pair::new(Settings { window, ..Settings::default() });
            pair.piece = piece;
            for by in [SERVER, CLIENT] {
                let id = pair.stream(by);
                assert_eq!(id as usize, by);
                let data = sample(if window < 1000 || piece < 10 { 3_000 } else { 300_000 });
                for from in [by, 1 - by] {
                    assert!(send(&mut pair, from, id, &data) == data, "{window} {piece} {by} {from}");
                }
            }
            assert_eq!(pair.ended(), [None; 2]);
            assert!(pair.longest <= FRAME);
        }
    }
}

#[test]
fn the_end_of_one_direction_leaves_the_other_open() {
    let mut pair = Pair::new(Settings::default());
    let id = pair.stream(SERVER);
    pair.ends[SERVER].mux.write(id, b"ask").unwrap();
    pair.ends[SERVER].mux.shutdown(id);
    assert_eq!(pair.ends[SERVER].mux.write(id, b"more"), Err(Broken::Shut));
    pair.talk();
    assert_eq!(pair.ends[CLIENT].read(id), b"ask");
    assert_eq!(pair.ends[CLIENT].mux.read(id, 9), Ok(Taken::End));
    assert_eq!(send(&mut pair, CLIENT, id, b"answer"), b"answer");
    pair.ends[CLIENT].mux.shutdown(id);
    pair.talk();
    assert_eq!(pair.ends[SERVER].mux.read(id, 9), Ok(Taken::End));
    for end in &mut pair.ends {
        assert_eq!(end.mux.streams(), 1);
        end.mux.release(pair.now, id);
        assert_eq!(end.mux.streams(), 0);
    }
}

#[test]
fn what_was_written_before_a_shutdown_or_a_drop_still_comes_and_then_the_end() {
    for dropped in [false, true] {
        let mut pair = Pair::new(Settings { window: 1000, ..Settings::default() });
        let id = pair.stream(CLIENT);
        let data = sample(UNSENT);
        assert_eq!(pair.ends[CLIENT].mux.write(id, &data), Ok(UNSENT));
        if dropped {
            pair.ends[CLIENT].mux.release(pair.now, id);
        } else {
            pair.ends[CLIENT].mux.shutdown(id);
        }
        let mut got = Vec::new();
        while pair.ends[SERVER].mux.read(id, 0) != Ok(Taken::End) {
            pair.talk();
            got.extend(pair.ends[SERVER].read(id));
        }
        assert!(got == data);
    }
}

#[test]
fn nothing_is_sent_on_a_stream_before_it_was_accepted() {
    let mut pair = Pair::new(Settings::default());
    let end = &mut pair.ends[SERVER];
    let id = end.mux.open(pair.now).unwrap();
    end.mux.write(id, b"early").unwrap();
    end.mux.shutdown(id);
    assert_eq!(end.say(), [Head::syn(id).as_ref()]);
    let dropped = end.mux.open(pair.now).unwrap();
    assert_eq!(end.say(), [Head::syn(dropped).as_ref()]);
    end.mux.release(pair.now, dropped);
    assert!(end.say().is_empty());
    for id in [id, dropped] {
        end.hear(pair.now, Head::ack(id, 3).as_ref(), 100);
    }
    let data = [Head::data(id).as_ref(), b"ear"].concat();
    assert_eq!(end.say(), [Head::fin(dropped).as_ref(), &data]);
    end.hear(pair.now, Head::ack(id, 100).as_ref(), 100);
    let rest = [Head::data(id).as_ref(), b"ly"].concat();
    assert_eq!(end.say(), [&rest[..], Head::fin(id).as_ref()]);
}

/// The ACK of a stream that was given up let out what had been written to it, or kept its FIN back behind that.
#[test]
fn an_ack_that_comes_for_a_stream_that_was_given_up_lets_out_nothing_but_its_end() {
    for (given_up, window) in [("dropped", 100), ("in time", 100), ("in time", 1001)] {
        let mut pair = Pair::new(Settings { window: 1000, ..Settings::default() });
        let end = &mut pair.ends[SERVER];
        let id = end.mux.open(pair.now).unwrap();
        assert_eq!(end.mux.write(id, b"early"), Ok(5));
        assert_eq!(end.say(), [Head::syn(id).as_ref()]);
        if given_up == "dropped" {
            end.mux.release(pair.now, id);
        } else if window == 100 {
            pair.now += OPEN_WAIT;
            end.mux.wake(pair.now);
        }
        end.hear(pair.now, Head::ack(id, window).as_ref(), 100);
        end.mux.release(pair.now, id);
        assert_eq!(end.say(), [Head::fin(id).as_ref()], "{given_up} {window}");
        end.hear(pair.now, Head::ack(id, 50).as_ref(), 100);
        assert!(end.say().is_empty());
        end.hear(pair.now, Head::fin(id).as_ref(), 100);
        assert_eq!((end.mux.streams(), end.mux.ended()), (0, None));
    }
}

#[test]
fn an_ack_for_a_stream_that_failed_and_is_still_held_lets_out_nothing() {
    let mut pair = Pair::new(Settings::default());
    let end = &mut pair.ends[SERVER];
    let id = end.mux.open(pair.now).unwrap();
    end.mux.write(id, b"early").unwrap();
    end.say();
    pair.now += OPEN_WAIT;
    end.mux.wake(pair.now);
    for _ in 0..2 {
        end.hear(pair.now, Head::ack(id, 100).as_ref(), 100);
        assert!(end.say().is_empty());
        assert_eq!(end.mux.opening(id), Opening::Failed(Broken::NotAccepted));
        assert_eq!(end.mux.write(id, b"late"), Err(Broken::NotAccepted));
    }
}

/// What is here is acknowledged as it is taken: a consumer that stands still gets no more than its window.
#[test]
fn an_ack_is_sent_for_what_was_taken_and_not_for_what_has_come() {
    let mut pair = Pair::new(Settings { window: 100, ..Settings::default() });
    let id = pair.stream(SERVER);
    assert_eq!(pair.ends[SERVER].mux.write(id, &sample(1000)), Ok(1000));
    pair.pass(10 * SECOND);
    let client = &mut pair.ends[CLIENT];
    assert_eq!(client.mux.held(), 100);
    assert_eq!(client.mux.read(id, 30), Ok(Taken::Bytes(sample(1000).split_off(0)[..30].to_vec().into())));
    // A little is not worth a frame while the other end has room for more.
    assert!(client.say().is_empty());
    client.mux.read(id, 30).unwrap();
    assert_eq!(client.say(), [Head::ack(id, 60).as_ref()]);
    // But nothing is held back once all is taken.
    client.read(id);
    assert_eq!(client.say(), [Head::ack(id, 40).as_ref()]);
}

#[test]
fn a_stream_that_stands_still_holds_up_none_of_a_hundred_others() {
    let mut pair = Pair::new(Settings::default());
    let ids: Vec<u32> = (0..100).map(|_| pair.stream(SERVER)).collect();
    let data = sample(600_000);
    let mut sent = vec![0; ids.len()];
    let mut got = vec![Vec::new(); ids.len()];
    while got[1..].iter().any(|got| got.len() < data.len()) {
        for (at, id) in ids.iter().enumerate() {
            // The first one is written without end and never read.
            let rest = if at == 0 { &data } else { &data[sent[at]..] };
            sent[at] += pair.ends[SERVER].mux.write(*id, rest).unwrap();
        }
        pair.talk();
        for (at, id) in ids.iter().enumerate().skip(1) {
            got[at].extend(pair.ends[CLIENT].read(*id));
        }
    }
    assert!(got[1..].iter().all(|got| *got == data));
    assert!(pair.ends[CLIENT].mux.held() <= 4 * 1024 * 1024);
    assert_eq!(pair.ended(), [None; 2]);
}

#[test]
fn streams_take_turns_frame_by_frame_and_short_frames_go_first() {
    let mut pair = Pair::new(Settings::default());
    let ids: Vec<u32> = (0..3).map(|_| pair.stream(SERVER)).collect();
    let end = &mut pair.ends[SERVER];
    for id in &ids {
        end.mux.write(*id, &sample(2 * FRAME)).unwrap();
    }
    end.mux.open(pair.now).unwrap();
    let heads: Vec<(u8, u8)> = end.say().iter().map(|message| (message[0], message[1])).collect();
    assert_eq!(heads, [(1, 6), (0, 0), (0, 2), (0, 4), (0, 0), (0, 2), (0, 4)]);
}

#[test]
fn ids_are_those_of_the_side_and_begin_anew_past_the_end() {
    for by in [SERVER, CLIENT] {
        let mut pair = Pair::new(Settings::default());
        let first = pair.stream(by);
        pair.ends[by].mux.next = (u32::MAX - 1) | first;
        let last = pair.stream(by);
        assert_eq!(last, (u32::MAX - 1) | first);
        // The first one is in use.
        assert_eq!(pair.stream(by), first + 2);
        assert_eq!(pair.ended(), [None; 2]);
    }
}

#[test]
fn a_stream_that_was_dropped_is_read_and_acknowledged_until_its_end_and_then_forgotten() {
    let mut pair = Pair::new(Settings { window: 1000, ..Settings::default() });
    let id = pair.stream(SERVER);
    pair.ends[SERVER].mux.release(pair.now, id);
    let (data, mut sent) = (sample(300_000), 0);
    while sent < data.len() {
        let count = pair.ends[CLIENT].mux.write(id, &data[sent..]).unwrap();
        assert!(count > 0);
        sent += count;
        pair.talk();
    }
    assert_eq!((pair.ends[SERVER].mux.held(), pair.ends[SERVER].mux.streams()), (0, 1));
    assert_eq!(pair.ends[CLIENT].mux.read(id, 9), Ok(Taken::End));
    pair.ends[CLIENT].mux.release(pair.now, id);
    pair.talk();
    assert_eq!(pair.ends.each_ref().map(|end| end.mux.streams()), [0, 0]);
}

/// It had been acknowledged as long as our own direction was open, to an end that had nothing more to send.
#[test]
fn what_is_taken_behind_the_end_of_the_other_direction_is_not_acknowledged() {
    let mut pair = Pair::new(Settings::default());
    let id = pair.stream(SERVER);
    pair.ends[SERVER].mux.write(id, b"all of it").unwrap();
    pair.ends[SERVER].mux.shutdown(id);
    pair.talk();
    assert_eq!(pair.ends[CLIENT].read(id), b"all of it");
    assert!(pair.ends[CLIENT].say().is_empty());
}

#[test]
fn a_reader_is_told_once_and_again_when_it_has_taken_all() {
    let mut pair = Pair::new(Settings::default());
    let id = pair.stream(SERVER);
    for _ in 0..2 {
        pair.ends[CLIENT].events.clear();
        for _ in 0..3 {
            pair.ends[SERVER].mux.write(id, b"x").unwrap();
            pair.talk();
        }
        assert_eq!(pair.ends[CLIENT].events, [Event::Readable(id)]);
        assert_eq!(pair.ends[CLIENT].read(id), b"xxx");
    }
}

#[test]
fn a_million_pieces_of_one_byte_hold_about_a_million_bytes() {
    let mut pair = Pair::new(Settings::default());
    let id = pair.stream(SERVER);
    let message = [Head::data(id).as_ref(), b"x"].concat();
    for _ in 0..1_000_000 {
        pair.ends[CLIENT].hear(pair.now, &message, usize::MAX);
        pair.ends[CLIENT].events.clear();
    }
    let inbox = &pair.ends[CLIENT].mux.streams[&id].inbox;
    assert_eq!(inbox.len(), 1_000_000);
    assert!(inbox.pieces() < 100, "{}", inbox.pieces());
}

#[test]
fn what_was_written_before_a_close_goes_out_and_then_the_close_frame() {
    let mut pair = Pair::new(Settings::default());
    let id = pair.stream(SERVER);
    pair.ends[SERVER].mux.write(id, b"last words").unwrap();
    pair.ends[SERVER].mux.shutdown(id);
    pair.ends[SERVER].mux.close(pair.now, 1001, "bye");
    assert_eq!(pair.ends[SERVER].mux.open(pair.now), Err(OpenError::Over));
    pair.talk();
    assert_eq!(pair.ended(), [Some(Ended::ByUs(1001, "bye")), Some(Ended::ByPeer(Some(1001)))]);
    assert_eq!(pair.ends[CLIENT].read(id), b"last words");
    assert_eq!(pair.ends[CLIENT].mux.read(id, 9), Ok(Taken::End));
}

/// The end of a session in the middle of a body must not look like the end of the body.
#[test]
fn a_session_that_ends_is_an_error_for_streams_that_have_not_ended() {
    let mut pair = Pair::new(Settings::default());
    let id = pair.stream(SERVER);
    pair.ends[SERVER].mux.write(id, b"half").unwrap();
    pair.talk();
    pair.ends[CLIENT].mux.finish(Ended::Broken(std::io::ErrorKind::UnexpectedEof));
    assert_eq!(pair.ends[CLIENT].read(id), b"half");
    let over = Broken::Over(Ended::Broken(std::io::ErrorKind::UnexpectedEof));
    assert_eq!(pair.ends[CLIENT].mux.read(id, 9), Err(over));
    assert_eq!(pair.ends[CLIENT].mux.write(id, b"x"), Err(over));
}
