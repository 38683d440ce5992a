//! TLS tunnels: the name in the handshake leads to the target, which alone has the certificate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit::client::{Proto, Proxies, ProxyProtocol, Tunnel, TunnelBuilder};
use adit::relay::config::RelayConfig;
use adit::relay::domains::DomainProof;
use adit::relay::public_url::PublicUrl;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::certs::{Authority, Secure};
use crate::counts::settle;
use crate::level_two::Two;
use crate::rig::{ALICE, Answer, BOB, Rig, echo_target, read_all, soon, target};
use crate::wire::Viewer;

/// A target that says its word to whoever has shaken hands for `name`, and then what it hears. With `greeted` there is a
/// line before the handshake, which it repeats first.
async fn secure_target(authority: &Authority, name: &str, greeted: bool) -> SocketAddr {
    let (certificate, key) = authority.issue(&[name]);
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    target(move |_, mut stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut line = Vec::new();
            while greeted && !line.ends_with(b"\r\n") {
                line.push(stream.read_u8().await.unwrap());
            }
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            stream.write_all(&[&line[..], b"word"].concat()).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        }
    })
    .await
}

/// A relay with a certificate of its own for all names, by its own authority.
async fn with_tls(dir: &Path, change: impl FnOnce(&mut RelayConfig)) -> (Rig, Authority) {
    let authority = Authority::new();
    let files = authority.write(dir, "all", &["relay.test", "*.relay.test"]);
    let rig = Rig::with(|config| {
        config.tls_cert = vec![files.0.clone()];
        config.tls_key = vec![files.1.clone()];
        change(config);
    })
    .await;
    (rig, authority)
}

fn tunnel(rig: &Rig, name: &str) -> TunnelBuilder {
    Tunnel::to(format!("http://{}", rig.address)).key(ALICE).proxies(Proxies::none()).name(name)
}

async fn expect(stream: &mut Secure, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    soon(stream.read_exact(&mut read)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(bytes));
}

#[tokio::test]
async fn the_target_shakes_hands_itself_and_the_relay_reads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let targets = Authority::new();
    // With a certificate of the relay's for the same name, and without any.
    let (with, relays) = with_tls(dir.path(), |_| {}).await;
    for rig in [with, Rig::start().await] {
        let raw = secure_target(&targets, "raw.relay.test", false).await;
        let _raw = tunnel(&rig, "raw").proto(Proto::Tls).expose(&raw.to_string()).await.unwrap();
        let mut viewer = targets.connect(rig.address, "raw.relay.test", &[]).await.unwrap();
        expect(&mut viewer, b"word").await;
        let much = vec![7; 500_000];
        let (mut read, mut write) = tokio::io::split(viewer);
        let mut came = vec![0; much.len()];
        let (sent, got) =
            soon(async { tokio::join!(write.write_all(&much), read.read_exact(&mut came)) }).await;
        assert!(sent.is_ok() && got.is_ok() && came == much);
        // In capitals, too, and whoever trusts only the relay is not deceived.
        targets.connect(rig.address, "RAW.relay.test", &[]).await.unwrap();
        let deceived = relays.connect(rig.address, "raw.relay.test", &[]).await;
        assert!(deceived.is_err());
        // To HTTP the name is none.
        assert_eq!(rig.get("raw", "/").await.status, 421);
    }
}

#[tokio::test]
async fn other_names_and_no_name_go_the_usual_way() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, relays) = with_tls(dir.path(), |_| {}).await;
    let targets = Authority::new();
    let raw = secure_target(&targets, "raw.relay.test", false).await;
    let _raw = tunnel(&rig, "raw").proto(Proto::Tls).expose(&raw.to_string()).await.unwrap();
    let _web = tunnel(&rig, "web").expose(&echo_target().await.to_string()).await.unwrap();
    for host in ["web.relay.test", "relay.test"] {
        let mut viewer = relays.connect(rig.address, host, &[]).await.unwrap();
        let path = if host == "relay.test" { "/health" } else { "/" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        viewer.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        soon(viewer.read_to_end(&mut all)).await.unwrap();
        assert_eq!(Answer::parse(&all).status, 200, "{host}");
    }
    // A request for its host within a handshake for another is not passed on either.
    let mut viewer = relays.connect(rig.address, "web.relay.test", &[]).await.unwrap();
    viewer.write_all(b"GET / HTTP/1.1\r\nHost: raw.relay.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    soon(viewer.read_to_end(&mut all)).await.unwrap();
    assert_eq!(Answer::parse(&all).status, 421);
    // A relay without a certificate and without such a name says that this is no HTTP.
    let plain = Rig::start().await;
    let mut viewer = Viewer::new(&plain).await;
    viewer.say(client_hello()).await;
    assert_eq!(viewer.answer().await.status, 400);
}

/// A whole handshake message that asks for no name.
fn client_hello() -> Vec<u8> {
    let config = Authority::new().client(&[]);
    let name = rustls::pki_types::ServerName::try_from("192.0.2.1").unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_hello_in_pieces_is_read_whole_before_anybody_is_asked() {
    let rig = Rig::start().await;
    let targets = Authority::new();
    let raw = secure_target(&targets, "raw.relay.test", false).await;
    let _raw = tunnel(&rig, "raw").proto(Proto::Tls).expose(&raw.to_string()).await.unwrap();
    // A viewer whose every byte comes by itself.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (slow, relay) = (listener.local_addr().unwrap(), rig.address);
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(relay).await.unwrap();
        far.set_nodelay(true).unwrap();
        let mut first = vec![0; 200];
        near.read_exact(&mut first).await.unwrap();
        for byte in first {
            far.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let mut viewer = targets.connect(slow, "raw.relay.test", &[]).await.unwrap();
    expect(&mut viewer, b"word").await;
    // One that never comes whole ends with its time.
    let rig = Rig::with(|config| config.limits.head_wait = Duration::from_millis(200)).await;
    let mut stopped = rig.viewer().await;
    stopped.write_all(&client_hello()[..50]).await.unwrap();
    assert_eq!(soon(read_all(&mut stopped)).await, b"");
}

#[tokio::test]
async fn the_client_is_told_and_the_target_learns_who_the_viewer_is() {
    let rig = Rig::start().await;
    let wanted = json!({"local_port": 1, "name": "told", "proto": "tls"}).to_string();
    let (status, created) = rig.api(ALICE, "POST", "/v1/tunnels", &wanted).await;
    let port = rig.address.port();
    assert_eq!(
        (status, created["public_url"].clone()),
        (201, json!(format!("tls://told.relay.test:{port}")))
    );
    assert_eq!((&created["proto"], &created["remote_port"]), (&json!("tls"), &json!(null)));
    let mut client = Two::again(&rig, created["id"].as_str().unwrap(), "").await;
    let authority = Authority::new();
    let connecting = tokio::spawn({
        let address = rig.address;
        async move { authority.connect(address, "told.relay.test", &[]).await.err() }
    });
    let told = client.hear_of("connection").await;
    assert_eq!(told["proto"], "tls");
    client.say(json!({"type": "reject", "id": told["id"], "reason": "refused"})).await;
    assert!(connecting.await.unwrap().is_some(), "reset");

    let targets = Authority::new();
    let raw = secure_target(&targets, "raw.relay.test", true).await;
    let with_header = tunnel(&rig, "raw").proto(Proto::Tls).proxy_protocol(ProxyProtocol::V1);
    let _raw = with_header.expose(&raw.to_string()).await.unwrap();
    let mut viewer = targets.connect(rig.address, "raw.relay.test", &[]).await.unwrap();
    let from = viewer.get_ref().0.local_addr().unwrap().port();
    expect(&mut viewer, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {port}\r\nword").as_bytes()).await;
    settle(rig.admin, &json!({"raw": 1})).await;
    drop(viewer);
    settle(rig.admin, &json!({"raw": 0})).await;
}

#[tokio::test]
async fn a_domain_of_its_own_leads_to_the_target_also_without_a_base_domain() {
    let rig = Rig::with(|config| {
        (config.base_domain, config.domain_proof) = (None, DomainProof::Off);
    })
    .await;
    let targets = Authority::new();
    let raw = secure_target(&targets, "www.example.com", false).await;
    let with_domain = tunnel(&rig, "raw").proto(Proto::Tls).domain("www.example.com");
    let raw = with_domain.expose(&raw.to_string()).await.unwrap();
    assert_eq!(raw.url(), format!("tls://www.example.com:{}", rig.address.port()));
    let mut viewer = targets.connect(rig.address, "www.example.com", &[]).await.unwrap();
    expect(&mut viewer, b"word").await;
}

#[tokio::test]
async fn without_a_base_domain_there_is_none_and_a_public_url_with_a_port_is_told() {
    let rig = Rig::with(|config| config.base_domain = None).await;
    let wanted = json!({"local_port": 1, "name": "raw", "proto": "tls"}).to_string();
    let (status, refused) = rig.api(ALICE, "POST", "/v1/tunnels", &wanted).await;
    assert_eq!((status, refused["code"].as_str()), (400, Some("no_base_domain")), "{refused}");
    let told = tunnel(&rig, "raw").proto(Proto::Tls).expose("443").await.unwrap_err().to_string();
    assert!(told.contains("base-domain"), "{told}");
    for (url, port) in
        [("https://relay.test", 443), ("https://relay.test:8443", 8443), ("http://relay.test", 80)]
    {
        let rig = Rig::with(|config| config.public_url = Some(PublicUrl::parse(url).unwrap())).await;
        let (_, created) = rig.api(BOB, "POST", "/v1/tunnels", &wanted).await;
        assert_eq!(created["public_url"], format!("tls://raw.relay.test:{port}"));
    }
}
