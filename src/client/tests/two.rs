//! Level two: rejections, connections that are called off, each direction's own end, reasons, and tokens.

use super::*;
use crate::auth::Secret;
use crate::client::scripted::{heard, say};

/// The next message of a data socket that is no ping.
async fn message(data: &mut Socket) -> Message {
    loop {
        match soon(data.next()).await {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => return message,
            other => panic!("{other:?}"),
        }
    }
}

/// The code that the client closes with.
async fn close_code(data: &mut Socket) -> u16 {
    loop {
        match message(data).await {
            Message::Close(Some(frame)) => return frame.code.into(),
            Message::Binary(data) if data.is_empty() => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A session of level two with one connection: its sockets, and that of the target.
async fn connected(relay: &Scripted) -> (Session, Socket, Socket, TcpStream) {
    let (listener, target) = target().await;
    let (session, _events) = start(relay, target);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    notify(&mut control, "c1").await;
    let data = relay.data_two("c1").await;
    let local = accept(&listener).await;
    (session, control, data, local)
}

async fn resets(mut local: TcpStream) -> bool {
    soon(local.read_to_end(&mut Vec::new())).await.is_err()
}

#[tokio::test]
async fn each_direction_ends_by_itself_and_both_with_1000() {
    for target_first in [true, false] {
        let relay = Scripted::start().await;
        let (_session, _control, mut data, mut local) = connected(&relay).await;
        data.send(Message::binary("question")).await.unwrap();
        let mut question = [0; 8];
        soon(local.read_exact(&mut question)).await.unwrap();
        if target_first {
            local.write_all(b"answer").await.unwrap();
            local.shutdown().await.unwrap();
            assert_eq!(read(&mut data, 6).await, b"answer");
            assert_eq!(message(&mut data).await, Message::binary(""));
            data.send(Message::binary("still")).await.unwrap();
            data.send(Message::binary("")).await.unwrap();
            let mut rest = Vec::new();
            soon(local.read_to_end(&mut rest)).await.unwrap();
            assert_eq!(rest, b"still");
        } else {
            data.send(Message::binary("")).await.unwrap();
            assert_eq!(soon(local.read(&mut [0])).await.unwrap(), 0);
            local.write_all(b"answer").await.unwrap();
            assert_eq!(read(&mut data, 6).await, b"answer");
            local.shutdown().await.unwrap();
        }
        assert_eq!(close_code(&mut data).await, 1000);
        assert!(soon(data.next()).await.is_none(), "the connection ends after the answer to the close");
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_direction_is_told_then() {
    let relay = Scripted::start().await;
    let (listener, target) = target().await;
    let (_session, mut events) = start(&relay, target);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    assert!(matches!(next(&mut events).await, Event::Online { .. }));
    notify(&mut control, "c1").await;
    let mut data = relay.data_two("c1").await;
    let mut local = accept(&listener).await;
    data.send(Message::binary("GET / HTTP/1.1\r\n\r\n")).await.unwrap();
    soon(local.read_exact(&mut [0; 18])).await.unwrap();
    local.write_all(b"HTTP/1.1 200 OK\r\n\r\nbody").await.unwrap();
    local.shutdown().await.unwrap();
    let Event::Request(seen) = next(&mut events).await else { panic!("not told") };
    assert_eq!((seen.status, seen.bytes_out, seen.whole), (Some(200), 4, true));
}

#[tokio::test]
async fn a_target_that_breaks_off_is_told_as_1011() {
    let relay = Scripted::start().await;
    let (_session, _control, mut data, mut local) = connected(&relay).await;
    local.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf of").await.unwrap();
    read(&mut data, 26).await;
    socket2::SockRef::from(&local).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(local);
    assert_eq!(close_code(&mut data).await, 1011);
}

#[tokio::test]
async fn a_close_of_the_relay_ends_both_ways_though_the_target_would_go_on() {
    let relay = Scripted::start().await;
    let (_session, _control, mut data, mut local) = connected(&relay).await;
    data.send(Message::binary("last")).await.unwrap();
    // The target does not end its side, and the client does not wait for it.
    close(data, 1000, "").await;
    let mut rest = Vec::new();
    soon(local.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"last");
}

#[tokio::test]
async fn a_relay_that_breaks_off_is_no_regular_end_for_the_target() {
    for code in [None, Some(1011)] {
        let relay = Scripted::start().await;
        let (_session, _control, mut data, local) = connected(&relay).await;
        data.send(Message::binary("half of")).await.unwrap();
        soon(local.readable()).await.unwrap();
        match code {
            None => drop(data),
            Some(code) => close(data, code, "").await,
        }
        assert!(resets(local).await, "{code:?}");
    }
}

#[tokio::test]
async fn an_unreachable_target_is_rejected_before_its_data_socket_is_open() {
    let relay = Scripted::start().await;
    let target = nowhere().await;
    let (_session, mut events) = start(&relay, target.clone());
    let mut control = relay.session_two("t1", "abc", "s1").await;
    assert!(matches!(next(&mut events).await, Event::Online { .. }));
    // An id of any characters goes back as it came.
    notify(&mut control, "c\"1 \u{e9}").await;
    let reject = heard(&mut control).await;
    assert_eq!((&reject["type"], &reject["id"]), (&json!("reject"), &json!("c\"1 \u{e9}")));
    assert_eq!(reject["reason"], "refused");
    let words = reject["message"].as_str().unwrap();
    assert!(
        words.contains(&format!("cannot reach {target}")) && words.contains("start your server"),
        "{words}"
    );
    assert!(matches!(next(&mut events).await, Event::TargetDown { at_start: false, .. }));
}

/// An `https` target, of which the test decides when it fails.
async fn slow_target() -> (TcpListener, Target) {
    let (listener, _) = target().await;
    let target = Target::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
    (listener, target)
}

#[tokio::test]
async fn a_data_socket_of_a_rejected_connection_is_left_for_the_relay_to_close() {
    let relay = Scripted::start().await;
    let (listener, target) = slow_target().await;
    let (_session, _events) = start(&relay, target);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    notify(&mut control, "c1").await;
    let mut data = relay.data_two("c1").await;
    let mut local = accept(&listener).await;
    local.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let reject = heard(&mut control).await;
    assert_eq!((&reject["id"], &reject["reason"]), (&json!("c1"), &json!("not_tls")));
    let frame = CloseFrame { code: CloseCode::from(1000), reason: "".into() };
    let _ = data.send(Message::Close(Some(frame))).await;
    // The client may not have seen yet that it is open; in either case no byte comes on it.
    while let Some(Ok(message)) = soon(data.next()).await {
        assert!(matches!(message, Message::Close(_)), "{message:?}");
    }
}

#[tokio::test]
async fn a_connection_that_is_called_off_is_given_up_on_both_sides() {
    let relay = Scripted::start().await;
    let (listener, target) = target().await;
    let (_session, _events) = start(&relay, target);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    say(&mut control, &json!({ "type": "cancel", "id": "c0" })).await;
    notify(&mut control, "c1").await;
    let call = relay.call().await;
    let mut local = accept(&listener).await;
    say(&mut control, &json!({ "type": "cancel", "id": "c1" })).await;
    call.hung_up().await;
    assert_eq!(soon(local.read(&mut [0])).await.unwrap(), 0);
    // Once it is open, the data socket is not touched by it.
    notify(&mut control, "c2").await;
    let mut data = relay.data_two("c2").await;
    let mut local = accept(&listener).await;
    local.write_all(b"a").await.unwrap();
    assert_eq!(read(&mut data, 1).await, b"a");
    say(&mut control, &json!({ "type": "cancel", "id": "c2" })).await;
    notify(&mut control, "c3").await;
    let _data = relay.data_two("c3").await;
    local.write_all(b"b").await.unwrap();
    assert_eq!(read(&mut data, 1).await, b"b");
}

#[tokio::test]
async fn what_the_relay_says_before_it_closes_decides_and_not_its_words() {
    let closing = async |reason: &str, code: u16| {
        let relay = Scripted::start().await;
        let (session, events) = start(&relay, nowhere().await);
        let mut control = relay.session_two("t1", "abc", "s1").await;
        say(&mut control, &json!({ "type": "closed", "reason": reason, "message": "so it is" })).await;
        close(control, code, "other words").await;
        (relay, session, events)
    };
    for (reason, code, end) in [
        ("expired", 1000, End::Closed("so it is".into())),
        ("deleted", 1000, End::Closed("so it is".into())),
        ("replaced", 1000, End::Replaced),
        // There is none of ours that has.
        ("succeeded", 1000, End::Replaced),
        ("of a later version", 1000, End::Closed("other words".into())),
    ] {
        let (_relay, mut session, _events) = closing(reason, code).await;
        assert_eq!(soon(session.ended()).await, end, "{reason}");
    }
    for (reason, code) in [
        ("stale", 1001),
        ("protocol_error", 1002),
        ("message_too_big", 1009),
        ("restart", 1012),
        ("of a later version", 4000),
    ] {
        let (relay, _session, mut events) = closing(reason, code).await;
        assert!(matches!(next(&mut events).await, Event::Online { .. }));
        assert!(matches!(next(&mut events).await, Event::Offline { .. }), "{reason}");
        relay.grant("t1", "abc").await;
        let call = relay.call().await;
        assert_eq!(call.line, "GET /ws/control?tunnel_id=t1&successor_of=s1");
    }
    for reason in ["revoked", "token_expired"] {
        let (relay, mut session, _events) = closing(reason, 1008).await;
        relay.call().await.answer(401, &json!({ "error": "no" })).await;
        assert_eq!(soon(session.ended()).await.exit_code(), 77, "{reason}");
    }
}

#[tokio::test]
async fn what_ends_soon_is_an_event_with_the_name_to_extend() {
    let relay = Scripted::start().await;
    let (_session, mut events) = start(&relay, nowhere().await);
    let mut control = relay.session_two("t1", "abc", "s1").await;
    let at = "2026-11-21T06:24:59Z";
    let expiring = json!({ "type": "expiring", "what": "tunnel", "at": at, "in_ms": 60_000 });
    say(&mut control, &expiring).await;
    assert!(matches!(next(&mut events).await, Event::Online { .. }));
    let left = std::time::Duration::from_secs(60);
    assert_eq!(next(&mut events).await, Event::Expiring { what: "tunnel".into(), left, name: "abc".into() });
}

#[tokio::test]
async fn a_token_that_the_relay_takes_is_used_from_then_on() {
    for accepted in [true, false] {
        let relay = Scripted::start().await;
        let (session, mut events) = start(&relay, nowhere().await);
        let mut control = relay.session_two("t1", "abc", "s1").await;
        assert!(matches!(next(&mut events).await, Event::Online { .. }));
        assert!(session.authenticate(&Secret::new("two words")).is_err());
        session.authenticate(&Secret::new("fresh\n")).unwrap();
        assert_eq!(heard(&mut control).await, json!({ "type": "auth", "token": "fresh" }));
        say(
            &mut control,
            &json!({ "type": "auth", "accepted": accepted, "expires_in_ms": 5000, "error": "why" }),
        )
        .await;
        let expires_in = Some(std::time::Duration::from_secs(5));
        assert_eq!(next(&mut events).await, Event::Auth { accepted, expires_in, error: Some("why".into()) });
        drop(control);
        let key = if accepted { "fresh" } else { "nbk_test" };
        let created = relay.grant("t1", "abc").await;
        assert!(created.head.contains(&format!("authorization: Bearer {key}\r\n")), "{}", created.head);
    }
}

#[tokio::test]
async fn a_base_relay_is_not_told_of_a_token_and_gets_it_at_the_next_connection() {
    let relay = Scripted::start().await;
    let (session, mut events) = start(&relay, nowhere().await);
    let control = relay.session("t1", "abc").await;
    assert!(matches!(next(&mut events).await, Event::Online { .. }));
    session.authenticate(&Secret::new("fresh")).unwrap();
    // By the time that the session has ended, the token has been looked at.
    close(control, 1012, "").await;
    assert!(matches!(next(&mut events).await, Event::Offline { .. }));
    let call = relay.call().await;
    assert!(call.head.contains("authorization: Bearer fresh\r\n"), "{}", call.head);
}
