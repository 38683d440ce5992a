//! What the relay and owners decide holds for targets that speak HTTP/2, too.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::json;

use super::{ask, by_hand, echo, head, post, say, speaking};
use crate::counts::settle;
use crate::grpc::{client, tunnel};
use crate::http2::{connect, empty, get};
use crate::policy;
use crate::rig::{ALICE, Rig, soon};

#[tokio::test]
async fn the_rules_of_the_relay_hold() {
    let rig = Rig::with(|config| {
        config.limits.body_bytes = Some(100_000);
        config.limits.viewers_per_key = Some(1);
        config.limits.idle_exchange = Duration::from_secs(1);
    })
    .await;
    let (address, mut calls) =
        by_hand(|builder| _ = builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20))
            .await;
    let client = client(&rig, address).await;
    let viewer = connect(&rig).await;
    // A body over the limit, whose length is not told.
    let large = stream::iter((0..8).map(|_| Ok(hyper::body::Frame::data(Bytes::from(vec![0; 50_000])))));
    let large =
        Request::post("http://web.relay.test/").body(BodyExt::boxed(http_body_util::StreamBody::new(large)));
    assert_eq!(ask(&viewer, large.unwrap()).await.0, 413);
    drop(soon(calls.recv()).await.unwrap());
    // Nothing moves.
    assert_eq!(ask(&viewer, get("/").body(empty()).unwrap()).await.0, 504);
    let (_, silent) = soon(calls.recv()).await.unwrap();
    drop(silent);
    // A quota, and a suspension that ends what runs.
    let running = soon(viewer.clone().send_request(get("/").body(empty()).unwrap()));
    let (running, stream) = tokio::join!(running, async {
        let (_, (_, mut answer)) = soon(calls.recv()).await.unwrap();
        let mut stream = answer.send_response(head(200), false).unwrap();
        stream.send_data("begun".into(), false).unwrap();
        stream
    });
    assert_eq!(ask(&viewer, get("/").body(empty()).unwrap()).await.0, 503);
    let path = format!("/v1/tunnels/{}/suspend", client.id);
    assert_eq!(rig.api(ALICE, "POST", &path, r#"{"suspended":true}"#).await.0, 200);
    assert!(soon(running.unwrap().into_body().collect()).await.is_err());
    assert_eq!(ask(&viewer, get("/").body(empty()).unwrap()).await.0, 503);
    drop(stream);
    settle(rig.admin, &json!({"exchanges": 0})).await;
}

#[tokio::test]
async fn what_an_owner_sets_of_an_http_2_target_stays_within_its_tunnel() {
    let rig = Rig::start().await;
    let address = speaking(
        |_| {},
        |_, (_, mut answer)| async move {
            let mut response = head(200);
            response.headers_mut().insert("set-cookie", "a=1".parse().unwrap());
            response.headers_mut().insert("x-gone", "1".parse().unwrap());
            let mut stream = answer.send_response(response, false).unwrap();
            let trailers = [("x-gone", "2"), ("x-kept", "3")];
            let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            stream.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
        },
    )
    .await;
    let client = client(&rig, address).await;
    let changes = [
        "-X-Gone",
        "+Set-Cookie: b=2; Path=/; Domain=localhost",
        "Location: /login",
        "Strict-Transport-Security: max-age=9",
        "Clear-Site-Data: *",
        "Alt-Svc: h3",
        "X-Frame-Options: DENY",
    ];
    policy::set(&rig, &client.id, json!({"response_headers": changes})).await;
    let viewer = connect(&rig).await;
    let answers = async |url: &str| {
        let request = Request::get(url).body(empty()).unwrap();
        let (parts, body) = soon(viewer.clone().send_request(request)).await.unwrap().into_parts();
        let trailers = soon(body.collect()).await.unwrap().trailers().cloned().unwrap();
        assert_eq!(trailers.len(), 1);
        assert_eq!(trailers["x-kept"], "3");
        let all = |name: &str| {
            let values = parts.headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!((all("x-frame-options"), all("x-gone")), (vec!["DENY".to_owned()], vec![]));
        let origin = ["strict-transport-security", "clear-site-data", "alt-svc"];
        (all("set-cookie"), all("location"), origin.map(|name| all(name).len()))
    };
    let (cookies, location, origin) = answers("http://web.relay.test/").await;
    assert_eq!((cookies, location), (vec!["a=1".into(), "b=2; Path=/".into()], vec!["/login".into()]));
    assert_eq!(origin, [1; 3]);
    // By path the origin is shared: nobody speaks for the others there.
    let (cookies, location, origin) = answers("http://localhost/t/web/").await;
    let cookie = "b=2; Path=/t/web/".to_owned();
    assert_eq!((cookies, location), (vec!["a=1; Path=/t/web/".into(), cookie], vec!["/t/web/login".into()]));
    assert_eq!(origin, [0; 3]);
}

#[tokio::test]
async fn a_tunnel_without_its_client_waits_for_it_and_a_new_session_has_its_own_connection() {
    let rig = Rig::with(|config| config.limits.reconnect_wait = Duration::from_secs(10)).await;
    let (address, mut calls) = by_hand(|_| {}).await;
    let first = client(&rig, address).await;
    let viewer = connect(&rig).await;
    let asking = |path: &'static str| {
        let viewer = viewer.clone();
        tokio::spawn(async move { ask(&viewer, post(path, "x")).await })
    };
    let slow = asking("/slow");
    let (connection, (_, mut late)) = soon(calls.recv()).await.unwrap();
    assert_eq!(connection, 0);
    // The control socket goes; what runs goes on.
    let crate::rig::Client { id, .. } = first;
    let second = rig.connect(ALICE, &id).await;
    let _second = rig.serve(second, address).await;
    let next = asking("/next");
    let (connection, (_, mut answer)) = soon(calls.recv()).await.unwrap();
    assert_eq!(connection, 1);
    say(&mut answer, "new");
    assert_eq!(soon(next).await.unwrap().1.unwrap(), "new");
    say(&mut late, "old");
    assert_eq!(soon(slow).await.unwrap().1.unwrap(), "old");
    settle(rig.admin, &json!({"data_sockets_in_use": 1})).await;
}

#[tokio::test]
async fn what_goes_through_is_counted_and_paced() {
    let rig = Rig::with(|config| config.limits.bandwidth_per_key = Some(200_000)).await;
    let client = client(&rig, speaking(|_| {}, echo).await).await;
    let viewer = connect(&rig).await;
    let began = tokio::time::Instant::now();
    let (status, body) = ask(&viewer, post("/", vec![b'x'; 150_000])).await;
    assert_eq!((status, body.unwrap().len()), (200, 150_000));
    assert!(began.elapsed() > Duration::from_millis(900), "both directions count: {:?}", began.elapsed());
    settle(rig.admin, &json!({"exchanges": 0})).await;
    let (_, tunnel) = rig.api(ALICE, "GET", &format!("/v1/tunnels/{}", client.id), "").await;
    assert_eq!(
        (&tunnel["bytes_in"], &tunnel["bytes_out"], &tunnel["requests"]),
        (&json!(150_000), &json!(150_000), &json!(1))
    );
}

#[tokio::test]
async fn a_shutdown_ends_what_runs_whole_and_waits_for_no_idle_connection() {
    let rig = Rig::with(|config| config.limits.drain = Duration::from_secs(120)).await;
    let (address, mut calls) = by_hand(|_| {}).await;
    let _tunnel = tunnel(&rig, &address.to_string()).await;
    let viewer = connect(&rig).await;
    let asking = tokio::spawn(async move { ask(&viewer, get("/").body(empty()).unwrap()).await });
    let (_, (_, mut answer)) = soon(calls.recv()).await.unwrap();
    let mut stream = answer.send_response(head(200), false).unwrap();
    // The idle connection to the target would last for longer than we wait.
    let stopping = tokio::spawn(rig.shutdown());
    stream.send_data("whole".into(), true).unwrap();
    assert_eq!(soon(asking).await.unwrap().1.unwrap(), "whole");
    soon(stopping).await.unwrap();
}

#[tokio::test]
async fn a_wrong_target_proto_is_refused_and_a_right_one_is_kept() {
    let rig = Rig::start().await;
    let create = async |proto: &str| {
        let wanted = json!({"local_port": 1, "name": "web", "target_proto": proto}).to_string();
        rig.api(ALICE, "POST", "/v1/tunnels", &wanted).await
    };
    let (status, error) = create("h3").await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_target_proto")));
    let (status, tunnel) = create("h2").await;
    assert_eq!((status, &tunnel["target_proto"]), (201, &json!("h2")));
    let (status, tunnel) = create("http1").await;
    assert_eq!((status, tunnel.get("target_proto")), (200, None));
}
