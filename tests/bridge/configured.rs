//! The program with a file: its own, one of lighttpd's that was translated, and what both are told that is wrong with them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::process::Command;

use crate::program::{address, bridge, output, started, terminate};
use crate::rig::{ask, echo, handshake, nobody, soon};

/// The port of a backend that says its name to whoever connects.
async fn named(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(name.as_bytes()).await;
            open.push(stream);
        }
    });
    port
}

#[tokio::test]
async fn five_lines_serve_a_page_and_a_desktop_and_flags_go_before_them() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("page.html"), "hello").unwrap();
    let file = dir.path().join("bridge.toml");
    let web = dir.path().display();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nweb = \"{web}\"\n[[route]]\npath = \"/websockify\"\ntarget = \"{}\"\n",
        echo().await
    );
    fs::write(&file, text).unwrap();
    let (mut child, seen, _log) = started(bridge(&format!("--config {}", file.display()))).await;
    let address = address(&seen);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    for (request, status) in [
        (handshake("/websockify", ""), "101"),
        (handshake("/other", ""), "404"),
        (get("/page.html"), "200"),
        (get("/"), "200"),
    ] {
        let stream = TcpStream::connect(address).await.unwrap();
        let (head, _) = ask(stream, request.as_bytes()).await;
        assert_eq!(&head[9..12], status, "{request}");
    }
    assert_eq!(terminate(&mut child).await, Some(0));
    // A flag beside what the file says, and one in its place.
    let other = format!("--config {} --file-only --web {web} 127.0.0.1:0", file.display());
    let (_child, seen, _log) = started(bridge(&other)).await;
    let stream = TcpStream::connect(crate::program::address(&seen)).await.unwrap();
    assert_eq!(&ask(stream, get("/").as_bytes()).await.0[9..12], "404");
}

#[tokio::test]
async fn what_is_wrong_in_a_file_is_told_with_its_line_and_nothing_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bridge.toml");
    fs::write(&file, "listen = 6080\nheartbeet = 5\nheartbeat = \"soon\"\n[[route]]\npath = \"/\"\n")
        .unwrap();
    let told = output(&format!("--check --config {}", file.display())).await;
    let text = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(2), "{text}");
    for part in [
        "bridge.toml line 2: there is no key heartbeet; did you mean heartbeat?",
        "bridge.toml line 3: invalid value 'soon' for '--heartbeat",
        "bridge.toml line 4: the route leads nowhere",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    for (text, part) in [
        ("[[route]]\npath = \"\"\ntarget = \"a:1\"\n", "nobody says where to listen"),
        ("listen = 1\n", "WebSockets lead nowhere"),
        ("listen = 1\ntarget = \"a\"\n", "HOST:PORT"),
    ] {
        fs::write(&file, text).unwrap();
        let told = output(&format!("--check --config {}", file.display())).await;
        let said = String::from_utf8(told.stderr).unwrap();
        assert!(told.status.code() == Some(2) && said.contains(part), "{part} in {said}");
    }
    fs::write(&file, "listen = 1\ntarget = \"a:1\"\n").unwrap();
    let told = output(&format!("--check --config {}", file.display())).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let told = output(&format!("--check --config {} --inetd 6080", file.display())).await;
    let said = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.code() == Some(2) && said.contains("--inetd is in the place of"), "{said}");
}

#[tokio::test]
async fn what_a_flag_needs_may_stand_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, tokens) = (dir.path().join("bridge.toml"), dir.path().join("tokens"));
    fs::write(&tokens, "").unwrap();
    fs::write(&file, "listen = 1\nauth-plugin = 'BasicHTTPAuth'\ntoken-plugin = 'TokenFile'\n").unwrap();
    let mut command = bridge(&format!("--check --config {}", file.display()));
    command.env("ADIT_AUTH_SOURCE", "ann:secret").env("ADIT_TOKEN_SOURCE", &tokens);
    let told = soon(command.output()).await.unwrap();
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let text = "target = 'h:1'\nsyslog = '127.0.0.1:9'\ntrusted-proxy = '10.0.0.1'\nunix-listen = 's'\n";
    fs::write(&file, text).unwrap();
    let flags = "--legacy-syslog --accept-proxy-protocol --unix-listen-mode 0660";
    let told = output(&format!("--check --config {} {flags}", file.display())).await;
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    fs::write(&file, "listen = 1\ntarget = 'h:1'\n").unwrap();
    let told = output(&format!("--check --config {} {flags}", file.display())).await;
    let said = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.code() == Some(2) && said.contains("--legacy-syslog goes with --syslog"), "{said}");
}

#[tokio::test]
async fn a_typed_unix_target_goes_before_the_target_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, back) = (dir.path().join("bridge.toml"), dir.path().join("back.sock"));
    let text = format!("listen = \"127.0.0.1:0\"\ntarget = \"{}\"\n", nobody().await);
    fs::write(&file, text).unwrap();
    let behind = UnixListener::bind(&back).unwrap();
    let typed = format!("--config {} --unix-target {}", file.display(), back.display());
    let (_child, seen, _log) = started(bridge(&typed)).await;
    let stream = TcpStream::connect(address(&seen)).await.unwrap();
    let (head, _viewer) = ask(stream, handshake("/", "").as_bytes()).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    soon(behind.accept()).await.unwrap();
}

#[tokio::test]
async fn a_backend_that_cannot_be_started_is_the_end_with_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bridge.toml");
    let text = "listen = \"127.0.0.1:0\"\n[[route]]\npath = \"\"\nspawn = [{ command = \"/no/program\", socket = \"s\" }]\n";
    fs::write(&file, text).unwrap();
    let told = output(&format!("--config {}", file.display())).await;
    let text = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.code() == Some(1) && text.contains("cannot start /no/program"), "{text}");
}

#[tokio::test]
async fn the_code_of_a_wrapped_program_is_that_of_the_bridge() {
    crate::wrap::library();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = bridge(&format!("{free} --"));
    command.args(["sh", "-c", "exit 3"]);
    assert_eq!(soon(command.output()).await.unwrap().status.code(), Some(3));
    let told = output("0 -- sh").await;
    let text = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.code() == Some(2) && text.contains("one must be named"), "{text}");
}

/// Answers of the server at a Unix socket: the name that the backend says, or that there is no WebSocket.
async fn routed(socket: &Path, path: &str, lines: &str) -> String {
    let stream = soon(async {
        loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    let (head, mut viewer) = ask(stream, handshake(path, lines).as_bytes()).await;
    match head.starts_with("HTTP/1.1 101 ") {
        true => String::from_utf8(viewer.frame().await.unwrap().1).unwrap(),
        false => "none".into(),
    }
}

#[tokio::test]
async fn a_translated_file_sends_every_request_where_lighttpd_sends_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("www")).unwrap();
    let (a, b, c, d) = (named("a").await, named("b").await, named("c").await, named("d").await);
    let dead = nobody().await;
    let dead = dead.to_string().rsplit(':').next().unwrap().to_owned();
    let text = |socket: &str| {
        format!(
            r#"
server.document-root = "{www}"
server.bind = "{socket}"
server.errorlog = "{log}"
server.modules += ( "mod_wstunnel" )
server.stream-request-body  = 2
server.stream-response-body = 2
$HTTP["url"] =~ "^/websockify" {{
    wstunnel.server = ( "" => ( ( "host" => "127.0.0.1", "port" => "{a}" ) ) )
    wstunnel.frame-type = "binary"
}}
else $HTTP["url"] =~ "^/(b|x)/.*[0-9]$" {{
    var.one = ( "host" => "127.0.0.1", "port" => {b} )
    wstunnel.server = ( "/b" => ( "down" => ( "port" => {dead}, "host" => "127.0.0.1" ), "up" => var.one ) )
    wstunnel.server += ( ".9" => ( var.one ) ) # the end of a path
    wstunnel.balance = "round-robin"
}}
else $HTTP["host"] == "localhost" {{
    wstunnel.server = ( ".tun" => (( "host" => "127.0.0.1", "port" => {c} )) )
    wstunnel.map-extensions = ( ".alias" => ".tun" )
    $HTTP["url"] =^ "/pages" {{
        wstunnel.server := ( "" => (( "host" => "127.0.0.1", "port" => {d} )) )
        wstunnel.origins = ( "https://example.org", "example.org" )
    }}
}}
"#,
            www = at("www").display(),
            log = at("error.log").display(),
            socket = at(socket).display(),
        )
    };
    fs::write(at("theirs.conf"), text("theirs.sock")).unwrap();
    let mut lighttpd = Command::new("/usr/sbin/lighttpd");
    let _lighttpd = lighttpd.arg("-D").arg("-f").arg(at("theirs.conf")).kill_on_drop(true).spawn().unwrap();
    fs::write(at("ours.conf"), text("ours.sock")).unwrap();
    let translated = output(&format!("--from-lighttpd {}", at("ours.conf").display())).await;
    assert_eq!(translated.status.code(), Some(0), "{translated:?}");
    fs::write(at("ours.toml"), &translated.stdout).unwrap();
    let (_bridge, ..) = started(bridge(&format!("--config {}", at("ours.toml").display()))).await;
    let (none, whole, below) = ("", "Origin: https://example.org\r\n", "Origin: https://www.example.org\r\n");
    let mut asked = vec![
        ("/pages", none, "none"),
        ("/pages/x.tun", whole, "d"),
        ("/pages", below, "d"),
        ("/pages", "Origin: http://example.org\r\n", "none"),
        ("/pages", "Origin: https://badexample.org\r\n", "none"),
        ("/pages", "Origin: https://example.org.evil.test\r\n", "none"),
        ("/pages", "Origin: https://example.org:8443\r\n", "none"),
    ];
    for (path, expected) in [
        ("/", "none"),
        ("/websockify", "a"),
        ("/websockify/?token=x.tun", "a"),
        ("/websockifyx", "a"),
        ("/%77ebsockify", "a"),
        ("//websockify", "a"),
        ("/x/../websockify", "a"),
        ("/./websockify/..", "none"),
        ("/Websockify", "none"),
        ("/x/websockify", "none"),
        ("/b/1", "b"),
        ("/b/2", "b"),
        ("/b/", "none"),
        ("/x/a.9", "b"),
        ("/x/9", "none"),
        ("/x/8", "none"),
        ("/a.tun", "c"),
        ("/a.alias", "c"),
        ("/a.tun/", "none"),
        ("/b/x.tun", "c"),
        ("/a.tun?x=/websockify", "c"),
        ("/a%2etun", "c"),
    ] {
        asked.push((path, none, expected));
    }
    for (path, lines, expected) in asked {
        let theirs = routed(&at("theirs.sock"), path, lines).await;
        let ours = routed(&at("ours.sock"), path, lines).await;
        assert_eq!((theirs.as_str(), ours.as_str()), (expected, expected), "{path} {lines}");
    }
}
