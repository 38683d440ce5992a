//! What happens as time passes, and when one side is lost.

use super::*;
use crate::proto::limits::wsmux::{DRAIN, LINGER, OPEN_WAIT, PING_EVERY, UNSENT, WRITE_WAIT};

#[test]
fn both_ends_ping_at_the_start_and_every_twenty_seconds_and_live() {
    let mut pair = Pair::new(Settings::default());
    pair.pass(3600 * SECOND);
    assert_eq!(pair.ended(), [None; 2]);
    assert_eq!(pair.pings, [180, 180]);
}

#[test]
fn an_end_that_falls_silent_is_noticed_within_two_pings_and_only_by_the_other_end() {
    for after in [1, 19, 20, 31] {
        let mut pair = Pair::new(Settings::default());
        let id = pair.stream(SERVER);
        pair.pass(after * SECOND);
        // What the client says is lost, its pongs too.
        pair.ends[SERVER].deaf = true;
        pair.pass(2 * PING_EVERY);
        assert_eq!(pair.ended()[SERVER], Some(Ended::Silent), "{after}");
        assert_eq!(pair.ends[SERVER].close, Some((1001, "no pong")));
        assert_eq!(pair.ends[SERVER].mux.read(id, 9), Err(Broken::Over(Ended::Silent)));
        assert_eq!(pair.ended()[CLIENT], Some(Ended::ByPeer(Some(1001))));
    }
}

#[test]
fn an_end_that_sends_but_never_answers_a_ping_is_given_up() {
    let mut pair = Pair::new(Settings::default());
    let (end, mut seconds) = (&mut pair.ends[SERVER], 0);
    while end.mux.ended().is_none() {
        seconds += 1;
        pair.now += SECOND;
        end.mux.wake(pair.now);
        end.mux.lives();
        end.mux.piece(pair.now, Bytes::from_static(b"\0\x07\0\0\0noise"), true);
        end.say();
    }
    assert_eq!((end.mux.ended(), seconds), (Some(Ended::Silent), 60));
}

#[test]
fn a_machine_that_slept_asks_before_it_gives_up() {
    let mut pair = Pair::new(Settings::default());
    pair.pass(SECOND);
    pair.now += 3600 * SECOND;
    for end in &mut pair.ends {
        end.mux.wake(pair.now);
    }
    pair.pass(60 * SECOND);
    assert_eq!(pair.ended(), [None; 2]);
}

#[test]
fn an_end_that_takes_nothing_off_its_socket_is_given_up() {
    let mut pair = Pair::new(Settings::default());
    let end = &mut pair.ends[SERVER];
    end.mux.wrote(pair.now, false, true);
    // A little goes out, and time begins anew.
    pair.now += WRITE_WAIT - SECOND;
    end.mux.lives();
    end.mux.ponged(pair.now);
    end.mux.wake(pair.now);
    end.mux.wrote(pair.now, true, true);
    for _ in 0..19 {
        pair.now += SECOND;
        end.mux.lives();
        end.mux.wake(pair.now);
    }
    assert_eq!(end.mux.ended(), None);
    pair.now += SECOND;
    end.mux.lives();
    end.mux.wake(pair.now);
    assert_eq!(end.mux.ended(), Some(Ended::Stuck));
    assert!(end.mux.output().is_none());
}

#[test]
fn a_stream_that_is_not_accepted_fails_in_time_and_is_ended_if_it_is_accepted_later() {
    let mut pair = Pair::new(Settings::default());
    let id = pair.ends[SERVER].mux.open(pair.now).unwrap();
    pair.pass(OPEN_WAIT - SECOND);
    assert_eq!(pair.ends[SERVER].mux.opening(id), Opening::Waiting);
    pair.pass(2 * SECOND);
    assert_eq!(pair.ends[SERVER].mux.opening(id), Opening::Failed(Broken::NotAccepted));
    assert!(pair.ends[SERVER].events.contains(&Event::Writable(id)));
    pair.ends[SERVER].mux.release(pair.now, id);
    pair.pass(600 * SECOND);
    assert_eq!(pair.ends[CLIENT].mux.accept(), Some(id));
    pair.talk();
    assert_eq!(pair.ends[CLIENT].mux.read(id, 9), Ok(Taken::End));
    pair.ends[CLIENT].mux.release(pair.now, id);
    pair.talk();
    assert_eq!(pair.ends.each_ref().map(|end| end.mux.streams()), [0, 0]);
    assert_eq!(pair.ended(), [None; 2]);
}

#[test]
fn few_streams_wait_to_be_accepted_and_the_others_for_their_turn() {
    let settings = Settings { unanswered: 3, ..Settings::default() };
    let mut pair = Pair::new(settings);
    let ids: Vec<u32> = (0..7).map(|_| pair.ends[SERVER].mux.open(pair.now).unwrap()).collect();
    for at in 0..ids.len() {
        pair.talk();
        assert_eq!(pair.ends[CLIENT].mux.unaccepted.len(), 3.min(ids.len() - at));
        assert_eq!(pair.ends[CLIENT].mux.accept(), Some(ids[at]));
    }
    pair.talk();
    assert!(ids.iter().all(|id| pair.ends[SERVER].mux.opening(*id) == Opening::Open));
}

#[test]
fn a_session_in_which_no_stream_is_ever_accepted_ends() {
    let mut pair = Pair::new(Settings { unanswered: 3, ..Settings::default() });
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(pair.ends[SERVER].mux.open(pair.now).unwrap());
    }
    pair.pass(300 * SECOND);
    // There is still room for one that may be accepted.
    assert_eq!(pair.ended(), [None; 2]);
    ids.push(pair.ends[SERVER].mux.open(pair.now).unwrap());
    pair.talk();
    for id in ids {
        pair.ends[SERVER].mux.release(pair.now, id);
    }
    pair.pass(OPEN_WAIT + PING_EVERY);
    assert_eq!(pair.ended()[SERVER], Some(Ended::Breach(Breach::Unaccepting)));
    assert_eq!(pair.ends[SERVER].close, Some((1008, "no stream is accepted")));
}

#[test]
fn a_session_in_which_streams_are_accepted_slowly_goes_on() {
    let mut pair = Pair::new(Settings { unanswered: 3, ..Settings::default() });
    for _ in 0..30 {
        for _ in 0..4 {
            let id = pair.ends[SERVER].mux.open(pair.now).unwrap();
            pair.talk();
            pair.ends[SERVER].mux.release(pair.now, id);
        }
        pair.pass(OPEN_WAIT - SECOND);
        let id = pair.ends[CLIENT].mux.accept().unwrap();
        pair.ends[CLIENT].mux.release(pair.now, id);
        pair.talk();
    }
    assert_eq!(pair.ended(), [None; 2]);
}

#[test]
fn a_dropped_stream_whose_other_end_says_nothing_more_is_forgotten() {
    let mut pair = Pair::new(Settings::default());
    let id = pair.stream(SERVER);
    pair.ends[SERVER].mux.release(pair.now, id);
    pair.pass(LINGER + SECOND);
    assert_eq!(pair.ends[SERVER].mux.streams(), 0);
    // What still comes means nothing.
    pair.ends[CLIENT].mux.write(id, &sample(1000)).unwrap();
    pair.ends[CLIENT].mux.shutdown(id);
    pair.talk();
    assert_eq!(pair.ended(), [None; 2]);
}

#[test]
fn a_dropped_stream_whose_other_end_reads_nothing_more_is_ended_all_the_same() {
    let mut pair = Pair::new(Settings { window: 1000, ..Settings::default() });
    let id = pair.stream(SERVER);
    pair.ends[SERVER].mux.write(id, &sample(UNSENT)).unwrap();
    pair.ends[SERVER].mux.release(pair.now, id);
    pair.pass(LINGER + SECOND);
    assert_eq!(pair.ends[SERVER].mux.streams(), 0);
    assert_eq!(pair.ends[CLIENT].read(id).len(), 1000);
    assert_eq!(pair.ends[CLIENT].mux.read(id, 9), Ok(Taken::End));
}

#[test]
fn a_close_does_not_wait_for_a_reader_that_stands_still() {
    let mut pair = Pair::new(Settings { window: 1000, ..Settings::default() });
    let id = pair.stream(SERVER);
    pair.ends[SERVER].mux.write(id, &sample(5000)).unwrap();
    pair.ends[SERVER].mux.close(pair.now, 1000, "");
    pair.pass(DRAIN - SECOND);
    assert_eq!(pair.ended(), [None; 2]);
    pair.pass(2 * SECOND);
    assert_eq!(pair.ended(), [Some(Ended::ByUs(1000, "")), Some(Ended::ByPeer(Some(1000)))]);
}

#[test]
fn settings_that_make_no_sense_do_no_harm() {
    for time in [Duration::ZERO, Duration::MAX] {
        let settings = Settings {
            window: 0,
            unanswered: 0,
            ping_every: time,
            open_wait: time,
            write_wait: time,
            linger: time,
            ..Settings::default()
        };
        let mut pair = Pair::new(settings);
        let id = pair.stream(SERVER);
        pair.ends[SERVER].mux.write(id, b"x").unwrap();
        pair.pass(SECOND / 10);
        assert_eq!(pair.ends[CLIENT].read(id), b"x");
        pair.ends[SERVER].mux.release(pair.now, id);
        pair.pass(SECOND / 10);
        assert_eq!(pair.ended(), [None; 2]);
    }
}
