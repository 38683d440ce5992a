//! Tests of the files as a visitor sees them.

use std::fs;

use super::*;

/// A directory of some files, served as `config` says.
fn web(config: WebConfig) -> (tempfile::TempDir, Web) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("app/<b>")).unwrap();
    fs::create_dir_all(dir.path().join("site")).unwrap();
    for (name, text) in [
        ("vnc.html", "<p>vnc"),
        ("app/rfb.js", "0123456789"),
        ("app/a b&.css", "b"),
        ("site/index.html", "index"),
        (".secret", "secret"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let web = Web::new(WebConfig { root: Some(dir.path().to_owned()), ..config }).unwrap();
    (dir, web)
}

async fn ask(web: &Web, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (answer, body) = web.answer(&request.body(()).unwrap()).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (answer.status.as_u16(), answer.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(web: &Web, path: &str) -> (u16, HeaderMap, String) {
    ask(web, "GET", path, &[]).await
}

#[tokio::test]
async fn files_come_with_their_type_their_length_and_what_a_browser_may_ask_with_again() {
    let (_dir, web) = web(WebConfig::default());
    let (status, headers, body) = get(&web, "/app/rfb.js").await;
    assert_eq!((status, body.as_str()), (200, "0123456789"));
    assert_eq!(
        (&headers["content-type"], &headers["content-length"]),
        (&HeaderValue::from_static("text/javascript"), &HeaderValue::from(10))
    );
    assert_eq!(headers["x-content-type-options"], "nosniff");
    for (again, since) in [("if-none-match", "etag"), ("if-modified-since", "last-modified")] {
        let since = headers[since].to_str().unwrap();
        let (status, _, body) = ask(&web, "GET", "/app/rfb.js", &[(again, since)]).await;
        assert_eq!((status, body.as_str()), (304, ""), "{again}");
    }
    let (status, headers, body) = ask(&web, "HEAD", "/vnc.html?token=x", &[]).await;
    assert_eq!((status, body.as_str(), &headers["content-length"]), (200, "", &HeaderValue::from(6)));
    assert_eq!(get(&web, "/app/a%20b&.css").await.2, "b");
}

#[tokio::test]
async fn a_part_is_sent_as_it_was_asked_for() {
    let (_dir, web) = web(WebConfig::default());
    let (status, headers, body) = ask(&web, "GET", "/app/rfb.js", &[("range", "bytes=2-4")]).await;
    assert_eq!(
        (status, body.as_str(), headers["content-range"].to_str().unwrap()),
        (206, "234", "bytes 2-4/10")
    );
    let (status, ..) = ask(&web, "GET", "/app/rfb.js", &[("range", "bytes=20-")]).await;
    assert_eq!(status, 416);
    let (status, _, body) =
        ask(&web, "GET", "/app/rfb.js", &[("range", "bytes=2-4"), ("if-range", "\"old\"")]).await;
    assert_eq!((status, body.as_str()), (200, "0123456789"));
}

#[tokio::test]
async fn a_directory_is_its_index_or_a_list_or_nothing() {
    let (_dir, listed) = web(WebConfig::default());
    assert_eq!(get(&listed, "/site/").await.2, "index");
    let (status, headers, _) = get(&listed, "/site?x=1").await;
    assert_eq!((status, headers["location"].to_str().unwrap()), (301, "/site/?x=1"));
    let (status, headers, page) = get(&listed, "/app/").await;
    assert_eq!(
        (status, &headers["content-type"]),
        (200, &HeaderValue::from_static("text/html; charset=utf-8"))
    );
    assert!(
        page.contains("<a href=\"./a%20b%26.css\">a b&amp;.css</a>")
            && page.contains("./%3Cb%3E/\">&lt;b&gt;/<"),
        "{page}"
    );
    assert!(!get(&listed, "/").await.2.contains("secret"));

    let (_dir, hidden) = web(WebConfig { file_only: true, ..WebConfig::default() });
    assert_eq!(
        (get(&hidden, "/").await.0, get(&hidden, "/app/").await.0, get(&hidden, "/site/").await.0),
        (404, 404, 200)
    );

    let (_dir, named) = web(WebConfig { index: Some("vnc.html".to_owned()), ..WebConfig::default() });
    assert_eq!(get(&named, "/").await.2, "<p>vnc");
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_says_so() {
    let (dir, web) = web(WebConfig::default());
    fs::write(dir.path().parent().unwrap().join("outside"), "x").unwrap();
    for path in [
        "/none",
        "/.secret",
        "/../outside",
        "/%2e%2e/outside",
        "/vnc.html/",
        "/vnc.html/x",
        "//app/rfb.js",
        "/app%2frfb.js",
        "/a%00",
    ] {
        let (status, headers, body) = get(&web, path).await;
        assert_eq!((status, body.as_str()), (404, "there is no such file\n"), "{path}");
        assert!(!headers.contains_key("location"));
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let (status, headers, _) = ask(&web, method, "/vnc.html", &[]).await;
        assert_eq!((status, headers["allow"].to_str().unwrap()), (405, "GET, HEAD"), "{method}");
    }
}

/// A browser reads `//host/` as another host.
#[tokio::test]
async fn no_redirect_leads_to_another_host() {
    let (_dir, web) = web(WebConfig::default());
    for path in ["//site", "///site", "/%2f/site", "/\\site"] {
        let Ok(uri) = path.parse::<http::Uri>() else { continue };
        assert_eq!(get(&web, &uri.to_string()).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_prefix_stands_before_everything() {
    let (_dir, web) = web(WebConfig { prefix: Some("/vnc".to_owned()), ..WebConfig::default() });
    assert_eq!(get(&web, "/vnc/vnc.html").await.2, "<p>vnc");
    for path in ["/vnc", "/vnc/site"] {
        let (status, headers, _) = get(&web, path).await;
        assert_eq!((status, headers["location"].to_str().unwrap()), (301, format!("{path}/").as_str()));
    }
    for path in ["/vnc.html", "/vncx/vnc.html", "/"] {
        assert_eq!(get(&web, path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn pages_of_named_origins_may_read() {
    let (_dir, all) = web(WebConfig { cors: vec!["*".to_owned()], ..WebConfig::default() });
    let (_, headers, _) = get(&all, "/vnc.html").await;
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(ask(&all, "OPTIONS", "/vnc.html", &[]).await.0, 204);

    let cors = vec!["https://a.test".to_owned(), "https://b.test".to_owned()];
    let (_dir, some) = web(WebConfig { cors, ..WebConfig::default() });
    for (origin, allowed) in [("https://b.test", true), ("https://c.test", false)] {
        let (_, headers, _) = ask(&some, "GET", "/none", &[("origin", origin)]).await;
        let said = headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap());
        assert_eq!((said, headers["vary"].to_str().unwrap()), (allowed.then_some(origin), "Origin"));
    }
}

#[tokio::test]
async fn a_page_that_comes_along_stands_at_the_root_and_needs_no_directory() {
    let page = Some(Page::Terminal);
    let alone = Web::new(WebConfig { page, prefix: Some("/t".to_owned()), ..WebConfig::default() }).unwrap();
    assert!(get(&alone, "/t/?token=x").await.2.contains("<title>Terminal</title>"));
    assert_eq!(get(&alone, "/t?token=x").await.1["location"], "/t/?token=x");
    assert_eq!((get(&alone, "/t/vnc.html").await.0, get(&alone, "/").await.0), (404, 404));
    let (_dir, beside) = web(WebConfig { page, ..WebConfig::default() });
    assert!(get(&beside, "/").await.2.contains("<title>Terminal</title>"));
    assert_eq!(get(&beside, "/vnc.html").await.2, "<p>vnc");
}

#[test]
fn what_cannot_be_served_is_told_at_the_start() {
    let (dir, _web) = web(WebConfig::default());
    let with = |change: fn(&mut WebConfig)| {
        let mut config = WebConfig { root: Some(dir.path().to_owned()), ..WebConfig::default() };
        change(&mut config);
        Web::new(config).map(drop)
    };
    assert!(matches!(with(|config| config.root = Some("/none/none".into())), Err(WebError::Root(_))));
    assert!(matches!(with(|config| config.prefix = Some("vnc/".into())), Err(WebError::Prefix(_))));
    assert!(matches!(with(|config| config.index = Some("../x".into())), Err(WebError::Index(_))));
    assert!(matches!(with(|config| config.cors = vec!["a.test".into()]), Err(WebError::Cors(_))));
    let read = extra_headers(&["X-Frame-Options: DENY", "a:b", "A: c:d"]).unwrap();
    assert_eq!((read.len(), read["x-frame-options"].to_str().unwrap()), (3, "DENY"));
    for bad in ["none", "a b: c", "Content-Length: 5", "Sec-WebSocket-Accept: x", "x: \u{1}"] {
        assert!(matches!(extra_headers(&[bad]), Err(WebError::Header(_))), "{bad}");
    }
}
