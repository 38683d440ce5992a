//! TLS of viewers, told from plain by the first byte, and of targets.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit::bridge::{Accepted, Authorities, Bridge, BridgeConfig, Pair, ServerTls, TargetTls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certs::{Authority, connect};
use crate::frame_bytes::{BINARY, CLOSE, PING, PONG, frame};
use crate::program::{address, bridge, started};
use crate::rig::{Rig, accepted, ask, echo, handshake, soon, target};

fn tls(authority: &Authority, dir: &Path) -> ServerTls {
    let (certificate, key) = authority.write(dir, "bridge", &["bridge.test"]);
    ServerTls::new(Pair { certificate, key })
}

fn with(tls: ServerTls) -> impl FnOnce(&mut BridgeConfig) {
    move |config| config.tls = Some(tls)
}

#[tokio::test]
async fn tls_and_plain_share_a_port_and_a_renewed_certificate_is_for_the_next_viewer() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let rig = Rig::with(echo().await, with(tls(&authority, dir.path()))).await;
    let mut plain = rig.open().await;
    let secure = authority.connect(rig.address, "bridge.test", &["http/1.1"]).await.unwrap();
    let (head, mut secure) = ask(secure, handshake("/", "").as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for round in [1, 70_000] {
        plain.send(BINARY, vec![1; round]).await;
        assert_eq!(plain.bytes(round).await, vec![1; round]);
        secure.send(BINARY, vec![2; round]).await;
        assert_eq!(secure.bytes(round).await, vec![2; round]);
    }
    let newer = Authority::new();
    newer.write(dir.path(), "bridge", &["bridge.test"]);
    soon(async {
        while newer.connect(rig.address, "bridge.test", &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    secure.send(BINARY, "still there").await;
    assert_eq!(secure.bytes(11).await, b"still there");
}

#[tokio::test]
async fn websockets_over_http2_are_had_by_alpn() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let rig = Rig::with(echo().await, with(tls(&authority, dir.path()))).await;
    let secure = authority.connect(rig.address, "bridge.test", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(secure.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (client, connection) = h2::client::handshake(secure).await.unwrap();
    tokio::spawn(connection);
    let mut client = soon(client.ready()).await.unwrap();
    while !client.is_extended_connect_protocol_enabled() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let request = http::Request::builder().method("CONNECT").uri("https://bridge.test/");
    let mut request = request.header("sec-websocket-version", "13").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from("websocket"));
    let (answer, mut up) = client.send_request(request, false).unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    up.send_data(frame(BINARY, b"hello").into(), false).unwrap();
    let data = soon(answer.into_body().data()).await.unwrap().unwrap();
    assert_eq!(&data[..], b"\x82\x05hello");
}

#[tokio::test]
async fn plain_connections_are_closed_where_only_tls_is_wanted() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let mut only = tls(&authority, dir.path());
    only.only = true;
    let rig = Rig::with(echo().await, with(only)).await;
    let (head, _) = rig.ask(&handshake("/", "")).await;
    assert_eq!(head, "");
    assert!(authority.connect(rig.address, "bridge.test", &[]).await.is_ok());
}

#[tokio::test]
async fn viewers_show_a_certificate_where_that_is_wanted_and_plain_ones_cannot() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let mut verifying = tls(&authority, dir.path());
    verifying.verify = Some(Authorities::File(authority.file(dir.path())));
    let rig = Rig::with(echo().await, with(verifying)).await;
    let (head, _) = rig.ask(&handshake("/", "")).await;
    assert_eq!(head, "");
    let (chain, key) = authority.issue(&["viewer"]);
    let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let resolver =
        rustls::sign::CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider());
    for shows in [false, true] {
        let mut config = authority.client(&[]);
        if shows {
            let key = resolver.as_ref().unwrap().clone();
            config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
        }
        // With TLS 1.3 the refusal comes behind the handshake.
        let answered = match connect(rig.address, "bridge.test", config).await {
            Ok(stream) => ask(stream, handshake("/", "").as_bytes()).await.0.starts_with("HTTP/1.1 101 "),
            Err(_) => false,
        };
        assert_eq!(answered, shows);
    }
}

/// What targets with TLS accept by, with names of this machine.
fn acceptor(authority: &Authority) -> tokio_rustls::TlsAcceptor {
    acceptor_of(authority.issue(&["localhost", "127.0.0.1"]))
}

fn acceptor_of((chain, key): (String, String)) -> tokio_rustls::TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = server.with_no_client_auth().with_single_cert(chain, key).unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(server))
}

#[tokio::test]
async fn a_viewer_that_leaves_while_its_target_is_dialled_takes_the_connection_along() {
    for connect_first in [false, true] {
        let (listener, target) = target().await;
        let rig = Rig::with(target, |config| {
            config.service.connect_first = connect_first;
            config.service.dialling.tls = Some(TargetTls::Unverified);
            config.service.dialling.wait = Duration::from_secs(3600);
        })
        .await;
        let mut viewer = TcpStream::connect(rig.address).await.unwrap();
        viewer.write_all(handshake("/", "").as_bytes()).await.unwrap();
        // It takes connections, and says nothing.
        let mut behind = accepted(&listener).await;
        drop(viewer);
        soon(behind.read_to_end(&mut Vec::new())).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_viewer_says_before_its_target_is_there_gets_to_it_though_the_viewer_goes() {
    let (listener, target) = target().await;
    let rig = Rig::with(target, |config| config.service.dialling.tls = Some(TargetTls::Unverified)).await;
    let mut viewer = rig.open().await;
    let dialled = accepted(&listener).await;
    viewer.send(PING, "there?").await;
    viewer.send(BINARY, "hello").await;
    viewer.send(CLOSE, 1000u16.to_be_bytes()).await;
    assert_eq!(viewer.frame().await, Some((PONG, b"there?".to_vec())));
    let mut behind = soon(acceptor(&Authority::new()).accept(dialled)).await.unwrap();
    let mut read = Vec::new();
    soon(behind.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"hello");
    assert_eq!(viewer.close().await.0, 1000);
}

#[tokio::test]
async fn a_target_with_tls_is_believed_by_its_authority_or_not_at_all() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let acceptor = acceptor(&authority);
    for (trust, good) in [
        (TargetTls::Authorities(authority.file(dir.path())), true),
        (TargetTls::Unverified, true),
        (TargetTls::Authorities(Authority::new().file(&TempDir::new().unwrap().keep())), false),
    ] {
        let (listener, target) = target().await;
        let rig = Rig::with(target, |config| config.service.dialling.tls = Some(trust)).await;
        let mut viewer = rig.open().await;
        let shaken = soon(acceptor.accept(accepted(&listener).await)).await;
        if !good {
            assert_eq!(viewer.close().await.0, 1011);
            continue;
        }
        let mut behind = shaken.unwrap();
        viewer.send(BINARY, "secret").await;
        let mut read = [0; 6];
        soon(behind.read_exact(&mut read)).await.unwrap();
        behind.write_all(&read).await.unwrap();
        assert_eq!(viewer.bytes(6).await, b"secret");
    }
}

/// What `openssl x509 -req` makes without extensions: version 1, which no verifier of ours takes.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBGTCBvwIUNAcFQzw3E8o7Tx26IRGl1YZJp5UwCgYIKoZIzj0EAwIwDjEMMAoG\n\
A1UEAwwDb2xkMCAXDTI2MTEyMjEzMjk1OVoYDzIxMjYxMDI5MTMyOTU5WjAOMQww\n\
CgYDVQQDDANvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARm3hvF+GBua05R\n\
EwGcZppIoAazetgXOtxQbDYWhLMyptxxnU9/0zWWXPfmIADHJniaL7MW209pxSNE\n\
BUZzOnEJMAoGCCqGSM49BAMCA0kAMEYCIQDqLLprAVX0u8ciSrbm0EWdnZd0swF/\n\
23z7iMID64/efAIhAPY+wL46w1lr18zeh7NhoPO4I0V0rWsBsxOSC7OtEXCf\n\
-----END CERTIFICATE-----\n";

#[tokio::test]
async fn a_handshake_that_fails_is_told_in_the_log_with_what_to_do() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let (certificate, key) = authority.write(dir.path(), "bridge", &["bridge.test"]);
    let line = format!(
        "127.0.0.1:0 {} --verify-client --cafile={} --cert={} --key={}",
        echo().await,
        authority.file(dir.path()).display(),
        certificate.display(),
        key.display()
    );
    let (_child, seen, mut log) = started(bridge(&line)).await;
    let key = PrivateKeyDer::from_pem_slice(authority.issue(&["viewer"]).1.as_bytes()).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(VERSION_1.as_bytes()).unwrap()];
    let resolver = rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(chain, key));
    let mut of_version_1 = authority.client(&[]);
    of_version_1.client_auth_cert_resolver = Arc::new(resolver);
    for (config, said) in
        [(authority.client(&[]), "no certificates"), (of_version_1, "only version 3 is taken")]
    {
        if let Ok(stream) = connect(address(&seen), "bridge.test", config).await {
            assert_eq!(ask(stream, handshake("/", "").as_bytes()).await.0, "");
        }
        let line = soon(log.next_line()).await.unwrap().unwrap();
        assert!(line.contains("no TLS with a viewer") && line.contains(said), "{line}");
        assert!(line.contains(" INFO ") && line.contains("viewer=127.0.0.1:"), "{line}");
    }
}

#[tokio::test]
async fn suites_of_tls_1_2_that_are_named_leave_tls_1_3_as_it_is() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    let mut tls = tls(&authority, dir.path());
    tls.suites = vec!["ECDHE-ECDSA-AES128-GCM-SHA256".into()];
    let rig = Rig::with(echo().await, with(tls)).await;
    let newer = authority.connect(rig.address, "bridge.test", &[]).await.unwrap();
    assert_eq!(newer.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_none());
    let older = connect(rig.address, "bridge.test", authority.client_with(provider, &[])).await.unwrap();
    let suite = older.get_ref().1.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
}

#[tokio::test]
async fn nobody_gets_in_at_a_path_where_only_tls_is_wanted() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new());
    for verify in [false, true] {
        let mut tls = tls(&authority, dir.path());
        tls.only = !verify;
        tls.verify = verify.then(|| Authorities::File(authority.file(dir.path())));
        let mut config = BridgeConfig::to(echo().await);
        config.tls = Some(tls);
        let (viewer, accepted) = tokio::net::UnixStream::pair().unwrap();
        let serving = Bridge::new(config).unwrap().serve(Accepted::Unix(accepted), std::future::pending());
        let request = handshake("/", "");
        let ((head, _), ()) = tokio::join!(ask(viewer, request.as_bytes()), soon(serving));
        assert_eq!(head, "");
    }
    let listen = format!("--unix-listen={}", dir.path().join("front.sock").display());
    for flag in ["--ssl-only", "--verify-client"] {
        let cert = dir.path().join("bridge.crt");
        let key = dir.path().join("bridge.key");
        let line = format!("{listen} {flag} --cert={} --key={} localhost:1", cert.display(), key.display());
        let output = crate::program::output(&line).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(flag) && said.contains("--unix-listen-mode"), "{said}");
    }
}

/// As `openssl req -x509` makes it: an authority that has only itself below it.
fn self_signed(name: &str, last_year: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_targets_own_certificate_that_was_given_is_believed_as_it_stands_if_name_and_time_are_right() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("given.pem");
    let right = || self_signed("127.0.0.1", 4000);
    for (what, shown, is_given) in [
        ("the one that was given", right(), true),
        ("another one", right(), false),
        ("one of another name", self_signed("elsewhere.test", 4000), true),
        ("one whose time is over", self_signed("127.0.0.1", 2000), true),
    ] {
        let given = if is_given { shown.0.clone() } else { right().0 };
        std::fs::write(&file, given).unwrap();
        let (listener, target) = target().await;
        let trust = TargetTls::Authorities(file.clone());
        let rig = Rig::with(target, |config| config.service.dialling.tls = Some(trust)).await;
        let mut viewer = rig.open().await;
        let shaken = soon(acceptor_of(shown).accept(accepted(&listener).await)).await;
        if what != "the one that was given" {
            assert_eq!(viewer.close().await.0, 1011, "{what}");
            continue;
        }
        soon(shaken.unwrap().write_all(b"x")).await.unwrap();
        assert_eq!(viewer.bytes(1).await, b"x", "{what}");
    }
}
