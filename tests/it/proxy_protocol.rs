//! The PROXY protocol: taken from trusted proxies in front, and spoken to targets behind.

use std::net::{IpAddr, SocketAddr};

use adit::client::{Proto, Proxies, ProxyProtocol, Tunnel, TunnelBuilder};
use adit::relay::config::RelayConfig;
use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio_tungstenite::tungstenite::Message;

use crate::http2;
use crate::level_two::{Two, read_until};
use crate::peers::{listening, start};
use crate::ports::{free_address, some_ports};
use crate::rig::{ALICE, Answer, Rig, echo_target, read_all, read_head, soon};
use crate::tcp::viewers_of;
use crate::wire::{Recorder, Viewer, by_hand};

const GET: &str =
    "GET / HTTP/1.1\r\nHost: web.relay.test\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n";
const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 51234 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc6\x33\x64\x01\xc8\x22\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A relay that takes headers from `proxy`.
async fn behind(proxy: &str, change: impl FnOnce(&mut RelayConfig)) -> Rig {
    Rig::with(|config| {
        config.accept_proxy_protocol = true;
        config.trusted_proxies = vec![proxy.parse().unwrap()];
        config.tcp_ports = Some(some_ports());
        change(config);
    })
    .await
}

/// Connects from another address of this machine.
async fn from(ip: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
    soon(socket.connect(to)).await.unwrap()
}

// ---- taken from proxies ----

#[tokio::test]
async fn a_viewer_is_who_a_trusted_proxy_says_it_is_and_its_own_claims_count_for_nothing() {
    let rig = behind("127.0.0.1/32", |_| {}).await;
    let recorder = Recorder::start().await;
    let _tunnel = through_forwarder(&rig, recorder.address, |builder| builder.name("web")).await;
    for (header, told) in [
        (V1, "203.0.113.7"),
        (V2, "203.0.113.7"),
        (LOCAL, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY TCP6 2001:db8::5 ::1 1 2\r\n", "2001:db8::5"),
    ] {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say([header, GET.as_bytes()].concat()).await;
        assert_eq!(viewer.answer().await.status, 200);
        let shown = told.to_owned();
        let forwarded = recorder.only().all("x-forwarded-for").join(", ");
        // Only what the proxy itself is trusted with stands.
        let expected = if told == "127.0.0.1" { format!("6.6.6.6, {shown}") } else { shown };
        assert_eq!(forwarded, expected);
    }
    // In pieces, and with the request right behind.
    let mut viewer = Viewer::new(&rig).await;
    for byte in [V2, GET.as_bytes()].concat() {
        viewer.say([byte]).await;
    }
    assert_eq!(viewer.answer().await.status, 200);
    assert_eq!(recorder.only().all("x-forwarded-for"), ["203.0.113.7"]);
}

/// A tunnel whose client comes from an address that is not trusted.
async fn through_forwarder(
    rig: &Rig,
    target: SocketAddr,
    set: impl FnOnce(TunnelBuilder) -> TunnelBuilder,
) -> Tunnel {
    let (listener, relay) = (tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(), rig.address);
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = from("127.0.0.9", relay).await;
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let builder = Tunnel::to(format!("http://{address}")).key(ALICE).proxies(Proxies::none());
    set(builder).expose(&target.to_string()).await.unwrap()
}

#[tokio::test]
async fn what_is_no_header_closes_a_connection_of_a_proxy_and_of_others_none_is_read() {
    let rig = behind("127.0.0.1/32", |config| {
        config.limits.first_byte_wait = std::time::Duration::from_millis(300);
    })
    .await;
    let _tunnel = through_forwarder(&rig, echo_target().await, |builder| builder.name("web")).await;
    for bytes in [GET.as_bytes(), b"PROXY TCP4 nonsense\r\n", b"\x16\x03\x01", b"PROXY TCP4 1.2", b""] {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(bytes).await;
        assert_eq!(viewer.rest().await, b"", "{bytes:?}");
    }
    // A header of somebody else is no HTTP.
    let mut stranger = from("127.0.0.9", rig.address).await;
    stranger.write_all(&[V1, GET.as_bytes()].concat()).await.unwrap();
    assert_eq!(Answer::parse(&soon(read_all(&mut stranger)).await).status, 400);
    let mut stranger = from("127.0.0.9", rig.address).await;
    stranger.write_all(GET.as_bytes()).await.unwrap();
    let answer = Answer::parse(&soon(read_all(&mut stranger)).await);
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("X-Forwarded-For: 127.0.0.9\r\n"), "{}", answer.text());
}

#[tokio::test]
async fn without_the_option_a_header_is_never_read() {
    let rig = Rig::with(|config| config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()]).await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    assert_eq!(rig.raw([V1, GET.as_bytes()].concat()).await.status, 400);
    assert_eq!(rig.raw(GET).await.status, 200);
}

#[tokio::test]
async fn connections_are_counted_by_the_address_that_is_announced() {
    let rig = behind("127.0.0.1/32", |config| config.limits.connections_per_address = Some(1)).await;
    let _first = {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(V1).await;
        viewer.say("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(viewer.answer().await.status, 200);
        viewer
    };
    let mut second = Viewer::new(&rig).await;
    second.say(V2).await;
    assert_eq!(second.rest().await, b"");
    let mut other = Viewer::new(&rig).await;
    other
        .say("PROXY TCP4 203.0.113.8 198.51.100.1 1 443\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(other.answer().await.status, 200);
}

#[tokio::test]
async fn a_viewer_of_a_tcp_tunnel_is_who_the_proxy_says_and_its_first_bytes_are_not_lost() {
    let rig = behind("127.0.0.1/32", |_| {}).await;
    let (address, mut targets) = by_hand().await;
    let tunnel = through_forwarder(&rig, address, |builder| {
        builder.proto(Proto::Tcp).proxy_protocol(ProxyProtocol::V1)
    })
    .await;
    let mut viewer = TcpStream::connect(viewers_of(&tunnel)).await.unwrap();
    viewer.write_all(&[V2, b"hello"].concat()).await.unwrap();
    let mut far = soon(targets.recv()).await.unwrap();
    let expected = [V1, b"hello"].concat();
    let mut read = vec![0; expected.len()];
    soon(far.read_exact(&mut read)).await.unwrap();
    assert_eq!(String::from_utf8(read), String::from_utf8(expected));
}

// ---- spoken to targets ----

/// The PROXY line with which a connection begins.
async fn line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

fn line_of(viewer: &TcpStream) -> String {
    let (source, destination) = (viewer.local_addr().unwrap(), viewer.peer_addr().unwrap());
    let (from, to) = (source.port(), destination.port());
    format!("PROXY TCP4 {} {} {from} {to}\r\n", source.ip(), destination.ip())
}

fn tunnel(rig: &Rig) -> TunnelBuilder {
    Tunnel::to(format!("http://{}", rig.address))
        .key(ALICE)
        .proxies(Proxies::none())
        .name("web")
        .proxy_protocol(ProxyProtocol::V1)
}

/// Serves the next request on `stream`.
async fn answer(stream: &mut TcpStream) {
    soon(read_head(stream)).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
}

async fn ask(viewer: &mut Viewer, method: &str) {
    viewer.say(format!("{method} / HTTP/1.1\r\nHost: web.relay.test\r\nContent-Length: 0\r\n\r\n")).await;
}

#[tokio::test]
async fn each_viewer_has_connections_of_its_own_to_a_target_that_is_told_of_it() {
    let rig = Rig::start().await;
    let (address, mut targets) = by_hand().await;
    let _tunnel = tunnel(&rig).expose(&address.to_string()).await.unwrap();
    let next = async |targets: &mut Receiver<TcpStream>| soon(targets.recv()).await.unwrap();
    let mut viewers = Vec::new();
    for _ in 0..3 {
        let mut viewer = Viewer::new(&rig).await;
        ask(&mut viewer, "GET").await;
        let mut far = next(&mut targets).await;
        assert_eq!(line(&mut far).await, line_of(&viewer.0));
        answer(&mut far).await;
        assert_eq!(viewer.answer().await.status, 200);
        viewers.push((viewer, far));
    }
    // Its next request goes over the same connection, without another header; nobody else's does.
    for method in ["GET", "POST"] {
        for (viewer, far) in &mut viewers {
            ask(viewer, method).await;
            answer(far).await;
            assert_eq!(viewer.answer().await.status, 200);
        }
    }
    // When its viewer goes, the connection does.
    let (viewer, mut far) = viewers.remove(0);
    drop(viewer);
    assert_eq!(soon(read_all(&mut far)).await, b"");
    // One that the target has closed is replaced, header and all, also where nothing may be sent twice.
    let (mut viewer, far) = viewers.remove(0);
    drop(far);
    ask(&mut viewer, "GET").await;
    let mut far = next(&mut targets).await;
    assert_eq!(line(&mut far).await, line_of(&viewer.0));
    answer(&mut far).await;
    assert_eq!(viewer.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_of_the_base_level_serves_such_a_tunnel_too_and_viewers_of_http_2_share_nothing() {
    let rig = Rig::start().await;
    let (address, mut targets) = by_hand().await;
    let wanted = json!({"local_port": 1, "name": "web", "proxy_protocol": "v1"}).to_string();
    let (_, created) = rig.api(ALICE, "POST", "/v1/tunnels", &wanted).await;
    assert_eq!(created["proxy_protocol"], "v1");
    let control = rig.connect(ALICE, created["id"].as_str().unwrap()).await;
    let _client = rig.serve(control, address).await;
    let mut viewer = Viewer::new(&rig).await;
    ask(&mut viewer, "GET").await;
    let mut far = soon(targets.recv()).await.unwrap();
    assert_eq!(line(&mut far).await, line_of(&viewer.0));
    answer(&mut far).await;
    assert_eq!(viewer.answer().await.status, 200);
    // With HTTP/2 each request has its own.
    let mut multiplexed = http2::connect(&rig).await;
    for _ in 0..2 {
        let request = multiplexed.send_request(http2::get("/").body(http2::empty()).unwrap());
        let answering = async {
            let mut far = soon(targets.recv()).await.unwrap();
            assert!(line(&mut far).await.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "));
            answer(&mut far).await;
        };
        let (answered, ()) = tokio::join!(soon(request), answering);
        assert_eq!(answered.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_standby_socket_begins_with_the_header_and_a_header_in_tls_is_refused() {
    let rig = Rig::start().await;
    let wanted = json!({"local_port": 1, "name": "web", "proxy_protocol": "v2"}).to_string();
    let (_, created) = rig.api(ALICE, "POST", "/v1/tunnels", &wanted).await;
    let mut client = Two::again(&rig, created["id"].as_str().unwrap(), "").await;
    client.hear_of("standby").await;
    let (mut standby, _) = client.standby(&rig).await;
    // Its handshake ends a moment after the answer.
    crate::counts::settle(rig.admin, &json!({"standby_data_sockets": 1, "data_sockets_in_use": 0})).await;
    let mut viewer = Viewer::new(&rig).await;
    ask(&mut viewer, "GET").await;
    assert!(matches!(soon(standby.next()).await, Some(Ok(Message::Text(_)))), "it is assigned");
    let came = read_until(&mut standby, b"\r\n\r\n").await;
    assert!(came.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01"), "{came:?}");
    let refused = tunnel(&rig).expose("https://localhost:1").await.unwrap_err().to_string();
    assert!(refused.contains("inside TLS"), "{refused}");
}

/// nginx as the target, which answers with whom it takes for its viewer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_learns_who_the_viewer_is_by_both_versions_and_both_kinds_of_tunnel() {
    let rig = Rig::with(|config| config.tcp_ports = Some(some_ports())).await;
    let directory = tempfile::tempdir().unwrap();
    let port = free_address().await.port();
    let dir = directory.path().display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};"))
        .concat();
    let config = format!(
        "daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log stderr; events {{ worker_connections 64; }}
         http {{ log_format who '$proxy_protocol_addr $proxy_protocol_port'; access_log {dir}/log who; {paths}
         server {{ listen 127.0.0.1:{port} proxy_protocol;
         location / {{ return 200 '$proxy_protocol_addr $proxy_protocol_port'; }} }} }}"
    );
    let file = directory.path().join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let _nginx = start("nginx", &["-e", "stderr", "-c", &file.display().to_string()]);
    listening(&format!("127.0.0.1:{port}")).await;
    let mut expected = String::new();
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let by_http = tunnel(&rig).proxy_protocol(version).expose(&port.to_string()).await.unwrap();
        let by_tcp = tunnel(&rig).name("raw").proto(Proto::Tcp).proxy_protocol(version);
        let by_tcp = by_tcp.expose(&port.to_string()).await.unwrap();
        for to in [rig.address, viewers_of(&by_tcp)] {
            let mut viewer = from("127.0.0.5", to).await;
            let who = format!("127.0.0.5 {}", viewer.local_addr().unwrap().port());
            viewer.write_all(GET.as_bytes()).await.unwrap();
            let answer = Answer::parse(&soon(read_all(&mut viewer)).await);
            assert_eq!((answer.status, answer.text()), (200, who.clone()), "{version}");
            expected += &format!("{who}\n");
        }
        assert!(by_http.url().starts_with("http://web."));
    }
    assert_eq!(std::fs::read_to_string(directory.path().join("log")).unwrap(), expected);
}
