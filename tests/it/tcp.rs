//! TCP tunnels: a port of the relay that leads to a target, whatever is spoken there.

mod ports;

use std::net::SocketAddr;
use std::time::Duration;

use adit::client::{Event, Proto, Proxies, Tunnel, TunnelBuilder};
use adit::relay::config::RelayConfig;
use adit::relay::domains::DomainProof;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::counts::settle;
use crate::drain::stop;
use crate::level_two::{Two, data_at, read_until, send};
use crate::ports::some_ports;
use crate::rig::{ALICE, Client, Rig, read_all, soon, target};
use crate::wire::by_hand;

/// A relay with ports for tunnels.
pub async fn rig(change: impl FnOnce(&mut RelayConfig)) -> Rig {
    Rig::with(|config| {
        config.tcp_ports = Some(some_ports());
        change(config);
    })
    .await
}

/// Creates a TCP tunnel; `more` goes into the request.
async fn create(rig: &Rig, key: &str, name: &str, more: Value) -> (u16, Value) {
    let mut wanted = json!({"local_port": 1, "name": name, "proto": "tcp"});
    wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rig.api(key, "POST", "/v1/tunnels", &wanted.to_string()).await
}

/// The address at which viewers reach a tunnel that was just created.
pub fn address_of(tunnel: &Value) -> SocketAddr {
    let url = tunnel["public_url"].as_str().unwrap();
    let (host, port) = url.strip_prefix("tcp://").unwrap().rsplit_once(':').unwrap();
    assert_eq!(host, "relay.test");
    assert_eq!(Some(port.parse::<u64>().unwrap()), tunnel["remote_port"].as_u64());
    SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
}

fn port_of(tunnel: &Value) -> u16 {
    address_of(tunnel).port()
}

/// A tunnel with a base client that leads to `target`, and where viewers reach it.
async fn with_base_client(rig: &Rig, name: &str, target: SocketAddr) -> (Client, SocketAddr) {
    let (status, tunnel) = create(rig, ALICE, name, json!({})).await;
    assert_eq!(status, 201, "{tunnel}");
    let control = rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
    (rig.serve(control, target).await, address_of(&tunnel))
}

pub fn tunnel(rig: &Rig) -> TunnelBuilder {
    Tunnel::to(format!("http://{}", rig.address)).key(ALICE).proxies(Proxies::none()).proto(Proto::Tcp)
}

pub fn viewers_of(tunnel: &Tunnel) -> SocketAddr {
    let port = tunnel.url().rsplit_once(':').unwrap().1.parse().unwrap();
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub async fn viewer(address: SocketAddr) -> TcpStream {
    soon(TcpStream::connect(address)).await.unwrap()
}

/// Whether the connection was reset, without a byte.
async fn is_reset(mut viewer: TcpStream) -> bool {
    let read = soon(viewer.read(&mut [0])).await;
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

async fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address)
        .await
        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Answers with what it read, backwards, once that has ended.
async fn reverser() -> SocketAddr {
    target(|_, mut stream| async move {
        let mut question = Vec::new();
        if stream.read_to_end(&mut question).await.is_ok() {
            question.reverse();
            let _ = stream.write_all(&question).await;
        }
    })
    .await
}

/// Says a word first, and then what it hears.
async fn echo() -> SocketAddr {
    target(|_, mut stream| async move {
        let _ = stream.write_all(b"220 ready\n").await;
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    soon(stream.read_exact(&mut read)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes));
}

// ---- bytes ----

#[tokio::test]
async fn bytes_of_any_kind_go_both_ways_whoever_speaks_first_and_whatever_the_client() {
    let rig = rig(|_| {}).await;
    let target = echo().await;
    let (_client, base) = with_base_client(&rig, "base", target).await;
    let two = tunnel(&rig).name("two").expose(&target.to_string()).await.unwrap();
    let big: Vec<u8> = (0..3_000_000u32).map(|number| ((number * 7) >> 3) as u8).collect();
    for address in [base, viewers_of(&two)] {
        let mut viewer = viewer(address).await;
        expect(&mut viewer, b"220 ready\n").await;
        for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\xff\x16\x03\x01"] {
            viewer.write_all(words).await.unwrap();
            expect(&mut viewer, words).await;
        }
        let (mut read, mut write) = viewer.split();
        let mut came = vec![0; big.len()];
        let (sent, read) =
            soon(async { tokio::join!(write.write_all(&big), read.read_exact(&mut came)) }).await;
        assert!(sent.is_ok() && read.is_ok() && came == big);
    }
}

#[tokio::test]
async fn each_side_ends_by_itself_with_a_client_of_level_two() {
    let rig = rig(|_| {}).await;
    let tunnel_of = async |target: SocketAddr| tunnel(&rig).expose(&target.to_string()).await.unwrap();
    let by_viewer = tunnel_of(reverser().await).await;
    // More than one, as the first may be had by a standby socket, and others by claims.
    for _ in 0..4 {
        let mut viewer = viewer(viewers_of(&by_viewer)).await;
        viewer.write_all(b"abc").await.unwrap();
        viewer.shutdown().await.unwrap();
        assert_eq!(soon(read_all(&mut viewer)).await, b"cba");
    }
    // The other way round.
    let (address, mut targets) = by_hand().await;
    let by_target = tunnel_of(address).await;
    let mut viewer = viewer(viewers_of(&by_target)).await;
    let mut far = soon(targets.recv()).await.unwrap();
    far.write_all(b"bye").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(soon(read_all(&mut viewer)).await, b"bye");
    viewer.write_all(b"not yet").await.unwrap();
    expect(&mut far, b"not yet").await;
    drop(viewer);
    assert_eq!(soon(read_all(&mut far)).await, b"");
}

#[tokio::test]
async fn a_break_of_either_side_is_no_end_for_the_other() {
    let rig = rig(|_| {}).await;
    let (address, mut targets) = by_hand().await;
    let tunnel = tunnel(&rig).expose(&address.to_string()).await.unwrap();
    for by_viewer in [true, false] {
        let mut viewer = viewer(viewers_of(&tunnel)).await;
        viewer.write_all(b"x").await.unwrap();
        let mut far = soon(targets.recv()).await.unwrap();
        expect(&mut far, b"x").await;
        let (gone, mut left) = if by_viewer { (viewer, far) } else { (far, viewer) };
        gone.set_zero_linger().unwrap();
        drop(gone);
        assert!(soon(left.read(&mut [0])).await.is_err(), "{by_viewer}");
    }
}

// ---- the life of a tunnel ----

#[tokio::test]
async fn a_viewer_waits_for_a_client_that_is_away_and_is_cut_when_none_comes() {
    let rig = rig(|config| config.limits.reconnect_wait = Duration::from_millis(300)).await;
    let (client, address) = with_base_client(&rig, "db", echo().await).await;
    drop(client);
    assert!(is_reset(viewer(address).await).await);

    let rig = self::rig(|config| config.limits.reconnect_wait = Duration::from_secs(60)).await;
    let (_, tunnel) = create(&rig, ALICE, "db", json!({})).await;
    let mut early = viewer(address_of(&tunnel)).await;
    settle(rig.admin, &json!({"waiting_for_client": 1})).await;
    let mut client = Two::again(&rig, tunnel["id"].as_str().unwrap(), "").await;
    let id = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
    let mut data = data_at(rig.address, &id).await;
    send(&mut data, "here").await;
    expect(&mut early, b"here").await;
}

#[tokio::test]
async fn suspension_turns_viewers_away_and_deletion_closes_the_port_and_cuts_what_runs() {
    let rig = rig(|_| {}).await;
    let (client, address) = with_base_client(&rig, "db", echo().await).await;
    let path = format!("/v1/tunnels/{}", client.id);
    let mut running = viewer(address).await;
    expect(&mut running, b"220 ready\n").await;
    for (suspended, reset) in [(true, true), (false, false)] {
        let body = json!({"suspended": suspended}).to_string();
        assert_eq!(rig.api(ALICE, "POST", &format!("{path}/suspend"), &body).await.0, 200);
        if reset {
            assert_eq!(soon(read_all(&mut running)).await, b"", "it is cut");
            assert!(is_reset(viewer(address).await).await);
        } else {
            running = viewer(address).await;
            expect(&mut running, b"220 ready\n").await;
        }
    }
    assert_eq!(rig.api(ALICE, "DELETE", &path, "").await.0, 204);
    assert_eq!(soon(read_all(&mut running)).await, b"");
    assert!(is_refused(address).await);
    // An expiry closes it as well.
    let (_, short) = create(&rig, ALICE, "short", json!({"ttl": "1s"})).await;
    soon(async { while !is_refused(address_of(&short)).await {} }).await;
}

#[tokio::test]
async fn the_client_is_told_what_it_is_and_whose_and_may_refuse() {
    let rig = rig(|_| {}).await;
    let (_, tunnel) = create(&rig, ALICE, "db", json!({})).await;
    let mut client = Two::again(&rig, tunnel["id"].as_str().unwrap(), "").await;
    let mut viewer = viewer(address_of(&tunnel)).await;
    let told = client.hear_of("connection").await;
    assert_eq!(told["proto"], "tcp");
    assert_eq!(told["remote_addr"], viewer.local_addr().unwrap().to_string());
    let mut data = data_at(rig.address, told["id"].as_str().unwrap()).await;
    viewer.write_all(b"question").await.unwrap();
    read_until(&mut data, b"question").await;
    send(&mut data, "answer").await;
    expect(&mut viewer, b"answer").await;
    // Before the claim and behind it.
    for claims in [false, true] {
        let viewer = self::viewer(address_of(&tunnel)).await;
        let id = client.hear_of("connection").await["id"].as_str().unwrap().to_owned();
        let _data = if claims { Some(data_at(rig.address, &id).await) } else { None };
        client.say(json!({"type": "reject", "id": id, "reason": "refused"})).await;
        assert!(is_reset(viewer).await, "{claims}");
    }
    // Who leaves before the claim is called off; who only has no more to say is not.
    let mut quiet = self::viewer(address_of(&tunnel)).await;
    quiet.shutdown().await.unwrap();
    let kept = client.hear_of("connection").await["id"].clone();
    let leaving = self::viewer(address_of(&tunnel)).await;
    let id = client.hear_of("connection").await["id"].clone();
    leaving.set_zero_linger().unwrap();
    drop(leaving);
    assert_eq!(client.hear_of("cancel").await["id"], id);
    let mut data = data_at(rig.address, kept.as_str().unwrap()).await;
    send(&mut data, "late").await;
    expect(&mut quiet, b"late").await;
}

#[tokio::test]
async fn a_data_socket_that_has_carried_one_viewer_is_not_given_to_another() {
    let rig = rig(|_| {}).await;
    let (address, mut targets) = by_hand().await;
    let tunnel = tunnel(&rig).expose(&address.to_string()).await.unwrap();
    for _ in 0..3 {
        let mut viewer = viewer(viewers_of(&tunnel)).await;
        let mut far = soon(targets.recv()).await.unwrap();
        viewer.write_all(b"secret").await.unwrap();
        drop(viewer);
        assert_eq!(soon(read_all(&mut far)).await, b"secret");
    }
}

#[tokio::test]
async fn a_target_that_is_down_is_told_and_the_viewer_is_reset() {
    let rig = rig(|config| config.limits.claim_wait = Duration::from_secs(300)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut tunnel = tunnel(&rig).expose(&address.to_string()).await.unwrap();
    for _ in 0..3 {
        assert!(is_reset(viewer(viewers_of(&tunnel)).await).await);
    }
    loop {
        if let Event::TargetDown { error, .. } = soon(tunnel.next_event()).await.unwrap() {
            assert_eq!(error.code(), "refused");
            break;
        }
    }
}

#[tokio::test]
async fn a_connection_is_told_as_an_event_when_it_is_over() {
    let rig = rig(|_| {}).await;
    let mut tunnel =
        tunnel(&rig).requests_per_second(10).expose(&reverser().await.to_string()).await.unwrap();
    let mut viewer = viewer(viewers_of(&tunnel)).await;
    viewer.write_all(b"four").await.unwrap();
    viewer.shutdown().await.unwrap();
    assert_eq!(soon(read_all(&mut viewer)).await, b"ruof");
    loop {
        if let Event::Connection(connected) = soon(tunnel.next_event()).await.unwrap() {
            assert_eq!((connected.bytes_in, connected.bytes_out, connected.whole), (4, 4, true));
            assert_eq!(connected.viewer, Some(viewer.local_addr().unwrap().to_string()));
            break;
        }
    }
}

#[tokio::test]
async fn a_request_to_the_name_of_such_a_tunnel_is_421() {
    let rig = rig(|_| {}).await;
    create(&rig, ALICE, "db", json!({})).await;
    let answer = rig.get("db", "/").await;
    assert_eq!(answer.status, 421);
    assert!(answer.text().contains("\"cause\":\"not_http\""), "{}", answer.text());
    let by_path = rig.raw("GET /t/db/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(by_path.status, 421);
}

#[tokio::test]
async fn connections_count_as_viewers_of_their_key_and_in_the_traffic_and_leave_nothing_behind() {
    let rig = rig(|config| config.limits.viewers_per_key = Some(1)).await;
    let (client, address) = with_base_client(&rig, "db", echo().await).await;
    let mut one = viewer(address).await;
    expect(&mut one, b"220 ready\n").await;
    let open = json!({"raw": 1, "tcp_listeners": 1, "tunnels_by_port": 1, "upgraded": 0});
    settle(rig.admin, &open).await;
    assert!(is_reset(viewer(address).await).await, "one too many");
    one.write_all(b"12345").await.unwrap();
    expect(&mut one, b"12345").await;
    // Not only once it is over.
    let path = format!("/v1/tunnels/{}", client.id);
    let (_, shown) = rig.api(ALICE, "GET", &path, "").await;
    assert_eq!((&shown["bytes_in"], &shown["bytes_out"]), (&json!(5), &json!(15)), "{shown}");
    drop(one);
    settle(rig.admin, &json!({"raw": 0, "viewer_tasks": 0, "data_sockets_in_use": 0, "pending": 0})).await;
    expect(&mut viewer(address).await, b"220 ready\n").await;
    rig.api(ALICE, "DELETE", &path, "").await;
    settle(rig.admin, &json!({"raw": 0, "tcp_listeners": 0, "tunnels_by_port": 0, "connections": 0})).await;
}

#[tokio::test]
async fn the_rules_of_its_owner_that_need_no_request_hold_and_others_are_refused() {
    let rig = rig(|config| config.domain_proof = DomainProof::Off).await;
    let (status, refused) = create(&rig, ALICE, "db", json!({"policy": {"interstitial": true}})).await;
    assert_eq!((status, refused["code"].as_str()), (400, Some("invalid_policy")), "{refused}");
    let (status, refused) = create(&rig, ALICE, "db", json!({"domains": ["www.example.com"]})).await;
    assert_eq!((status, refused["code"].as_str()), (400, Some("only_http")), "{refused}");
    let policy = json!({"policy": {"deny": ["127.0.0.7"], "rate_limit": "2/h"}});
    let (status, created) = create(&rig, ALICE, "db", policy).await;
    assert_eq!(status, 201, "{created}");
    let control = rig.connect(ALICE, created["id"].as_str().unwrap()).await;
    let _client = rig.serve(control, echo().await).await;
    let denied = tokio::net::TcpSocket::new_v4().unwrap();
    denied.bind("127.0.0.7:0".parse().unwrap()).unwrap();
    assert!(is_reset(denied.connect(address_of(&created)).await.unwrap()).await);
    for _ in 0..2 {
        expect(&mut viewer(address_of(&created)).await, b"220 ready\n").await;
    }
    assert!(is_reset(viewer(address_of(&created)).await).await, "too often");
}

#[tokio::test]
async fn the_bandwidth_of_a_key_holds_here_too() {
    let rig = rig(|config| config.limits.bandwidth_per_key = Some(200_000)).await;
    let sink = target(|_, mut stream| async move {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        let _ = stream.write_all(b"k").await;
    })
    .await;
    let tunnel = tunnel(&rig).expose(&sink.to_string()).await.unwrap();
    let mut viewer = viewer(viewers_of(&tunnel)).await;
    let began = tokio::time::Instant::now();
    viewer.write_all(&vec![0; 300_000]).await.unwrap();
    viewer.shutdown().await.unwrap();
    assert_eq!(soon(read_all(&mut viewer)).await, b"k");
    // No test of how exact it is: only that it is not without.
    assert!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
}

// ---- the end of a relay ----

#[tokio::test]
async fn a_relay_that_stops_refuses_new_connections_and_lets_those_under_way_finish() {
    let rig = rig(|_| {}).await;
    let (_client, address) = with_base_client(&rig, "db", echo().await).await;
    let mut running = viewer(address).await;
    expect(&mut running, b"220 ready\n").await;
    let stopping = stop(rig).await;
    soon(async { while !is_refused(address).await {} }).await;
    running.write_all(b"still").await.unwrap();
    expect(&mut running, b"still").await;
    drop(running);
    soon(stopping).await.unwrap();
}

#[tokio::test]
async fn rules_for_viewers_hold_for_each_connection_and_those_of_requests_are_refused() {
    let rig = rig(|_| {}).await;
    for (policy, rule) in [(json!({"auth": "ann:secret"}), "auth"), (json!({"max_body": "1MB"}), "max_body")]
    {
        let (status, refused) = create(&rig, ALICE, "db", json!({"policy": policy})).await;
        assert_eq!((status, refused["code"].as_str()), (400, Some("invalid_policy")));
        assert!(refused["error"].as_str().unwrap().contains(rule), "{refused}");
    }
    let (status, tunnel) = create(&rig, ALICE, "db", json!({"policy": {"rate_limit": "2/h"}})).await;
    assert_eq!(status, 201, "{tunnel}");
    let control = rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
    let _client = rig.serve(control, echo().await).await;
    for _ in 0..2 {
        let mut viewer = TcpStream::connect(address_of(&tunnel)).await.unwrap();
        expect(&mut viewer, b"220 ready\n").await;
    }
    assert!(is_reset(TcpStream::connect(address_of(&tunnel)).await.unwrap()).await);
    let path = format!("/v1/tunnels/{}/policy", tunnel["id"].as_str().unwrap());
    let (status, refused) = rig.api(ALICE, "PUT", &path, "{\"interstitial\":true}").await;
    assert_eq!((status, refused["code"].as_str()), (400, Some("invalid_policy")));
    assert_eq!(rig.api(ALICE, "PUT", &path, "{\"deny\":\"127.0.0.0/8\"}").await.0, 200);
    assert!(is_reset(TcpStream::connect(address_of(&tunnel)).await.unwrap()).await);
    assert_eq!(rig.api(ALICE, "DELETE", &path, "").await.0, 204);
    let mut viewer = TcpStream::connect(address_of(&tunnel)).await.unwrap();
    expect(&mut viewer, b"220 ready\n").await;
}
