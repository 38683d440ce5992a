//! Relays that say what no relay should: nothing of it may end a session, or keep the client busy.

use super::*;
use crate::client::scripted::{say, welcome};

#[tokio::test]
async fn a_subprotocol_that_was_not_offered_is_no_handshake() {
    let relay = Scripted::start().await;
    let (_session, mut events) = start(&relay, nowhere().await);
    relay.grant("t1", "abc").await;
    let _control = relay.control_call("t1").await.switch_to("adit.2").await;
    let Event::Offline { reason, .. } = next(&mut events).await else { panic!("taken") };
    assert!(reason.contains("no WebSocket handshake"), "{reason}");
}

#[tokio::test]
async fn nonsense_of_any_kind_leaves_the_session_as_it_was() {
    let relay = Scripted::start().await;
    let (listener, target) = target().await;
    let (_session, mut events) = start(&relay, target);
    relay.grant("t1", "abc").await;
    let mut control = relay.control_call("t1").await.switch_to("adit.1").await;
    let mut second = welcome("another");
    second["ping_interval_ms"] = json!(1);
    let mut strange = welcome("s1");
    strange["ping_interval_ms"] = json!(0);
    strange["pong_timeout_ms"] = json!(0);
    strange["claim_ms"] = json!(0);
    strange["limits"] = json!({ "control_message_bytes": 0, "standby": u64::MAX });
    for message in [
        json!({ "type": "welcome", "session": 7 }),
        json!({ "type": "standby", "want": 1 }),
        strange,
        second,
        json!({ "type": "later", "id": {} }),
        json!({ "type": "cancel" }),
        json!({ "type": "cancel", "id": "never announced" }),
        json!({ "type": "standby", "want": -1 }),
        json!({ "type": "drain", "deadline_ms": "soon" }),
        json!({ "type": "auth", "accepted": true }),
        json!({ "type": "error", "message": "\x1b[2J" }),
        json!({ "type": "closed", "reason": 7 }),
        json!([1]),
    ] {
        say(&mut control, &message).await;
    }
    control.send(Message::binary(vec![0xff; 70_000])).await.unwrap();
    control.send(Message::text("{\"type\":\"connection\"")).await.unwrap();
    // Announced twice, it is taken up once.
    for id in ["c1", "c1", "../%2e?&id=\r\nX: y"] {
        notify(&mut control, id).await;
    }
    let mut lines = vec![relay.call().await, relay.call().await];
    lines.sort_by_key(|call| std::cmp::Reverse(call.line.len()));
    assert_eq!(lines[0].line, "GET /ws/data?id=..%2F%252e%3F%26id%3D%0D%0AX%3A%20y");
    assert_eq!(lines[1].line, "GET /ws/data?id=c1");
    let (_first, _second) = (accept(&listener).await, accept(&listener).await);
    assert!(matches!(next(&mut events).await, Event::Online { .. }));
    assert!(events.try_recv().is_err());
    // Not dropped, or they would be tried a second time.
    for call in lines {
        call.answer(404, &json!({})).await;
    }
    drop(control);
    relay_is_succeeded(&relay, "s1").await;
}

/// The client comes back as the successor of that session.
async fn relay_is_succeeded(relay: &Scripted, session: &str) -> Socket {
    relay.grant("t1", "abc").await;
    let call = relay.call().await;
    assert_eq!(call.line, format!("GET /ws/control?tunnel_id=t1&successor_of={session}"));
    call.switch_to("adit.1").await
}

#[tokio::test]
async fn a_session_with_an_endless_name_has_no_successor() {
    let relay = Scripted::start().await;
    let (_session, _events) = start(&relay, nowhere().await);
    drop(relay.session_two("t1", "abc", &"s".repeat(5000)).await);
    relay.session("t1", "abc").await;
}

#[tokio::test]
async fn a_drain_of_no_time_and_one_of_all_time_are_followed_with_patience() {
    let relay = Scripted::start().await;
    let (_session, mut events) = start(&relay, nowhere().await);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    for (deadline, reconnect) in [(0_u64, u64::MAX), (u64::MAX, 0), (u64::MAX / 2, 1)] {
        assert!(matches!(next(&mut events).await, Event::Online { .. }));
        say(&mut control, &json!({ "type": "drain", "deadline_ms": deadline, "reconnect_ms": reconnect }))
            .await;
        let began = std::time::SystemTime::now();
        let mut new = relay_is_succeeded(&relay, "s1").await;
        say(&mut new, &welcome("s1")).await;
        assert!(began.elapsed().unwrap().as_secs() < 8, "neither for ever");
        control = new;
    }
}
