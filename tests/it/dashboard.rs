//! The dashboard's login, and what is asked of whoever asks the admin listener.

mod actions;
mod figures;
mod lists;
mod live;

use std::net::SocketAddr;

use adit::auth::Secret;
use adit::relay::config::RelayConfig;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::program::{Running, adit, http, relay, run};
use crate::rig::{ALICE, Answer, LOOK_EVERY, PATIENCE, Rig, echo_target, read_head, soon, target};
use crate::wire::Viewer;

const PASSWORD: &str = "correct horse";

/// An operator's browser, as far as the relay sees it.
pub struct Desk {
    pub admin: SocketAddr,
    /// `name=value`.
    pub cookie: String,
}

impl Desk {
    /// Logs in by a link.
    pub async fn of(rig: &Rig) -> Self {
        let mut desk = Self { admin: rig.admin, cookie: String::new() };
        let answer = desk.get(&format!("/login?token={}", rig.link())).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
        desk.cookie = cookie(&answer);
        desk
    }

    /// A request with these header lines, each with its line end, on a connection of its own.
    pub async fn ask(&self, method: &str, path: &str, lines: &str, body: &str) -> Answer {
        let cookie =
            if self.cookie.is_empty() { String::new() } else { format!("Cookie: {}\r\n", self.cookie) };
        let host = if lines.contains("Host:") { String::new() } else { format!("Host: {}\r\n", self.admin) };
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{host}{cookie}{length}{lines}Connection: close\r\n\r\n{body}"
        );
        http(self.admin, head).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    /// The JSON at `path`, which must be there.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The JSON at `path` when it is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let json = self.json(path).await;
            if wanted(&json) {
                return json;
            }
            assert!(Instant::now() < deadline, "{path}: {json:#}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// An action as the dashboard's page sends it: status and JSON.
    pub async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let lines = format!(
            "Content-Type: application/json\r\nOrigin: http://{}\r\nSec-Fetch-Site: same-origin\r\n",
            self.admin
        );
        let answer = self.ask("POST", path, &lines, body).await;
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// Tries a password.
    async fn log_in(&self, password: &str) -> Answer {
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        self.ask("POST", "/login", form, &format!("password={password}")).await
    }
}

/// What an answer sets.
fn cookie(answer: &Answer) -> String {
    answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

/// Code of an error, whose message is there.
fn code(answer: &Answer) -> String {
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(!json["error"]["message"].as_str().unwrap().is_empty());
    json["error"]["code"].as_str().unwrap().to_owned()
}

fn with_password(config: &mut RelayConfig) {
    config.admin_password = Some(Secret::new(PASSWORD));
}

#[tokio::test]
async fn without_a_login_there_is_a_form_that_says_nothing_of_the_relay() {
    let rig = Rig::start().await;
    let _client = rig.client(ALICE, "hidden", echo_target().await).await;
    let desk = Desk { admin: rig.admin, cookie: String::new() };
    let page = desk.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().contains("name=\"password\"") && !page.text().contains("{{"));
    for word in ["hidden", "alice", &rig.address.to_string()] {
        assert!(!page.text().contains(word), "{word}");
    }
    for path in ["/", "/assets/app.js", "/api/summary", "/nowhere", "/healthz"] {
        let answer = desk.get(path).await;
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"), "{path}");
        let kept = if path.starts_with("/assets") { "no-cache" } else { "no-store" };
        assert_eq!(answer.header("cache-control"), Some(kept), "{path}");
    }
}

#[tokio::test]
async fn files_are_sent_again_only_when_they_have_changed() {
    let rig = Rig::start().await;
    let desk = Desk { admin: rig.admin, cookie: String::new() };
    let script = desk.get("/assets/app.js").await;
    assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    let tag = script.header("etag").unwrap();
    for (known, status) in
        [(tag.to_owned(), 304), (format!("\"x\", W/{tag}"), 304), ("\"x\"".to_owned(), 200)]
    {
        let answer = desk.ask("GET", "/assets/app.js", &format!("If-None-Match: {known}\r\n"), "").await;
        assert_eq!((answer.status, answer.body.is_empty()), (status, status == 304), "{known}");
    }
    for path in ["/assets/", "/assets/../mod.rs", "/assets/index.html", "/assets/%2e%2e/mod.rs", "/app.js"] {
        assert_eq!(desk.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_link_logs_in_once_and_a_made_up_one_never() {
    let rig = Rig::start().await;
    let desk = Desk { admin: rig.admin, cookie: String::new() };
    for token in ["", "0", &"0".repeat(32), &"x".repeat(5000)] {
        let answer = desk.get(&format!("/login?token={token}")).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (401, None), "{token}");
        assert!(answer.text().contains("SIGHUP"));
    }
    let path = format!("/login?token={}", rig.link());
    let answer = desk.get(&path).await;
    assert_eq!(answer.status, 303);
    let set = answer.header("set-cookie").unwrap();
    assert!(
        set.starts_with("adit_session=") && set.ends_with("; path=/; httponly; samesite=strict"),
        "{set}"
    );
    assert_eq!(desk.get(&path).await.status, 401, "a second time");
    let inside = Desk { cookie: cookie(&answer), ..desk };
    let page = inside.get("/").await;
    assert!(
        page.status == 200 && page.text().contains("/assets/app.js") && !page.text().contains("password")
    );
    inside.json("/api/summary").await;
    let led = inside.get("/login").await;
    assert_eq!((led.status, led.header("location"), led.header("set-cookie")), (303, Some("/"), None));

    let out = inside.ask("POST", "/logout", "", "").await;
    assert_eq!((out.status, out.header("location")), (303, Some("/")));
    assert!(out.header("set-cookie").unwrap().contains("max-age=0"));
    assert_eq!(
        inside.get("/api/summary").await.status,
        401,
        "the cookie itself is good for nothing any more"
    );
}

#[tokio::test]
async fn a_password_lets_in_and_guesses_have_a_rate() {
    let rig = Rig::with(with_password).await;
    let desk = Desk { admin: rig.admin, cookie: String::new() };
    assert!(!desk.get("/").await.text().contains("SIGHUP"));
    let answer = desk.log_in("correct+horse").await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
    let inside = Desk { cookie: cookie(&answer), ..desk };
    inside.json("/api/summary").await;
    for (wrong, status) in [("", 401), ("correct", 401), ("correct+horse+", 401), ("admin", 401)] {
        assert_eq!(inside.log_in(wrong).await.status, status, "{wrong}");
    }
    // However many come at once: the rest is turned away without a look at the password, and the others are served.
    let mut tries = JoinSet::new();
    for _ in 0..20 {
        let admin = rig.admin;
        tries.spawn(async move {
            let mut stream = TcpStream::connect(admin).await.unwrap();
            let request = "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                 Content-Length: 14\r\n\r\npassword=wrong";
            let mut seen = Vec::new();
            for _ in 0..500 {
                stream.write_all(request.as_bytes()).await.unwrap();
                let head = String::from_utf8(soon(read_head(&mut stream)).await.unwrap()).unwrap().to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await.unwrap();
                let wait = head.split("retry-after: ").nth(1).map(|wait| wait.split("\r\n").next().unwrap().to_owned());
                seen.push((head[9..12].to_owned(), wait));
            }
            seen
        });
    }
    inside.json("/api/summary").await;
    let seen: Vec<_> = tries.join_all().await.concat();
    let late = seen
        .iter()
        .filter(|(status, wait)| status == "429" && matches!(wait.as_deref(), Some("1" | "2")))
        .count();
    let wrong = seen.iter().filter(|(status, _)| status == "401").count();
    assert_eq!((late + wrong, seen.len()), (10_000, 10_000), "{seen:?}");
    assert!(wrong < 100, "{wrong}");
    let answer = inside.log_in("correct+horse").await;
    assert!(answer.status == 429 || answer.status == 303, "{}", answer.status);
    inside.json("/api/summary").await;
}

#[tokio::test]
async fn what_is_no_form_with_a_password_is_told_apart() {
    let rig = Rig::with(with_password).await;
    let desk = Desk { admin: rig.admin, cookie: String::new() };
    let json = desk.ask("POST", "/login", "Content-Type: application/json\r\n", "{\"password\":\"x\"}").await;
    assert_eq!(json.status, 400);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(desk.ask("POST", "/login", form, &"x".repeat(17 << 10)).await.status, 413);
    assert_eq!(desk.ask("POST", "/login", form, "user=x").await.status, 401);
    assert_eq!(desk.get(&format!("/login?token={}", "0".repeat(32))).await.status, 401);
    let put = desk.ask("PUT", "/login", "", "").await;
    assert_eq!((put.status, code(&put).as_str()), (405, "method"));
}

#[tokio::test]
async fn nothing_under_the_api_answers_without_a_login() {
    let rig = Rig::start().await;
    let good = Desk::of(&rig).await;
    let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
    let cut = &good.cookie[..good.cookie.len() - 1];
    for forged in [
        "",
        "adit_session=",
        "adit_session=0",
        cut,
        &format!("{cut}g"),
        &good.cookie.replace("adit", "__Host-adit"),
    ] {
        let desk = Desk { admin: rig.admin, cookie: forged.to_owned() };
        for path in [
            "/api/summary",
            "/api/clients",
            "/api/clients/x",
            "/api/tunnels",
            &format!("/api/tunnels/{id}"),
            "/api/events",
            "/api/keys",
            "/api/live",
            "/api/nothing",
        ] {
            let answer = desk.get(path).await;
            assert_eq!((answer.status, code(&answer).as_str()), (401, "login"), "{forged} {path}");
        }
        for action in ["clients/x/drain", "clients/x/disconnect", "keys/alice/revoke"] {
            assert_eq!(desk.post(&format!("/api/{action}"), "{}").await.0, 401, "{action}");
        }
        assert_eq!(desk.post(&format!("/api/tunnels/{id}/close"), "{}").await.0, 401);
    }
    assert_eq!(good.json("/api/tunnels").await["total"], 1);
    let nothing = good.get("/api/nothing").await;
    assert_eq!((nothing.status, code(&nothing).as_str()), (404, "not_found"));
}

#[tokio::test]
async fn another_page_in_the_operators_browser_can_neither_read_nor_do_anything() {
    let rig = Rig::with(|config| config.admin_hosts = vec!["dash.example".into()]).await;
    let desk = Desk::of(&rig).await;
    let id = rig.create(ALICE, "web").await["id"].as_str().unwrap().to_owned();
    let own = format!("Origin: http://{}\r\n", rig.admin);
    let json = "Content-Type: application/json\r\n";
    let suspend = format!("/api/tunnels/{id}/suspend");
    for (lines, status) in [
        (format!("{json}Origin: https://evil.example\r\n"), 403),
        (format!("{json}Origin: http://127.0.0.1:1\r\n"), 403),
        (format!("{json}Origin: null\r\n"), 403),
        (format!("{json}{own}Sec-Fetch-Site: cross-site\r\n"), 403),
        (format!("{json}{own}Sec-Fetch-Site: same-site\r\n"), 403),
        (own.clone(), 415),
        (format!("Content-Type: text/plain\r\n{own}"), 415),
        (format!("{json}Host: evil.example\r\n"), 421),
        (format!("{json}Host: dash.example\r\nOrigin: http://dash.example\r\n"), 200),
        (format!("{json}{own}Sec-Fetch-Site: same-origin\r\n"), 200),
        (json.to_owned(), 200),
    ] {
        let answer = desk.ask("POST", &suspend, &lines, "{\"suspended\":false}").await;
        assert_eq!(answer.status, status, "{lines}");
    }
    for path in ["/api/live", "/api/summary"] {
        for lines in ["Sec-Fetch-Site: same-site\r\n", "Origin: http://localhost:3000\r\n"] {
            let answer = desk.ask("GET", path, lines, "").await;
            assert_eq!((answer.status, code(&answer).as_str()), (403, "origin"), "{path} {lines}");
        }
    }
    for path in ["/login", "/logout"] {
        let lines = "Content-Type: application/x-www-form-urlencoded\r\nOrigin: https://evil.example\r\n";
        assert_eq!(desk.ask("POST", path, lines, "password=x").await.status, 403, "{path}");
    }
    for path in ["/", "/login", "/assets/app.js", "/counts", "/api/summary"] {
        let answer = desk.ask("GET", path, "Host: evil.example\r\n", "").await;
        assert_eq!((answer.status, code(&answer).as_str()), (421, "host"), "{path}");
        assert_eq!(
            desk.ask("GET", path, "Host: DASH.example.:80\r\n", "").await.status / 100,
            if path == "/login" { 3 } else { 2 }
        );
    }
}

#[tokio::test]
async fn behind_tls_the_cookie_is_one_that_no_other_host_can_set() {
    let rig = Rig::with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let desk = Desk { admin: rig.admin, cookie: String::new() };
    let tls = "X-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.7\r\n";
    let answer = desk.ask("GET", &format!("/login?token={}", rig.link()), tls, "").await;
    let set = answer.header("set-cookie").unwrap();
    assert!(set.starts_with("__host-adit_session=") && set.ends_with("; secure"), "{set}");
    let inside = Desk { cookie: cookie(&answer).replace("__host", "__Host"), ..desk };
    assert_eq!(inside.ask("GET", "/api/summary", tls, "").await.status, 200);
    assert_eq!(inside.get("/api/summary").await.status, 401, "in the clear");
    let plain = Desk { cookie: inside.cookie.replace("__Host-", ""), ..inside };
    assert_eq!(plain.ask("GET", "/api/summary", tls, "").await.status, 401, "a cookie that others may set");
    // Only who sits at the machine itself reads counts without a login.
    assert_eq!(plain.ask("GET", "/counts", tls, "").await.status, 401);
    assert_eq!(plain.get("/counts").await.status, 200);
}

#[tokio::test]
async fn the_dashboard_is_nowhere_on_the_public_listener() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    for path in ["/metrics", "/api/summary", "/api/live", "/login", "/assets/app.js", "/counts"] {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\nConnection: close\r\n\r\n",
            desk.cookie
        );
        assert_eq!(rig.raw(request).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn no_target_is_sent_the_cookie_of_a_session_or_sets_one() {
    let rig = Rig::start().await;
    let desk = Desk::of(&rig).await;
    let _client = rig.client(ALICE, "web", echo_target().await).await;
    for (name, cookies, seen) in [
        ("web", format!("a=1; {}; b=2", desk.cookie), Some("cookie: a=1; b=2\r\n")),
        ("web", format!("{}; __Host-{}", desk.cookie, desk.cookie), None),
        (
            "web",
            "a=my_adit_session; adit_sessions=1".to_owned(),
            Some("cookie: a=my_adit_session; adit_sessions=1\r\n"),
        ),
    ] {
        let lines = format!(
            "GET / HTTP/1.1\r\nHost: {name}.relay.test\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"
        );
        let request = rig.raw(lines).await.text().to_ascii_lowercase();
        assert!(request.starts_with("get /"), "{request}");
        match seen {
            Some(line) => assert!(request.contains(line), "{request}"),
            None => assert!(!request.contains("cookie:"), "{request}"),
        }
        assert!(!request.contains(desk.cookie.split('=').nth(1).unwrap()), "{request}");
    }
    let setting = target(|_, mut stream| async move {
        let _ = read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nSet-Cookie: adit_session=x; Path=/\r\nSet-Cookie: __Host-adit_session=x; Secure; Path=/\r\n\
                    Set-Cookie: a=1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
    })
    .await;
    let _setter = rig.client(ALICE, "setter", setting).await;
    let mut viewer = Viewer::new(&rig).await;
    let answer = viewer.get("setter", "/").await;
    assert!(answer.status == 200 && answer.head.contains("set-cookie: a=1\r\n"), "{}", answer.head);
    assert!(!answer.head.contains("adit_session"), "{}", answer.head);
}

#[tokio::test]
async fn the_program_shows_a_link_at_its_start_and_another_when_it_is_told_to() {
    for form in ["json", "text"] {
        let home = tempfile::tempdir().unwrap();
        let mut running = Running::start_as(form, relay(home.path(), &[])).await;
        let admin = running.admin.unwrap();
        let begin = format!("http://{admin}/login?token=");
        running.until_said(&begin, 1).await;
        running.signal("HUP");
        running.until_said(&begin, 2).await;
        let links: Vec<&str> =
            running.said.split(&begin).skip(1).map(|rest| &rest[..rest.find(['"', ' ']).unwrap()]).collect();
        let desk = Desk { admin, cookie: String::new() };
        for token in links {
            for status in [303, 401] {
                assert_eq!(desk.get(&format!("/login?token={token}")).await.status, status, "{form}");
            }
        }
    }
}

#[tokio::test]
async fn a_password_or_its_hash_takes_the_place_of_links() {
    let home = tempfile::tempdir().unwrap();
    let mut command = adit(home.path(), &["gen", "password-hash"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes()).await.unwrap();
    let output = soon(child.wait_with_output()).await.unwrap();
    let hash = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && hash.starts_with("pbkdf2-sha256$") && !hash.contains(PASSWORD),
        "{hash}"
    );
    let file = home.path().join("adit.toml");
    std::fs::write(&file, format!("admin-password-hash = \"{}\"\n", hash.trim())).unwrap();
    for by_hash in [true, false] {
        let mut command = relay(home.path(), &[]);
        if by_hash {
            command.arg("--config").arg(&file);
        } else {
            command.env("ADIT_ADMIN_PASSWORD", PASSWORD);
        }
        let running = Running::start(command).await;
        let desk = Desk { admin: running.admin.unwrap(), cookie: String::new() };
        assert_eq!(desk.log_in("correct+horse").await.status, 303);
        assert_eq!(desk.log_in("wrong").await.status, 401);
        running.signal("TERM");
        let (_, said) = running.end().await;
        assert!(!said.contains("token=") && !said.contains(PASSWORD), "{said}");
    }
}

#[tokio::test]
async fn a_dashboard_that_others_could_reach_in_the_clear_does_not_start() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, variables, named) in [
        (&["--admin-listen", "0.0.0.0:0"][..], &[][..], "trusted-proxy"),
        (&["--admin-host", "http://dash"], &[], "--admin-host"),
        (&[], &[("ADIT_ADMIN_PASSWORD", "short")], "at least 8"),
        (&[], &[("ADIT_ADMIN_PASSWORD_HASH", "correct horse")], "adit gen password-hash"),
    ] {
        let mut command = adit(home.path(), &[&["relay", "--check"], arguments].concat());
        let (code, _, stderr) = run(command.envs(variables.iter().copied())).await;
        assert!(code == 2 && stderr.contains(named) && !stderr.contains("correct"), "{code} {stderr}");
    }
}
