//! Every order in which sessions come to a tunnel, leave it and are ended.

use crate::auth::Owner;
use crate::link::sockets::{Opened, Pending};
use crate::proto::api::Balance;
use crate::proto::api::Proto;
use crate::proto::limits::Limits;
use crate::proto::message::Level;
use crate::tunnel::Spec;
use crate::tunnel::quota::Quotas;

use super::*;

fn tunnel() -> Tunnel {
    let spec = Spec {
        chosen: true,
        local_port: 0,
        ttl: None,
        device_name: None,
        source: None,
        host_header: None,
        reuse: true,
        http2: false,
        replica: None,
        auth: None,
        domains: Vec::new(),
        policy: None,
        asked: None,
        proto: Proto::Http,
        port: None,
        proxy_protocol: None,
    };
    let owner = Owner::from("alice");
    let quota = Quotas::new(&Limits::default()).of(&owner);
    Tunnel::new(Uuid::from_u128(1), "web".to_owned(), owner, quota, 0, spec, None)
}

fn session() -> Arc<Session> {
    let opened = Opened { recent: false, ..Opened::of_tests(Level::Two) };
    Session::new(opened, Level::Two, Arc::new(Pending::default()), &Limits::default()).0
}

/// All orders in which actors with so many steps each can go.
fn orders(steps: &[usize]) -> Vec<Vec<usize>> {
    if steps.iter().all(|steps| *steps == 0) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for actor in (0..steps.len()).filter(|actor| steps[*actor] > 0) {
        let mut left = steps.to_vec();
        left[actor] -= 1;
        all.extend(orders(&left).into_iter().map(|rest| [vec![actor], rest].concat()));
    }
    all
}

#[test]
fn whatever_the_order_the_end_of_an_old_session_never_removes_the_new_one() {
    // Three sessions are attached and later detached; once the tunnel ends, once a key is revoked.
    let orders = orders(&[2, 2, 2, 1, 1]);
    for order in &orders {
        let tunnel = tunnel();
        let sessions = [session(), session(), session()];
        let (mut done, mut serving, mut over) = ([0; 5], None, false);
        for actor in order {
            done[*actor] += 1;
            match (actor, done[*actor]) {
                (3, _) => {
                    tunnel.end(End::Deleted);
                    (serving, over) = (None, true);
                }
                (4, _) => {
                    let revoked = tunnel.end_if_revoked(None);
                    assert_eq!(revoked, serving.is_some(), "{order:?}");
                    serving = None;
                }
                (at, 1) => {
                    // The last of them names the second as the one that it follows.
                    let successor_of = (*at == 2).then(|| sessions[1].id());
                    tunnel.attach(
                        Arc::clone(&sessions[*at]),
                        Credential::Key(0),
                        tunnel.arrive(successor_of),
                    );
                    if over {
                        assert!(sessions[*at].is_gone(), "{order:?}: let in after the end");
                    } else {
                        serving = Some(*at);
                    }
                }
                (at, _) => {
                    tunnel.detach(&sessions[*at]);
                    if serving == Some(*at) {
                        serving = None;
                    }
                }
            }
            let found = tunnel.session().map(|session| session.id());
            assert_eq!(found, serving.map(|at: usize| sessions[at].id()), "{order:?}");
            // Of those that were attached, only the newest may go on.
            let alive = (0..3).filter(|at| done[*at] == 1 && !sessions[*at].is_gone());
            assert_eq!(alive.collect::<Vec<_>>(), serving.into_iter().collect::<Vec<_>>(), "{order:?}");
        }
    }
    println!("{} orders", orders.len());
}

#[test]
fn a_client_whose_handshake_took_longer_than_that_of_the_next_does_not_take_the_tunnel_from_it() {
    let tunnel = tunnel();
    let (first, second) = (session(), session());
    let (early, late) = (tunnel.arrive(None), tunnel.arrive(None));
    tunnel.attach(Arc::clone(&second), Credential::Token, late);
    tunnel.attach(Arc::clone(&first), Credential::Token, early);
    assert!(first.is_gone() && Arc::ptr_eq(&tunnel.session().unwrap(), &second));
    // Unless that has gone already.
    let (third, early, late) = (session(), tunnel.arrive(None), tunnel.arrive(None));
    tunnel.attach(Arc::clone(&third), Credential::Token, late);
    tunnel.detach(&third);
    let fourth = session();
    tunnel.attach(Arc::clone(&fourth), Credential::Token, early);
    assert!(Arc::ptr_eq(&tunnel.session().unwrap(), &fourth));
}

#[test]
fn sessions_that_come_and_go_on_threads_leave_the_last_one_or_none() {
    let tunnel = tunnel();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let session = session();
                    tunnel.attach(Arc::clone(&session), Credential::Token, tunnel.arrive(None));
                    // Whoever was replaced was told so; whoever was not is the one.
                    let current = tunnel.session();
                    assert!(
                        session.is_gone() || current.is_some_and(|current| Arc::ptr_eq(&current, &session))
                    );
                    tunnel.detach(&session);
                }
            });
        }
    });
    assert!(tunnel.session().is_none());
}

/// Replicas, or one client alone, as the last creation says.
fn shared(tunnel: &Tunnel, replica: Option<Balance>) {
    let spec = Spec { replica, ..Spec::clone(&tunnel.spec()) };
    tunnel.replace_spec(Arc::new(spec));
}

fn join(tunnel: &Tunnel, replica: Option<Balance>) -> Arc<Session> {
    shared(tunnel, replica);
    let session = session();
    tunnel.attach(Arc::clone(&session), Credential::Key(0), tunnel.arrive(None));
    session
}

const BALANCED: Option<Balance> = Some(Balance::LeastBusy);

#[test]
fn only_those_who_both_ask_for_it_serve_together() {
    let tunnel = tunnel();
    let alone = join(&tunnel, None);
    let first = join(&tunnel, BALANCED);
    assert!(alone.is_gone() && !first.is_gone(), "it did not ask to share");
    let second = join(&tunnel, BALANCED);
    assert!(!first.is_gone() && !second.is_gone());
    assert_eq!((tunnel.clients(), tunnel.all_sessions().count()), (2, 2));
    // A client comes back: the one that it had goes, and no other.
    let third = session();
    tunnel.attach(Arc::clone(&third), Credential::Key(0), tunnel.arrive(Some(first.id())));
    assert!(first.is_gone() && !second.is_gone() && !third.is_gone());
    let last = join(&tunnel, None);
    assert!(second.is_gone() && third.is_gone() && !last.is_gone());
    assert_eq!(tunnel.clients(), 1);
    tunnel.end(End::Deleted);
    assert!(last.is_gone() && tunnel.clients() == 0);
}

#[test]
fn no_more_replicas_than_may_serve_a_tunnel() {
    let tunnel = tunnel();
    let all: Vec<_> = (0..replicas::MOST).map(|_| join(&tunnel, BALANCED)).collect();
    assert!(
        tunnel.is_full(None)
            && tunnel.is_full(Some(Uuid::from_u128(1)))
            && !tunnel.is_full(Some(all[7].id()))
    );
    assert!(join(&tunnel, BALANCED).is_gone() && all.iter().all(|session| !session.is_gone()));
    // One of them that comes back finds its place.
    let back = session();
    tunnel.attach(Arc::clone(&back), Credential::Key(0), tunnel.arrive(Some(all[7].id())));
    assert!(!back.is_gone() && all[7].is_gone() && tunnel.clients() == replicas::MOST);
}

#[test]
fn the_least_busy_one_gets_the_next_viewer_and_equals_take_turns() {
    let tunnel = tunnel();
    let sessions = [join(&tunnel, BALANCED), join(&tunnel, BALANCED), join(&tunnel, BALANCED)];
    let viewer = IpAddr::from([192, 0, 2, 1]);
    let at = |picked: &Picked| sessions.iter().position(|one| one.id() == picked.session.id()).unwrap();
    let mut held = Vec::new();
    for round in 1..=4 {
        let mut turn: Vec<_> = (0..3).map(|_| tunnel.pick(viewer, &[]).unwrap()).collect();
        let mut order: Vec<_> = turn.iter().map(&at).collect();
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2], "round {round}");
        held.append(&mut turn);
        assert!(sessions.iter().all(|session| session.load() == round));
    }
    // Whoever has finished gets the next ones, until it is as busy.
    held.retain(|picked| at(picked) != 1);
    for _ in 0..4 {
        let picked = tunnel.pick(viewer, &[]).unwrap();
        assert_eq!(at(&picked), 1);
        held.push(picked);
    }
    // One that failed of late comes last, and one that was tried or is gone does not.
    drop(held);
    sessions[0].ail();
    for _ in 0..6 {
        assert_ne!(at(&tunnel.pick(viewer, &[]).unwrap()), 0);
    }
    let tried = [sessions[1].id()];
    sessions[2].end(End::Replaced);
    assert_eq!(at(&tunnel.pick(viewer, &tried).unwrap()), 0);
    let tried = [sessions[0].id(), sessions[1].id()];
    assert!(tunnel.pick(viewer, &tried).is_none() && !tunnel.has_others(&tried));
}

#[test]
fn a_viewer_stays_with_its_client_until_that_goes() {
    let tunnel = tunnel();
    let sticky = Some(Balance::Sticky);
    let sessions: Vec<_> = (0..4).map(|_| join(&tunnel, sticky)).collect();
    let of = |viewer: u32| {
        let picked = tunnel.pick(IpAddr::from(viewer.to_be_bytes()), &[]).unwrap();
        sessions.iter().position(|one| one.id() == picked.session.id()).unwrap()
    };
    let before: Vec<_> = (0..400).map(of).collect();
    assert_eq!((0..400).map(of).collect::<Vec<_>>(), before);
    for at in 0..4 {
        let share = before.iter().filter(|one| **one == at).count();
        assert!((50..150).contains(&share), "{share} of 400");
    }
    sessions[2].end(End::Replaced);
    tunnel.detach(&sessions[2]);
    for (viewer, before) in (0..).zip(before) {
        assert!(before == 2 || of(viewer) == before);
    }
}
