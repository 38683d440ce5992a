//! The dashboard and `/metrics` tell the same.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Desk;
use crate::metrics::{page, value};
use crate::rig::{ALICE, BOB, PATIENCE, Rig, echo_target};

/// Where the summary has what a sample has.
const PAIRS: &[(&str, &str)] = &[
    ("/clients/alive", "adit_clients{health=\"alive\"}"),
    ("/clients/dead", "adit_clients{health=\"dead\"}"),
    ("/clients/away", "adit_clients{health=\"away\"}"),
    ("/pings/sent", "adit_pings_total"),
    ("/pings/answered", "adit_pongs_total"),
    ("/pings/missed", "adit_pings_missed_total"),
    ("/sessions/base", "adit_control_sessions_begun_total{level=\"base\"}"),
    ("/tunnels/online", "adit_tunnels{state=\"online\"}"),
    ("/tunnels/offline", "adit_tunnels{state=\"offline\"}"),
    ("/viewers", "adit_viewers"),
    ("/claims/claimed", "adit_claims_total{outcome=\"claimed\"}"),
    ("/claims/reused", "adit_claims_total{outcome=\"reused\"}"),
    ("/failures/no_such_tunnel", "adit_exchanges_total{cause=\"no_such_tunnel\",class=\"4xx\"}"),
    ("/failures/client_offline", "adit_exchanges_total{cause=\"client_offline\",class=\"5xx\"}"),
    ("/bytes_out", "adit_body_bytes_total{direction=\"out\"}"),
    ("/data_sockets/idle", "adit_data_sockets{state=\"idle\"}"),
];

#[tokio::test]
async fn what_the_dashboard_shows_is_what_scrapers_read() {
    let rig = Rig::with(|config| {
        config.limits.reconnect_wait = Duration::from_millis(10);
        config.limits.ping_every = Duration::from_millis(200);
    })
    .await;
    let _client = rig.client(ALICE, "jade", echo_target().await).await;
    let gone = rig.control(BOB, "opal").await;
    for path in ["/", "/again"] {
        assert_eq!(rig.get("jade", path).await.status, 200);
    }
    drop(gone);
    assert_eq!((rig.get("opal", "/").await.status, rig.get("nobody", "/").await.status), (503, 404));

    let desk = Desk::of(&rig).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Both may be a second old; pings go on meanwhile.
        let (summary, page) = (desk.json("/api/summary").await, page(rig.admin).await);
        let differ = PAIRS.iter().filter(|(at, sample)| {
            let shown = summary.pointer(at).and_then(Value::as_f64);
            shown.is_none() || shown != value(&page, sample)
        });
        let differ: Vec<_> = differ.collect();
        if differ.is_empty() {
            assert!(
                summary["pings"]["answered"].as_u64() > Some(0) && summary["bytes_out"].as_u64() > Some(0)
            );
            return;
        }
        assert!(Instant::now() < deadline, "{differ:?} of {summary} and {page}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_client_that_says_goodbye_is_away_even_without_a_code_and_one_whose_connection_breaks_is_dead() {
    let rig = Rig::start().await;
    let (mut leaves, breaks) = (rig.control(ALICE, "jade").await, rig.control(BOB, "opal").await);
    leaves.socket.close(None).await.unwrap();
    drop(breaks);
    let desk = Desk::of(&rig).await;
    let rest = json!({"alive": 0, "late": 0, "dead": 1, "away": 1});
    desk.until("/api/summary", |summary| summary["clients"] == rest).await;
}
