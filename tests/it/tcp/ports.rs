//! Which tunnel gets which port, and keeps it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use adit::client::{Proto, Proxies, Tunnel};
use adit::store::{Sqlite, Store};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::{
    address_of, create, echo, expect, is_refused, port_of, rig, tunnel, viewer, viewers_of, with_base_client,
};
use crate::ports::some_ports;
use crate::program::{Running, relay};
use crate::rig::{ALICE, BOB, Rig, soon};

#[tokio::test]
async fn a_port_stays_its_keys_over_clients_deletion_and_a_restart() {
    let store: Arc<dyn Store> = Arc::new(Sqlite::memory().unwrap());
    let ports = some_ports();
    let start = |store: &Arc<dyn Store>| {
        let (store, ports) = (Arc::clone(store), ports.clone());
        Rig::on(store, "127.0.0.1:0".parse().unwrap(), move |config| config.tcp_ports = Some(ports))
    };
    let rig = start(&store).await;
    let target = echo().await;
    let (_, other) = create(&rig, ALICE, "other", json!({})).await;
    let (client, address) = with_base_client(&rig, "db", target).await;
    assert!(ports.contains(&address.port()) && port_of(&other) != address.port());
    drop(client);
    let (status, again) = create(&rig, ALICE, "db", json!({})).await;
    assert_eq!((status, port_of(&again)), (200, address.port()));
    // Ended, the name keeps it, and nobody listens there.
    let path = format!("/v1/tunnels/{}", again["id"].as_str().unwrap());
    assert_eq!(rig.api(ALICE, "DELETE", &path, "").await.0, 204);
    assert!(is_refused(address).await);
    let (status, refused) = create(&rig, BOB, "bobs", json!({"remote_port": address.port()})).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("port_taken")));
    let (_, bobs) = create(&rig, BOB, "bobs", json!({})).await;
    assert_ne!(port_of(&bobs), address.port());
    let (status, third) = create(&rig, ALICE, "db", json!({})).await;
    assert_eq!((status, port_of(&third)), (201, address.port()));
    rig.shutdown().await;
    assert!(is_refused(address).await);

    let rig = start(&store).await;
    let (_client, same) = {
        let (status, tunnel) = create(&rig, ALICE, "db", json!({})).await;
        assert_eq!(status, 200);
        let control = rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
        (rig.serve(control, target).await, address_of(&tunnel))
    };
    assert_eq!(same, address);
    expect(&mut viewer(same).await, b"220 ready\n").await;
    // Without a client, too, the port is the relay's from its start.
    drop(viewer(address_of(&bobs)).await);
}

#[tokio::test]
async fn a_port_can_be_asked_for_and_moved_and_another_keys_is_409() {
    let rig = rig(|_| {}).await;
    let (_, first) = create(&rig, ALICE, "first", json!({})).await;
    let wanted = port_of(&first) + 3;
    let (status, second) = create(&rig, ALICE, "second", json!({"remote_port": wanted})).await;
    assert_eq!((status, port_of(&second)), (201, wanted), "{second}");
    for key in [ALICE, BOB] {
        let (status, refused) = create(&rig, key, "third", json!({"remote_port": wanted})).await;
        assert_eq!((status, refused["code"].as_str()), (409, Some("port_taken")), "{refused}");
        assert!(refused["error"].as_str().unwrap().contains(&wanted.to_string()));
    }
    // Its owner moves it; the old one is free then.
    let (status, moved) = create(&rig, ALICE, "second", json!({"remote_port": wanted + 1})).await;
    assert_eq!((status, port_of(&moved)), (200, wanted + 1), "{moved}");
    assert!(is_refused(address_of(&second)).await);
    drop(viewer(address_of(&moved)).await);
    let (status, bobs) = create(&rig, BOB, "bobs", json!({"remote_port": wanted})).await;
    assert_eq!((status, port_of(&bobs)), (201, wanted), "{bobs}");
    // A tunnel that becomes one of HTTP lets go of it, and the other way round.
    let http = rig.create(ALICE, "second").await;
    assert!(http["remote_port"].is_null() && http["proto"] == "http", "{http}");
    assert!(is_refused(address_of(&moved)).await);
    assert_eq!(create(&rig, ALICE, "second", json!({})).await.0, 200);
    // Of one's own ended tunnels one may have the port.
    let path = format!("/v1/tunnels/{}", first["id"].as_str().unwrap());
    rig.api(ALICE, "DELETE", &path, "").await;
    let (status, heir) = create(&rig, ALICE, "heir", json!({"remote_port": port_of(&first)})).await;
    assert_eq!((status, port_of(&heir)), (201, port_of(&first)), "{heir}");
}

#[tokio::test]
async fn a_port_of_another_program_is_passed_over_unless_it_was_asked_for() {
    let rig = rig(|_| {}).await;
    let (_, first) = create(&rig, ALICE, "first", json!({})).await;
    let next = TcpListener::bind(("127.0.0.1", port_of(&first) + 1)).await.unwrap();
    let theirs = next.local_addr().unwrap().port();
    let (status, refused) = create(&rig, ALICE, "asked", json!({"remote_port": theirs})).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("port_in_use")), "{refused}");
    let (status, second) = create(&rig, ALICE, "second", json!({})).await;
    assert_eq!((status, port_of(&second)), (201, theirs + 1), "{second}");
    drop(next);
    assert_eq!(create(&rig, ALICE, "asked", json!({"remote_port": theirs})).await.0, 201);
}

#[tokio::test]
async fn what_cannot_be_had_is_told_with_what_to_do() {
    let without = Rig::start().await;
    let (status, refused) = create(&without, ALICE, "db", json!({})).await;
    assert_eq!((status, refused["code"].as_str()), (400, Some("no_tcp_ports")), "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("tcp-ports"), "{refused}");
    let told = tunnel(&without).expose("5432").await.unwrap_err().to_string();
    assert!(told.contains("tcp-ports"), "{told}");

    let ports = some_ports();
    let few = *ports.start()..=*ports.start() + 1;
    let rig = Rig::with(|config| config.tcp_ports = Some(few.clone())).await;
    for (more, status, code) in [
        (json!({"remote_port": 0}), 400, "invalid_remote_port"),
        (json!({"remote_port": 70000}), 400, "invalid_remote_port"),
        (json!({"remote_port": 1}), 400, "port_not_given"),
        (json!({"proto": "http", "remote_port": few.start()}), 400, "invalid_remote_port"),
        (json!({"proto": "udp"}), 400, "invalid_proto"),
        (json!({"proxy_protocol": "v3"}), 400, "invalid_proxy_protocol"),
        (json!({"auth_user": "u", "auth_pass": "p"}), 400, "only_http"),
        (json!({"host_header": "a"}), 400, "only_http"),
    ] {
        let (refused, error) = create(&rig, ALICE, "db", more.clone()).await;
        assert_eq!((refused, error["code"].as_str()), (status, Some(code)), "{more}: {error}");
    }
    for name in ["one", "two"] {
        assert_eq!(create(&rig, ALICE, name, json!({})).await.0, 201);
    }
    let (status, refused) = create(&rig, ALICE, "three", json!({})).await;
    assert_eq!((status, refused["code"].as_str()), (409, Some("no_free_port")), "{refused}");
}

#[tokio::test]
async fn a_successor_gets_the_ports_and_no_connection_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let ports = some_ports();
    let range = format!("--tcp-ports={}-{}", ports.start(), ports.end());
    let relay = |more: &[&str]| Running::start(relay(home.path(), &[&[&*range], more].concat()));
    let old = relay(&[]).await;
    let target = echo().await;
    let tunnel = Tunnel::to(format!("http://{}", old.addresses[0]))
        .key(ALICE)
        .proxies(Proxies::none())
        .proto(Proto::Tcp)
        .expose(&target.to_string())
        .await
        .unwrap();
    let address = viewers_of(&tunnel);
    let mut before = viewer(address).await;
    expect(&mut before, b"220 ready\n").await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let trying = tokio::spawn(async move {
        let mut served = 0;
        while !stopped.load(Ordering::Relaxed) {
            let mut viewer = viewer(address).await;
            expect(&mut viewer, b"220 ready\n").await;
            served += 1;
        }
        served
    });
    let new = relay(&["--take-over"]).await;
    // What was there goes on; what is new is served by the new one, through the client of the old one at first.
    before.write_all(b"on").await.unwrap();
    expect(&mut before, b"on").await;
    drop(before);
    assert_eq!(old.end().await.0, Some(0));
    stop.store(true, Ordering::Relaxed);
    assert!(soon(trying).await.unwrap() > 0);
    expect(&mut viewer(address).await, b"220 ready\n").await;
    // It is the new one's to close.
    let path = format!("/v1/tunnels/{}", tunnel.id());
    let rig = Rig::of(new.addresses[0], new.admin.unwrap());
    assert_eq!(rig.api(ALICE, "DELETE", &path, "").await.0, 204);
    assert!(is_refused(address).await);
}
