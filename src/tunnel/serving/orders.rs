//! Every order in which sessions come to a tunnel, leave it and are ended.

use crate::auth::Owner;
use crate::link::sockets::{Opened, Pending};
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
    let opened =
        Opened { level: Level::Two, owner: "alice".into(), tunnel: "web".into(), reuse: true, recent: false };
    Session::new(opened, Arc::new(Pending::default()), &Limits::default()).0
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
                    tunnel.attach(Arc::clone(&sessions[*at]), Credential::Key(0), successor_of);
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
fn sessions_that_come_and_go_on_threads_leave_the_last_one_or_none() {
    let tunnel = tunnel();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let session = session();
                    tunnel.attach(Arc::clone(&session), Credential::Token, None);
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
