use tokio::time::advance;

use super::*;
use crate::proto::message::Level;

fn identity() -> Identity {
    Identity { address: [127, 0, 0, 1].into(), agent: None, speaks: Speaks::Wsmux }
}

fn pulse() -> (Pulse, Uuid) {
    let session = Uuid::new_v4();
    (Pulse::new(identity(), session), session)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_client_is_late_when_its_pong_is_due_and_alive_again_when_it_comes() {
    let (pulse, session) = pulse();
    assert!(!pulse.pinged(session));
    advance(LATE - Duration::from_millis(1)).await;
    assert_eq!(pulse.health().0, Health::Alive);
    advance(Duration::from_millis(1)).await;
    assert_eq!(pulse.health(), (Health::Late, LATE));
    assert_eq!(pulse.ponged(session), Some(LATE));
    let sight = pulse.sight();
    assert_eq!((sight.health, sight.silence, sight.longest_silence), (Health::Alive, Duration::ZERO, LATE));
    assert_eq!((sight.pings, sight.pongs, sight.missed), (1, 1, 0));
    // Nobody asked for this one.
    assert_eq!(pulse.ponged(session), None);
    assert_eq!(pulse.sight().pongs, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_client_is_dead_until_its_next_session_and_what_was_known_stays() {
    let (pulse, first) = pulse();
    pulse.pinged(first);
    pulse.ponged(first);
    advance(SLOT).await;
    pulse.pinged(first);
    advance(SLOT).await;
    assert!(pulse.pinged(first), "the one before has had no answer");
    advance(SLOT).await;
    assert!(pulse.ended(first, Left::Lost));
    advance(seconds(10)).await;
    let sight = pulse.sight();
    assert_eq!((sight.health, sight.since, sight.missed), (Health::Dead, seconds(10), 2));
    assert_eq!(pulse.gone_from(), Some(identity().address));

    let second = Uuid::new_v4();
    pulse.resume(Identity { speaks: Speaks::Sockets(Level::Base), ..identity() }, second);
    pulse.pinged(second);
    pulse.ponged(second);
    let sight = pulse.sight();
    assert_eq!((sight.health, sight.reconnects, sight.session), (Health::Alive, 1, second));
    assert_eq!((sight.pings, sight.pongs, sight.missed), (4, 2, 2));
    assert_eq!(sight.longest_silence, 3 * SLOT + seconds(10));
    let beats: Vec<_> = pulse.strip().into_iter().flatten().map(|beat| beat == Beat::Missed).collect();
    // Each slot has one; in the last the client came back after it had missed one.
    assert_eq!(beats, [false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_away_and_its_open_ping_is_not_missed() {
    let (pulse, session) = pulse();
    pulse.pinged(session);
    assert!(!pulse.ended(session, Left::Orderly));
    assert_eq!(pulse.sight().missed, 0);
    assert_eq!(pulse.health().0, Health::Away);
}

#[tokio::test(start_paused = true)]
async fn what_the_session_before_still_says_changes_nothing() {
    let (pulse, first) = pulse();
    pulse.pinged(first);
    let second = Uuid::new_v4();
    pulse.resume(identity(), second);
    assert_eq!(pulse.ponged(first), None);
    assert!(!pulse.pinged(first) && !pulse.ended(first, Left::Lost));
    assert_eq!((pulse.health().0, pulse.sight().pings), (Health::Alive, 1));
}
