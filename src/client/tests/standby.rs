//! Standby sockets: as many as are wanted, each assigned once and then replaced, and none that is not wanted.

use super::*;
use crate::client::scripted::{heard, say};

async fn want(control: &mut Socket, want: u64) {
    say(control, &json!({ "type": "standby", "want": want })).await;
}

async fn is_closed(mut socket: Socket) {
    soon(async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

#[tokio::test]
async fn a_standby_socket_becomes_a_connection_and_another_takes_its_place() {
    let relay = Scripted::start().await;
    let (listener, target) = target().await;
    let (_session, _events) = start(&relay, target);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    want(&mut control, 2).await;
    let (first, call) = relay.standby("t1").await;
    let mut data = call.switch().await;
    let (second, call) = relay.standby("t1").await;
    let waiting = call.switch().await;
    assert_ne!(first, second);
    // It answers pings.
    data.send(Message::Ping("x".into())).await.unwrap();
    assert_eq!(soon(data.next()).await.unwrap().unwrap(), Message::Pong("x".into()));
    say(&mut data, &json!({ "type": "connection", "id": first, "proto": "http" })).await;
    data.send(Message::binary("question")).await.unwrap();
    let mut local = accept(&listener).await;
    let mut question = [0; 8];
    soon(local.read_exact(&mut question)).await.unwrap();
    local.write_all(b"answer").await.unwrap();
    assert_eq!(read(&mut data, 6).await, b"answer");
    let (third, call) = relay.standby("t1").await;
    let mut replaced = call.switch().await;
    assert!(third != first && third != second);
    // Fewer are wanted: the relay closes what is too much, and until then may assign each of them.
    want(&mut control, 0).await;
    close(waiting, 1000, "").await;
    say(&mut replaced, &json!({ "type": "connection", "id": third, "proto": "http" })).await;
    let mut last = accept(&listener).await;
    replaced.send(Message::binary("x")).await.unwrap();
    soon(last.read_exact(&mut [0])).await.unwrap();
    local.write_all(b"more").await.unwrap();
    assert_eq!(read(&mut data, 4).await, b"more");
}

#[tokio::test]
async fn no_more_are_opened_than_the_relay_said_that_it_would_take() {
    let relay = Scripted::start().await;
    let (_listener, target) = target().await;
    let (_session, _events) = start(&relay, target);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    want(&mut control, 4_000_000_000).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(relay.standby("t1").await.1.switch().await);
    }
    // A fourth would come before this.
    notify(&mut control, "c1").await;
    relay.data_two("c1").await;
    drop(control);
    for socket in held {
        is_closed(socket).await;
    }
}

#[tokio::test]
async fn a_refused_standby_socket_is_not_asked_for_again_at_once_and_disturbs_nothing() {
    for status in [400, 401, 409, 503] {
        let relay = Scripted::start().await;
        let (_listener, target) = target().await;
        let (_session, mut events) = start(&relay, target);
        let mut control = relay.session_two("t1", "abc", "s1").await;
        assert!(matches!(next(&mut events).await, Event::Online { .. }));
        want(&mut control, 1).await;
        relay
            .standby("t1")
            .await
            .1
            .answer(status, &json!({ "code": "too_many_standby" }))
            .await
            .hung_up()
            .await;
        for id in ["c1", "c2", "c3"] {
            notify(&mut control, id).await;
            relay.data_two(id).await;
        }
        assert!(events.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_refused_standby_socket_is_asked_for_again_when_the_relay_wants_some() {
    let relay = Scripted::start().await;
    let (_session, _events) = start(&relay, nowhere().await);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    want(&mut control, 1).await;
    let refused = json!({ "code": "too_many_standby" });
    relay.standby("t1").await.1.answer(409, &refused).await.hung_up().await;
    want(&mut control, 1).await;
    relay.standby("t1").await;
}

#[tokio::test]
async fn a_standby_socket_that_begins_with_bytes_is_dropped() {
    let relay = Scripted::start().await;
    let (_session, _events) = start(&relay, nowhere().await);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    want(&mut control, 1).await;
    let mut data = relay.standby("t1").await.1.switch().await;
    data.send(Message::binary("GET / HTTP/1.1\r\n\r\n")).await.unwrap();
    is_closed(data).await;
}

#[tokio::test]
async fn a_standby_socket_that_was_lost_is_opened_again() {
    let relay = Scripted::start().await;
    let (_session, _events) = start(&relay, nowhere().await);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    want(&mut control, 1).await;
    drop(relay.standby("t1").await.1.switch().await);
    let (id, call) = relay.standby("t1").await;
    let mut data = call.switch().await;
    // What it cannot serve it rejects, and leaves the socket for the relay to close.
    say(&mut data, &json!({ "type": "connection", "id": id })).await;
    let reject = heard(&mut control).await;
    assert_eq!((&reject["id"], &reject["reason"]), (&json!(id), &json!("refused")));
    close(data, 1000, "").await;
}

#[tokio::test]
async fn a_standby_socket_that_is_assigned_to_something_else_is_dropped() {
    let relay = Scripted::start().await;
    let (_listener, target) = target().await;
    let (_session, _events) = start(&relay, target);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    want(&mut control, 1).await;
    let mut data = relay.standby("t1").await.1.switch().await;
    say(&mut data, &json!({ "type": "connection", "id": "another" })).await;
    is_closed(data).await;
}
