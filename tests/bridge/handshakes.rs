//! What a handshake must be, which versions and subprotocols there are, over HTTP/1.1 and HTTP/2; slow and silent viewers.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frame_bytes::*;
use crate::rig::{Rig, accepted, echo, handshake, soon, target};

#[tokio::test]
async fn versions_7_8_and_13_are_spoken_and_others_are_told_so() {
    let rig = Rig::to(echo().await).await;
    for version in ["7", "8", "13"] {
        let request = handshake("/any/path?x", "").replace("Version: 13", &format!("Version: {version}"));
        let (head, mut viewer) = rig.ask(&request).await;
        let lower = head.to_ascii_lowercase();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(lower.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        assert!(!lower.contains("sec-websocket-protocol"), "{head}");
        viewer.send(BINARY, "x").await;
        assert_eq!(viewer.bytes(1).await, b"x");
    }
    for version in ["99", "12", "", "13, 8"] {
        let request = handshake("/", "").replace("Version: 13", &format!("Version: {version}"));
        let (head, _) = rig.ask(&request).await;
        assert!(head.starts_with("HTTP/1.1 426 "), "{head}");
        assert!(head.to_ascii_lowercase().contains("\r\nsec-websocket-version: 13, 8, 7\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_wrong_is_400_and_no_handshake_426_or_405() {
    let rig = Rig::to(echo().await).await;
    let good = handshake("/", "");
    for (from, to, status) in [
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ!==", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("Connection: keep-alive, Upgrade\r\n", "", 400),
        ("Connection: keep-alive, Upgrade\r\n", "Connection: keep-alive\r\n", 400),
        ("GET /", "POST /", 400),
        ("Host: localhost\r\n", "Host: localhost\r\nHost: other\r\n", 400),
        ("Host: localhost\r\n", "", 400),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("Upgrade: websocket\r\n", "", 426),
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n", 426),
    ] {
        let (head, _) = rig.ask(&good.replacen(from, to, 1)).await;
        let got: u16 = head.split(' ').nth(1).unwrap_or_default().parse().unwrap_or_default();
        assert_eq!(got, status, "{from} {to} {head}");
    }
    let (head, _) = rig.ask("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    let (head, _) = rig.ask("<policy-file-request/>\0\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

#[tokio::test]
async fn the_subprotocol_that_is_named_is_one_that_was_offered() {
    let rig = Rig::with(echo().await, |config| config.service.protocol = Some("wayk".into())).await;
    for (offer, chosen) in [
        ("binary", Some("binary")),
        ("foo, binary", Some("binary")),
        ("nonsense", None),
        ("binary, wayk", Some("wayk")),
    ] {
        let lines = format!("Sec-WebSocket-Protocol: {offer}\r\n");
        let (head, _) = rig.ask(&handshake("/", &lines)).await;
        let head = head.to_ascii_lowercase();
        let named = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(named, chosen, "{offer}");
    }
}

#[tokio::test]
async fn a_request_that_names_two_hosts_is_refused() {
    let rig = Rig::to(echo().await).await;
    let (head, _) = rig.ask(&handshake("/", "Host: other.test\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

#[tokio::test]
async fn who_says_nothing_or_too_slowly_is_closed() {
    let rig = Rig::with(echo().await, |config| config.handshake_wait = Duration::from_millis(300)).await;
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for begin in ["", "GET / HTTP/1.1\r\nHost:", "P", "PRI ", preface, "\x16\x03"] {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 1"), "{begin:?}");
    }
    // Not so a session.
    let mut viewer = rig.open().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    viewer.send(BINARY, "x").await;
    assert_eq!(viewer.bytes(1).await, b"x");
}

#[tokio::test]
async fn websockets_share_a_connection_of_http2() {
    let (listener, target) = target().await;
    let rig = Rig::to(target).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = soon(client.ready()).await.unwrap();
    // The settings of the bridge have come with the first answer.
    let plain = Request::builder().uri("http://localhost/").body(()).unwrap();
    let answer = soon(client.send_request(plain, true).unwrap().0).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UPGRADE_REQUIRED);
    for round in 0..2 {
        let mut request = Request::builder()
            .method("CONNECT")
            .uri("http://localhost/x")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "binary")
            .body(())
            .unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from("websocket"));
        client = soon(client.ready()).await.unwrap();
        let (answer, mut up) = client.send_request(request, false).unwrap();
        let answer = soon(answer).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "binary");
        let mut behind = accepted(&listener).await;
        up.send_data(frame(BINARY, b"up").into(), false).unwrap();
        let mut read = [0; 2];
        soon(behind.read_exact(&mut read)).await.unwrap();
        assert_eq!(&read, b"up");
        behind.write_all(b"down").await.unwrap();
        let mut down = answer.into_body();
        let data = soon(down.data()).await.unwrap().unwrap();
        assert_eq!(data, Bytes::from_static(b"\x82\x04down"), "{round}");
        up.send_data(frame(CLOSE, b"\x03\xe8").into(), false).unwrap();
        let data = soon(down.data()).await.unwrap().unwrap();
        assert_eq!(data, Bytes::from_static(b"\x88\x02\x03\xe8"));
    }
}

#[tokio::test]
async fn the_viewers_address_is_that_which_a_trusted_proxy_tells_and_the_target_is_told_it() {
    use adit::proto::api::ProxyProtocol;
    let (listener, target) = target().await;
    let rig = Rig::with(target, |config| {
        config.service.dialling.proxy_protocol = Some(ProxyProtocol::V1);
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let port = rig.address.port();
    let lines = "X-Forwarded-For: 192.0.2.9, 198.51.100.7\r\n";
    let mut viewer = rig.open_with("/", lines).await;
    let mut behind = accepted(&listener).await;
    viewer.send(BINARY, "x").await;
    let expected = format!("PROXY TCP4 198.51.100.7 127.0.0.1 0 {port}\r\nx");
    let mut read = vec![0; expected.len()];
    soon(behind.read_exact(&mut read)).await.unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), expected);
}

#[tokio::test]
async fn a_trusted_proxy_announces_its_viewers() {
    use adit::proto::api::ProxyProtocol;
    let (listener, target) = target().await;
    let rig = Rig::with(target, |config| {
        config.service.dialling.proxy_protocol = Some(ProxyProtocol::V2);
        config.trusted_proxies = vec!["127.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
        config.accept_proxy_protocol = true;
    })
    .await;
    let request = format!("PROXY TCP4 192.0.2.1 203.0.113.5 4711 443\r\n{}", handshake("/", ""));
    let (head, _viewer) = rig.ask(&request).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut behind = accepted(&listener).await;
    let mut read = [0; 28];
    soon(behind.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read[..12], b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(&read[16..], [192, 0, 2, 1, 203, 0, 113, 5, 0x12, 0x67, 0x01, 0xbb]);
    // Whoever does not is closed.
    let (head, _) = rig.ask(&handshake("/", "")).await;
    assert_eq!(head, "");
}
