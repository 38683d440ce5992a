//! Tests of backends with dials that are scripted: no socket is needed to choose.

use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;

use super::*;
use crate::bridge::Wrap;

const WAIT: Duration = Duration::from_secs(12);

/// Targets `a:1`, `b:1` and so on.
fn target(name: &str) -> Target {
    Target::Tcp { host: name.into(), port: 1 }
}

fn backends(names: &[&str], balance: Balance) -> Backends {
    let targets = names.iter().map(|name| target(name)).collect();
    Backends::new(targets, Vec::new(), Balancing { balance, ..Balancing::default() })
}

fn visit<'a>(path: &'a str, address: &str) -> Visit<'a> {
    Visit { path, authority: "example.org", address: address.parse().unwrap() }
}

/// Connects with the backends named in `down` refusing; the host that took it, and those that were dialled.
async fn connect<'a>(
    backends: &'a Backends,
    visit: Visit<'_>,
    down: &[&str],
) -> (Result<Connected<'a, ()>, ConnectError<io::Error>>, Vec<String>) {
    let dialled = Mutex::new(Vec::new());
    let dial = |target: &'a Target, _| {
        let Target::Tcp { host, .. } = target else { panic!("{target}") };
        dialled.lock().unwrap().push(host.clone());
        let refuses = down.contains(&host.as_str());
        async move { if refuses { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) } else { Ok(()) } }
    };
    let result = backends.connect(visit, WAIT, dial).await;
    (result, dialled.into_inner().unwrap())
}

async fn taken<'a>(backends: &'a Backends, visit: Visit<'_>, down: &[&str]) -> Connected<'a, ()> {
    connect(backends, visit, down).await.0.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_least_busy_backend_gets_a_visitor_and_of_equals_the_first() {
    let backends = backends(&["a", "b", "c"], Balance::LeastConnection);
    let someone = visit("/", "192.0.2.1");
    let mut open = Vec::new();
    for name in ["a", "b", "c", "a"] {
        let connected = taken(&backends, someone, &[]).await;
        assert_eq!(*connected.target, target(name));
        open.push(connected);
    }
    open.remove(1);
    assert_eq!(taken(&backends, someone, &[]).await.target, &target("b"));
    assert_eq!(backends.loads().map(|(_, load)| load).collect::<Vec<_>>(), [2, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_wrapped_program_gets_every_viewer_though_somebody_listens_at_its_other_address() {
    let targets = vec![target("program"), target("stranger")];
    let backends = Backends::new(targets, Vec::new(), Wrap::balancing());
    let someone = visit("/", "192.0.2.1");
    let mut open = Vec::new();
    for _ in 0..3 {
        let connected = taken(&backends, someone, &[]).await;
        assert_eq!(*connected.target, target("program"));
        open.push(connected);
    }
    assert_eq!(*taken(&backends, someone, &["program"]).await.target, target("stranger"));
    assert_eq!(*taken(&backends, someone, &[]).await.target, target("program"), "there is no rest for it");
}

#[tokio::test(start_paused = true)]
async fn round_robin_goes_around_and_passes_over_who_is_down() {
    let backends = backends(&["a", "b", "c"], Balance::RoundRobin);
    let someone = visit("/", "192.0.2.1");
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(taken(&backends, someone, &["b"]).await.target.clone());
    }
    assert_eq!(seen, ["a", "c", "c", "a", "c", "c"].map(target));
}

#[tokio::test(start_paused = true)]
async fn the_same_path_or_address_finds_the_same_backend_and_nobody_else_moves_when_one_fails() {
    for balance in [Balance::Hash, Balance::Sticky] {
        let backends = backends(&["a", "b", "c", "d"], balance);
        let keys: Vec<_> =
            (0..64).map(|number| (format!("/{number}"), format!("192.0.2.{number}"))).collect();
        let mut homes = Vec::new();
        for (path, address) in &keys {
            let connected = taken(&backends, visit(path, address), &[]).await;
            assert_eq!(taken(&backends, visit(path, address), &[]).await.target, connected.target);
            homes.push(connected.target.clone());
        }
        assert_eq!(homes.iter().map(Target::to_string).collect::<BTreeSet<_>>().len(), 4, "{balance:?}");
        for ((path, address), home) in keys.iter().zip(&homes) {
            let now = taken(&backends, visit(path, address), &["a"]).await.target;
            assert!(if *home == target("a") { now != home } else { now == home }, "{balance:?} {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_failed_rests_for_the_disable_time_and_is_tried_again() {
    let backends = backends(&["a", "b"], Balance::LeastConnection);
    let someone = visit("/", "192.0.2.1");
    let (result, dialled) = connect(&backends, someone, &["a"]).await;
    assert_eq!((result.unwrap().target, dialled), (&target("b"), vec!["a".to_owned(), "b".to_owned()]));
    let (_, dialled) = connect(&backends, someone, &["a"]).await;
    assert_eq!(dialled, ["b"]);
    tokio::time::advance(Duration::from_secs(1)).await;
    let (result, dialled) = connect(&backends, someone, &[]).await;
    assert_eq!((result.unwrap().target, dialled), (&target("a"), vec!["a".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn who_finds_all_down_is_told_when_they_are_tried_again_and_nobody_is_dialled() {
    let backends = backends(&["a", "b"], Balance::LeastConnection);
    let someone = visit("/", "192.0.2.1");
    let (result, dialled) = connect(&backends, someone, &["a", "b"]).await;
    assert!(matches!(result, Err(ConnectError::Failed(_))));
    assert_eq!(dialled.len(), 2);
    tokio::time::advance(Duration::from_millis(400)).await;
    let (result, dialled) = connect(&backends, someone, &[]).await;
    assert!(matches!(result, Err(ConnectError::Down { again_in }) if again_in == Duration::from_millis(600)));
    assert!(dialled.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_disable_time_every_visitor_tries() {
    let balancing = Balancing { disable_time: Duration::ZERO, ..Balancing::default() };
    let backends = Backends::new(vec![target("a")], Vec::new(), balancing);
    for _ in 0..3 {
        let (result, dialled) = connect(&backends, visit("/", "192.0.2.1"), &["a"]).await;
        assert!(matches!(result, Err(ConnectError::Failed(_))) && dialled.len() == 1);
    }
}

#[test]
fn an_outage_begins_once_and_ends_with_how_long_it_was() {
    let health = Health::default();
    let begin = Instant::now();
    let second = Duration::from_secs(1);
    assert!(health.failed(begin, second));
    assert!(!health.failed(begin + second, second));
    assert_eq!(health.rest(begin + second), second);
    assert_eq!(health.works(begin + second * 3), Some(second * 3));
    assert_eq!(health.works(begin + second * 3), None);
    assert!(health.rest(begin).is_zero());
}

#[tokio::test(start_paused = true)]
async fn backends_that_do_not_answer_have_one_deadline_together_and_leave_time_for_the_others() {
    let backends = backends(&["a", "b", "c"], Balance::InOrder);
    let (began, parts) = (Instant::now(), Mutex::new(Vec::new()));
    let dial = |_: &Target, part: Duration| {
        let quick = parts.lock().unwrap().is_empty();
        parts.lock().unwrap().push(part.as_secs());
        async move {
            tokio::time::sleep(if quick { Duration::ZERO } else { part }).await;
            Err::<(), _>(io::Error::from(io::ErrorKind::TimedOut))
        }
    };
    assert!(backends.connect(visit("/", "192.0.2.1"), WAIT, dial).await.is_err());
    assert_eq!(*parts.lock().unwrap(), [4, 6, 6]);
    assert_eq!(began.elapsed(), WAIT);
}
