//! TLS at the relay: certificates by name and from files that change, ALPN, plain HTTP beside it, and who is misdirected.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adit::relay::config::RelayConfig;
use adit::relay::domains::DomainProof;
use adit::relay::public_url::PublicUrl;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::CipherSuite;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::certs::{Authority, Secure, connect};
use crate::program::{RELAY, Running, adit, keys, relay, run};
use crate::rig::{ALICE, Answer, BOB, CLOSE, Rig, echo_target, read_request, request, soon, target, until};

/// A relay with a certificate for `relay.test` and all its tunnels, and who issued it.
struct Tls {
    rig: Rig,
    authority: Authority,
    files: (PathBuf, PathBuf),
    dir: tempfile::TempDir,
}

impl Tls {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let files = authority.write(dir.path(), "all", &["relay.test", "*.relay.test"]);
        let rig = Rig::with(|config| {
            config.tls_cert = vec![files.0.clone()];
            config.tls_key = vec![files.1.clone()];
            change(config);
        })
        .await;
        Self { rig, authority, files, dir }
    }

    async fn viewer(&self, host: &str) -> Secure {
        self.authority.connect(self.rig.address, host, &[]).await.unwrap()
    }

    /// A GET of `host` over a connection of its own for that host.
    async fn get(&self, host: &str) -> Answer {
        ask(&mut self.viewer(host).await, host).await
    }
}

/// A GET as the last one of a connection.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, host: &str) -> Answer {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    Answer::parse(&all)
}

fn names(stream: &Secure) -> String {
    let certificate = &stream.get_ref().1.peer_certificates().unwrap()[0];
    String::from_utf8_lossy(certificate).into_owned()
}

// ---- what is spoken ----

#[tokio::test]
async fn tls_and_plain_http_are_told_apart_on_one_port() {
    let tls = Tls::start().await;
    let _client = tls.rig.client(ALICE, "web", echo_target().await).await;
    let plain = tls.rig.get("web", "/").await;
    assert_eq!(plain.status, 200);
    assert!(plain.text().contains("X-Forwarded-Proto: http\r\n"), "{}", plain.text());
    let secure = tls.get("web.relay.test").await;
    assert_eq!((secure.status, secure.complete), (200, true));
    assert!(secure.text().contains("X-Forwarded-Proto: https\r\n"), "{}", secure.text());
}

#[tokio::test]
async fn http2_is_spoken_when_it_is_offered_and_http_1_otherwise() {
    let tls = Tls::start().await;
    let _client = tls.rig.client(ALICE, "web", echo_target().await).await;
    for (offered, chosen) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let stream = tls.authority.connect(tls.rig.address, "web.relay.test", offered).await.unwrap();
        let spoken =
            stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        assert_eq!(spoken.as_deref(), chosen);
        if chosen == Some("h2") {
            let io = TokioIo::new(stream);
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            let request = Request::get("https://web.relay.test/").body(Empty::<Bytes>::new()).unwrap();
            let answer = soon(sender.send_request(request)).await.unwrap();
            assert_eq!(answer.status(), 200);
            let seen = soon(answer.into_body().collect()).await.unwrap().to_bytes();
            assert!(String::from_utf8_lossy(&seen).contains("X-Forwarded-Proto: https\r\n"));
        }
    }
    let error = tls.authority.connect(tls.rig.address, "web.relay.test", &["gopher"]).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[tokio::test]
async fn who_likes_aes_best_gets_the_cheaper_one_and_who_does_not_gets_what_it_likes() {
    let tls = Tls::start().await;
    let all = aws_lc_rs::default_provider().cipher_suites;
    // As OpenSSL and rustls offer them, then as a telephone without instructions for AES, then without the cheaper one.
    let usual = [CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_AES_128_GCM_SHA256];
    let telephone = [CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, CipherSuite::TLS13_AES_128_GCM_SHA256];
    let only = [CipherSuite::TLS13_AES_256_GCM_SHA384];
    let old = [
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ];
    let cases = [(&usual[..], usual[1]), (&telephone, telephone[0]), (&only, only[0]), (&old, old[1])];
    for (offered, agreed) in cases {
        let find = |wanted: &CipherSuite| *all.iter().find(|suite| suite.suite() == *wanted).unwrap();
        let cipher_suites = offered.iter().map(find).collect();
        let provider = CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() };
        let config = tls.authority.client_with(provider, &[]);
        let stream = connect(tls.rig.address, "web.relay.test", config).await.unwrap();
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, agreed, "of {offered:?}");
    }
}

#[tokio::test]
async fn what_is_no_handshake_gets_an_alert_and_one_that_stops_is_closed() {
    let tls = Tls::with(|config| config.limits.head_wait = Duration::from_millis(200)).await;
    // A hello that offers TLS 1.1 and nothing newer, with one old suite.
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let length = hello.len() as u8;
    let record = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat();
    let mut old = tls.rig.viewer().await;
    old.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    soon(old.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");

    for noise in [&b"\x16"[..], b"\x16\x03\x01\x40\x00\x01", b"\x16\xff\xff\xff\xff\xff\xff"] {
        let mut stream = tls.rig.viewer().await;
        stream.write_all(noise).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    assert_eq!(tls.get("none.relay.test").await.status, 404, "the relay goes on");
}

#[tokio::test]
async fn bodies_go_through_tls_both_ways_unchanged() {
    let tls = Tls::start().await;
    let _client = tls.rig.client(ALICE, "web", echo_target().await).await;
    let mut stream = tls.viewer("web.relay.test").await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| ((at * 31) >> 3) as u8).collect();
    let head = format!(
        "POST /up HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let sent = body.clone();
    let writing = async {
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&sent).await.unwrap();
        write.flush().await.unwrap();
    };
    let mut all = Vec::new();
    soon(async { tokio::join!(writing, async { read.read_to_end(&mut all).await.unwrap() }) }).await;
    let answer = Answer::parse(&all);
    assert!(answer.complete && answer.body.ends_with(&body));
}

#[tokio::test]
async fn requests_behind_each_other_in_one_record_are_all_answered() {
    let tls = Tls::start().await;
    let _client = tls.rig.client(ALICE, "web", echo_target().await).await;
    let mut stream = tls.viewer("web.relay.test").await;
    let one = "GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{one}{one}{last}").as_bytes()).await.unwrap();
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&all).matches("HTTP/1.1 200 OK").count(), 3);
}

#[tokio::test]
async fn a_viewer_that_leaves_by_tls_is_noticed_while_its_request_waits() {
    let tls = Tls::with(|config| config.log_exchanges = false).await;
    let (gone, mut left) = mpsc::channel(2);
    let slow = target(move |_, mut stream| {
        let gone = gone.clone();
        async move {
            read_request(&mut stream).await.unwrap();
            // Something of the answer, so that silence after the viewer's end counts soon.
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").await.unwrap();
            let _ = stream.read_u8().await;
            gone.send(()).await.unwrap();
        }
    })
    .await;
    let _client = tls.rig.client(ALICE, "web", slow).await;
    let mut stream = tls.viewer("web.relay.test").await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    soon(stream.read_exact(&mut head)).await.unwrap();
    // The goodbye of TLS, and then TCP's.
    stream.shutdown().await.unwrap();
    drop(stream);
    soon(left.recv()).await.unwrap();
}

// ---- which certificate ----

#[tokio::test]
async fn each_name_is_shown_its_own_certificate_and_no_name_the_first() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let one = authority.write(dir.path(), "one", &["relay.test", "*.relay.test"]);
    let two = authority.write(dir.path(), "two", &["web.other.test"]);
    let rig = Rig::with(|config| {
        config.tls_cert = vec![one.0, two.0];
        config.tls_key = vec![one.1, two.1];
    })
    .await;
    for (asked, shown) in
        [("web.relay.test", "relay.test"), ("RELAY.test", "relay.test"), ("web.other.test", "web.other.test")]
    {
        let stream = authority.connect(rig.address, asked, &[]).await.unwrap();
        assert!(names(&stream).contains(shown), "{asked}");
    }
    // A name without a certificate is refused by the viewer, which sees another's.
    let error = authority.connect(rig.address, "web.third.test", &[]).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let mut nameless = authority.client(&[]);
    nameless.enable_sni = false;
    assert!(names(&connect(rig.address, "relay.test", nameless).await.unwrap()).contains("relay.test"));
}

#[tokio::test]
async fn a_certificate_that_changes_is_shown_from_then_on_and_breaks_nothing() {
    let tls = Tls::start().await;
    let _client = tls.rig.client(ALICE, "web", echo_target().await).await;
    let mut before = tls.viewer("web.relay.test").await;
    let shown = names(&before);
    std::fs::write(&tls.files.0, "half a fi").unwrap();
    tls.rig.reload();
    assert_eq!(names(&tls.viewer("web.relay.test").await), shown, "what is broken replaces nothing");
    tls.authority.write(tls.dir.path(), "all", &["relay.test", "*.relay.test"]);
    tls.rig.reload();
    assert_ne!(names(&tls.viewer("web.relay.test").await), shown);
    assert_eq!(ask(&mut before, "web.relay.test").await.status, 200, "who is there stays");
}

// ---- who is meant ----

#[tokio::test]
async fn a_connection_for_one_tenant_is_not_used_for_another() {
    let tls = Tls::start().await;
    let target = echo_target().await;
    let _web = tls.rig.client(ALICE, "web", target).await;
    let _api = tls.rig.client(ALICE, "also", target).await;
    let _bobs = tls.rig.client(BOB, "bobs", target).await;
    for (asked, host, status) in [
        ("web.relay.test", "web.relay.test:8443", 200),
        ("web.relay.test", "also.relay.test", 200),
        ("web.relay.test", "bobs.relay.test", 421),
        ("web.relay.test", "none.relay.test", 421),
        ("web.relay.test", "relay.test", 421),
        ("relay.test", "web.relay.test", 421),
    ] {
        let mut stream = tls.viewer(asked).await;
        assert_eq!(ask(&mut stream, host).await.status, status, "{asked} {host}");
    }
}

#[tokio::test]
async fn plain_requests_are_led_to_https_by_known_names_only() {
    let tls = Tls::with(|config| {
        config.public_url = Some(PublicUrl::parse("https://relay.test:8443").unwrap());
        config.domain_proof = DomainProof::Off;
    })
    .await;
    let create = "{\"local_port\":1,\"name\":\"web\",\"domains\":[\"www.alice.example\"]}";
    let request =
        request(ALICE, "POST", "/v1/tunnels", CLOSE, create).replace("Host: localhost", "Host: relay.test");
    let mut own = tls.viewer("relay.test").await;
    own.write_all(request.as_bytes()).await.unwrap();
    let mut created = Vec::new();
    soon(own.read_to_end(&mut created)).await.unwrap();
    assert_eq!(Answer::parse(&created).status, 201);
    let ask = async |host: &str, path: &str| {
        tls.rig.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    };
    for (host, path, status, location) in [
        ("web.relay.test", "/a?b=%20c", 308, Some("https://web.relay.test:8443/a?b=%20c")),
        ("web.relay.test:80", "//evil.test/", 308, Some("https://web.relay.test:8443//evil.test/")),
        ("www.alice.example:80", "/a", 308, Some("https://www.alice.example:8443/a")),
        ("relay.test", "/v1/tunnels", 308, Some("https://relay.test:8443/v1/tunnels")),
        ("localhost", "/t/web/x", 308, Some("https://relay.test:8443/t/web/x")),
        ("relay.test", "/health", 200, None),
        ("none.relay.test", "/", 404, None),
        ("evil.test", "/", 404, None),
    ] {
        let answer = ask(host, path).await;
        assert_eq!((answer.status, answer.header("location")), (status, location), "{host} {path}");
    }
    // A trusted proxy may have TLS for us; anybody may say so.
    let told =
        "GET / HTTP/1.1\r\nHost: web.relay.test\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";
    assert_eq!(tls.rig.raw(told).await.status, 308);
}

#[tokio::test]
async fn a_port_for_tls_says_so_to_whoever_speaks_plainly() {
    let tls = Tls::with(|config| config.listen_tls = vec!["127.0.0.1:0".parse().unwrap()]).await;
    let plain = tls.rig.raw("GET / HTTP/1.1\r\nHost: none.relay.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!((plain.status, plain.header("location")), (400, None));
    assert!(plain.text().contains("https://"), "{}", plain.text());
    let own = tls.rig.raw("GET /health HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(own.status, 308);
    let port = tls.rig.address.port();
    assert_eq!(own.header("location"), Some(&*format!("https://relay.test:{port}/health")));
}

// ---- the program ----

struct Program {
    home: tempfile::TempDir,
    authority: Authority,
    relay: Running,
}

impl Program {
    async fn start() -> Self {
        let (home, authority) = (tempfile::tempdir().unwrap(), Authority::new());
        let relay = Running::start(Self::command(&home, &authority)).await;
        Self { home, authority, relay }
    }

    fn command(home: &tempfile::TempDir, authority: &Authority) -> tokio::process::Command {
        let (certificate, key) = authority.write(home.path(), "relay", &["localhost", "127.0.0.1"]);
        let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
        relay(home.path(), &["--listen-tls", "127.0.0.1:0", "--tls-cert", &certificate, "--tls-key", &key])
    }

    fn secure(&self) -> SocketAddr {
        self.relay.addresses[1]
    }

    fn client(&self, more: &[&str], target: SocketAddr) -> tokio::process::Command {
        let url = format!("https://localhost:{}", self.secure().port());
        let mut command = adit(
            self.home.path(),
            &[&["http", &target.to_string(), "--relay", &url, "--name", "web"], more].concat(),
        );
        command.env("ADIT_KEY", ALICE);
        command
    }
}

#[tokio::test]
async fn a_client_reaches_the_relay_by_tls_and_checks_its_certificate() {
    let program = Program::start().await;
    let target = echo_target().await;
    let (code, _, stderr) = run(&mut program.client(&["--exit-on-disconnect"], target)).await;
    assert_eq!(code, 69, "{stderr}");
    assert!(stderr.contains("--relay-ca"), "{stderr}");
    let ca = program.authority.file(program.home.path()).display().to_string();
    let (code, _, stderr) = run(&mut program.client(&["--relay-ca", "/nowhere.pem"], target)).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("relay-ca: /nowhere.pem"), "{stderr}");
    for trust in [&["--relay-ca", &ca][..], &["--insecure"]] {
        let mut client = program.client(trust, target).spawn().unwrap();
        let mut url = String::new();
        let mut out = tokio::io::BufReader::new(client.stdout.take().unwrap());
        soon(tokio::io::AsyncBufReadExt::read_line(&mut out, &mut url)).await.unwrap();
        assert!(url.starts_with("https://"), "{url}");
        let mut viewer = program.authority.connect(program.secure(), "localhost", &[]).await.unwrap();
        let request = "GET /t/web/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        viewer.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        soon(viewer.read_to_end(&mut all)).await.unwrap();
        assert_eq!(Answer::parse(&all).status, 200);
        client.kill().await.unwrap();
        let mut said = String::new();
        client.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(said.contains("warning: --insecure"), trust == ["--insecure"], "{said}");
    }
}

#[tokio::test]
async fn settings_of_tls_that_cannot_work_refuse_to_start_and_say_why() {
    let (home, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (certificate, key) = authority.write(home.path(), "one", &["a.test"]);
    let (_, other) = authority.write(home.path(), "two", &["b.test"]);
    let [certificate, key, other] = [certificate, key, other].map(|path| path.display().to_string());
    for (arguments, code, said) in [
        (&["--listen-tls", "127.0.0.1:0"][..], 2, "give tls-cert and tls-key"),
        (&["--tls-cert", &certificate], 2, "tls-cert is given 1 times and tls-key 0 times"),
        (&["--tls-cert", &certificate, "--tls-key", &other], 1, "cannot be used together"),
        (&["--tls-cert", &key, "--tls-key", &key], 1, "no certificate in PEM"),
        (&["--tls-cert", "/nowhere", "--tls-key", &key], 1, "/nowhere cannot be read"),
    ] {
        let (found, _, stderr) =
            run(adit(home.path(), &[&RELAY[..], arguments].concat()).env("ADIT_KEYS", keys())).await;
        assert_eq!(found, code, "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn a_hangup_reads_certificates_again() {
    let mut program = Program::start().await;
    let before = names(&program.authority.connect(program.secure(), "localhost", &[]).await.unwrap());
    program.authority.write(program.home.path(), "relay", &["localhost"]);
    program.relay.signal("HUP");
    program.relay.until("certificate reloaded").await;
    let after = names(&program.authority.connect(program.secure(), "localhost", &[]).await.unwrap());
    assert_ne!(before, after);
}

#[tokio::test]
async fn curl_verifies_the_relay_and_speaks_http2_to_it() {
    let program = Program::start().await;
    let ca = program.authority.file(program.home.path()).display().to_string();
    let url = format!("https://localhost:{}/health", program.secure().port());
    let output = soon(
        tokio::process::Command::new("curl")
            .args([
                "-sS",
                "--noproxy",
                "*",
                "--cacert",
                &ca,
                "-w",
                " %{http_version} %{ssl_verify_result}",
                &url,
            ])
            .output(),
    )
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("\"status\":\"ok\"") && said.ends_with(" 2 0"), "{said} {output:?}");
}

#[tokio::test]
async fn another_process_takes_over_a_relay_with_tls_and_no_request_fails() {
    let program = Program::start().await;
    let ca = program.authority.file(program.home.path()).display().to_string();
    let _client = program.client(&["--relay-ca", &ca], echo_target().await).spawn().unwrap();
    let authority = Arc::new(program.authority);
    let secure = program.relay.addresses[1];
    let get = {
        let authority = Arc::clone(&authority);
        move || {
            let authority = Arc::clone(&authority);
            async move {
                let mut viewer = authority.connect(secure, "localhost", &[]).await.unwrap();
                let request = "GET /t/web/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                viewer.write_all(request.as_bytes()).await.unwrap();
                let mut all = Vec::new();
                soon(viewer.read_to_end(&mut all)).await.unwrap();
                Answer::parse(&all).status
            }
        }
    };
    until(async || get().await == 200).await;
    let asking = tokio::spawn({
        let get = get.clone();
        async move {
            for _ in 0..60 {
                assert_eq!(get().await, 200);
            }
        }
    });
    let mut command = Program::command(&program.home, &authority);
    command.arg("--take-over");
    let new = Running::start(command).await;
    assert_eq!(new.addresses, program.relay.addresses);
    soon(asking).await.unwrap();
    assert_eq!(program.relay.end().await.0, Some(0));
    assert_eq!(get().await, 200);
}
