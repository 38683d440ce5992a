//! The pages of a policy: the owner's own while the client is away, and the one that asks a browser whether to go on.

use serde_json::json;

use super::{ask, cause, set, with_policy};
use crate::rig::{ALICE, Answer, Rig};
use crate::wire::{Recorder, Viewer};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";

#[tokio::test]
async fn browsers_see_the_owners_page_while_the_client_is_away() {
    let rig = Rig::start().await;
    let tunnel = rig.create(ALICE, "web").await;
    set(&rig, tunnel["id"].as_str().unwrap(), json!({"offline_page": "<h1>Back at nine</h1>"})).await;
    let mut viewer = Viewer::new(&rig).await;
    let page = ask(&mut viewer, "GET", "/", BROWSER, "").await;
    assert_eq!((page.status, page.text().as_str()), (503, "<h1>Back at nine</h1>"));
    for (name, value) in [
        ("content-security-policy", "sandbox"),
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("retry-after", "2"),
    ] {
        assert_eq!(page.header(name), Some(value), "{name}");
    }
    let problem = ask(&mut viewer, "GET", "/", "Accept: */*\r\n", "").await;
    assert_eq!((problem.status, cause(&problem)), (503, "client_offline".to_owned()));
    viewer.say(format!("HEAD / HTTP/1.1\r\nHost: web.relay.test\r\n{BROWSER}\r\n")).await;
    assert!(viewer.head().await.starts_with("http/1.1 503"));
}

#[tokio::test]
async fn a_client_that_does_not_take_up_is_504_with_the_owners_page() {
    let rig = Rig::with(|config| config.limits.claim_wait = std::time::Duration::from_millis(100)).await;
    let control = rig.control(ALICE, "web").await;
    set(&rig, &control.id, json!({"offline_page": "<h1>away</h1>"})).await;
    let mut viewer = Viewer::new(&rig).await;
    let page = ask(&mut viewer, "GET", "/", BROWSER, "").await;
    assert_eq!((page.status, page.text().as_str(), page.header("retry-after")), (504, "<h1>away</h1>", None));
}

#[tokio::test]
async fn a_target_that_fails_is_not_the_client_being_away() {
    let rig = Rig::start().await;
    let target = crate::wire::scripted("nonsense\r\n\r\n").await;
    let client = rig.client(ALICE, "web", target).await;
    set(&rig, &client.id, json!({"offline_page": "<h1>away</h1>"})).await;
    let mut viewer = Viewer::new(&rig).await;
    let page = ask(&mut viewer, "GET", "/", BROWSER, "").await;
    assert!(page.status == 502 && page.text().contains("bad_response"), "{}", page.text());
}

/// The cookie of an answer, as a browser sends it, and its attributes.
fn cookie(answer: &Answer) -> (String, String) {
    let line = answer.header("set-cookie").unwrap_or_default();
    let (pair, attributes) = line.split_once("; ").unwrap_or((line, ""));
    (pair.to_owned(), attributes.to_owned())
}

/// Where the button leads.
fn action(answer: &Answer) -> String {
    let text = answer.text();
    let (_, rest) = text.split_once("action=\"").unwrap();
    rest.split('"').next().unwrap().replace("&amp;", "&")
}

async fn asked(viewer: &mut Viewer, path: &str, recorder: &Recorder) -> Answer {
    let page = ask(viewer, "GET", path, BROWSER, "").await;
    assert_eq!((page.status, page.header("cache-control")), (200, Some("no-store")));
    assert!(page.text().contains("This is the tunnel “web”"), "{}", page.text());
    assert!(recorder.take().is_empty());
    page
}

#[tokio::test]
async fn a_browser_is_asked_once_and_goes_on_where_it_wanted_to() {
    let (rig, _client, recorder) = with_policy(json!({"interstitial": true})).await;
    let mut viewer = Viewer::new(&rig).await;
    let page = asked(&mut viewer, "/a?b=%20c&d", &recorder).await;
    let (asked_cookie, attributes) = cookie(&page);
    assert_eq!(attributes, "path=/; max-age=3600; httponly; samesite=lax");
    assert!(page.header("content-security-policy").unwrap().contains("form-action 'self'"));

    let press = |cookie: &str| format!("Cookie: x=1; {cookie}\r\nSec-Fetch-Site: same-origin\r\n");
    let pressed = ask(&mut viewer, "POST", &action(&page), &press(&asked_cookie), "").await;
    assert_eq!((pressed.status, pressed.header("location")), (303, Some("/a?b=%20c&d")));
    let (passed, attributes) = cookie(&pressed);
    assert!(
        passed != asked_cookie && attributes.starts_with("path=/; max-age=604800;"),
        "{passed} {attributes}"
    );
    assert!(recorder.take().is_empty());

    for path in ["/a?b=%20c&d", "/other"] {
        let headers = format!("{BROWSER}Cookie: x=1; {passed}; y=2\r\n");
        assert_eq!(ask(&mut viewer, "GET", path, &headers, "").await.text(), "ok");
        let seen = recorder.only();
        assert_eq!((seen.line(), seen.all("cookie")), (&*format!("GET {path} HTTP/1.1"), vec!["x=1; y=2"]));
    }
    let headers = format!("{BROWSER}Cookie: {passed}\r\n");
    ask(&mut viewer, "GET", "/", &headers, "").await;
    assert!(recorder.only().all("cookie").is_empty(), "there was no other");
}

#[tokio::test]
async fn nobody_presses_the_button_for_a_browser() {
    let (rig, _client, recorder) = with_policy(json!({"interstitial": true})).await;
    let mut viewer = Viewer::new(&rig).await;
    let page = asked(&mut viewer, "/", &recorder).await;
    let (own, _) = cookie(&page);
    let foreign = format!("/?adit-interstitial={}", "0".repeat(32));
    for (path, headers) in [
        (&action(&page), String::new()),
        (&foreign, format!("Cookie: {own}\r\n")),
        (&action(&page), format!("Cookie: {own}\r\nSec-Fetch-Site: cross-site\r\n")),
        (&action(&page), format!("Cookie: {own}\r\nSec-Fetch-Site: same-site\r\n")),
    ] {
        let answer = ask(&mut viewer, "POST", path, &headers, "").await;
        assert!(answer.status == 200 && answer.text().contains("This is the tunnel"), "{path} {headers}");
        assert!(recorder.take().is_empty());
    }
    // A second page in the same browser does not make the first one useless.
    let second = ask(&mut viewer, "GET", "/second", &format!("{BROWSER}Cookie: {own}\r\n"), "").await;
    assert_eq!(cookie(&second).0, own);
    // What only looks like ours is the target's.
    assert_eq!(ask(&mut viewer, "POST", "/?adit-interstitial=1", "", "").await.text(), "ok");
}

#[tokio::test]
async fn programs_pictures_and_scripts_are_not_asked() {
    let (rig, _client, _recorder) = with_policy(json!({"interstitial": true})).await;
    let mut viewer = Viewer::new(&rig).await;
    for (method, headers) in [
        ("GET", "Accept: */*\r\n".to_owned()),
        ("GET", String::new()),
        ("GET", format!("{BROWSER}Adit-Skip-Interstitial: 1\r\n")),
        ("GET", format!("{BROWSER}Sec-Fetch-Mode: cors\r\n")),
        ("POST", BROWSER.to_owned()),
        ("GET", format!("{BROWSER}Connection: Upgrade\r\nUpgrade: websocket\r\n")),
    ] {
        assert_eq!(ask(&mut viewer, method, "/", &headers, "").await.text(), "ok", "{method} {headers}");
    }
    assert_eq!(
        ask(&mut viewer, "GET", "/", &format!("{BROWSER}Sec-Fetch-Mode: navigate\r\n"), "")
            .await
            .header("x-robots-tag"),
        Some("noindex")
    );
}

#[tokio::test]
async fn by_path_the_cookie_is_that_of_the_tunnel_alone() {
    let (rig, _client, recorder) = with_policy(json!({"interstitial": true})).await;
    let mut viewer = Viewer::new(&rig).await;
    viewer.say(format!("GET /t/web/a HTTP/1.1\r\nHost: localhost\r\n{BROWSER}\r\n")).await;
    let page = viewer.answer().await;
    let (own, attributes) = cookie(&page);
    assert!(attributes.starts_with("path=/t/web; "), "{attributes}");
    let action = action(&page);
    assert!(action.starts_with("/t/web/a?adit-interstitial="), "{action}");
    viewer
        .say(format!(
            "POST {action} HTTP/1.1\r\nHost: localhost\r\nCookie: {own}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    let pressed = viewer.answer().await;
    assert_eq!((pressed.status, pressed.header("location")), (303, Some("/t/web/a")));
    let passed = cookie(&pressed).0;
    viewer
        .say(format!("GET /t/web/a HTTP/1.1\r\nHost: localhost\r\n{BROWSER}Cookie: {passed}\r\n\r\n"))
        .await;
    assert_eq!(viewer.answer().await.text(), "ok");
    assert_eq!(recorder.only().line(), "GET /a HTTP/1.1");
}
