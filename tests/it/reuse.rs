//! Data sockets between requests: reused where nothing is risked, given up wherever something could be (D1).

use std::time::Duration;

use adit::proto::limits::reuse;
use futures_util::SinkExt;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use crate::rig::{ALICE, Answer, Control, Rig, Socket, echo_target, read_request, soon, target};
use crate::wire::{Viewer, claim, receive};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// One request of a viewer of its own: a POST has a body of two bytes.
async fn request(rig: &Rig, method: &str) -> Answer {
    let body = if method == "POST" { "Content-Length: 2\r\n\r\nhi" } else { "\r\n" };
    rig.raw(format!("{method} / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n{body}")).await
}

/// Where the [`echo_target`] saw it: `connection.request`, both from 0.
async fn place(rig: &Rig, method: &str) -> String {
    let answer = request(rig, method).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    answer.header("x-connection").unwrap().to_owned()
}

/// Time is what these rules are about.
async fn idle(time: Duration) {
    tokio::time::sleep(time + Duration::from_millis(50)).await;
}

/// A GET by a viewer of its own, running.
fn running_get(rig: &Rig) -> tokio::task::JoinHandle<Answer> {
    let address = rig.address;
    tokio::spawn(async move {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        Answer::parse(&crate::rig::read_all(&mut stream).await)
    })
}

async fn reply(socket: &mut Socket, bytes: impl AsRef<[u8]>) {
    socket.send(Message::binary(bytes.as_ref().to_vec())).await.unwrap();
}

/// One GET over a data socket that is claimed for it, answered with 200: the socket.
async fn served(rig: &Rig, control: &mut Control) -> Socket {
    let got = running_get(rig);
    let mut socket = claim(rig, control).await;
    receive(&mut socket).await.unwrap();
    reply(&mut socket, OK).await;
    assert_eq!(soon(got).await.unwrap().status, 200);
    socket
}

#[tokio::test]
async fn what_is_not_safe_to_resend_waits_until_the_client_has_shown_that_it_reuses() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    for (method, place_expected) in [
        ("GET", "0.0"),
        ("POST", "1.0"),
        ("POST", "2.0"),
        // A GET may try, and shows that it works.
        ("GET", "2.1"),
        ("POST", "2.2"),
        ("DELETE", "2.3"),
        ("GET", "2.4"),
    ] {
        assert_eq!(place(&rig, method).await, place_expected, "{method}");
    }
}

#[tokio::test]
async fn what_is_not_safe_to_resend_takes_no_socket_that_was_idle_for_a_second() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    assert_eq!(place(&rig, "GET").await, "0.0");
    assert_eq!(place(&rig, "GET").await, "0.1");
    idle(reuse::UNSAFE_MAX_IDLE).await;
    assert_eq!(place(&rig, "POST").await, "1.0");
    assert_eq!(place(&rig, "GET").await, "1.1");
}

#[tokio::test]
async fn the_targets_keep_alive_timeout_less_a_second_is_kept() {
    for (timeout, reused) in [(1, false), (2, true)] {
        let rig = Rig::start().await;
        let target = target(move |number, mut stream| async move {
            for count in 0.. {
                if read_request(&mut stream).await.is_none() {
                    return;
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\nKeep-Alive: timeout={timeout}\r\nX-Connection: {number}.{count}\r\nContent-Length: 0\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
            }
        })
        .await;
        let _client = rig.client(ALICE, "web", target).await;
        assert_eq!(place(&rig, "GET").await, "0.0");
        assert_eq!(place(&rig, "GET").await, if reused { "0.1" } else { "1.0" }, "timeout={timeout}");
        idle(Duration::from_secs(timeout) - reuse::MARGIN).await;
        assert_eq!(place(&rig, "GET").await, if reused { "1.0" } else { "2.0" }, "timeout={timeout}");
    }
}

#[tokio::test]
async fn a_byte_or_a_close_on_an_idle_socket_discards_it() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    for (what, message) in [
        ("a byte", Some(Message::binary("x"))),
        ("a whole response", Some(Message::binary(OK.replace("ok", "no")))),
        ("text", Some(Message::text("x"))),
        ("a close frame", Some(Message::Close(None))),
        ("an end", None),
    ] {
        let got = running_get(&rig);
        let mut socket = claim(&rig, &mut control).await;
        assert!(receive(&mut socket).await.is_some(), "{what}");
        reply(&mut socket, OK).await;
        assert_eq!(soon(got).await.unwrap().text(), "ok", "{what}");
        match message {
            // Seen at the latest by the relay's look at its idle sockets, once a second.
            Some(message) => {
                socket.send(message).await.unwrap();
                assert_eq!(receive(&mut socket).await, None, "{what}");
            }
            None => drop(socket),
        }
    }
}

#[tokio::test]
async fn leftover_bytes_of_a_response_never_reach_the_next_viewer() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    for answer in [
        OK.to_owned(),
        "HTTP/1.1 204 No Content\r\n\r\n".into(),
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 47\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into(),
    ] {
        let got = running_get(&rig);
        let mut socket = claim(&rig, &mut control).await;
        assert!(receive(&mut socket).await.is_some());
        reply(&mut socket, format!("{answer}{EVIL}")).await;
        let answer = soon(got).await.unwrap();
        assert!(!answer.text().contains("evil") && answer.status != 0, "{answer:?}");
        assert_eq!(receive(&mut socket).await, None, "closed, not kept");
    }
}

#[tokio::test]
async fn a_target_that_closes_after_each_response_costs_no_request() {
    let rig = Rig::start().await;
    for (name, last) in [("says", "Connection: close\r\n"), ("silent", ""), ("old", "")] {
        let version = if name == "old" { "1.0" } else { "1.1" };
        let target = target(move |_, mut stream| async move {
            if read_request(&mut stream).await.is_some() {
                let answer = format!("HTTP/{version} 200 OK\r\n{last}Content-Length: 2\r\n\r\nok");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let _client = rig.client(ALICE, name, target).await;
        let mut viewer = Viewer::new(&rig).await;
        for round in 0..20 {
            let (method, body) =
                if round % 2 == 0 { ("GET", "\r\n") } else { ("POST", "Content-Length: 2\r\n\r\nhi") };
            viewer.say(format!("{method} / HTTP/1.1\r\nHost: {name}.relay.test\r\n{body}")).await;
            assert_eq!(viewer.answer().await.text(), "ok", "{name} {round}");
        }
    }
}

#[tokio::test]
async fn a_client_that_serves_one_request_a_socket_is_found_out_once() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut first = served(&rig, &mut control).await;

    // It ignores what comes on that socket from now on; the viewer is served all the same.
    let second = served(&rig, &mut control).await;
    assert!(receive(&mut first).await.unwrap().starts_with(b"GET "), "it was tried");
    assert_eq!(receive(&mut first).await, None);

    // From now on each request has its own socket, which ends with it.
    let third = served(&rig, &mut control).await;
    for mut socket in [second, third] {
        assert_eq!(receive(&mut socket).await, None, "nothing more, and closed");
    }
}

#[tokio::test]
async fn a_request_on_a_dead_socket_is_sent_once_more_and_not_twice() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut first = served(&rig, &mut control).await;

    let got = running_get(&rig);
    receive(&mut first).await.unwrap();
    drop(first);
    let mut second = claim(&rig, &mut control).await;
    receive(&mut second).await.unwrap();
    drop(second);
    assert_eq!(soon(got).await.unwrap().status, 502);

    // The next notification belongs to the next request.
    let _third = served(&rig, &mut control).await;
}

#[tokio::test]
async fn a_response_that_has_begun_is_never_asked_for_again() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut socket = served(&rig, &mut control).await;
    let got = running_get(&rig);
    receive(&mut socket).await.unwrap();
    reply(&mut socket, "HTTP/1.1 200 O").await;
    socket.close(None).await.unwrap();
    assert_eq!(soon(got).await.unwrap().status, 502);
}

#[tokio::test]
async fn a_tunnel_without_reuse_gets_a_socket_for_each_request() {
    let rig = Rig::start().await;
    let (status, tunnel) =
        rig.api(ALICE, "POST", "/v1/tunnels", r#"{"local_port":1,"name":"web","reuse":false}"#).await;
    assert_eq!(status, 201);
    let control = rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
    let _client = rig.serve(control, echo_target().await).await;
    for number in 0..3 {
        assert_eq!(place(&rig, "GET").await, format!("{number}.0"));
    }
}

#[tokio::test]
async fn a_response_that_the_viewer_left_ends_its_socket() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    let mut socket = claim(&rig, &mut control).await;
    receive(&mut socket).await.unwrap();
    reply(&mut socket, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
    assert!(viewer.head().await.starts_with("http/1.1 200 "));
    viewer.vanish();
    assert_eq!(receive(&mut socket).await, None);
}

#[tokio::test]
async fn idle_sockets_end_with_their_control_socket() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut socket = served(&rig, &mut control).await;
    drop(control);
    assert_eq!(receive(&mut socket).await, None);
}

/// A target with logins that are bound to the connection: it knows who is on which.
async fn login_target(challenge: &'static str) -> std::net::SocketAddr {
    target(move |number, mut stream| async move {
        let mut user = String::from("nobody");
        while let Some(request) = read_request(&mut stream).await {
            let head = String::from_utf8(request).unwrap();
            let login = head.split("\r\n").find_map(|line| line.strip_prefix("Authorization: "));
            let (status, more) = match login.and_then(|login| login.split_once(' ')) {
                Some((_, name)) => {
                    user = name.to_owned();
                    ("200 OK", String::new())
                }
                None if user == "nobody" => {
                    ("401 Unauthorized", format!("WWW-Authenticate: {challenge}\r\n"))
                }
                None => ("200 OK", String::new()),
            };
            let body = format!("{user} on {number}");
            let head = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_login_that_is_bound_to_its_connection_stays_with_its_viewer() {
    for (challenge, scheme) in [("NTLM", "NTLM"), ("Basic realm=\"x\", Negotiate", "Negotiate")] {
        let rig = Rig::start().await;
        let _client = rig.client(ALICE, "web", login_target(challenge).await).await;
        let (mut alice, mut other) = (Viewer::new(&rig).await, Viewer::new(&rig).await);
        let challenged = alice.get("web", "/").await;
        assert_eq!((challenged.status, challenged.text().as_str()), (401, "nobody on 0"));
        let login = format!(
            "POST / HTTP/1.1\r\nHost: web.relay.test\r\nAuthorization: {scheme} alice\r\nContent-Length: 2\r\n\r\nhi"
        );
        alice.say(login).await;
        assert_eq!(alice.answer().await.text(), "alice on 0", "{challenge}");
        // From now on the login goes without saying, also after the viewer used it without any header.
        for _ in 0..2 {
            assert_eq!(alice.get("web", "/").await.text(), "alice on 0", "{challenge}");
            let stranger = other.get("web", "/").await;
            assert_eq!((stranger.status, stranger.text().as_str()), (401, "nobody on 1"), "{challenge}");
        }
        drop(alice);
        assert_eq!(other.get("web", "/").await.text(), "nobody on 1");
        assert_eq!(Viewer::new(&rig).await.get("web", "/").await.text(), "nobody on 2", "{challenge}");
    }
}

#[tokio::test]
async fn a_bound_socket_that_died_is_replaced_and_nothing_is_lost() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewer = Viewer::new(&rig).await;
    let login =
        "POST / HTTP/1.1\r\nHost: web.relay.test\r\nAuthorization: NTLM alice\r\nContent-Length: 2\r\n\r\nhi";
    for _ in 0..3 {
        viewer.say(login).await;
        let mut socket = claim(&rig, &mut control).await;
        receive(&mut socket).await.unwrap();
        reply(&mut socket, OK).await;
        assert_eq!(viewer.answer().await.text(), "ok");
        socket.close(None).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_upload_keeps_the_socket_for_when_it_is_sent() {
    let rig = Rig::start().await;
    let mut control = rig.control(ALICE, "web").await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say("PUT / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 3\r\n\r\n").await;
    let mut socket = claim(&rig, &mut control).await;
    receive(&mut socket).await.unwrap();
    reply(&mut socket, OK).await;
    assert_eq!(viewer.answer().await.text(), "ok");
    viewer.say("abc").await;
    assert_eq!(receive(&mut socket).await.unwrap(), b"abc");
    viewer.say("GET /next HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    assert!(receive(&mut socket).await.unwrap().starts_with(b"GET /next "));
    reply(&mut socket, OK).await;
    assert_eq!(viewer.answer().await.text(), "ok");
}
