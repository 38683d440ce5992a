//! Who gets in, where to, and what is said to those who do not: tokens, passwords, origins, addresses and files.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;

use adit::bridge::{
    Admit, Authorities, Balancing, BridgeConfig, Key, Matcher, Pair, Recorder, Route, ServerTls, Service,
    Target, Tokens, Web, WebConfig, extra_headers,
};
use rcgen::{CertificateParams, DnType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::certs::{Authority, connect};
use crate::frame_bytes::{BINARY, CLOSE, frame};
use crate::program::{address, bridge, started, terminate};
use crate::rig::{Rig, accepted, ask, echo, handshake, nobody, soon, target};

/// Status, head and body of what answers a request of HTTP.
async fn get(rig: &Rig, request: &str) -> (u16, String, String) {
    let (head, mut rest) = rig.ask(request).await;
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1).expect("an answer without a length");
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    soon(rest.0.read_exact(&mut body)).await.unwrap();
    (head[9..12].parse().unwrap(), lower, String::from_utf8(body).unwrap())
}

async fn status(rig: &Rig, path: &str, lines: &str) -> u16 {
    rig.ask(&handshake(path, lines)).await.0[9..12].parse().unwrap()
}

fn admit(plugins: &[(&str, &str)]) -> Admit {
    let mut admit = Admit::default();
    for (plugin, source) in plugins {
        admit.plugin(plugin, source).unwrap();
    }
    admit
}

/// A bridge whose targets are those in a file of tokens.
async fn with_tokens(lines: &str, change: impl FnOnce(Tokens) -> Tokens) -> (Rig, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, lines).unwrap();
    let tokens = change(Tokens::new("TokenFile", file.path().to_str().unwrap()).unwrap());
    let rig = Rig::with(nobody().await, |config| config.service.tokens = Some(Arc::new(tokens))).await;
    (rig, file)
}

#[tokio::test]
async fn a_token_leads_to_its_target_and_none_or_a_wrong_one_is_told_so() {
    let (rig, file) = with_tokens(&format!("one: {}\nbroken\n", echo().await), |tokens| tokens).await;
    let mut viewer = rig.open_with("/websockify?token=one", "").await;
    viewer.send(BINARY, "hello").await;
    assert_eq!(viewer.bytes(5).await, b"hello");
    for (path, said, part) in [
        ("/websockify", 403, "needs a token"),
        ("/?token=", 403, "needs a token"),
        ("/?token=two", 404, "leads nowhere"),
        ("/one", 403, "needs a token"),
    ] {
        let (status, head, body) = get(&rig, &handshake(path, "")).await;
        assert_eq!(status, said, "{path}");
        assert!(body.contains(part) && head.contains("text/plain"), "{path}: {body}");
    }
    fs::write(&file, format!("three: {}\n", echo().await)).unwrap();
    assert_eq!((status(&rig, "/?token=three", "").await, status(&rig, "/?token=one", "").await), (101, 404));
    fs::remove_file(&file).unwrap();
    let (status, _, body) = get(&rig, &handshake("/?token=three", "")).await;
    assert_eq!(status, 502);
    assert!(!body.contains(file.path().to_str().unwrap()), "paths are for the log: {body}");
}

#[tokio::test]
async fn the_host_asked_for_is_a_token() {
    let (rig, _file) =
        with_tokens(&format!("localhost: {}\n", echo().await), |tokens| tokens.by_host(true)).await;
    assert_eq!(status(&rig, "/?token=other", "").await, 101);
    let other = handshake("/", "").replace("Host: localhost", "Host: other:80");
    assert_eq!(get(&rig, &other).await.0, 404);
}

#[tokio::test]
async fn a_revoked_token_ends_its_session_with_1008_and_leaves_the_others() {
    let (one, two) = (echo().await, echo().await);
    let lines = format!("one: {one}\ntwo: {two}\n");
    let (rig, file) = with_tokens(&lines, |tokens| tokens.revoking().unwrap()).await;
    let mut revoked = rig.open_with("/?token=one", "").await;
    let mut stays = rig.open_with("/?token=two", "").await;
    revoked.send(BINARY, "x").await;
    assert_eq!(revoked.bytes(1).await, b"x");
    fs::write(&file, format!("two: {two}\n")).unwrap();
    let (code, reason) = revoked.close().await;
    assert_eq!((code, reason.as_str()), (1008, "the token was revoked"));
    stays.send(BINARY, "x").await;
    assert_eq!(stays.bytes(1).await, b"x");
}

#[tokio::test]
async fn a_token_of_a_route_is_revoked_as_well() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, format!("one: {}\n", echo().await)).unwrap();
    let tokens = Tokens::new("TokenFile", file.path().to_str().unwrap()).unwrap().revoking().unwrap();
    let mut service = Service::default();
    service.tokens = Some(Arc::new(tokens));
    let route = Route {
        matcher: Matcher {
            key: Key::from("/desks"),
            extensions: Vec::new(),
            url: Vec::new(),
            host: Vec::new(),
        },
        backends: Vec::new(),
        spawned: Vec::new(),
        balancing: Balancing::default(),
        admit: None,
        service,
    };
    let rig = Rig::with(nobody().await, |config| config.routes = vec![route]).await;
    let mut viewer = rig.open_with("/desks?token=one", "").await;
    viewer.send(BINARY, "x").await;
    assert_eq!(viewer.bytes(1).await, b"x");
    fs::write(&file, "").unwrap();
    assert_eq!(viewer.close().await.0, 1008);
}

#[tokio::test]
async fn a_password_and_an_origin_are_asked_for_before_the_target_is_dialled() {
    let (listener, target) = target().await;
    let admit = admit(&[("BasicHTTPAuth", "ann:secret"), ("ExpectOrigin", "https://desk.test *.desk.test")]);
    let rig = Rig::with(target, |config| config.service.admit = Some(Arc::new(admit))).await;
    let (password, origin) = ("Authorization: Basic YW5uOnNlY3JldA==\r\n", "Origin: https://desk.test\r\n");
    let (said, head, body) = get(&rig, &handshake("/", origin)).await;
    assert_eq!((said, body.contains("password")), (401, true));
    assert!(head.contains("www-authenticate: basic realm="), "{head}");
    assert_eq!(get(&rig, &handshake("/", password)).await.0, 403);
    assert_eq!(get(&rig, &handshake("/", &format!("{password}Origin: https://evil.test\r\n"))).await.0, 403);
    let mut viewer = rig.open_with("/", &format!("{password}{origin}")).await;
    let mut first = accepted(&listener).await;
    soon(first.write_all(b"hello")).await.unwrap();
    assert_eq!(
        viewer.bytes(5).await,
        b"hello",
        "the first that was dialled is that of the first who was let in"
    );
}

#[tokio::test]
async fn an_address_that_is_denied_gets_no_socket_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.html"), "a").unwrap();
    let web = || Web::new(WebConfig { root: Some(dir.path().to_owned()), ..WebConfig::default() }).unwrap();
    let proxied = |config: &mut BridgeConfig| {
        let mut admit = Admit::default();
        admit.allow(&["10.0.0.0/8", "::1"]).unwrap();
        admit.deny(&["10.0.0.5"]).unwrap();
        config.service.admit = Some(Arc::new(admit));
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.web = Some(Arc::new(web()));
    };
    let rig = Rig::with(echo().await, proxied).await;
    for (viewer, socket, file) in
        [("10.0.0.1", 101, 200), ("10.0.0.5", 403, 403), ("192.0.2.1", 403, 403), ("::1", 101, 200)]
    {
        let line = format!("X-Forwarded-For: {viewer}\r\n");
        assert_eq!(status(&rig, "/", &line).await, socket, "{viewer}");
        let request = format!("GET /a.html HTTP/1.1\r\nHost: h\r\n{line}\r\n");
        assert_eq!(get(&rig, &request).await.0, file, "{viewer}");
    }
}

#[tokio::test]
async fn files_are_served_beside_sockets_and_with_a_password_if_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vnc.html"), "<p>vnc").unwrap();
    fs::write(dir.path().parent().unwrap().join("outside.html"), "x").unwrap();
    for web_auth in [false, true] {
        let rig = Rig::with(echo().await, |config| {
            let web = WebConfig { root: Some(dir.path().to_owned()), ..WebConfig::default() };
            config.web = Some(Arc::new(Web::new(web).unwrap()));
            config.web_auth = web_auth;
            config.service.admit =
                Some(Arc::new(admit(&[("BasicHTTPAuth", "ann:secret"), ("ExpectOrigin", "https://a.test")])));
            config.headers = extra_headers(&[
                "X-Frame-Options: DENY",
                "Referrer-Policy: no-referrer",
                "Cache-Control: private",
            ])
            .unwrap();
        })
        .await;
        let asking = |method: &str, path: &str, lines: &str| {
            format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
        };
        let without = if web_auth { 401 } else { 200 };
        let (said, head, _) = get(&rig, &asking("GET", "/vnc.html", "")).await;
        assert_eq!(said, without);
        let replaced =
            head.matches("cache-control: ").count() == 1 && head.contains("cache-control: private\r\n");
        assert!(replaced, "{head}");
        assert!(head.contains("x-frame-options: deny\r\n") && head.contains("referrer-policy: "), "{head}");
        let password = "Authorization: Basic YW5uOnNlY3JldA==\r\n";
        let (said, head, body) = get(&rig, &asking("GET", "/vnc.html", password)).await;
        assert_eq!((said, body.as_str()), (200, "<p>vnc"));
        assert!(head.contains("content-type: text/html") && head.contains("etag: "), "{head}");
        let (said, _, body) = get(&rig, &asking("GET", "/", password)).await;
        assert_eq!((said, body.contains("./vnc.html")), (200, true));
        for (method, path, expected) in [
            ("POST", "/vnc.html", 405),
            ("GET", "/none", 404),
            ("GET", "/..%2foutside.html", 404),
            ("GET", "/../outside.html", 404),
        ] {
            assert_eq!(get(&rig, &asking(method, path, password)).await.0, expected, "{method} {path}");
        }
        assert_eq!(status(&rig, "/vnc.html", password).await, 403, "a socket wants its origin all the same");
    }
}

#[tokio::test]
async fn a_session_is_recorded_in_both_directions_with_its_times() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rec");
    let (listener, target) = target().await;
    let recorder = Arc::new(Recorder::new(path.clone()));
    let mut rig = Rig::with(target, |config| config.record = Some(recorder)).await;
    let mut viewer = rig.open().await;
    let mut behind = accepted(&listener).await;
    soon(behind.write_all(b"RFB 003.008\n")).await.unwrap();
    viewer.bytes(12).await;
    viewer.send(BINARY, b"it's\x00").await;
    let mut five = [0; 5];
    soon(behind.read_exact(&mut five)).await.unwrap();
    viewer.send(CLOSE, 1000u16.to_be_bytes()).await;
    viewer.close().await;
    rig.stop();
    rig.ended().await;
    let text = fs::read_to_string(path.with_extension("1")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [start, sent, received, end] = lines[..] else { panic!("{text}") };
    assert_eq!((start, end), ("var VNC_frame_data = [", "'EOF'];"));
    let timed = |line: &str, direction, rest| {
        let (_, line) = line.split_once(direction).unwrap();
        let (time, data) = line.split_once(direction).unwrap();
        assert!(time.parse::<u32>().is_ok() && data == rest, "{line}");
    };
    timed(sent, '{', "RFB 003.008\\n',");
    timed(received, '}', "it\\'s\\x00',");
}

#[tokio::test]
async fn a_target_is_read_in_both_spellings_of_ipv6() {
    let listener = match tokio::net::TcpListener::bind("[::1]:0").await {
        Ok(listener) => listener,
        Err(error) => panic!("this machine has no IPv6 loopback: {error}"),
    };
    let port = listener.local_addr().unwrap().port();
    let (rig, _file) = with_tokens(&format!("a: [::1]:{port}\nb: ::1:{port}\n"), |tokens| tokens).await;
    for token in ["a", "b"] {
        let mut viewer = rig.open_with(&format!("/?token={token}"), "").await;
        soon(accepted(&listener).await.write_all(b"x")).await.unwrap();
        assert_eq!(viewer.bytes(1).await, b"x", "{token}");
    }
    let target: Target = format!("::1:{port}").parse().unwrap();
    assert_eq!(target.to_string(), format!("[::1]:{port}"));
}

#[tokio::test]
async fn only_the_names_in_client_certificates_that_are_listed_get_in() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (certificate, key) = authority.write(dir.path(), "bridge", &["bridge.test"]);
    let mut tls = ServerTls::new(Pair { certificate, key });
    tls.verify = Some(Authorities::File(authority.file(dir.path())));
    let rig = Rig::with(echo().await, |config| {
        config.tls = Some(tls);
        config.service.admit = Some(Arc::new(admit(&[("ClientCertCNAuth", "ann bob")])));
    })
    .await;
    for (name, expected) in [("bob", "101"), ("carol", "403"), ("ann bob", "403")] {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let (chain, key) = authority.sign(params);
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = rustls::sign::CertifiedKey::from_der(chain, key, &provider).unwrap();
        let mut config = authority.client(&[]);
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
        let stream = connect(rig.address, "bridge.test", config).await.unwrap();
        let (head, _) = ask(stream, handshake("/", "").as_bytes()).await;
        assert_eq!(&head[9..12], expected, "{name}");
    }
}

#[tokio::test]
async fn a_character_is_printed_for_each_thing_that_moves() {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_adit"));
    command.args(["bridge", "--traffic", "127.0.0.1:0", &echo().await.to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let listening = soon(log.next_line()).await.unwrap().unwrap();
    let address = listening.split("listener=\"").nth(1).unwrap().split('"').next().unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (_, mut viewer) = ask(stream, handshake("/", "").as_bytes()).await;
    viewer.send(BINARY, "x").await;
    assert_eq!(viewer.bytes(1).await, b"x");
    let mut out = child.stdout.take().unwrap();
    let mut printed = Vec::new();
    let mut until = async |marks: &[u8]| {
        while !printed.ends_with(marks) {
            assert!(soon(out.read_buf(&mut printed)).await.unwrap() > 0, "{printed:?}");
        }
        std::mem::take(&mut printed)
    };
    assert!(until(b"}>{<").await.starts_with(b"\nTraffic: "));
    // A message of which only a part has come.
    let frame = frame(BINARY, b"xy");
    viewer.write(&frame[..frame.len() - 1]).await;
    assert_eq!(until(b"{<").await, b"}.>{<");
    viewer.write(&frame[frame.len() - 1..]).await;
    assert_eq!(until(b"{<").await, b"}>{<");
}

#[tokio::test]
async fn whoever_does_not_read_what_traffic_prints_stops_no_session() {
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    // A terminal that was stopped: nothing more can be written to it.
    let mut filling = theirs.try_clone().unwrap();
    filling.set_nonblocking(true).unwrap();
    while std::io::Write::write(&mut filling, &[0; 1024]).is_ok() {}
    filling.set_nonblocking(false).unwrap();
    drop(filling);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_adit"));
    command.args(["bridge", "--traffic", "127.0.0.1:0", &echo().await.to_string()]);
    command.stdout(std::os::fd::OwnedFd::from(theirs)).stderr(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let listening = soon(log.next_line()).await.unwrap().unwrap();
    let address = listening.split("listener=\"").nth(1).unwrap().split('"').next().unwrap();
    for _ in 0..4 {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (_, mut viewer) = soon(ask(stream, handshake("/", "").as_bytes())).await;
        viewer.send(BINARY, "x").await;
        assert_eq!(soon(viewer.bytes(1)).await, b"x");
    }
}

#[tokio::test]
async fn a_log_shows_no_more_than_the_beginning_of_a_token_however_short_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let _desk = tokio::net::UnixListener::bind(dir.path().join("desk1")).unwrap();
    let source = dir.path().display();
    let line = format!("-v --token-plugin UnixDomainSocketDirectory --token-source {source} 127.0.0.1:0");
    let (mut child, mut seen, mut log) = started(bridge(&line)).await;
    for token in ["desk1", "desk2"] {
        let stream = tokio::net::TcpStream::connect(address(&seen)).await.unwrap();
        ask(stream, handshake(&format!("/?token={token}"), "").as_bytes()).await;
    }
    terminate(&mut child).await;
    while let Some(line) = soon(log.next_line()).await.unwrap() {
        seen.push(line);
    }
    let log = seen.join("\n");
    assert!(log.contains("/de…") && log.contains("session ended"), "{log}");
    assert!(!log.contains("desk1") && !log.contains("desk2"), "{log}");
}
