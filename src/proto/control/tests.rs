//! The two ends of a control session talk to each other in one thread; time is a number that the test turns.

#![allow(clippy::disallowed_methods, reason = "any time is as good as another")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::Output;
use super::client::{self, ClientEnd, Heard};
use super::relay::{Asked, End, Ended, RelayEnd, Timing, TokenEnd};
use crate::proto::limits::client::{
    LEAST_PING_EVERY, LEAST_PONG_WAIT, PING_EVERY, PONG_WAIT, WAKE_PONG_WAIT,
};
use crate::proto::message::{
    ClosedReason, Connection, Drain, Level, Reject, SessionLimits, ToClient, ToRelay, Welcome,
};

const SECOND: Duration = Duration::from_secs(1);

/// Both ends and all that was said and done.
struct Pair {
    began: Instant,
    now: Instant,
    relay: RelayEnd,
    client: ClientEnd,
    /// What reaches it is lost.
    relay_deaf: bool,
    client_deaf: bool,
    /// Texts of the relay, as they went over the wire.
    texts: Vec<String>,
    heard: Vec<Heard>,
    asked: Vec<Asked>,
    pings: (usize, usize),
    code: Option<u16>,
}

impl Pair {
    fn new(level: Level) -> Self {
        let timing = Timing { ping_every: 30 * SECOND, pong_wait: 60 * SECOND };
        let now = Instant::now();
        Self {
            began: now,
            now,
            relay: RelayEnd::new(now, level, timing, welcome(30_000, 60_000)),
            client: ClientEnd::new(now, level),
            relay_deaf: false,
            client_deaf: false,
            texts: Vec::new(),
            heard: Vec::new(),
            asked: Vec::new(),
            pings: (0, 0),
            code: None,
        }
    }

    /// Carries over what both have to say until neither has anything.
    fn talk(&mut self) {
        loop {
            if let Some(output) = self.relay.output() {
                self.reach_client(output);
            } else if let Some(output) = self.client.output() {
                self.reach_relay(output);
            } else {
                return;
            }
        }
    }

    fn reach_client(&mut self, output: Output) {
        match output {
            Output::Text(text) => {
                if !self.client_deaf {
                    self.heard.extend(self.client.heard(self.now, text.as_bytes()));
                }
                self.texts.push(text);
            }
            Output::Ping(payload) => {
                self.pings.0 += 1;
                if !self.client_deaf && !self.relay_deaf {
                    self.relay.ponged(self.now, payload);
                }
            }
            Output::Close(code, reason) => {
                self.code = Some(code);
                if !self.client_deaf {
                    self.client.closed(Some((code, reason.to_owned())));
                }
            }
        }
    }

    fn reach_relay(&mut self, output: Output) {
        match output {
            Output::Text(text) if !self.relay_deaf => self.asked.extend(self.relay.heard(text.as_bytes())),
            Output::Text(_) => {}
            Output::Ping(_) => {
                self.pings.1 += 1;
                if !self.relay_deaf && !self.client_deaf {
                    self.client.ponged();
                }
            }
            Output::Close(..) if !self.relay_deaf => self.relay.finish(Ended::ByClient),
            Output::Close(..) => {}
        }
    }

    /// Lets time pass, with each end woken when it asked for it, until both have ended or `time` is over.
    fn pass(&mut self, time: Duration) {
        let (until, mut wakes) = (self.now + time, 0);
        self.talk();
        while self.relay.ended().is_none() || self.client.ended().is_none() {
            let mut next = until;
            if self.relay.ended().is_none() {
                next = next.min(self.relay.timeout());
            }
            if self.client.ended().is_none() {
                next = next.min(self.client.timeout());
            }
            assert!(next >= self.now, "time goes back");
            wakes = if next == self.now { wakes + 1 } else { 0 };
            assert!(wakes < 4, "an end is woken over and over for nothing");
            self.now = next;
            self.relay.wake(self.now);
            self.client.wake(self.now);
            self.talk();
            if self.now == until {
                return;
            }
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.began
    }
}

fn welcome(ping_interval_ms: u64, pong_timeout_ms: u64) -> Welcome {
    Welcome {
        session: "s1".into(),
        relay: "adit/test".into(),
        ping_interval_ms,
        pong_timeout_ms,
        claim_ms: 10_000,
        limits: SessionLimits { control_message_bytes: 200, standby: 8, ..SessionLimits::default() },
    }
}

fn connection(id: &str) -> ToClient {
    let (proto, remote_addr) = (Some("http".to_owned()), Some("203.0.113.7:51234".to_owned()));
    ToClient::Connection(Connection { id: id.into(), proto, remote_addr })
}

fn reject(message: Option<String>) -> ToRelay {
    ToRelay::Reject(Reject { id: "c1".into(), reason: "refused".into(), message })
}

#[test]
fn the_welcome_comes_first_and_as_text() {
    let mut pair = Pair::new(Level::Two);
    pair.relay.say(connection("c1"));
    let Some(Output::Text(first)) = pair.relay.output() else { panic!("no text first") };
    assert!(first.starts_with(r#"{"type":"welcome","session":"s1""#), "{first}");
    pair.reach_client(Output::Text(first));
    pair.talk();
    assert!(matches!(&pair.heard[..], [Heard::Welcome(_), Heard::Connection(_)]), "{:?}", pair.heard);
}

#[test]
fn two_ends_that_answer_each_other_live_for_hours() {
    for level in [Level::Base, Level::Two] {
        let mut pair = Pair::new(level);
        pair.pass(5 * 3600 * SECOND);
        assert_eq!((pair.relay.ended(), pair.client.ended()), (None, None));
        assert_eq!(pair.pings, (601, 1800), "{level:?}");
    }
}

#[test]
fn a_silent_client_ends_when_its_pong_is_overdue() {
    let mut pair = Pair::new(Level::Two);
    pair.client_deaf = true;
    pair.relay_deaf = true;
    pair.pass(60 * SECOND);
    assert_eq!((pair.relay.ended(), pair.code), (Some(Ended::Silent), Some(1001)));
    assert!(pair.texts.last().is_some_and(|text| text.contains(r#""reason":"stale""#)), "{:?}", pair.texts);
    assert_eq!(pair.elapsed(), 60 * SECOND);
}

#[test]
fn a_relay_that_was_stopped_itself_hears_its_clients_out() {
    let now = Instant::now();
    let timing = Timing { ping_every: Duration::from_secs(30), pong_wait: Duration::from_secs(60) };
    let mut relay = RelayEnd::new(now, Level::Base, timing, Default::default());
    let later = now + Duration::from_secs(90);
    relay.wake(later);
    assert_eq!((relay.ended(), relay.output()), (None, Some(Output::Ping(b""))));
    relay.wake(later + Duration::from_secs(4));
    assert_eq!(relay.ended(), None);
    relay.ponged(later + Duration::from_secs(4), b"");
    relay.wake(later + Duration::from_secs(63));
    assert_eq!(relay.ended(), None);
    relay.wake(later + Duration::from_secs(64));
    assert_eq!(relay.ended(), Some(Ended::Silent));
}

#[test]
fn a_silent_relay_is_lost_and_after_sleep_sooner() {
    let mut pair = Pair::new(Level::Two);
    pair.pass(15 * SECOND);
    pair.relay_deaf = true;
    let mut slept = ClientEnd::new(pair.now, Level::Two);
    pair.pass(PING_EVERY + PONG_WAIT - 6 * SECOND);
    assert_eq!(pair.client.ended(), None);
    pair.pass(SECOND);
    assert!(matches!(pair.client.ended(), Some(client::Ended::Lost(why)) if why.contains("answer")));
    slept.woke(pair.now);
    assert_eq!(slept.output(), Some(Output::Ping(b"")));
    slept.wake(pair.now + WAKE_PONG_WAIT - Duration::from_millis(1));
    assert_eq!(slept.ended(), None);
    slept.wake(pair.now + WAKE_PONG_WAIT);
    assert!(slept.ended().is_some());
}

#[test]
fn a_pong_that_is_told_before_the_time_counts_however_late_both_are() {
    let now = Instant::now();
    let mut client = ClientEnd::new(now, Level::Two);
    client.wake(now + PING_EVERY);
    let late = now + 3600 * SECOND;
    client.ponged();
    client.wake(late);
    assert_eq!(client.ended(), None);
    assert_eq!(client.timeout(), late + PONG_WAIT, "it asks at once whether the relay is still there");
}

#[test]
fn a_relay_that_is_stricter_is_followed_and_one_that_is_hostile_is_not() {
    let timeouts = |ping: u64, pong: u64| {
        let (now, mut client) = (Instant::now(), ClientEnd::new(Instant::now(), Level::Two));
        client.heard(now, ToClient::Welcome(welcome(ping, pong)).to_json().as_bytes());
        let first = client.timeout() - now;
        client.wake(now + first);
        (first, client.timeout() - (now + first))
    };
    assert_eq!(timeouts(3_000, 4_000), (3 * SECOND, 4 * SECOND));
    assert_eq!(timeouts(0, 0), (LEAST_PING_EVERY, LEAST_PONG_WAIT));
    assert_eq!(timeouts(u64::MAX, u64::MAX).1, PONG_WAIT);
    // A second welcome changes nothing.
    let (now, mut client) = (Instant::now(), ClientEnd::new(Instant::now(), Level::Two));
    for (ping, told) in [(5_000, true), (1_000, false)] {
        let text = ToClient::Welcome(welcome(ping, 5_000)).to_json();
        assert_eq!(client.heard(now, text.as_bytes()).is_some(), told);
    }
    assert_eq!(client.timeout(), now + 5 * SECOND);
}

#[test]
fn a_replaced_client_that_answers_stops_and_one_that_does_not_comes_back() {
    for (deaf, relay, client, code) in [
        (false, Ended::ByUs(End::Replaced), client::Ended::Replaced, 1000),
        (true, Ended::Silent, client::Ended::Lost(String::new()), 1001),
    ] {
        let mut pair = Pair::new(Level::Two);
        pair.pass(SECOND);
        // Its pongs are lost, and it still hears.
        pair.relay_deaf = deaf;
        pair.relay.end(pair.now, End::Replaced);
        pair.pass(5 * SECOND);
        assert_eq!((pair.relay.ended(), pair.code), (Some(relay), Some(code)));
        let ended = pair.client.ended().unwrap();
        assert_eq!(std::mem::discriminant(ended), std::mem::discriminant(&client), "{ended:?}");
    }
}

#[test]
fn each_end_means_the_same_at_both_ends() {
    use client::Ended::{Lost, Over, Replaced, Succeeded};
    let lost = || Lost(String::new());
    for (end, ended) in [
        (End::Expired, Over("tunnel expired".into())),
        (End::Deleted, Over("tunnel deleted".into())),
        (End::Replaced, Replaced),
        (End::Succeeded, Succeeded),
        (End::Revoked, lost()),
        (End::TokenExpired, lost()),
        (End::Restart, lost()),
    ] {
        for level in [Level::Base, Level::Two] {
            let mut pair = Pair::new(level);
            pair.relay.end(pair.now, end);
            pair.talk();
            let told = pair.client.ended().unwrap();
            match told {
                Lost(why) => assert!(matches!(ended, Lost(_)) && !why.is_empty(), "{end:?} {told:?}"),
                // The base level has no word for it, and the session that succeeds it goes on.
                Over(_) if level == Level::Base && end == End::Succeeded => {}
                told => assert_eq!(*told, ended, "{level:?}"),
            }
        }
    }
}

#[test]
fn the_end_of_a_token_is_announced_and_a_fresh_one_puts_it_off() {
    let mut pair = Pair::new(Level::Two);
    let token = |at: Instant| TokenEnd { at, shown: "2026-11-21T06:24:59Z".into() };
    pair.relay.set_token(pair.now, Some(token(pair.now + 300 * SECOND)));
    pair.pass(240 * SECOND);
    assert!(
        matches!(pair.heard.last(), Some(Heard::Expiring(told)) if told.in_ms == 60_000 && told.what == "token")
    );
    // A refused one changes nothing, an accepted one the time.
    for (verdict, accepted, left) in
        [(Err("no".to_owned()), false, 60_000), (Ok(Some(token(pair.now + 500 * SECOND))), true, 500_000)]
    {
        assert!(pair.client.say(ToRelay::Auth { token: "t".into() }));
        pair.talk();
        assert_eq!(pair.asked.pop(), Some(Asked::Auth("t".into())));
        pair.relay.judged(pair.now, verdict);
        pair.talk();
        let Some(Heard::Auth(result)) = pair.heard.last() else { panic!("{:?}", pair.heard) };
        assert_eq!((result.accepted, result.expires_in_ms), (accepted, Some(left)));
    }
    pair.pass(499 * SECOND);
    assert_eq!(pair.relay.ended(), None);
    pair.pass(SECOND);
    assert_eq!((pair.relay.ended(), pair.code), (Some(Ended::ByUs(End::TokenExpired)), Some(1008)));
    assert!(matches!(pair.client.ended(), Some(client::Ended::Lost(why)) if why.contains("token")));
    assert!(pair.heard.ends_with(&[Heard::Closed(ClosedReason::TokenExpired)]));
}

#[test]
fn whom_the_operator_disconnects_is_not_told_of_a_restart() {
    for level in [Level::Base, Level::Two] {
        for (end, words) in
            [(End::Restart, "relay restarting"), (End::Disconnected, "disconnected by the operator")]
        {
            let mut pair = Pair::new(level);
            pair.talk();
            pair.relay.end(pair.now, end);
            pair.talk();
            let told = format!("the relay asks for a new connection ({words})");
            assert_eq!(pair.client.ended(), Some(&client::Ended::Lost(told)));
        }
    }
}

#[test]
fn an_answer_to_no_token_is_not_told() {
    let mut pair = Pair::new(Level::Two);
    pair.relay.judged(pair.now, Ok(None));
    pair.talk();
    assert!(matches!(pair.heard[..], [Heard::Welcome(_)]));
}

#[test]
fn what_the_relay_takes_no_more_of_is_shortened_or_not_said() {
    let mut pair = Pair::new(Level::Two);
    pair.talk();
    assert!(pair.client.say(reject(Some("x".repeat(1000)))));
    assert!(!pair.client.say(ToRelay::Auth { token: "x".repeat(1000) }));
    pair.talk();
    let Some(Asked::Reject(told)) = pair.asked.pop() else { panic!("not told") };
    assert_eq!((told.message, pair.asked.len()), (None, 0));
}

#[test]
fn a_relay_that_says_closed_and_does_not_close_is_left() {
    let mut pair = Pair::new(Level::Two);
    pair.talk();
    let closed = ToClient::Closed { reason: ClosedReason::Deleted, message: "tunnel deleted".into() };
    assert!(pair.client.heard(pair.now, closed.to_json().as_bytes()).is_some());
    assert_eq!(pair.client.heard(pair.now, connection("c1").to_json().as_bytes()), None);
    assert!(!pair.client.say(reject(None)));
    pair.relay_deaf = true;
    pair.pass(2 * SECOND);
    assert_eq!(pair.client.ended(), Some(&client::Ended::Over("tunnel deleted".into())));
}

#[test]
fn at_base_level_nothing_but_connections_by_their_ids_is_said_and_heard() {
    let mut pair = Pair::new(Level::Base);
    for message in [
        ToClient::Cancel { id: "c1".into() },
        ToClient::Standby { want: 3 },
        ToClient::Drain(Drain { deadline_ms: 1, reconnect_ms: 1 }),
        connection("c2"),
    ] {
        pair.relay.say(message);
    }
    assert!(!pair.client.say(reject(None)));
    pair.pass(100 * SECOND);
    pair.relay.end(pair.now, End::Restart);
    pair.talk();
    assert_eq!(pair.texts, [r#"{"type":"connection","id":"c2"}"#]);
    assert!(matches!(&pair.heard[..], [Heard::Connection(told)] if told.id == "c2"));
    let mut client = ClientEnd::new(pair.now, Level::Base);
    for message in [ToClient::Standby { want: 3 }, ToClient::Welcome(welcome(1, 1))] {
        assert_eq!(client.heard(pair.now, message.to_json().as_bytes()), None);
    }
    let Some(Heard::Connection(told)) = client.heard(pair.now, connection("c3").to_json().as_bytes()) else {
        panic!("not told")
    };
    assert_eq!(told, Connection { id: "c3".into(), ..Connection::default() });
}

/// Any bytes, and what looks like a message more often than chance would have it.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let kinds = "(welcome|connection|cancel|standby|drain|expiring|auth|error|reject|later)";
    let fields = "(\"id\":1|\"want\":-1|\"want\":4000000000|\"deadline_ms\":0,\"reconnect_ms\":99999999999|\"token\":null)";
    let shaped = (kinds, fields).prop_map(|(kind, fields)| format!("{{\"type\":\"{kind}\",{fields}}}"));
    prop_oneof![prop::collection::vec(any::<u8>(), 0..60), shaped.prop_map(String::into_bytes)]
}

proptest! {
    #[test]
    fn nothing_that_either_says_ends_the_other(
        said in prop::collection::vec((messages(), any::<bool>(), 0..20u32), 0..60),
        two in any::<bool>(),
    ) {
        let mut pair = Pair::new(if two { Level::Two } else { Level::Base });
        for (message, by_relay, seconds) in said {
            if by_relay {
                pair.client.heard(pair.now, &message);
            } else {
                pair.relay.heard(&message);
            }
            pair.pass(seconds * SECOND);
        }
        prop_assert_eq!((pair.relay.ended(), pair.client.ended()), (None, None));
        prop_assert!(pair.texts.len() <= 12, "a few errors at most are answered");
    }
}
