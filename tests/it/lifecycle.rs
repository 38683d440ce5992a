//! The life of a tunnel: takeover, names that stay, expiry, suspension, passwords, the end of the relay and its return.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::frames::{BINARY, PING, Raw};
use crate::rig::{ALICE, Answer, BOB, Rig, echo_target, read_all, soon, until};
use crate::wire::Viewer;

async fn create(rig: &Rig, key: &str, fields: Value) -> (u16, Value) {
    let mut body = json!({"local_port": 1});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    rig.api(key, "POST", "/v1/tunnels", &body.to_string()).await
}

async fn call(rig: &Rig, id: &str, action: &str, body: Value) -> (u16, Value) {
    rig.api(ALICE, "POST", &format!("/v1/tunnels/{id}/{action}"), &body.to_string()).await
}

/// Ends the relay; another one with the same store takes its address.
async fn restart(rig: Rig) -> Rig {
    let (store, address) = (Arc::clone(&rig.store), rig.address);
    rig.shutdown().await;
    Rig::on(store, address, |_| {}).await
}

/// Waits until the tunnel has no client, or one.
async fn until_connected(rig: &Rig, id: &str, connected: bool) {
    let path = format!("/v1/tunnels/{id}");
    until(async || rig.api(ALICE, "GET", &path, "").await.1["connected"] == connected).await;
}

// ---- takeover ----

#[tokio::test]
async fn the_newest_control_socket_serves_at_once_and_a_live_older_one_is_closed_for_good() {
    let rig = Rig::start().await;
    let mut old = rig.control(ALICE, "web").await;
    let new = rig.client(ALICE, "web", echo_target().await).await;
    assert_eq!(new.id, old.id, "the tunnel is the same");
    // Nobody has read the old socket yet: no answer of it is waited for.
    assert_eq!(rig.get("web", "/").await.status, 200);
    assert_eq!(old.closed().await, Some(1000));
    drop(old);
    assert_eq!(
        rig.get("web", "/").await.status,
        200,
        "the end of the old socket does not remove the new one"
    );
}

#[tokio::test]
async fn an_older_control_socket_that_is_dead_is_dropped_and_the_new_one_stays() {
    let rig = Rig::start().await;
    let mut old = Raw::control(&rig, ALICE, "web").await;
    let _new = rig.client(ALICE, "web", echo_target().await).await;
    // The ping of the takeover comes and stays unanswered.
    while old.next(PING).await.unwrap() != b"replaced?" {}
    assert_eq!(rig.get("web", "/").await.status, 200);
    assert_eq!(old.close_code().await, Some(1001));
    assert_eq!(rig.get("web", "/").await.status, 200);
}

// ---- names ----

/// Every way in which a tunnel loses its client or ends, and whether its id is the same afterwards.
#[tokio::test]
async fn a_name_stays_its_keys_whatever_becomes_of_the_tunnel() {
    let mut rig = Rig::start().await;
    for (generated, what) in [false, true]
        .into_iter()
        .flat_map(|generated| ["dropped", "restarted", "deleted", "expired"].map(|what| (generated, what)))
    {
        let wanted = if generated { json!({}) } else { json!({"name": format!("web-{what}")}) };
        let (status, first) = create(&rig, ALICE, wanted).await;
        assert_eq!(status, 201, "{first}");
        let id = first["id"].as_str().unwrap();
        let mut control = rig.connect(ALICE, id).await;
        match what {
            "dropped" => {
                drop(control);
                until_connected(&rig, id, false).await;
            }
            "restarted" => {
                let (restarted, code) = tokio::join!(restart(rig), control.closed());
                rig = restarted;
                assert_eq!(code, Some(1012), "1000 would end the client");
            }
            "deleted" => {
                assert_eq!(rig.api(ALICE, "DELETE", &format!("/v1/tunnels/{id}"), "").await.0, 204);
                assert_eq!(control.closed().await, Some(1000));
            }
            _ => {
                assert_eq!(call(&rig, id, "extend", json!({"ttl": "1ms"})).await.0, 200);
                assert_eq!(control.closed().await, Some(1000));
            }
        }
        let slug = first["slug"].as_str().unwrap();
        let (status, refused) = create(&rig, BOB, json!({"name": slug})).await;
        assert_eq!((status, &refused["code"]), (409, &json!("name_taken")), "{what}");
        let (status, again) = create(&rig, ALICE, json!({"name": slug})).await;
        let ended = matches!(what, "deleted" | "expired");
        assert_eq!(status, if ended { 201 } else { 200 }, "{what}");
        assert_eq!(again["id"] == first["id"], !ended, "{what}");
        assert_eq!((&again["slug"], &again["public_url"]), (&first["slug"], &first["public_url"]), "{what}");
        rig.connect(ALICE, again["id"].as_str().unwrap()).await;
    }
}

#[tokio::test]
async fn a_key_that_may_have_one_tunnel_gets_it_back_and_no_second_one() {
    let one = |config: &mut adit::relay::config::RelayConfig| config.limits.tunnels_per_key = Some(1);
    let rig = Rig::with(one).await;
    let first = rig.control(ALICE, "web").await;
    let back = rig.control(ALICE, "web").await;
    assert_eq!(first.id, back.id);
    drop((first, back));
    assert_eq!(create(&rig, ALICE, json!({"name": "web"})).await.0, 200);
    for other in [json!({"name": "other"}), json!({})] {
        let (status, refused) = create(&rig, ALICE, other).await;
        assert_eq!((status, &refused["code"]), (403, &json!("too_many_tunnels")), "{refused}");
    }
    let (store, address) = (Arc::clone(&rig.store), rig.address);
    rig.shutdown().await;
    let rig = Rig::on(store, address, one).await;
    assert_eq!(create(&rig, ALICE, json!({"name": "web"})).await.0, 200);
    assert_eq!(create(&rig, BOB, json!({"name": "bobs"})).await.0, 201, "each key has its own");
    rig.api(ALICE, "DELETE", &format!("/v1/tunnels/{}", back_id(&rig).await), "").await;
    assert_eq!(create(&rig, ALICE, json!({"name": "other"})).await.0, 201, "there is room again");
}

async fn back_id(rig: &Rig) -> String {
    rig.api(ALICE, "GET", "/v1/tunnels", "").await.1[0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn two_creations_at_once_give_one_tunnel() {
    let rig = Rig::with(|config| config.limits.tunnels_per_key = Some(1)).await;
    let wanted = json!({"name": "web"});
    let (first, second) = tokio::join!(create(&rig, ALICE, wanted.clone()), create(&rig, ALICE, wanted));
    assert_eq!(first.1["id"], second.1["id"], "{first:?} {second:?}");
    assert_eq!(first.0 + second.0, 201 + 200);
}

// ---- the end of a tunnel ----

#[tokio::test]
async fn a_tunnel_whose_time_is_over_closes_its_client_for_good_and_is_404() {
    let rig = Rig::start().await;
    let (_, tunnel) = create(&rig, ALICE, json!({"name": "web"})).await;
    let id = tunnel["id"].as_str().unwrap();
    // Connected first: a busy machine takes longer for that than the tunnel has.
    let mut client = rig.connect(ALICE, id).await;
    assert_eq!(call(&rig, id, "extend", json!({"ttl": "1ms"})).await.0, 200);
    assert_eq!(client.closed().await, Some(1000));
    assert_eq!(rig.get("web", "/").await.status, 404);
    assert_eq!(rig.api(ALICE, "GET", "/v1/tunnels", "").await.1, json!([]));
}

#[tokio::test]
async fn extend_moves_the_end_and_zero_takes_it_away() {
    const NEVER: &str = "0001-01-01T00:00:00Z";
    let rig = Rig::start().await;
    let (_, kept) = create(&rig, ALICE, json!({"name": "kept", "ttl": "900ms"})).await;
    let (_, moved) = create(&rig, ALICE, json!({"name": "moved", "ttl": "900ms"})).await;
    let (kept, moved) = (kept["id"].as_str().unwrap(), moved["id"].as_str().unwrap());
    let (_, moved_to) = call(&rig, moved, "extend", json!({"ttl": "1h"})).await;
    assert!(moved_to["expires_at"].as_str().unwrap() > NEVER);
    assert_eq!(call(&rig, kept, "extend", json!({"ttl": "0"})).await.1["expires_at"], NEVER);
    for bad in ["-1h", "soon", ""] {
        let (status, refused) = call(&rig, kept, "extend", json!({"ttl": bad})).await;
        assert_eq!((status, &refused["code"]), (400, &json!("invalid_ttl")), "{bad:?}");
    }
    // One that was created later and not extended tells when the time of both would have been over.
    let (_, clock) = create(&rig, ALICE, json!({"name": "clock"})).await;
    let clock = clock["id"].as_str().unwrap();
    let mut client = rig.connect(ALICE, clock).await;
    assert_eq!(call(&rig, clock, "extend", json!({"ttl": "900ms"})).await.0, 200);
    assert_eq!(client.closed().await, Some(1000));
    for id in [kept, moved] {
        assert_eq!(rig.api(ALICE, "GET", &format!("/v1/tunnels/{id}"), "").await.0, 200);
    }
}

#[tokio::test]
async fn a_client_that_comes_back_does_not_undo_an_extension() {
    let rig = Rig::start().await;
    let wanted = json!({"name": "web", "ttl": "1h"});
    let (_, tunnel) = create(&rig, ALICE, wanted.clone()).await;
    let (_, extended) = call(&rig, tunnel["id"].as_str().unwrap(), "extend", json!({"ttl": "5h"})).await;
    assert_eq!(create(&rig, ALICE, wanted.clone()).await.1["expires_at"], extended["expires_at"]);
    let (_, shorter) = create(&rig, ALICE, json!({"name": "web", "ttl": "2h"})).await;
    assert!(shorter["expires_at"].as_str().unwrap() < extended["expires_at"].as_str().unwrap());
    // One that says so changes nothing of the end, however often it comes and whatever else it changes.
    for more in [json!({}), json!({"device_name": "laptop"})] {
        let mut resumed = json!({"name": "web", "ttl": "9h", "resume": true});
        resumed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(create(&rig, ALICE, resumed).await.1["expires_at"], shorter["expires_at"], "{more}");
    }
}

#[tokio::test]
async fn a_deleted_tunnel_stays_deleted() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let path = format!("/v1/tunnels/{}", control.id);
    assert_eq!(rig.api(ALICE, "DELETE", &path, "").await, (204, Value::Null));
    assert_eq!(control.closed().await, Some(1000));
    let rig = restart(rig).await;
    assert_eq!(rig.get("web", "/").await.status, 404);
    for method in ["GET", "DELETE"] {
        assert_eq!(rig.api(ALICE, method, &path, "").await.0, 404, "{method}");
    }
    let socket = rig.socket(&format!("/ws/control?tunnel_id={}", control.id), Some(ALICE)).await;
    assert_eq!(socket.err().unwrap().0, 404);
}

// ---- suspension and passwords ----

#[tokio::test]
async fn a_suspended_tunnel_turns_viewers_away_over_a_restart_until_it_is_resumed() {
    let rig = Rig::start().await;
    let target = echo_target().await;
    let client = rig.client(ALICE, "web", target).await;
    assert_eq!(rig.get("web", "/").await.status, 200);
    let (_, said) = call(&rig, &client.id, "suspend", json!({"suspended": true})).await;
    assert_eq!(said, json!({"status": "suspended", "suspended": "true"}));
    let refused = rig.get("web", "/").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("2")));
    assert!(refused.text().contains("\"cause\":\"suspended\""), "{}", refused.text());

    let rig = restart(rig).await;
    let client = rig.client(ALICE, "web", target).await;
    assert_eq!(rig.get("web", "/").await.status, 503, "a client that comes back resumes nothing");
    let (_, said) = call(&rig, &client.id, "suspend", json!({"suspended": false})).await;
    assert_eq!(said, json!({"status": "resumed", "suspended": "false"}));
    assert_eq!(rig.get("web", "/").await.status, 200);
}

/// What is under way through a tunnel when its owner ends or stops it.
#[tokio::test]
async fn suspension_and_deletion_end_what_runs() {
    for action in ["suspend", "delete"] {
        let rig = Rig::start().await;
        let mut control = rig.control(ALICE, "web").await;
        let mut waiting = Viewer::new(&rig).await;
        let mut reading = Viewer::new(&rig).await;
        for viewer in [&mut reading, &mut waiting] {
            viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n\r\n").await;
        }
        let mut data = Raw::data(rig.address, &soon(control.notified()).await.unwrap()).await;
        data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
        soon(control.notified()).await.unwrap();
        reading.head().await;
        reading.bytes(4).await;
        match action {
            "suspend" => {
                assert_eq!(call(&rig, &control.id, "suspend", json!({"suspended": true})).await.0, 200)
            }
            _ => {
                assert_eq!(rig.api(ALICE, "DELETE", &format!("/v1/tunnels/{}", control.id), "").await.0, 204)
            }
        }
        assert_eq!(reading.rest().await, b"", "{action}: cut, and not completed");
        let answer = Answer::parse(&waiting.rest().await);
        assert_eq!(answer.status, 503, "{action}");
        assert!(answer.text().contains("tunnel_ended"), "{}", answer.text());
        assert_eq!(data.next(BINARY).await.map(drop), Some(()), "the request");
        assert_eq!(data.next(BINARY).await, None, "the client is told to close its side");
    }
}

#[tokio::test]
async fn a_password_is_asked_for_over_a_restart_and_the_target_does_not_see_it() {
    let rig = Rig::start().await;
    let target = echo_target().await;
    // ann:secret and ann:wrong in base64.
    let (right, wrong) = ("Basic YW5uOnNlY3JldA==", "Basic YW5uOndyb25n");
    let fields = json!({"name": "web", "auth_user": "ann", "auth_pass": "secret"});
    let get = async |rig: &Rig, auth: &str| {
        let auth = if auth.is_empty() { String::new() } else { format!("Authorization: {auth}\r\n") };
        rig.raw(format!("GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n{auth}\r\n")).await
    };
    let (status, tunnel) = create(&rig, ALICE, fields.clone()).await;
    assert_eq!(status, 201);
    assert!(!tunnel.to_string().contains("secret"), "{tunnel}");
    let rig = restart(rig).await;
    assert_eq!(
        get(&rig, wrong).await.status,
        401,
        "the client is not back, and the tunnel is not open meanwhile"
    );
    assert_eq!(get(&rig, right).await.status, 503);
    let (status, again) = create(&rig, ALICE, fields).await;
    assert_eq!((status, &again["id"]), (200, &tunnel["id"]));
    let _client = rig.serve(rig.connect(ALICE, again["id"].as_str().unwrap()).await, target).await;
    for auth in ["", wrong, "Bearer x", "Basic !"] {
        let refused = get(&rig, auth).await;
        assert_eq!(refused.status, 401, "{auth:?}");
        assert!(refused.header("www-authenticate").unwrap().starts_with("basic realm="), "{}", refused.head);
    }
    let served = get(&rig, right).await;
    assert_eq!(served.status, 200);
    assert!(!served.text().to_ascii_lowercase().contains("authorization"), "{}", served.text());
}

// ---- the end of the relay ----

#[tokio::test]
async fn at_a_shutdown_requests_finish_clients_are_told_to_come_back_and_nobody_new_gets_in() {
    let rig = Rig::start().await;
    let (address, mut control) = (rig.address, rig.control(ALICE, "web").await);
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let mut data = Raw::data(rig.address, &soon(control.notified()).await.unwrap()).await;
    data.request().await;
    let stopping = tokio::spawn(rig.shutdown());
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    data.send(BINARY, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfinished").await;
    let answer = Answer::parse(&viewer.rest().await);
    assert_eq!((answer.status, answer.text()), (200, "finished".into()));
    assert_eq!(control.closed().await, Some(1012));
    soon(stopping).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_waits_no_longer_than_it_may() {
    let rig = Rig::with(|config| config.limits.drain = std::time::Duration::from_millis(100)).await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewer = rig.viewer().await;
    viewer.write_all(b"GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await.unwrap();
    let _data = Raw::data(rig.address, &soon(control.notified()).await.unwrap()).await;
    let (_, code) = tokio::join!(rig.shutdown(), control.closed());
    assert_eq!(code, Some(1012));
    soon(read_all(&mut viewer)).await;
}

#[tokio::test]
async fn a_thousand_clients_are_back_after_a_restart_with_the_same_names() {
    const CLIENTS: usize = 1000;
    let rig = Rig::start().await;
    let mut slugs = Vec::new();
    for _ in 0..CLIENTS {
        let (status, tunnel) = create(&rig, ALICE, json!({})).await;
        assert_eq!(status, 201);
        slugs.push(tunnel["slug"].as_str().unwrap().to_owned());
    }
    let rig = Arc::new(restart(rig).await);
    let mut returning = JoinSet::new();
    for slug in slugs {
        let rig = Arc::clone(&rig);
        returning.spawn(async move {
            let (status, tunnel) = create(&rig, ALICE, json!({"name": slug})).await;
            assert_eq!((status, &tunnel["slug"]), (200, &json!(slug)));
            let id = tunnel["id"].as_str().unwrap();
            let mut control =
                Raw::open(rig.address, &format!("/ws/control?tunnel_id={id}"), Some(ALICE)).await.unwrap();
            assert_eq!(control.frame().await.unwrap().0, PING);
            control
        });
    }
    // All of them stay connected.
    let controls = soon(returning.join_all()).await;
    assert_eq!(controls.len(), CLIENTS);
    let (_, tunnels) = rig.api(ALICE, "GET", "/v1/tunnels", "").await;
    let connected = tunnels.as_array().unwrap().iter().filter(|tunnel| tunnel["connected"] == true).count();
    assert_eq!(connected, CLIENTS);
}
