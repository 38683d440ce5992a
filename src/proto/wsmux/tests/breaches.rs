//! What happens to an end whose other end breaks the rules: the session ends, with a reason, and nothing else happens.

use super::*;

/// A server with one accepted stream of its own (0), one of the client (1) and one that waits to be accepted (3).
fn server(settings: Settings) -> (Instant, End) {
    let now = Instant::now();
    let mut end = End::new(now, Role::Server, settings);
    assert_eq!(end.mux.open(now), Ok(0));
    end.say();
    for head in [Head::ack(0, 10), Head::syn(1)] {
        end.hear(now, head.as_ref(), 100);
    }
    assert_eq!(end.mux.accept(), Some(1));
    end.hear(now, Head::syn(3).as_ref(), 100);
    end.say();
    assert_eq!(end.mux.ended(), None);
    (now, end)
}

fn data(id: u32, bytes: usize) -> Vec<u8> {
    [Head::data(id).as_ref(), &sample(bytes)].concat()
}

fn bytes(head: Head) -> Vec<u8> {
    head.as_ref().to_vec()
}

#[test]
fn each_breach_ends_the_session_with_1008_and_says_why() {
    let wide = Settings { window: u32::MAX, ..Settings::default() };
    for (messages, breach) in [
        (vec![vec![]], Breach::Header),
        (vec![vec![0, 0, 0, 0]], Breach::Header),
        (vec![vec![4, 0, 0, 0, 0]], Breach::Header),
        (vec![vec![255]], Breach::Header),
        (vec![vec![1, 5, 0, 0, 0, 0]], Breach::Payload),
        (vec![vec![3, 0, 0, 0, 0, 0]], Breach::Payload),
        (vec![vec![2, 0, 0, 0, 0, 1, 0, 0]], Breach::Payload),
        (vec![vec![2, 0, 0, 0, 0, 1, 0, 0, 0, 0]], Breach::Payload),
        (vec![bytes(Head::syn(2))], Breach::Side),
        (vec![bytes(Head::syn(1))], Breach::Duplicate),
        (vec![bytes(Head::syn(3))], Breach::Duplicate),
        (vec![bytes(Head::ack(3, 1))], Breach::Early),
        (vec![data(3, 1)], Breach::Window),
        (vec![data(0, 11)], Breach::Window),
        (vec![data(0, 10), data(0, 1)], Breach::Window),
        (vec![bytes(Head::ack(1, 1))], Breach::Credit),
        (vec![bytes(Head::fin(0)), data(0, 1)], Breach::AfterFin),
        (vec![bytes(Head::fin(0)), bytes(Head::fin(0))], Breach::AfterFin),
    ] {
        for piece in [1, 100] {
            let (now, mut end) = server(wide.clone());
            for message in &messages {
                end.hear(now, message, piece);
            }
            assert_eq!(end.mux.ended(), Some(Ended::Breach(breach)), "{messages:?}");
            assert!(end.say().is_empty() && end.events.contains(&Event::Ended));
            assert_eq!(end.close, Some((1008, breach.reason())));
            assert!(breach.reason().len() <= 123);
            // From here on nothing does anything.
            end.hear(now, &bytes(Head::syn(5)), piece);
            end.mux.wake(now + 3600 * SECOND);
            assert_eq!((end.mux.accept(), end.mux.open(now)), (None, Err(OpenError::Over)));
            assert_eq!(end.mux.ended(), Some(Ended::Breach(breach)));
        }
    }
}

#[test]
fn an_ack_or_fin_for_a_stream_that_waits_to_be_accepted_there_is_early() {
    let now = Instant::now();
    for said in [false, true] {
        for (message, breach) in [(bytes(Head::fin(0)), Breach::Early), (data(0, 1), Breach::Window)] {
            let mut end = End::new(now, Role::Server, Settings::default());
            end.mux.open(now).unwrap();
            if said {
                end.say();
            }
            end.hear(now, &message, 100);
            assert_eq!(end.mux.ended(), Some(Ended::Breach(breach)));
        }
    }
    let mut end = End::new(now, Role::Server, Settings::default());
    end.mux.open(now).unwrap();
    end.hear(now, &bytes(Head::ack(0, 1)), 100);
    assert_eq!(end.mux.ended(), Some(Ended::Breach(Breach::Early)));
}

#[test]
fn frames_of_streams_that_are_not_known_mean_nothing() {
    let (now, mut end) = server(Settings::default());
    for message in [data(9, 100), bytes(Head::ack(9, 7)), bytes(Head::fin(9)), data(1, 0)] {
        end.hear(now, &message, 3);
    }
    assert_eq!((end.mux.ended(), end.mux.streams(), end.say().len()), (None, 3, 0));
}

#[test]
fn a_flood_of_streams_ends_the_session_and_holds_little() {
    let now = Instant::now();
    for (settings, accepted, breach, most) in [
        (Settings::default(), false, Breach::TooManySyns, 200),
        (Settings { streams: 50, ..Settings::default() }, true, Breach::TooManyStreams, 50),
        (Settings { unaccepted: 0, ..Settings::default() }, false, Breach::TooManySyns, 0),
    ] {
        let mut end = End::new(now, Role::Client, settings);
        for at in 0..most {
            end.hear(now, &bytes(Head::syn(2 * at)), 100);
            assert!(!accepted || end.mux.accept() == Some(2 * at));
        }
        assert_eq!((end.mux.ended(), end.mux.streams()), (None, most as usize));
        end.hear(now, &bytes(Head::syn(2 * most)), 100);
        assert_eq!(end.mux.ended(), Some(Ended::Breach(breach)));
    }
}

#[test]
fn streams_that_were_dropped_count_until_they_have_ended() {
    let mut pair = Pair::new(Settings { streams: 3, ..Settings::default() });
    for _ in 0..3 {
        let id = pair.stream(SERVER);
        pair.ends[SERVER].mux.release(pair.now, id);
    }
    pair.talk();
    assert_eq!(pair.ends[SERVER].mux.open(pair.now), Err(OpenError::TooMany(3)));
    pair.ends[CLIENT].mux.release(pair.now, 0);
    pair.talk();
    assert!(pair.ends[SERVER].mux.open(pair.now).is_ok());
}

#[test]
fn whoever_opens_a_stream_and_takes_it_back_leaves_nothing() {
    let (now, mut end) = server(Settings::default());
    end.hear(now, &bytes(Head::fin(3)), 100);
    assert_eq!((end.mux.accept(), end.mux.streams(), end.mux.ended()), (None, 2, None));
}

#[test]
fn a_window_that_is_larger_than_what_may_be_held_fails_that_stream_and_says_so() {
    let now = Instant::now();
    let mut end = End::new(now, Role::Server, Settings { window: 1000, ..Settings::default() });
    let id = end.mux.open(now).unwrap();
    end.say();
    end.hear(now, &bytes(Head::ack(id, 1001)), 100);
    assert_eq!(end.mux.opening(id), Opening::Failed(Broken::Window(1001)));
    end.hear(now, &data(id, 1001), 100);
    assert_eq!((end.mux.ended(), end.mux.held()), (None, 0));
    end.mux.release(now, id);
    assert_eq!(end.say(), [bytes(Head::ack(id, 1001)), bytes(Head::fin(id))]);
}

/// Without a reset on the wire, a hundred readers that stand still could make us hold a hundred windows.
#[test]
fn streams_that_stand_still_make_room_for_the_others() {
    let mut pair = Pair::new(Settings { held: 250_000, window: 100_000, ..Settings::default() });
    let ids: Vec<u32> = (0..5).map(|_| pair.stream(SERVER)).collect();
    for (id, bytes) in ids.iter().zip([100_000, 1_000, 80_000, 60_000, 50_000]) {
        assert_eq!(pair.ends[SERVER].mux.write(*id, &sample(bytes)), Ok(bytes));
    }
    pair.pass(SECOND / 2);
    let client = &mut pair.ends[CLIENT];
    assert!(client.mux.is_full());
    assert!((250_001..=250_000 + 100_000).contains(&client.mux.held()), "{}", client.mux.held());
    // A little is taken from two of them.
    for id in &ids[2..4] {
        assert!(matches!(client.mux.read(*id, 10), Ok(Taken::Bytes(_))));
    }
    pair.pass(SECOND);
    let client = &mut pair.ends[CLIENT];
    assert_eq!(client.mux.read(ids[0], 9), Err(Broken::Overfull));
    assert_eq!(client.mux.write(ids[0], b"x"), Err(Broken::Overfull));
    assert!(client.events.contains(&Event::Readable(ids[0])));
    assert!(!client.mux.is_full() && client.events.contains(&Event::Roomy));
    // Nothing more comes of it as long as it is held, and the rest is thrown away when it is not.
    client.mux.release(pair.now, ids[0]);
    pair.talk();
    assert_eq!(pair.ends[CLIENT].read(ids[2]).len(), 79_990);
    assert_eq!(pair.ends[CLIENT].read(ids[3]).len(), 59_990);
    assert_eq!(pair.ended(), [None; 2]);
}

/// Whoever reads loses nothing, however little may be held.
#[test]
fn a_session_that_is_full_waits_for_those_who_read() {
    let mut pair = Pair::new(Settings { held: 1000, window: 100_000, ..Settings::default() });
    let ids: Vec<u32> = (0..10).map(|_| pair.stream(SERVER)).collect();
    let data = sample(300_000);
    let (mut sent, mut got) = (vec![0; 10], vec![Vec::new(); 10]);
    while got.iter().any(|got| got.len() < data.len()) {
        for (at, id) in ids.iter().enumerate() {
            sent[at] += pair.ends[SERVER].mux.write(*id, &data[sent[at]..]).unwrap();
        }
        pair.pass(SECOND / 10);
        for (at, id) in ids.iter().enumerate() {
            if let Taken::Bytes(bytes) = pair.ends[CLIENT].mux.read(*id, 20_000).unwrap() {
                got[at].extend_from_slice(&bytes);
            }
        }
    }
    assert!(got.iter().all(|got| *got == data));
    assert_eq!(pair.ended(), [None; 2]);
}

#[test]
fn readers_that_take_next_to_nothing_hold_up_the_others_for_ten_seconds_at_most() {
    let mut pair = Pair::new(Settings { held: 10_000, window: 5_000, ..Settings::default() });
    let ids: Vec<u32> = (0..4).map(|_| pair.stream(SERVER)).collect();
    for id in &ids[..3] {
        pair.ends[SERVER].mux.write(*id, &sample(5_000)).unwrap();
    }
    pair.talk();
    pair.ends[SERVER].mux.write(ids[3], b"hello").unwrap();
    let (began, mut broken) = (pair.now, 0);
    while pair.ends[CLIENT].read(ids[3]).is_empty() {
        pair.pass(SECOND / 2);
        for id in &ids[..3] {
            broken += usize::from(pair.ends[CLIENT].mux.read(*id, 1).is_err());
        }
    }
    assert!(broken > 0 && pair.now - began <= 11 * SECOND);
    assert_eq!(pair.ended(), [None; 2]);
}

#[test]
fn noise_ends_the_session_or_means_nothing() {
    let mut state = 7_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..2000 {
        let (now, mut end) = server(Settings::default());
        for _ in 0..20 {
            let mut message: Vec<u8> = (0..next() % 12).map(|_| (next() % 256) as u8).collect();
            if message.len() >= 5 {
                message[0] %= 5;
                message[1] %= 6;
                message[2..5].fill(0);
            }
            end.hear(now, &message, 1 + next() % 12);
            end.say();
        }
        assert!(end.mux.held() < 300);
    }
}

/// However many sessions there are, what nobody reads in all of them is bounded.
#[test]
fn sessions_with_a_budget_in_common_hold_little_when_it_is_used_up() {
    let budget = Budget::new(100_000);
    let settings =
        Settings { held: 1_000_000, window: 10_000, budget: Some(budget.clone()), ..Settings::default() };
    let mut pairs: Vec<Pair> = (0..10).map(|_| Pair::new(settings.clone())).collect();
    for pair in &mut pairs {
        let ids: Vec<u32> = (0..8).map(|_| pair.stream(SERVER)).collect();
        for id in ids {
            pair.ends[SERVER].mux.write(id, &sample(10_000)).unwrap();
            pair.talk();
        }
    }
    // Those who came first hold what they hold; from then on it is two windows, and what one read brings beyond them.
    let held = |pairs: &[Pair]| pairs.iter().map(|pair| pair.ends[CLIENT].mux.held()).collect::<Vec<_>>();
    assert!(held(&pairs)[2..].iter().all(|held| *held <= 30_000), "{:?}", held(&pairs));
    assert!(pairs[2..].iter().all(|pair| pair.ends[CLIENT].mux.is_full()));
    // Who takes nothing makes room, and with the sessions goes what they held.
    pairs.iter_mut().for_each(|pair| pair.pass(20 * SECOND));
    assert!(held(&pairs)[2..].iter().all(|held| *held <= 20_000), "{:?}", held(&pairs));
    drop(pairs);
    assert_eq!(budget.held(), 0);
}
