//! A relay that drains: a new session beside the old one, which serves on until it ends.

use super::*;
use crate::client::scripted::{heard, say, welcome};

async fn drain(control: &mut Socket, deadline_ms: u64, reconnect_ms: u64) {
    let drain = json!({ "type": "drain", "deadline_ms": deadline_ms, "reconnect_ms": reconnect_ms });
    say(control, &drain).await;
}

async fn closed(control: &mut Socket, reason: &str, code: u16) {
    say(control, &json!({ "type": "closed", "reason": reason, "message": "" })).await;
    let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
    control.send(Message::Close(Some(frame))).await.unwrap();
    soon(async { while let Some(Ok(_)) = control.next().await {} }).await;
}

/// Expects the control socket that follows the session `before`.
async fn successor(relay: &Scripted, before: &str, session: &str) -> Socket {
    let created = relay.grant("t1", "abc").await;
    assert_eq!(created.body["resume"], true, "and its end stays");
    assert_eq!(created.body["name"], "abc", "the same name, whoever chose it");
    let call = relay.call().await;
    assert_eq!(call.line, format!("GET /ws/control?tunnel_id=t1&successor_of={before}"));
    let mut control = call.switch_to("adit.1").await;
    say(&mut control, &welcome(session)).await;
    control
}

/// The target serves a connection that is announced on `control`.
async fn serves(relay: &Scripted, control: &mut Socket, listener: &TcpListener, id: &str) {
    notify(control, id).await;
    let mut data = relay.data_two(id).await;
    let mut local = accept(listener).await;
    local.write_all(b"served").await.unwrap();
    assert_eq!(read(&mut data, 6).await, b"served");
}

#[tokio::test]
async fn the_old_session_serves_on_beside_the_new_one_and_its_end_is_quiet() {
    for (reason, code) in [("restart", 1012), ("succeeded", 1000), ("replaced", 1000)] {
        let relay = Scripted::start().await;
        let (listener, target) = target().await;
        let (_session, mut events) = start(&relay, target);
        let mut old = relay.session_two("t1", "abc", "s 1").await;
        assert!(matches!(next(&mut events).await, Event::Online { again: false, .. }));
        drain(&mut old, 30_000, 0).await;
        // Told twice, it is done once.
        drain(&mut old, 30_000, 0).await;
        let mut new = successor(&relay, "s%201", "s2").await;
        assert!(matches!(next(&mut events).await, Event::Online { again: true, .. }));
        serves(&relay, &mut old, &listener, "c1").await;
        serves(&relay, &mut new, &listener, "c2").await;
        closed(&mut old, reason, code).await;
        serves(&relay, &mut new, &listener, "c3").await;
        assert!(events.try_recv().is_err(), "{reason}");
        // The new one is the current one, and ends the tunnel.
        drop(new);
        assert!(matches!(next(&mut events).await, Event::Offline { .. }));
        successor(&relay, "s2", "s3").await;
    }
}

#[tokio::test]
async fn a_new_session_that_fails_is_tried_again_while_the_old_one_serves() {
    let relay = Scripted::start().await;
    let (listener, target) = target().await;
    let (_session, mut events) = start(&relay, target);
    let mut old = relay.session_two("t1", "abc", "s1").await;
    assert!(matches!(next(&mut events).await, Event::Online { .. }));
    drain(&mut old, 30_000, 0).await;
    for status in [503, 409] {
        relay.call().await.answer(status, &json!({ "error": "not yet" })).await;
        serves(&relay, &mut old, &listener, &format!("c{status}")).await;
        assert!(events.try_recv().is_ok_and(|event| event == Event::Connecting));
        assert!(events.try_recv().is_err(), "its user has noticed nothing");
    }
    // Only now there is neither.
    closed(&mut old, "restart", 1012).await;
    let Event::Offline { reason, .. } = next(&mut events).await else { panic!("not told") };
    assert_eq!(reason, "the relay asks for a new connection");
    let _new = successor(&relay, "s1", "s2").await;
    assert!(matches!(next(&mut events).await, Event::Online { again: true, .. }));
}

#[tokio::test]
async fn a_tunnel_that_ends_while_its_relay_drains_has_ended() {
    let relay = Scripted::start().await;
    let (mut session, _events) = start(&relay, nowhere().await);
    let mut old = relay.session_two("t1", "abc", "s1").await;
    drain(&mut old, 30_000, 0).await;
    let _unanswered = relay.call().await;
    closed(&mut old, "deleted", 1000).await;
    assert_eq!(soon(session.ended()).await, End::Closed(String::new()));
}

#[tokio::test]
async fn at_a_stop_both_sessions_end_in_order() {
    let relay = Scripted::start().await;
    let (mut session, mut events) = start(&relay, nowhere().await);
    let mut old = relay.session_two("t1", "abc", "s1").await;
    drain(&mut old, 30_000, 0).await;
    let mut new = successor(&relay, "s1", "s2").await;
    assert!(matches!(next(&mut events).await, Event::Online { again: false, .. }));
    assert!(matches!(next(&mut events).await, Event::Online { again: true, .. }));
    session.stop();
    let goodbye = async |control: &mut Socket| loop {
        match soon(control.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => break assert_eq!(u16::from(frame.code), 1000),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    tokio::join!(goodbye(&mut old), goodbye(&mut new));
    let end = async |mut control: Socket| while let Some(Ok(_)) = control.next().await {};
    soon(async { tokio::join!(end(old), end(new)) }).await;
    let deleted = relay.call().await;
    assert_eq!(deleted.line, "DELETE /v1/tunnels/t1?unless_connected=true");
    deleted.answer(204, &json!({})).await;
    assert_eq!(soon(session.ended()).await, End::Stopped);
}

#[tokio::test]
async fn a_token_without_an_answer_goes_to_the_next_session_too() {
    let relay = Scripted::start().await;
    let (session, mut events) = start(&relay, nowhere().await);
    let mut old = relay.session_two("t1", "abc", "s1").await;
    assert!(matches!(next(&mut events).await, Event::Online { .. }));
    session.authenticate(&crate::auth::Secret::new("fresh")).unwrap();
    assert_eq!(heard(&mut old).await["token"], "fresh");
    drain(&mut old, 30_000, 0).await;
    let mut new = successor(&relay, "s1", "s2").await;
    assert_eq!(heard(&mut new).await, json!({ "type": "auth", "token": "fresh" }));
}
