//! Which tunnel, or the relay itself, answers: by host, by path, and by nothing else.

use crate::rig::{ALICE, Answer, BOB, Rig, echo_target};
use crate::wire::{Recorder, Viewer, answering, scripted};

/// A GET of `path` with that Host, on a connection of its own.
async fn get(rig: &Rig, host: &str, path: &str) -> Answer {
    rig.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn hosts_are_compared_without_case_port_or_trailing_dot() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    for host in
        ["web.relay.test", "WEB.Relay.TEST", "web.relay.test:80", "web.relay.test.", "Web.relay.test.:12345"]
    {
        let answer = get(&rig, host, "/").await;
        assert_eq!(answer.status, 200, "{host}");
        // The target is told what the viewer asked for.
        assert!(answer.text().contains(&format!("\r\nHost: {host}\r\n")), "{}", answer.text());
    }
}

#[tokio::test]
async fn every_miss_looks_the_same() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    rig.create(BOB, "mine").await;
    let (_, gone) = rig.api(BOB, "POST", "/v1/tunnels", r#"{"local_port":1,"name":"gone"}"#).await;
    rig.api(BOB, "DELETE", &format!("/v1/tunnels/{}", gone["id"].as_str().unwrap()), "").await;
    let plain = |answer: Answer| {
        let id = answer.header("x-request-id").unwrap().to_owned();
        (answer.head.replace(&id, ""), answer.text().replace(&id, ""))
    };
    let first = plain(get(&rig, "nobody.relay.test", "/").await);
    assert!(first.0.starts_with("http/1.1 404 "), "{}", first.0);
    for (host, path) in [
        ("gone.relay.test", "/"),
        ("a.web.relay.test", "/"),
        ("elsewhere.test", "/"),
        ("xrelay.test", "/"),
        ("web.relay.test.evil.test", "/"),
        ("elsewhere.test", "/v1/tunnels"),
        ("elsewhere.test", "/t/web/"),
        ("localhost", "/t/nobody/"),
        ("localhost", "/t/gone/"),
        ("localhost", "/t//"),
        ("localhost", "/t/web.relay.test/"),
        ("_.relay.test", "/"),
    ] {
        assert_eq!(plain(get(&rig, host, path).await), first, "{host} {path}");
    }
    // A tunnel whose client is away is known, and says so.
    let away = get(&rig, "mine.relay.test", "/").await;
    assert_eq!((away.status, away.header("retry-after").is_some()), (503, true));
}

#[tokio::test]
async fn the_page_is_html_for_browsers_and_json_for_programs() {
    let rig = Rig::start().await;
    for (accept, kind, begins) in [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8", "<!doctype html>"),
        ("*/*", "application/problem+json", "{"),
    ] {
        let answer = rig
            .raw(format!(
                "GET / HTTP/1.1\r\nHost: no.relay.test\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
            ))
            .await;
        assert_eq!((answer.status, answer.header("content-type")), (404, Some(kind)));
        assert!(
            answer.text().starts_with(begins)
                && answer.text().contains(answer.header("x-request-id").unwrap())
        );
    }
}

#[tokio::test]
async fn own_paths_and_tunnels_never_shadow_each_other() {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    for path in
        ["/health", "/v1/tunnels", "/v1/version", "/ws/control", "/ws/data?id=x", "/t/web/x", "//health"]
    {
        assert_eq!(get(&rig, "web.relay.test", path).await.text(), "ok", "{path}");
        assert_eq!(recorder.only().line(), format!("GET {path} HTTP/1.1"));
    }
    for host in ["localhost", "127.0.0.1", "[::1]", "relay.test", "RELAY.test.", "localhost:99"] {
        assert_eq!(get(&rig, host, "/health").await.status, 200, "{host}");
        assert_eq!(get(&rig, host, "/v1/tunnels").await.status, 401, "{host}");
        assert_eq!(get(&rig, host, "/nothing").await.status, 404, "{host}");
        assert_eq!(get(&rig, host, "/T/web/").await.status, 404, "{host}");
        assert_eq!(recorder.take(), []);
        assert_eq!(get(&rig, host, "/t/web/v1/tunnels").await.text(), "ok", "{host}");
        assert_eq!(recorder.only().line(), "GET /v1/tunnels HTTP/1.1");
    }
}

#[tokio::test]
async fn by_path_the_prefix_is_taken_off_and_told() {
    let rig = Rig::start().await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    for (path, line, prefix) in [
        ("/t/web/a%2Fb//c?d=/t/web/", "GET /a%2Fb//c?d=/t/web/ HTTP/1.1", "/t/web"),
        ("/t/web/", "GET / HTTP/1.1", "/t/web"),
        ("/t/web", "GET / HTTP/1.1", "/t/web"),
        ("/t/web?q", "GET /?q HTTP/1.1", "/t/web"),
        ("/t/web//x", "GET //x HTTP/1.1", "/t/web"),
        ("/t/WEB/x", "GET /x HTTP/1.1", "/t/WEB"),
        ("http://localhost/t/web/x", "GET /x HTTP/1.1", "/t/web"),
    ] {
        assert_eq!(get(&rig, "localhost", path).await.status, 200, "{path}");
        let seen = recorder.only();
        assert_eq!((seen.line(), seen.all("x-forwarded-prefix")), (line, vec![prefix]), "{path}");
        assert!(seen.is_plain(), "{}", seen.head);
    }
    get(&rig, "web.relay.test", "/t/web/x").await;
    assert_eq!(recorder.only().all("x-forwarded-prefix"), [""; 0], "by host there is none");
}

#[tokio::test]
async fn without_path_routing_there_are_only_hosts() {
    let rig = Rig::with(|config| config.path_routing = false).await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    assert_eq!(get(&rig, "web.relay.test", "/").await.status, 200);
    assert_eq!(get(&rig, "localhost", "/t/web/").await.status, 404);
}

#[tokio::test]
async fn redirects_and_cookies_stay_within_the_prefix() {
    const HEADERS: &str = "Location: {}\r\nSet-Cookie: a=1; Path=/app; HttpOnly\r\nSet-Cookie: b=2\r\n\
                           Set-Cookie: c=3; Domain=relay.test; Path=/\r\nClear-Site-Data: \"cookies\"\r\n\
                           Service-Worker-Allowed: /\r\n";
    let rig = Rig::start().await;
    let target = answering(|head| {
        let location = head.split(' ').nth(1).unwrap().split_once("to=").unwrap().1;
        format!("HTTP/1.1 302 Found\r\n{}Content-Length: 0\r\n\r\n", HEADERS.replace("{}", location)).into()
    })
    .await;
    let _client = rig.client(ALICE, "web", target).await;
    for (to, by_path) in [
        ("/login?next=/x", "/t/web/login?next=/x"),
        ("http://relay.test/login", "/t/web/login"),
        ("next", "next"),
        ("//elsewhere.test/x", "//elsewhere.test/x"),
        ("https://elsewhere.test/x", "https://elsewhere.test/x"),
    ] {
        let answer = get(&rig, "relay.test", &format!("/t/web/?to={to}")).await;
        assert_eq!(answer.header("location"), Some(by_path), "{to}");
        for cookie in ["a=1; path=/t/web/app; httponly", "b=2; path=/t/web/", "c=3; path=/t/web/"] {
            assert!(answer.head.contains(&format!("set-cookie: {cookie}\r\n")), "{cookie}: {}", answer.head);
        }
        assert_eq!((answer.header("clear-site-data"), answer.header("service-worker-allowed")), (None, None));

        // By host nothing moves, but a cookie for all tunnels is one for this host only.
        let answer = get(&rig, "web.relay.test", &format!("/?to={to}")).await;
        assert_eq!(answer.header("location"), Some(to));
        for cookie in ["a=1; path=/app; httponly", "b=2", "c=3; path=/"] {
            assert!(answer.head.contains(&format!("set-cookie: {cookie}\r\n")), "{cookie}: {}", answer.head);
        }
        assert_eq!(answer.header("service-worker-allowed"), Some("/"));
    }
}

#[tokio::test]
async fn an_own_host_header_reaches_the_target_and_its_redirects_come_back() {
    let rig = Rig::start().await;
    let (_, tunnel) = rig
        .api(ALICE, "POST", "/v1/tunnels", r#"{"local_port":1,"name":"web","host_header":"app.local:3000"}"#)
        .await;
    let control = rig.connect(ALICE, tunnel["id"].as_str().unwrap()).await;
    let target = answering(|head| {
        assert!(head.contains("\r\nHost: app.local:3000\r\n"), "{head}");
        "HTTP/1.1 302 Found\r\nLocation: http://app.local:3000/x\r\nContent-Length: 0\r\n\r\n".into()
    })
    .await;
    let _client = rig.serve(control, target).await;
    let answer = get(&rig, "localhost", "/t/web/").await;
    assert_eq!(answer.header("location"), Some("/t/web/x"));
}

#[tokio::test]
async fn requests_on_one_connection_reach_each_its_own_tunnel() {
    let rig = Rig::start().await;
    let (first, second) = (Recorder::start().await, Recorder::start().await);
    let _alice = rig.client(ALICE, "web", first.address).await;
    let _bob = rig.client(BOB, "app", second.address).await;
    let mut viewer = Viewer::new(&rig).await;
    for round in 0..10 {
        for (name, recorder) in [("web", &first), ("app", &second)] {
            assert_eq!(viewer.get(name, &format!("/{round}")).await.text(), "ok");
            assert_eq!(recorder.only().all("host"), [format!("{name}.relay.test")]);
        }
    }
}

#[tokio::test]
async fn an_ipv6_listener_serves_and_tells_the_address() {
    let rig = Rig::on(
        std::sync::Arc::new(adit::store::Sqlite::memory().unwrap()),
        "[::1]:0".parse().unwrap(),
        |config| config.base_domain = Some("relay.test".into()),
    )
    .await;
    let recorder = Recorder::start().await;
    let _client = rig.client(ALICE, "web", recorder.address).await;
    assert_eq!(get(&rig, "web.relay.test", "/").await.status, 200);
    assert_eq!(recorder.only().all("x-forwarded-for"), ["::1"]);
    assert_eq!(get(&rig, &rig.address.to_string(), "/t/web/").await.status, 200);
}

#[tokio::test]
async fn the_public_url_is_an_own_host_too() {
    let rig = Rig::with(|config| {
        config.public_url =
            Some(adit::relay::public_url::PublicUrl::parse("https://door.example:8443").unwrap());
    })
    .await;
    let _client = rig.client(ALICE, "web", scripted("HTTP/1.1 204 No Content\r\n\r\n").await).await;
    assert_eq!(get(&rig, "door.example", "/health").await.status, 200);
    assert_eq!(get(&rig, "Door.example:8443", "/t/web/").await.status, 204);
    let (_, tunnels) = rig.api(ALICE, "GET", "/v1/tunnels", "").await;
    assert_eq!(tunnels[0]["public_url"], "https://web.relay.test:8443");
}
