//! Who is let in, by what and to what: keys in their one place, and clients that reach nothing but their target.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adit::client::{Proxies, Tunnel};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::program::{RELAY, Running, adit, run};
use crate::rig::{ALICE, Answer, Rig, target};
use crate::wire::{Recorder, Viewer, answering, scripted};

const PLACES: &[&str] = &[
    "X-Api-Key: {}",
    "Cookie: key={}",
    "Cookie: authorization=Bearer {}",
    "Proxy-Authorization: Bearer {}",
    "Sec-WebSocket-Protocol: adit.1, {}",
    "Authorization: {}",
    "Authorization: Basic {}",
    "Authorization: Token {}",
    "X-Authorization: Bearer {}",
    "Bearer: {}",
];

#[tokio::test]
async fn a_key_counts_in_the_authorization_header_alone() {
    let rig = Rig::start().await;
    let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
    let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let ask = async |target: &str, headers: &str| -> Answer {
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        viewer.answer().await
    };
    for (path, headers) in [("/v1/tunnels?".to_owned(), ""), (format!("/ws/control?tunnel_id={id}&"), socket)]
    {
        for query in ["key", "token", "access_token", "api_key", "authorization", "bearer"] {
            let status = ask(&format!("{path}{query}={ALICE}"), headers).await.status;
            assert_eq!(status, 401, "{path} {query}");
        }
        for place in PLACES {
            let place = place.replace("{}", ALICE);
            assert_eq!(ask(&path, &format!("{headers}{place}\r\n")).await.status, 401, "{path} {place}");
        }
        let user = format!("http://{ALICE}@localhost{path}");
        assert!(matches!(ask(&user, headers).await.status, 400 | 401), "a user in the URL");
        let two = format!("{headers}Authorization: Bearer wrong\r\nAuthorization: Bearer {ALICE}\r\n");
        assert_eq!(ask(&path, &two).await.status, 401, "the first one counts");
        let right = ask(&path, &format!("{headers}Authorization: Bearer {ALICE}\r\n")).await.status;
        assert!(matches!(right, 200 | 101), "{path} {right}");
    }
    assert_eq!(ask(&format!("/v1/tunnels/{ALICE}"), "").await.status, 401);
}

#[tokio::test]
async fn a_key_is_nowhere_on_disk_but_as_its_hash() {
    fn search(dir: &Path, needle: &[u8]) -> bool {
        std::fs::read_dir(dir).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => search(&path, needle),
                false => std::fs::read(&path)
                    .is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle)),
            }
        })
    }
    let home = tempfile::tempdir().unwrap();
    let relay = Running::start(adit(home.path(), &RELAY)).await;
    let (_, key, _) = run(&mut adit(home.path(), &["key", "create", "carol"])).await;
    let body = json!({"local_port": 1, "name": "web", "auth_user": "ann", "auth_pass": "s3cr3t-password"});
    assert_eq!(relay.post(key.trim(), "/v1/tunnels", body).await.0, 201);
    let hash = adit::auth::keys::hash_key(key.trim());
    // In the middle of a run, and after it.
    assert!(search(home.path(), &hash));
    assert!(!search(home.path(), &key.trim().as_bytes()[..12]) && !search(home.path(), b"s3cr3t"));
    relay.signal("TERM");
    relay.end().await;
    assert!(search(home.path(), &hash));
    assert!(!search(home.path(), &key.trim().as_bytes()[..12]) && !search(home.path(), b"s3cr3t"));
}

/// zrok's CVE-2026-45568: an absolute URL made the client ask whoever it named.
#[tokio::test]
async fn a_client_dials_its_target_alone_whatever_is_asked_of_it() {
    let rig = Rig::start().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let decoy = target(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        async {}
    })
    .await;
    let recorder = Recorder::start().await;
    let tunnel =
        Tunnel::to(format!("http://{}", rig.address)).key(ALICE).name("web").proxies(Proxies::none());
    let _tunnel = tunnel.expose_port(recorder.address.port()).await.unwrap();
    let requests = [
        format!("GET http://{decoy}/t/web/a HTTP/1.1\r\nHost: {decoy}\r\n"),
        format!("GET http://web.relay.test/http://{decoy}/ HTTP/1.1\r\nHost: {decoy}\r\n"),
        format!("GET //{decoy}/ HTTP/1.1\r\nHost: web.relay.test\r\n"),
        format!("GET /@{decoy}/ HTTP/1.1\r\nHost: web.relay.test\r\n"),
        format!("GET /\\\\{decoy}/ HTTP/1.1\r\nHost: web.relay.test\r\n"),
        format!("GET /?url=http://{decoy}/ HTTP/1.1\r\nHost: web.relay.test\r\n"),
        format!("GET /t/web//{decoy}/ HTTP/1.1\r\nHost: localhost\r\n"),
        format!("GET /t/web/ HTTP/1.1\r\nHost: {decoy}\r\n"),
        format!(
            "GET / HTTP/1.1\r\nHost: web.relay.test\r\nX-Forwarded-Host: {decoy}\r\nForwarded: host={decoy}\r\n"
        ),
        format!(
            "GET / HTTP/1.1\r\nHost: web.relay.test\r\nTarget: {decoy}\r\nX-Target: http://{decoy}\r\nX-Original-Url: http://{decoy}/\r\n"
        ),
    ];
    for (at, request) in requests.iter().enumerate() {
        let answer = rig.raw(format!("{request}Connection: close\r\n\r\n")).await;
        assert_eq!(answer.status, 200, "{request}");
        assert_eq!(recorder.take().len(), 1, "{at}: {request}");
    }
    for request in [
        format!("CONNECT {decoy} HTTP/1.1\r\nHost: {decoy}\r\n"),
        format!("GET http://web.relay.test@{decoy}/ HTTP/1.1\r\nHost: web.relay.test\r\n"),
        format!("GET / HTTP/1.1\r\nHost: web.relay.test@{decoy}\r\n"),
        format!("GET {decoy} HTTP/1.1\r\nHost: web.relay.test\r\n"),
    ] {
        let status = rig.raw(format!("{request}Connection: close\r\n\r\n")).await.status;
        assert!(matches!(status, 400 | 404 | 405), "{status}: {request}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(recorder.take(), []);
}

#[tokio::test]
async fn the_relay_itself_redirects_nobody() {
    let rig = Rig::start().await;
    rig.create(ALICE, "web").await;
    for path in [
        "//evil.example",
        "//evil.example/%2f..",
        "/\\evil.example",
        "/t",
        "/t/",
        "/t/web",
        "/t//evil.example",
        "/v1/",
        "/v1/tunnels/",
        "/ws",
    ] {
        for host in ["localhost", "relay.test", "evil.example", "web.relay.test"] {
            let answer =
                rig.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
            assert!(
                !(300..400).contains(&answer.status) && answer.status >= 200,
                "{host} {path}: {}",
                answer.head
            );
            assert_eq!(answer.header("location"), None, "{host} {path}");
        }
    }
}

/// A value that is no ASCII let a cookie through as it was, for all tunnels of the relay.
#[tokio::test]
async fn no_value_of_a_cookie_keeps_its_domain_or_its_path() {
    let rig = Rig::start().await;
    let cookies = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n".as_slice(),
        "Set-Cookie: a=é; Domain=relay.test; Path=/\r\n".as_bytes(),
        b"Set-Cookie: b=\xff\xa0; domain =\trelay.test;path=/x\r\nSet-Cookie: c=\x80;Domain=.RELAY.test\r\n\r\n",
    ];
    let _client = rig.client(ALICE, "web", scripted(cookies.concat()).await).await;
    for (host, target) in [("web.relay.test", "/"), ("relay.test", "/t/web/")] {
        let mut viewer = Viewer::new(&rig).await;
        viewer
            .0
            .write_all(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let head = viewer.head().await;
        assert_eq!(head.matches("set-cookie: ").count(), 3, "{head}");
        assert!(head.contains("set-cookie: a=é; "), "the value is kept: {head}");
        assert!(!head.contains("domain"), "{host}: {head}");
        let paths: Vec<_> =
            head.split("path=").skip(1).map(|path| path.split("\r\n").next().unwrap()).collect();
        match host {
            "relay.test" => assert_eq!(paths, ["/t/web/", "/t/web/x", "/t/web/"]),
            _ => assert_eq!(paths, ["/", "/x"]),
        }
    }
}

#[tokio::test]
async fn a_target_reached_by_path_does_not_speak_for_the_whole_origin() {
    const HEADERS: [&str; 6] = [
        "strict-transport-security",
        "alt-svc",
        "nel",
        "report-to",
        "clear-site-data",
        "service-worker-allowed",
    ];
    let rig = Rig::start().await;
    let lines = HEADERS.map(|name| format!("{name}: x\r\n")).concat();
    let answer = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n\r\n");
    let _client = rig.client(ALICE, "web", answering(move |_| answer.clone().into()).await).await;
    let by_path = rig.raw("GET /t/web/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let by_host = rig.get("web", "/").await;
    for name in HEADERS {
        assert_eq!((by_path.header(name), by_host.header(name)), (None, Some("x")), "{name}");
    }
}
