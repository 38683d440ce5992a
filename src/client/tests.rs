//! Sessions against a scripted relay and scripted targets, over real sockets.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::scripted::{Scripted, Socket, soon};
use super::{End, Event, Options, Session, Target};
use crate::proto::api::Balance;

#[cfg(test)]
mod drain;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod standby;
#[cfg(test)]
mod two;

/// A target that does only what the test says.
async fn target() -> (TcpListener, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    (listener, target)
}

/// A target on which nobody listens.
async fn nowhere() -> Target {
    target().await.1
}

fn start(relay: &Scripted, target: Target) -> (Session, mpsc::Receiver<Event>) {
    start_with(relay, target, |_| {})
}

fn start_with(
    relay: &Scripted,
    target: Target,
    change: impl FnOnce(&mut Options),
) -> (Session, mpsc::Receiver<Event>) {
    let mut options = Options::new(relay.connector(), target);
    options.requests_per_second = 1000;
    change(&mut options);
    Session::start(options)
}

/// The next event but `Connecting`.
async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    loop {
        match soon(events.recv()).await.expect("no more events") {
            Event::Connecting => {}
            event => return event,
        }
    }
}

async fn notify(control: &mut Socket, id: &str) {
    let message = json!({ "type": "connection", "id": id }).to_string();
    control.send(Message::text(message)).await.unwrap();
}

async fn close(mut socket: Socket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
    socket.close(Some(frame)).await.unwrap();
    soon(async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

/// Reads so many bytes off a data socket.
async fn read(socket: &mut Socket, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        match soon(socket.next()).await {
            Some(Ok(Message::Binary(data))) => bytes.extend_from_slice(&data),
            other => panic!("{other:?} after {} bytes", bytes.len()),
        }
    }
    bytes
}

async fn accept(listener: &TcpListener) -> TcpStream {
    soon(listener.accept()).await.unwrap().0
}

#[tokio::test]
async fn what_an_older_relay_does_not_know_is_told_and_its_tunnel_is_left_alone() {
    let relay = Scripted::start().await;
    let options = || Options::new(relay.connector(), Target::port_here(1));
    for (wanted, part) in [
        (Options { http2: true, ..options() }, "HTTP/2"),
        (Options { replica: Some(Balance::LeastBusy), ..options() }, "several clients"),
    ] {
        let (mut session, _events) = Session::start(wanted);
        let call = relay.grant("t1", "abc").await;
        assert_eq!(call.body["replica"] == true, part == "several clients");
        assert_eq!(call.body["target_proto"] == "h2", part == "HTTP/2");
        let End::Refused(sentence) = soon(session.ended()).await else { panic!("not refused") };
        assert!(sentence.contains(part), "{sentence}");
    }
    // Others may have it: the next call is no deletion.
    let (_session, _events) = Session::start(options());
    relay.grant("t2", "other").await;
}

#[tokio::test]
async fn one_data_socket_carries_many_requests_and_ends_with_either_side() {
    let relay = Scripted::start().await;
    let (listener, target) = target().await;
    let (mut session, mut events) = start(&relay, target);
    let created = relay.grant("t1", "abc").await;
    assert_eq!((&created.body["name"], &created.body["source"]), (&json!(null), &json!("library")));
    let mut control = relay.control("t1").await;
    let online = Event::Online { url: "http://abc.relay.test".into(), id: "t1".into(), again: false };
    assert_eq!(next(&mut events).await, online);
    // Nonsense on the control socket is ignored.
    control.send(Message::text("{")).await.unwrap();
    control.send(Message::text(r#"{"type":"later"}"#)).await.unwrap();
    notify(&mut control, "c 1/+").await;
    let mut data = relay.data("c%201%2F%2B").await;
    let mut local = accept(&listener).await;
    for path in ["/1", "/2"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        data.send(Message::binary(request.clone())).await.unwrap();
        let mut got = vec![0; request.len()];
        soon(local.read_exact(&mut got)).await.unwrap();
        assert_eq!(got, request.as_bytes());
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        local.write_all(answer).await.unwrap();
        assert_eq!(read(&mut data, answer.len()).await, answer);
        let Event::Request(seen) = next(&mut events).await else { panic!("no line for the request") };
        assert_eq!((seen.path.as_str(), seen.status, seen.bytes_out), (path, Some(200), 2));
    }
    // The relay closes: what it sent before is delivered, and then the end.
    data.send(Message::binary("last")).await.unwrap();
    close(data, 1000, "").await;
    let mut rest = Vec::new();
    soon(local.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"last");
    // In order: the control socket closes, then the tunnel is deleted.
    session.stop();
    assert!(
        matches!(soon(control.next()).await, Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == 1000)
    );
    soon(async { while let Some(Ok(_)) = control.next().await {} }).await;
    let deleted = relay.call().await;
    assert_eq!(deleted.line, "DELETE /v1/tunnels/t1?unless_connected=true");
    deleted.answer(200, &json!({})).await;
    assert_eq!(soon(session.ended()).await, End::Stopped);
    assert_eq!(next(&mut events).await, Event::Ended(End::Stopped));
    assert_eq!(soon(events.recv()).await, None, "nothing follows the end");
}

#[tokio::test]
async fn the_last_bytes_of_a_target_arrive_before_the_close() {
    let relay = Scripted::start().await;
    let (listener, target) = target().await;
    let (_session, _events) = start(&relay, target);
    let mut control = relay.session("t1", "abc").await;
    notify(&mut control, "c1").await;
    let mut data = relay.data("c1").await;
    let mut local = accept(&listener).await;
    // Unread bytes in the client's socket must not cost the end of the answer.
    data.send(Message::binary(vec![b'x'; 100_000])).await.unwrap();
    let body = vec![7; 3_000_000];
    let sent = body.clone();
    let target = tokio::spawn(async move {
        local.write_all(&sent).await.unwrap();
        local.shutdown().await.unwrap();
        local
    });
    assert!(read(&mut data, body.len()).await == body);
    assert!(matches!(soon(data.next()).await, Some(Ok(Message::Close(_)))));
    soon(target).await.unwrap();
}

#[tokio::test]
async fn a_target_that_breaks_off_is_no_regular_end() {
    let relay = Scripted::start().await;
    let (listener, target) = target().await;
    let (_session, _events) = start(&relay, target);
    let mut control = relay.session("t1", "abc").await;
    notify(&mut control, "c1").await;
    let mut data = relay.data("c1").await;
    let local = accept(&listener).await;
    data.send(Message::binary("GET / HTTP/1.1\r\n\r\n")).await.unwrap();
    soon(local.readable()).await.unwrap();
    socket2::SockRef::from(&local).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(local);
    let end = soon(data.next()).await;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}

#[tokio::test]
async fn a_target_that_is_not_there_is_answered_for_with_the_likely_fix() {
    let relay = Scripted::start().await;
    let target = nowhere().await;
    let (_session, mut events) = start_with(&relay, target.clone(), |options| options.probe = true);
    let mut control = relay.session("t1", "abc").await;
    assert!(matches!(next(&mut events).await, Event::Online { .. }));
    assert!(matches!(next(&mut events).await, Event::TargetDown { at_start: true, .. }));
    for nth in 0..2 {
        notify(&mut control, "c1").await;
        let mut data = relay.data("c1").await;
        data.send(Message::binary("GET / HTTP/1.1\r\nAccept: text/")).await.unwrap();
        data.send(Message::binary("html\r\n\r\n")).await.unwrap();
        let page = String::from_utf8(read(&mut data, 800).await).unwrap();
        assert!(page.starts_with("HTTP/1.1 502 ") && page.contains(&target.to_string()), "{page}");
        assert!(matches!(soon(data.next()).await, Some(Ok(Message::Close(_)))));
        drop(data);
        if nth == 0 {
            let Event::TargetDown { error, at_start: false } = next(&mut events).await else {
                panic!("not told")
            };
            assert!(error.to_string().contains("refused"), "{error}");
        }
    }
    assert!(events.try_recv().is_err(), "the same trouble is told once in a while only");
}

#[tokio::test]
async fn a_lost_relay_is_found_again_under_the_same_name() {
    let relay = Scripted::start().await;
    let (listener, target) = target().await;
    let (_session, mut events) = start(&relay, target);
    let mut control = relay.session("t1", "abc").await;
    assert!(matches!(next(&mut events).await, Event::Online { again: false, .. }));
    notify(&mut control, "c1").await;
    let mut data = relay.data("c1").await;
    let mut local = accept(&listener).await;
    close(control, 1012, "relay restarting").await;
    let Event::Offline { reason, retry_in } = next(&mut events).await else { panic!("not told") };
    let told = "the relay asks for a new connection (relay restarting)";
    assert!(reason == told && retry_in.as_secs() == 0, "{reason} {retry_in:?}");
    // The name is asked for even though the relay had made it up; a refusal that is none of the relay's is waited out.
    let refused = relay.call().await;
    assert_eq!(refused.body["name"], "abc");
    refused.answer(409, &json!({ "error": "taken by another" })).await;
    let Event::Offline { reason, .. } = next(&mut events).await else { panic!("not told") };
    assert!(reason.contains("\"abc\"") && reason.contains("taken by another"), "{reason}");
    // Another name is not taken silently, and given back.
    relay.grant("t2", "other").await;
    assert_eq!(relay.call().await.answer(200, &json!({})).await.line, "DELETE /v1/tunnels/t2");
    let Event::Offline { reason, .. } = next(&mut events).await else { panic!("not told") };
    assert!(reason.contains("other") && reason.contains("abc"), "{reason}");
    let control = relay.session("t3", "abc").await;
    let again = Event::Online { url: "http://abc.relay.test".into(), id: "t3".into(), again: true };
    assert_eq!(next(&mut events).await, again);
    // What ran, runs on.
    local.write_all(b"still there").await.unwrap();
    assert_eq!(read(&mut data, 11).await, b"still there");
    drop(control);
    let Event::Offline { reason, .. } = next(&mut events).await else { panic!("not told") };
    assert_eq!(reason, "the connection broke");
}

#[tokio::test]
async fn a_name_that_is_anothers_by_now_is_not_asked_for_again() {
    let relay = Scripted::start().await;
    let (mut session, _events) = start(&relay, nowhere().await);
    close(relay.session("t1", "abc").await, 1012, "relay restarting").await;
    let taken = json!({ "error": "taken by another", "code": "name_taken" });
    relay.call().await.answer(409, &taken).await;
    let end = soon(session.ended()).await;
    assert!(matches!(&end, End::Refused(why) if why.contains("taken by another")), "{end:?}");
}

#[tokio::test]
async fn what_the_relay_cut_short_is_no_end_for_the_target() {
    let relay = Scripted::start().await;
    let (listener, target) = target().await;
    let (_session, _events) = start(&relay, target);
    let mut control = relay.session("t1", "abc").await;
    notify(&mut control, "c1").await;
    let mut data = relay.data("c1").await;
    data.send(Message::binary("part")).await.unwrap();
    let mut local = accept(&listener).await;
    soon(local.read_exact(&mut [0; 4])).await.unwrap();
    close(data, 1011, "").await;
    let end = soon(local.read(&mut [0])).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_refused_key_is_final_at_any_time() {
    let relay = Scripted::start().await;
    let (mut session, _events) = start(&relay, nowhere().await);
    relay.call().await.answer(401, &json!({ "error": "this key is unknown", "code": "unauthorized" })).await;
    let end = soon(session.ended()).await;
    assert!(end.exit_code() == 77 && end.to_string().contains("this key is unknown"), "{end:?}");
    let (mut session, _events) = start(&relay, nowhere().await);
    close(relay.session("t1", "abc").await, 1008, "key revoked").await;
    relay.call().await.answer(403, &json!({ "error": "no" })).await;
    assert_eq!(soon(session.ended()).await.exit_code(), 77);
}

#[tokio::test]
async fn at_the_start_a_refusal_is_final_and_says_what_to_do() {
    for (status, part) in
        [(409, "give another with --name"), (400, "bad ttl"), (404, "check --relay"), (301, "https://")]
    {
        let relay = Scripted::start().await;
        let named = |options: &mut Options| options.name = Some("web".into());
        let (mut session, _events) = start_with(&relay, nowhere().await, named);
        let call = relay.call().await;
        assert_eq!(call.body["name"], "web");
        call.answer(status, &json!({ "error": "bad ttl" })).await;
        let end = soon(session.ended()).await;
        assert!(end.exit_code() == 1 && end.to_string().contains(part), "{status}: {end}");
    }
}

#[tokio::test]
async fn another_name_than_asked_for_is_not_taken() {
    let relay = Scripted::start().await;
    let (mut session, _events) =
        start_with(&relay, nowhere().await, |options| options.name = Some("Web".into()));
    relay.grant("t1", "0123456789ab").await;
    assert_eq!(relay.call().await.answer(200, &json!({})).await.line, "DELETE /v1/tunnels/t1");
    assert_eq!(soon(session.ended()).await.exit_code(), 1);
    // Case is no difference.
    let (_session, mut events) =
        start_with(&relay, nowhere().await, |options| options.name = Some("Web".into()));
    let _control = relay.session("t1", "web").await;
    assert!(matches!(next(&mut events).await, Event::Online { .. }));
}

#[tokio::test]
async fn a_busy_relay_is_waited_for_from_the_start() {
    let relay = Scripted::start().await;
    let (_session, mut events) = start(&relay, nowhere().await);
    for status in [429, 503] {
        relay.call().await.answer(status, &json!({})).await;
        assert!(matches!(next(&mut events).await, Event::Offline { .. }), "{status}");
    }
    let _control = relay.session("t1", "abc").await;
    assert!(matches!(next(&mut events).await, Event::Online { again: false, .. }));
}

#[tokio::test]
async fn code_1000_ends_the_session_for_good() {
    for (reason, expected) in [
        ("tunnel expired", End::Closed("tunnel expired".into())),
        ("replaced by a newer client of the same key", End::Replaced),
    ] {
        let relay = Scripted::start().await;
        let (mut session, _events) = start(&relay, nowhere().await);
        close(relay.session("t1", "abc").await, 1000, reason).await;
        let end = soon(session.ended()).await;
        assert_eq!((&end, end.exit_code()), (&expected, 0));
    }
}

#[tokio::test]
async fn exit_on_disconnect_is_69() {
    let exiting = |options: &mut Options| options.exit_on_disconnect = true;
    let relay = Scripted::start().await;
    let (mut session, _events) = start_with(&relay, nowhere().await, exiting);
    drop(relay.session("t1", "abc").await);
    relay.call().await.answer(200, &json!({})).await;
    assert_eq!(soon(session.ended()).await.exit_code(), 69);
    let (mut session, _events) = start_with(&relay, nowhere().await, exiting);
    drop(relay);
    assert_eq!(soon(session.ended()).await.exit_code(), 69);
}

#[tokio::test]
async fn a_relay_without_absolute_urls_gets_its_own_host_in_them() {
    let relay = Scripted::start().await;
    let (_session, mut events) = start(&relay, nowhere().await);
    relay.call().await.answer(201, &json!({ "id": "t1", "slug": "abc", "public_url": "/t/abc" })).await;
    let _control = relay.control("t1").await;
    let Event::Online { url, .. } = next(&mut events).await else { panic!("not online") };
    assert_eq!(url, format!("{}/t/abc", relay.url()));
}

#[tokio::test]
async fn a_relay_that_passes_over_the_policy_gets_no_tunnel() {
    let relay = Scripted::start().await;
    let policy = crate::proto::policy::Policy::new().allow("10.0.0.0/8");
    let (mut session, _events) = start_with(&relay, nowhere().await, |options| options.policy = Some(policy));
    let create = relay.grant("1", "web").await;
    assert_eq!(create.body["policy"], json!({"allow": ["10.0.0.0/8"]}));
    let delete = relay.call().await;
    assert_eq!(delete.line, "DELETE /v1/tunnels/1");
    delete.answer(204, &json!(null)).await;
    let End::Refused(sentence) = soon(session.ended()).await else { panic!("it went on") };
    assert!(sentence.contains("knows no policies"), "{sentence}");
}
