//! Which headers, and what target, go on to the target and back to the viewer.

use crate::rig::{ALICE, Rig};
use crate::wire::{Recorder, Viewer, scripted};

#[tokio::test]
async fn the_target_goes_on_as_raw_as_it_came() {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    let mut viewer = Viewer::new(&rig).await;
    for target in [
        "/",
        "//",
        "/a//b///",
        "/%2F%2f",
        "/a%20b",
        "/%0d%0aX-Evil:%20x",
        "/..%2f..%2fetc",
        "/a/../b/./c",
        "/%",
        "/%zz",
        "/?",
        "/?a=b&&c=%26?d",
        "/;p=1,2",
        "/'()*!$&+~_-.@:",
        "/{a}|\"b\"",
        "/v1/tunnels",
        "/ws/control?tunnel_id=x",
        "/health",
        "/t/web/x",
        "/\u{fc}",
    ] {
        let answer = viewer.get("web", target).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.head);
        assert_eq!(recorder.only().line(), format!("GET {target} HTTP/1.1"));
    }
    viewer.say("OPTIONS * HTTP/1.1\r\nHost: web.relay.test\r\n\r\n").await;
    assert_eq!((viewer.answer().await.status, recorder.only().line()), (200, "OPTIONS * HTTP/1.1"));
}

#[tokio::test]
async fn the_absolute_form_wins_over_the_host_header() {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    let mut viewer = Viewer::new(&rig).await;
    for (target, line) in [
        ("http://web.relay.test/a?b", "GET /a?b HTTP/1.1"),
        ("http://web.relay.test", "GET / HTTP/1.1"),
        ("http://web.relay.test?b", "GET /?b HTTP/1.1"),
        ("http://WEB.relay.test:80//a", "GET //a HTTP/1.1"),
        ("https://web.relay.test/", "GET / HTTP/1.1"),
    ] {
        viewer.say(format!("GET {target} HTTP/1.1\r\nHost: other.relay.test\r\n\r\n")).await;
        assert_eq!(viewer.answer().await.status, 200, "{target}");
        let seen = recorder.only();
        assert_eq!(seen.line(), line);
        assert!(seen.is_plain(), "{}", seen.head);
        assert!(seen.all("host")[0].to_ascii_lowercase().starts_with("web.relay.test"), "{}", seen.head);
    }
}

#[tokio::test]
async fn hop_by_hop_headers_and_what_connection_names_stay_at_the_relay() {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer
        .say(
            "GET / HTTP/1.1\r\nHost: web.relay.test\r\nConnection: keep-alive, X-Secret\r\nConnection: x-other,host\r\n\
             Connection: X-Forwarded-For, Adit-Via\r\nX-Secret: 1\r\nX-Other: 2\r\nKeep-Alive: timeout=5\r\nTE: gzip\r\n\
             Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
             Accept: text/plain\r\nX-Kept: yes\r\nX-Kept: twice\r\nAuthorization: Basic eDp5\r\nCookie: a=b\r\n\r\n",
        )
        .await;
    assert_eq!(viewer.answer().await.status, 200);
    let seen = recorder.only();
    assert!(seen.is_plain(), "{}", seen.head);
    for gone in [
        "connection",
        "x-secret",
        "x-other",
        "keep-alive",
        "te",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "http2-settings",
    ] {
        assert_eq!(seen.all(gone), [""; 0], "{gone}");
    }
    for (kept, values) in [
        ("host", &["web.relay.test"][..]),
        ("accept", &["text/plain"]),
        ("x-kept", &["yes", "twice"]),
        ("authorization", &["Basic eDp5"]),
        ("cookie", &["a=b"]),
        ("x-forwarded-for", &["127.0.0.1"]),
    ] {
        assert_eq!(seen.all(kept), values, "{kept}");
    }
    assert_eq!(seen.all("adit-via").len(), 1);
}

#[tokio::test]
async fn hop_by_hop_headers_of_a_response_stay_at_the_relay() {
    let rig = Rig::start().await;
    let answer = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=9\r\n\
                  Upgrade: h2c\r\nProxy-Authenticate: Basic\r\nX-Kept: yes\r\nX-Kept: twice\r\nContent-Length: 2\r\n\r\nok";
    let _client = rig.client(ALICE, "web", scripted(answer).await).await;
    let mut viewer = Viewer::new(&rig).await;
    let answer = viewer.get("web", "/").await;
    for gone in ["x-secret", "keep-alive", "upgrade", "proxy-authenticate", "adit-via"] {
        assert_eq!(answer.header(gone), None, "{}", answer.head);
    }
    assert!(answer.head.contains("x-kept: yes\r\nx-kept: twice\r\n"), "{}", answer.head);
}

#[tokio::test]
async fn what_a_viewer_claims_about_itself_is_replaced_and_what_a_trusted_proxy_says_is_appended_to() {
    const CLAIMS: &str = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: https\r\n\
                          X-Forwarded-Host: elsewhere.test\r\nX-Forwarded-Prefix: /x\r\nForwarded: for=1.1.1.1\r\n\
                          X-Real-IP: 1.1.1.1\r\n";
    type Expected = [(&'static str, &'static [&'static str])];
    let stranger: &Expected = &[
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-proto", &["http"]),
        ("x-forwarded-host", &["web.relay.test"]),
        ("x-forwarded-prefix", &[]),
        ("forwarded", &[]),
        ("x-real-ip", &[]),
    ];
    let proxy: &Expected = &[
        ("x-forwarded-for", &["1.1.1.1, 2.2.2.2, 127.0.0.1"]),
        ("x-forwarded-proto", &["https"]),
        ("x-forwarded-host", &["elsewhere.test"]),
        ("x-forwarded-prefix", &["/x"]),
        ("forwarded", &["for=1.1.1.1"]),
        ("x-real-ip", &["1.1.1.1"]),
    ];
    for (trusted, expected) in
        [(None, stranger), (Some("10.0.0.0/8"), stranger), (Some("127.0.0.0/8"), proxy)]
    {
        let rig = Rig::with(|config| {
            config.trusted_proxies = trusted.map(|net| net.parse().unwrap()).into_iter().collect()
        })
        .await;
        let recorder = Recorder::start().await;
        let _client = rig.client(ALICE, "web", recorder.address).await;
        let mut viewer = Viewer::new(&rig).await;
        viewer.say(format!("GET / HTTP/1.1\r\nHost: web.relay.test\r\n{CLAIMS}\r\n")).await;
        assert_eq!(viewer.answer().await.status, 200);
        let seen = recorder.only();
        for (name, values) in expected {
            assert_eq!(seen.all(name), *values, "{trusted:?} {name}");
        }
    }
}

#[tokio::test]
async fn a_tunnel_that_leads_back_to_the_relay_is_508() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", rig.address).await;
    let answer = rig.get("web", "/").await;
    assert_eq!(answer.status, 508, "{}", answer.head);
}

#[tokio::test]
async fn credentials_for_the_relay_itself_do_not_reach_the_target() {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let (status, _) = rig
        .api(ALICE, "POST", "/v1/tunnels", r#"{"local_port":1,"name":"web","auth_user":"u","auth_pass":"p"}"#)
        .await;
    assert_eq!(status, 201);
    let (_, list) = rig.api(ALICE, "GET", "/v1/tunnels", "").await;
    let control = rig.connect(ALICE, list[0]["id"].as_str().unwrap()).await;
    let _client = rig.serve(control, recorder.address).await;
    let mut viewer = Viewer::new(&rig).await;
    let refused = viewer.get("web", "/").await;
    assert_eq!((refused.status, refused.header("www-authenticate").is_some()), (401, true));
    for (credentials, status) in [("dTpw", 200), ("dTp3cm9uZw==", 401), ("eDpw", 401)] {
        viewer
            .say(format!(
                "GET / HTTP/1.1\r\nHost: web.relay.test\r\nAuthorization: Basic {credentials}\r\n\r\n"
            ))
            .await;
        assert_eq!(viewer.answer().await.status, status, "{credentials}");
    }
    assert_eq!(recorder.only().all("authorization"), [""; 0]);
}
